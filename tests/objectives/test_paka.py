"""The PaKA objective: weighting of pairs and images, gradients, and what is not usable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from paka.alignment import cka
from paka.correspondence import align
from paka.kernels import Kernel, cosine, linear, rbf
from paka.objectives import Correspondences
from paka.objectives.paka import PaKA

POINTS, CHANNELS = 49, 16
KERNELS: list[Kernel] = [linear, cosine, partial(rbf, bandwidth=0.7)]


def draw(*shape: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(*shape)


def correspondences(pairs: int = 6, *, images: int = 3, **changes: Any) -> Correspondences:
    fields: dict[str, Any] = {
        "aligned_student": draw(pairs, POINTS, CHANNELS, seed=1),
        "aligned_teacher": draw(pairs, POINTS, CHANNELS, seed=2),
        "valid": torch.ones(pairs, POINTS, dtype=torch.bool),
        "image": torch.arange(pairs) % images,
        "scale": torch.ones(pairs),
        "images": images,
        "student_globals": None,
        "student_locals": None,
        "teacher": None,
        "clean": torch.zeros(images, 3, 16, 16, dtype=torch.uint8),
        "tags": torch.zeros(images, 0),
    }
    return Correspondences(**(fields | changes))


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
def test_descending_the_loss_aligns_the_student(kernel: Kernel) -> None:
    student = draw(6, POINTS, CHANNELS, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss, _ = PaKA(kernel)(correspondences(aligned_student=student))
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


def test_too_small_min_points_is_named() -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        PaKA(linear, min_points=1)


def test_deconfounding_makes_alignment_harder() -> None:
    objective = PaKA(linear, deconfound=True)
    loss, logs = objective(correspondences())
    assert loss.item() == pytest.approx(1 - logs["cka"].item())
    assert loss > PaKA(linear)(correspondences())[0]
