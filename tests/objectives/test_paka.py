"""The PaKA objective: weighting of pairs and images, gradients, and what is not usable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.doubles import CHANNELS, POINTS, correspondences, draw
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from paka import alignment
from paka.alignment import cka, feature_cka
from paka.correspondence import align
from paka.draws import Draws
from paka.kernels import Kernel, cosine, linear, rbf
from paka.objectives import Correspondences
from paka.objectives.paka import PaKA
from paka.objectives.paka_batch import BatchPaKA
from paka.objectives.points import Points

KERNELS: list[Kernel] = [linear, cosine, partial(rbf, bandwidth=0.7)]
ESTIMATORS = [
    {"unbiased": unbiased, "deconfound": deconfound, "pooled": pooled}
    for unbiased in (False, True)
    for deconfound in (False, True)
    for pooled in (False, True)
]


def pair_losses(batch: Correspondences) -> Tensor:
    student, teacher, valid = batch.aligned_student, batch.aligned_teacher, batch.valid
    return 1 - cka(linear(student, teacher, valid), linear(teacher, teacher, valid), valid)


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_tokens_have_no_loss_and_others_do(kernel: Kernel) -> None:
    tokens = draw(6, POINTS, CHANNELS, seed=1)
    loss, logs = PaKA(kernel)(correspondences(aligned_teacher=tokens.clone()))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logs["cka"].item() == pytest.approx(1)
    assert PaKA(kernel)(correspondences())[0] > 0.05


def test_images_count_alike_however_many_pairs_they_have() -> None:
    batch = correspondences(image=torch.tensor([0, 0, 0, 0, 2, 2]))
    loss, logs = PaKA(linear)(batch)
    each = pair_losses(batch)
    expected = (each[:4].mean() + each[4:].mean()) / 2  # image 1 has no pair and does not count
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logs["cka"], 1 - expected)


def test_ranks_average_to_one_process() -> None:
    whole = correspondences(pairs=7, images=4, image=torch.tensor([0, 0, 1, 2, 2, 2, 3]))
    parts = [(slice(0, 3), 0), (slice(3, 7), 2)]
    losses = [
        PaKA(linear)(
            correspondences(
                images=2,
                aligned_student=whole.aligned_student[part],
                aligned_teacher=whole.aligned_teacher[part],
                valid=whole.valid[part],
                image=whole.image[part] - first,
            )
        )[0]
        for part, first in parts
    ]
    torch.testing.assert_close(torch.stack(losses).mean(), PaKA(linear)(whole)[0])


def test_pairs_with_too_few_points_do_not_count() -> None:
    valid = torch.ones(6, POINTS, dtype=torch.bool)
    valid[0, 3:] = False  # 3 points left
    valid[1, 4:] = False  # 4 points left
    student = draw(6, POINTS, CHANNELS, seed=1).requires_grad_()
    batch = correspondences(images=6, valid=valid, aligned_student=student)
    loss, logs = PaKA(linear)(batch)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss, pair_losses(batch)[1:].mean())
    assert gradient[0].abs().sum() == 0
    assert (gradient[1:].abs().sum(dim=(1, 2)) > 0).all()
    assert gradient[1, 4:].abs().sum() == 0
    assert logs["valid_points"].item() == pytest.approx((4 * 49 + 7) / (6 * 49))
    torch.testing.assert_close(PaKA(linear, min_points=3)(batch)[0], pair_losses(batch).mean())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pairs", [0, 6])
def test_without_usable_pairs_the_loss_is_a_differentiable_zero(kernel: Kernel, pairs: int) -> None:
    student = draw(pairs, POINTS, CHANNELS, seed=1).requires_grad_()
    nothing = torch.zeros(pairs, POINTS, dtype=torch.bool)
    loss, logs = PaKA(kernel)(correspondences(pairs, aligned_student=student, valid=nothing))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(student))
    assert logs["cka"].item() == 0
    assert logs["valid_points"].item() == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_flows_into_the_teacher_or_the_logs(kernel: Kernel) -> None:
    student = draw(6, POINTS, CHANNELS, seed=1).requires_grad_()
    teacher = draw(6, POINTS, CHANNELS, seed=2).requires_grad_()
    loss, logs = PaKA(kernel)(correspondences(aligned_student=student, aligned_teacher=teacher))
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in logs.values())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("objective", [PaKA, BatchPaKA])
def test_descending_the_loss_aligns_the_student(kernel: Kernel, objective: type[nn.Module]) -> None:
    student = draw(6, POINTS, CHANNELS, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss, _ = objective(kernel)(correspondences(aligned_student=student))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


@pytest.mark.parametrize("kernel", KERNELS)
def test_autocast_changes_nothing(kernel: Kernel) -> None:
    expected, _ = PaKA(kernel)(correspondences())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = PaKA(kernel)(correspondences())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_waits_for_the_device(kernel: Kernel) -> None:
    """Fake tensors have no values, and raise when somebody asks for one."""
    with FakeTensorMode():
        maps, boxes, flips = torch.randn(6, 12, 12, CHANNELS), torch.rand(6, 4), torch.rand(6) < 0.5
        aligned = align(maps, maps, boxes, boxes, flips, flips, grid=7)
        batch = correspondences(aligned_student=aligned.student, aligned_teacher=aligned.teacher)
        loss, _ = PaKA(kernel)(replace(batch, valid=aligned.valid))
        assert loss.shape == ()
        with pytest.raises(DataDependentOutputException):
            loss.item()


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        PaKA(linear, min_points=1)
    with pytest.raises(ValueError, match="at least 4, got 3: the unbiased HSIC"):
        PaKA(linear, min_points=3, unbiased=True)
    with pytest.raises(ValueError, match="max_points of at least min_points=4, got 3"):
        BatchPaKA(linear, max_points=3)
    with pytest.raises(ValueError, match="scale_bins from 1 to 8, got 9"):
        PaKA(linear, scale_bins=9)
    with pytest.raises(ValueError, match="max_points=None with deconfound, got 9"):
        PaKA(linear, deconfound=True, max_points=9)
    with pytest.raises(ValueError, match="at least two images at a time, got one"):
        PaKA(linear, deconfound=True)(correspondences(images=1))


def test_deconfounding_makes_alignment_harder() -> None:
    objective = PaKA(linear, deconfound=True)
    loss, logs = objective(correspondences())
    assert loss.item() == pytest.approx(1 - logs["cka"].item())
    assert loss > PaKA(linear)(correspondences())[0]


@pytest.mark.parametrize("options", ESTIMATORS, ids=str)
def test_every_estimator_has_no_loss_for_equal_tokens_and_some_for_others(options: dict[str, bool]) -> None:
    tokens = draw(6, POINTS, CHANNELS, seed=1)
    loss, logs = PaKA(linear, **options)(correspondences(aligned_teacher=tokens))
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logs["cka"].item() == pytest.approx(1, abs=1e-5)
    student = tokens.clone().requires_grad_()
    other, logs = PaKA(linear, **options)(correspondences(aligned_student=student))
    assert other.item() == pytest.approx(1 - logs["cka"].item(), abs=1e-6)
    assert other > 0.3
    assert torch.autograd.grad(other, student)[0].abs().sum() > 0


@pytest.mark.parametrize("options", ESTIMATORS, ids=str)
def test_the_floor_is_what_independent_tokens_score(options: dict[str, bool]) -> None:
    """Shuffled within the pair, a teacher's tokens are as good as independent of the student's."""
    batch = correspondences(
        64,
        images=32,
        aligned_student=draw(64, POINTS, CHANNELS, seed=1),
        aligned_teacher=draw(64, POINTS, CHANNELS, seed=2),
    )
    loss, logs = PaKA(linear, **options)(batch)
    assert logs["cka_floor"].item() == pytest.approx(1 - loss.item(), abs=0.02)
    aligned, logs = PaKA(linear, **options)(replace(batch, aligned_student=batch.aligned_teacher))
    assert aligned.item() == pytest.approx(0, abs=1e-5)
    assert logs["cka_floor"].item() == pytest.approx(1 - loss.item(), abs=0.03)


def test_the_floor_leaves_invalid_points_where_they_are() -> None:
    valid = torch.rand(6, POINTS, generator=torch.Generator().manual_seed(1)) < 0.5
    points = Points.of(correspondences(valid=valid), Draws(0))
    assert torch.equal(points.shuffled[~valid], points.teacher[~valid])
    for before, after, kept in zip(points.teacher, points.shuffled, valid, strict=True):
        assert not torch.equal(before[kept], after[kept])
        assert torch.equal(before[kept][:, 0].sort().values, after[kept][:, 0].sort().values)


def test_the_locality_share_is_one_for_position_alone_and_small_for_content() -> None:
    position = draw(1, POINTS, 64, seed=3).expand(6, -1, -1)
    _, logs = PaKA(linear)(correspondences(aligned_student=position, aligned_teacher=position))
    assert logs["locality_share"].item() == pytest.approx(1, abs=1e-5)
    tokens = draw(6, POINTS, 64, seed=1)
    content_only = correspondences(aligned_student=tokens, aligned_teacher=tokens)
    _, content = PaKA(linear, unbiased=True)(content_only)
    assert abs(content["locality_share"].item()) < 0.1


def test_pooling_weighs_pairs_by_what_they_hold() -> None:
    student, teacher = draw(2, POINTS, CHANNELS, seed=1), draw(2, POINTS, CHANNELS, seed=2)
    student[0] = teacher[0]  # aligned, but with little in it
    scale = torch.tensor([1e-3, 1.0])[:, None, None]
    batch = correspondences(2, images=2, aligned_student=student * scale, aligned_teacher=teacher * scale)
    each = pair_losses(batch)
    assert PaKA(linear)(batch)[0].item() == pytest.approx(each.mean().item())
    assert PaKA(linear, pooled=True)(batch)[0].item() == pytest.approx(each[1].item(), abs=1e-4)


@pytest.mark.parametrize("unbiased", [False, True])
def test_large_pairs_take_the_feature_form(unbiased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """49 points of 16 channels: 16 x 16 suffice. Of 64 channels they do not."""
    called: list[int] = []
    monkeypatch.setattr(
        alignment, "feature_cka", lambda *args, **kwargs: called.append(1) or feature_cka(*args, **kwargs)
    )
    batch = correspondences(valid=torch.rand(6, POINTS, generator=torch.Generator().manual_seed(1)) < 0.5)
    loss, _ = PaKA(linear, unbiased=unbiased)(batch)
    assert called
    student, teacher, valid = batch.aligned_student, batch.aligned_teacher, batch.valid
    k, l = linear(student, teacher, valid), linear(teacher, teacher, valid)  # noqa: E741
    expected = batch.average(1 - cka(k, l, valid, unbiased=unbiased), batch.usable(4))
    torch.testing.assert_close(loss, expected)
    called.clear()
    wide = correspondences(
        aligned_student=draw(6, POINTS, 64, seed=1), aligned_teacher=draw(6, POINTS, 64, seed=2)
    )
    PaKA(linear, unbiased=unbiased)(wide)
    assert not called


def test_a_subset_is_drawn_afresh_from_its_own_seed_and_prefers_valid_points() -> None:
    valid = torch.zeros(6, POINTS, dtype=torch.bool)
    valid[:, ::3] = True  # 17 of them
    batch = correspondences(valid=valid)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    objective = PaKA(linear, max_points=8, seed=1)
    first, second = objective(batch)[0], objective(batch)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert first != second
    again = PaKA(linear, max_points=8, seed=1)
    again.load_state_dict(PaKA(linear, max_points=8, seed=1).state_dict())
    assert again(batch)[0] == first
    assert again(batch)[0] == second
    resumed = PaKA(linear, max_points=8, seed=1)
    resumed.load_state_dict(objective.state_dict())
    assert resumed(batch)[0] == again(batch)[0]
    points = Points.of(batch, Draws(0)).subset(17, Draws(0))
    assert points.valid.all()
    one, two = (PaKA(linear, max_points=17, seed=seed)(batch)[0] for seed in (0, 3))
    torch.testing.assert_close(one, two)


def test_unbiased_estimates_survive_sub_sampling() -> None:
    """The subset changes the biased CKA, whose floor depends on the number of points, not the unbiased one."""
    student = draw(200, POINTS, CHANNELS, seed=1)
    teacher = student + draw(200, POINTS, CHANNELS, seed=2)
    batch = correspondences(200, images=200, aligned_student=student, aligned_teacher=teacher)
    change = {
        unbiased: abs(
            (
                PaKA(linear, unbiased=unbiased, max_points=12)(batch)[0]
                - PaKA(linear, unbiased=unbiased)(batch)[0]
            ).item()
        )
        for unbiased in (False, True)
    }
    assert change[True] < 0.03 < 0.06 < change[False]


def test_a_batch_kernel_asks_how_tokens_of_different_images_relate() -> None:
    """Rotating the tokens of each image by itself leaves its own kernel and breaks the common one."""
    student = draw(6, POINTS, CHANNELS, seed=1)
    turned = torch.stack(
        [s @ torch.linalg.qr(draw(CHANNELS, CHANNELS, seed=i)).Q for i, s in enumerate(student)]
    )
    batch = correspondences(aligned_student=student, aligned_teacher=turned)
    assert PaKA(linear)(batch)[0].item() == pytest.approx(0, abs=1e-5)
    assert BatchPaKA(linear, unbiased=True)(batch)[0] > 0.7
    same = replace(batch, aligned_teacher=student)
    assert BatchPaKA(linear)(same)[0].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kernel", [linear, rbf])
def test_a_batch_kernel_is_one_kernel_of_all_valid_points(kernel: Kernel) -> None:
    valid = torch.rand(6, POINTS, generator=torch.Generator().manual_seed(1)) < 0.5
    valid[5, 3:] = False
    batch = correspondences(valid=valid)
    loss, logs = BatchPaKA(kernel)(batch)
    valid = valid & batch.usable(4)[:, None]
    student, teacher = batch.aligned_student[valid][None], batch.aligned_teacher[valid][None]
    everything = torch.ones(1, student.shape[1], dtype=torch.bool)
    expected = cka(kernel(student, teacher, everything), kernel(teacher, teacher, everything), everything)
    torch.testing.assert_close(loss, 1 - expected[0])
    assert logs["cka"].item() == pytest.approx(expected.item(), abs=1e-6)
    nothing, logs = BatchPaKA(kernel)(replace(batch, valid=torch.zeros_like(valid)))
    assert nothing.item() == logs["cka"].item() == logs["cka_floor"].item() == 0
    few, _ = BatchPaKA(kernel, max_points=20)(batch)
    assert few != loss
