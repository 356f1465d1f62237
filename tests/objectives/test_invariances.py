"""What the loss of every kernel with every estimator does not depend on, and its value where little is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.doubles import correspondences
from torch import Tensor, nn

from paka import kernels
from paka.kernels import Kernel
from paka.objectives import Correspondences
from paka.objectives.paka import PaKA
from paka.objectives.paka_batch import BatchPaKA

Estimator = Callable[[Kernel], nn.Module]
DISTANCES = {
    "rbf": kernels.rbf,
    "laplacian": kernels.laplacian,
    "rational_quadratic": kernels.rational_quadratic,
    "rbf_mixture": kernels.rbf_mixture,
    "rbf_fourier": partial(kernels.rbf_fourier, features=64),
}
PLAIN: dict[str, Kernel] = {
    "linear": kernels.linear,
    "cosine": kernels.cosine,
    "polynomial": kernels.polynomial,
    "arc_cosine": kernels.arc_cosine,
}
KERNELS: dict[str, Kernel] = PLAIN | DISTANCES
SCALE_FREE: dict[str, Kernel] = PLAIN | {
    name: partial(kernel, bandwidth_rule="median_per_side") for name, kernel in DISTANCES.items()
}
"""Kernels by which a side's scale makes no difference to CKA; the others measure both by the teacher's."""
ESTIMATORS: dict[str, Estimator] = {
    "biased": PaKA,
    "unbiased": partial(PaKA, unbiased=True),
    "deconfounded": partial(PaKA, deconfound=True),
    "deconfounded, unbiased": partial(PaKA, deconfound=True, unbiased=True),
    "pooled": partial(PaKA, pooled=True),
    "pooled, all": partial(PaKA, pooled=True, deconfound=True, unbiased=True),
    "batch": BatchPaKA,
    "batch, unbiased": partial(BatchPaKA, unbiased=True),
}


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair_up(student: Tensor, teacher: Tensor, **changes: Any) -> Correspondences:
    """One pair per image, four at least per two images."""
    pairs = len(student)
    fields = {"valid": torch.ones(pairs, student.shape[1], dtype=torch.bool), "image": torch.arange(pairs)}
    return correspondences(
        images=pairs, aligned_student=student, aligned_teacher=teacher, **(fields | changes)
    )


def tokens(points: int = 25, channels: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return draw(4, points, channels, seed=1, dtype=dtype)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_both_sides_scaled_alike(estimator: Estimator, kernel: Kernel, scale: float) -> None:
    student, teacher = tokens(), tokens() + 0.5 * draw(4, 25, 8, seed=2)
    expected, _ = estimator(kernel)(pair_up(student, teacher))
    loss, _ = estimator(kernel)(pair_up(scale * student, scale * teacher))
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-3)
    assert expected > 0.01
    same, _ = estimator(kernel)(pair_up(scale * student, scale * student))
    assert same.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(
    ("name", "offset"),
    [(name, offset) for name in SCALE_FREE for offset in (0.0, 1e3) if (name, offset) != ("cosine", 1e3)],
)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_an_affine_copy_has_no_loss(estimator: Estimator, name: str, scale: float, offset: float) -> None:
    """Offsets in standard deviations; the cosine kernel alone depends on where the origin is."""
    student = tokens()
    loss, _ = estimator(SCALE_FREE[name])(pair_up(student, scale * (student + offset)))
    # float32 keeps 1e-7 of the offset: 1e-4 of a standard deviation, in every token.
    assert loss.item() == pytest.approx(0, abs=1e-5 if offset == 0 else 1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("name", [name for name in KERNELS if name != "rbf_fourier"])
def test_rotating_a_side_has_no_loss(estimator: Estimator, name: str) -> None:
    rotation = torch.linalg.qr(draw(8, 8, seed=3)).Q
    loss, _ = estimator(KERNELS[name])(pair_up(tokens(), tokens() @ rotation))
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_order_of_points_makes_no_difference(estimator: Estimator, kernel: Kernel) -> None:
    """As long as it is the same on both sides and, deconfounded, in all images."""
    student, teacher = tokens(), draw(4, 25, 8, seed=2)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(4))
    expected, _ = estimator(kernel)(pair_up(student, teacher))
    permuted, _ = estimator(kernel)(pair_up(student[:, order], teacher[:, order]))
    torch.testing.assert_close(permuted, expected, atol=1e-5, rtol=1e-4)
    apart, _ = estimator(kernel)(pair_up(student[:, order], student))
    assert apart > 0.05


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("shape", [(2, 1), (3, 1024), (4, 1), (49, 1024)])
def test_loss_and_gradient_are_finite_at_all_sizes(
    estimator: Estimator, kernel: Kernel, shape: tuple[int, int]
) -> None:
    check_finite(estimator(kernel), pair_up(draw(2, *shape, seed=1), draw(2, *shape, seed=2)), needed=4)


@pytest.mark.parametrize("estimator", ["unbiased", pytest.param("deconfounded", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kernel", "channels"), [(kernels.linear, 1), (kernels.laplacian, 64)])
def test_two_thousand_points(estimator: str, kernel: Kernel, channels: int) -> None:
    student, teacher = (draw(2, 2000, channels, seed=seed) for seed in (1, 2))
    check_finite(ESTIMATORS[estimator](kernel), pair_up(student, teacher), needed=4)


def check_finite(objective: nn.Module, batch: Correspondences, *, needed: int) -> None:
    """Below `needed` points pairs do not count: the loss is 0."""
    student = batch.aligned_student.requires_grad_()
    loss, logs = objective(batch)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    assert all(value.isfinite() for value in logs.values())
    assert loss == 0 if batch.valid.shape[1] < needed else -1e-5 < loss <= 2


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_collapsed_tokens_align_to_nothing(estimator: Estimator, kernel: Kernel, value: float) -> None:
    """All tokens alike: CKA is 0, the loss 1, and there is no gradient that could lead anywhere."""
    flat = torch.full((4, 25, 8), value, requires_grad=True)
    for teacher in (tokens(), flat.detach()):
        loss, logs = estimator(kernel)(pair_up(flat, teacher))
        (gradient,) = torch.autograd.grad(loss, flat)
        assert loss.item() == 1
        assert logs["cka"].item() == 0
        assert torch.equal(gradient, torch.zeros_like(flat))


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("count", [0, 1])
def test_with_one_valid_token_or_none_the_loss_is_zero(
    estimator: Estimator, kernel: Kernel, count: int
) -> None:
    student = tokens().requires_grad_()
    valid = (torch.arange(25) < count).expand(4, -1)
    loss, _ = estimator(kernel)(pair_up(student, draw(4, 25, 8, seed=2), valid=valid))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(student))


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("name", KERNELS)
def test_gradcheck(estimator: Estimator, name: str) -> None:
    fixed = {"bandwidth": 2.0, "bandwidth_rule": "fixed"} if name in DISTANCES else {}
    objective = estimator(partial(KERNELS[name], **fixed))
    student = draw(3, 6, 2, seed=1, dtype=torch.float64).requires_grad_()
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, 5] = False
    batch = pair_up(student, draw(3, 6, 2, seed=2, dtype=torch.float64), valid=valid)

    def loss(z: Tensor) -> Tensor:
        value: Tensor = objective(replace(batch, aligned_student=z))[0]
        return value

    assert torch.autograd.gradcheck(loss, student)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tokens_give_the_same_loss_under_autocast(
    estimator: Estimator, kernel: Kernel, dtype: torch.dtype
) -> None:
    batch = pair_up(tokens().to(dtype), draw(4, 25, 8, seed=2).to(dtype))
    expected, _ = estimator(kernel)(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = estimator(kernel)(batch)
    assert inside.dtype == torch.float32
    assert (inside - expected).abs() <= 1e-5
    whole, _ = estimator(kernel)(pair_up(batch.aligned_student.float(), batch.aligned_teacher.float()))
    assert (whole - expected).abs() <= 1e-5
