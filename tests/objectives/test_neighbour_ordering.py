"""Neighbour ordering: the loss from its equations, its references, its queue, and what is not usable."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.doubles import correspondences
from tests.test_sorting import by_loop
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from paka.correspondence import align
from paka.draws import Draws
from paka.objectives import Correspondences
from paka.objectives.neighbour_ordering import NeighbourOrdering, TokenQueue, draw

POINTS, CHANNELS = 9, 8
QUEUES = [{}, {"queue": 100, "dim": CHANNELS}]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(pairs: int = 6, *, images: int = 3, **changes: Any) -> Correspondences:
    fields = {
        "aligned_student": normal(pairs, POINTS, CHANNELS, seed=1),
        "aligned_teacher": normal(pairs, POINTS, CHANNELS, seed=2),
        "valid": torch.ones(pairs, POINTS, dtype=torch.bool),
    }
    return correspondences(pairs, images=images, **(fields | changes))


def ordering(**options: Any) -> NeighbourOrdering:
    return NeighbourOrdering(**({"references": 5} | options))


def some_valid() -> Tensor:
    valid = torch.ones(6, POINTS, dtype=torch.bool)
    valid[0, 3:] = False  # 3 points left
    valid[1, 4:] = False  # 4 points left
    return valid


def reference_loss(batch: Correspondences, seed: int, count: int) -> tuple[float, float]:
    """Loss and agreement in float64, one pair and one point at a time; references as ranks of random keys."""
    student, teacher = (side.double().numpy() for side in (batch.aligned_student, batch.aligned_teacher))
    valid, pool = batch.valid.numpy(), teacher.reshape(-1, CHANNELS)
    keys = torch.rand(batch.images, len(pool), generator=Draws(seed).next()).numpy().copy()
    keys[:, ~valid.ravel()] = -1
    losses, agreements = [], []
    for image in range(batch.images):
        references = pool[np.argsort(-keys[image])[:count]]
        of_pairs = []
        for pair in np.flatnonzero(batch.image.numpy() == image):
            if valid[pair].sum() >= 4:
                points = [
                    point_loss(student[pair, n], teacher[pair, n], references)
                    for n in np.flatnonzero(valid[pair])
                ]
                of_pairs.append(np.mean(points, axis=0))
        if of_pairs:
            loss, agreement = np.mean(of_pairs, axis=0)
            losses.append(loss)
            agreements.append(agreement)
    return float(np.mean(losses)), float(np.mean(agreements))


def point_loss(student: np.ndarray, teacher: np.ndarray, references: np.ndarray) -> tuple[float, float]:
    p, q = (
        by_loop(references @ token / np.linalg.norm(references, axis=1) / np.linalg.norm(token), 100.0)
        for token in (student, teacher)
    )
    agreement = (p.argmax(axis=0) == q.argmax(axis=0)).mean()
    return -(q * np.log(p)).sum() / len(references), agreement


def test_the_loss_is_that_of_the_equations() -> None:
    batch = batch_of(
        images=4,
        image=torch.tensor([0, 0, 0, 1, 1, 3]),
        valid=some_valid(),
        aligned_student=normal(6, POINTS, CHANNELS, seed=1).double(),
        aligned_teacher=normal(6, POINTS, CHANNELS, seed=2).double(),
    )
    loss, logs = ordering(seed=3)(batch)
    expected, agreement = reference_loss(batch, 3, 5)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logs["ordering_agreement"].item() == pytest.approx(agreement)
    assert logs["valid_points"].item() == pytest.approx((4 * POINTS + 7) / (6 * POINTS))


@pytest.mark.parametrize("queue", QUEUES)
def test_equal_tokens_have_the_least_loss(queue: dict[str, int]) -> None:
    teacher = normal(6, POINTS, CHANNELS, seed=2)
    equal, logs = ordering(**queue)(batch_of(aligned_student=3 * teacher))
    shuffled, other = ordering(**queue)(batch_of(aligned_student=teacher[:, torch.randperm(POINTS)]))
    assert logs["ordering_agreement"] == 1
    assert other["ordering_agreement"] < 0.8
    assert equal < shuffled
    # Q's entropy is a minimum: no small step away lowers the loss.
    student = teacher.clone().requires_grad_()
    loss, _ = ordering(**queue)(batch_of(aligned_student=student))
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-4


def test_images_count_alike_however_many_pairs_they_have() -> None:
    batch = batch_of(image=torch.tensor([0, 0, 0, 0, 2, 2]), valid=some_valid())
    loss, logs = ordering(references=4)(batch)
    expected, agreement = reference_loss(batch, 0, 4)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert logs["ordering_agreement"].item() == pytest.approx(agreement)


def test_what_is_not_valid_has_no_say() -> None:
    valid = some_valid()
    student = normal(6, POINTS, CHANNELS, seed=1).requires_grad_()
    teacher = normal(6, POINTS, CHANNELS, seed=2)
    batch = batch_of(images=6, valid=valid, aligned_student=student, aligned_teacher=teacher)
    loss, _ = ordering()(batch)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[0].abs().sum() == 0
    assert gradient[1, 4:].abs().sum() == 0
    assert (gradient[1:].abs().sum(dim=(1, 2)) > 0).all()
    noise = valid.logical_not()[:, :, None] * torch.tensor(float("nan"))
    hidden = torch.where(valid[:, :, None], teacher, noise)
    changed, _ = ordering()(replace(batch, aligned_teacher=hidden))
    assert torch.equal(changed, loss)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("pairs", [0, 6])
def test_without_usable_pairs_the_loss_is_a_differentiable_zero(pairs: int, queue: dict[str, int]) -> None:
    student = normal(pairs, POINTS, CHANNELS, seed=1).requires_grad_()
    nothing = torch.zeros(pairs, POINTS, dtype=torch.bool)
    loss, logs = ordering(**queue)(batch_of(pairs, aligned_student=student, valid=nothing))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(student))
    assert logs["ordering_agreement"].item() == 0
    assert logs["valid_points"].item() == 0


@pytest.mark.parametrize("queue", QUEUES)
def test_nothing_flows_into_the_teacher_or_the_logs(queue: dict[str, int]) -> None:
    student = normal(6, POINTS, CHANNELS, seed=1).requires_grad_()
    teacher = normal(6, POINTS, CHANNELS, seed=2).requires_grad_()
    objective = ordering(**queue)
    loss, logs = objective(batch_of(aligned_student=student, aligned_teacher=teacher))
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in [*logs.values(), *objective.buffers()])


@pytest.mark.parametrize("queue", QUEUES)
def test_descending_the_loss_aligns_the_orders(queue: dict[str, int]) -> None:
    student = normal(6, POINTS, CHANNELS, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    objective = ordering(steepness=10.0, **queue)
    agreements = []
    for _ in range(80):
        optimizer.zero_grad()
        loss, logs = objective(batch_of(aligned_student=student))
        loss.backward()
        optimizer.step()
        agreements.append(logs["ordering_agreement"].item())
    assert agreements[0] < 0.4
    assert min(agreements[-5:]) > 0.8


@pytest.mark.parametrize("queue", QUEUES)
def test_autocast_changes_nothing(queue: dict[str, int]) -> None:
    expected, _ = ordering(**queue)(batch_of())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = ordering(**queue)(batch_of())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("queue", QUEUES)
def test_nothing_waits_for_the_device(queue: dict[str, int]) -> None:
    """Fake tensors have no values, and raise when somebody asks for one."""
    with FakeTensorMode():
        maps, boxes, flips = torch.randn(6, 12, 12, CHANNELS), torch.rand(6, 4), torch.rand(6) < 0.5
        aligned = align(maps, maps, boxes, boxes, flips, flips, grid=3)
        student = aligned.student.requires_grad_()
        batch = batch_of(aligned_student=student, aligned_teacher=aligned.teacher)
        loss, _ = ordering(**queue)(replace(batch, valid=aligned.valid))
        loss.backward()
        assert loss.shape == ()
        with pytest.raises(DataDependentOutputException):
            loss.item()


def test_draws_are_eligible_distinct_and_each_sets_own() -> None:
    eligible = torch.arange(40) % 2 == 0
    drawn = draw(eligible, sets=50, size=12, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 12)
    assert eligible[drawn].all()
    assert all(len(set(row)) == 12 for row in drawn.tolist())
    assert len({tuple(row) for row in drawn.tolist()}) == 50
    assert set(drawn.flatten().tolist()) == set(range(0, 40, 2))


@pytest.mark.parametrize("size", [7, 50])
def test_too_few_eligible_entries_repeat_in_turn(size: int) -> None:
    eligible = torch.tensor([False, True, True, False, True])
    (drawn,) = draw(eligible, sets=1, size=size, generator=torch.Generator().manual_seed(0)).tolist()
    assert sorted(drawn[:3]) == [1, 2, 4]
    assert drawn == (drawn[:3] * size)[:size]


def test_the_queue_forgets_the_oldest_and_counts_what_it_holds() -> None:
    queue = TokenQueue(5, 1)
    seen: list[float] = []
    for count, offered in [(2, 3), (0, 2), (2, 2), (9, 4), (1, 5)]:
        tokens = torch.arange(float(offered)) + 10 * (len(seen) + 1)
        queue.push(tokens[:, None], torch.tensor(count))
        seen += tokens[:count].tolist()
        held = queue.tokens[queue.filled(), 0].tolist()
        assert sorted(held) == sorted(seen[-5:])


def test_the_queue_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at most 5 tokens of 2 channels, got 3 of 4"):
        TokenQueue(5, 2).push(torch.zeros(3, 4), torch.tensor(3))


def test_the_queue_takes_valid_tokens_of_each_batch_and_references_come_from_it() -> None:
    objective = ordering(queue=45, dim=CHANNELS)
    assert objective.queue is not None
    first = batch_of(valid=some_valid())
    objective(first)
    assert objective.queue.pushed == 30  # 10 per image
    directions = torch.nn.functional.normalize(first.aligned_teacher[some_valid()], dim=-1)
    held = objective.queue.tokens[objective.queue.filled()]
    assert (torch.cdist(held, directions).min(dim=1).values < 1e-3).all()
    objective(batch_of())
    assert objective.queue.filled().all()

    # Without a valid teacher token nothing is pushed: the queue alone gives references.
    before = objective.queue.tokens.clone()
    objective(batch_of(valid=torch.zeros(6, POINTS, dtype=torch.bool)))
    assert torch.equal(objective.queue.tokens, before)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_restored_objective_goes_on(queue: dict[str, int]) -> None:
    batches = [batch_of(aligned_teacher=normal(6, POINTS, CHANNELS, seed=seed)) for seed in range(5)]
    objective = ordering(**queue)
    for batch in batches[:3]:
        objective(batch)
    file = io.BytesIO()
    torch.save(objective.state_dict(), file)
    file.seek(0)
    restored = ordering(**queue)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches[3:]:
        assert torch.equal(restored(batch)[0], objective(batch)[0])
    assert not torch.equal(ordering(**queue)(batches[3])[0], objective(batches[3])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": 1}, "references: expected at least 2.*got 1"),
        ({"steepness": 0.0}, "steepness: expected a number over 0, got 0"),
        ({"min_points": 0}, "min_points: expected at least 1, got 0"),
        ({"queue": 4, "dim": 8}, "queue: expected 0 or at least references = 5, got 4"),
        ({"queue": 8}, "expected dim"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ordering(**options)
