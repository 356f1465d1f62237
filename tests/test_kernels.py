"""Kernels against float64 references written from their equations, and their invariances."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka import kernels
from paka.kernels import Kernel, arc_cosine, cosine, feature_map, linear, polynomial, rbf, rbf_fourier

Array = NDArray[np.float64]
Similarity = Callable[[Array, Array], float]

OF_DISTANCES = ["rbf", "laplacian", "rational_quadratic", "rbf_mixture", "rbf_fourier"]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_valid(images: int, tokens: int) -> Tensor:
    return torch.rand(images, tokens, generator=torch.Generator().manual_seed(99)) < 0.7


def everything(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def centre(kernel: Array) -> Array:
    n = len(kernel)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.asarray(h @ kernel @ h)


def pairwise(z: Array, similarity: Similarity) -> Array:
    return np.array([[similarity(a, b) for b in z] for a in z])


def median(z: Array) -> float:
    return float(np.median([np.sqrt(sum((a - b) ** 2)) for i, a in enumerate(z) for b in z[:i]]))


def linear_reference(z: Array, reference: Array) -> Array:
    return pairwise(z, lambda a, b: sum(a * b))


def cosine_reference(z: Array, reference: Array) -> Array:
    return pairwise(z, lambda a, b: sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)))


def polynomial_reference(z: Array, reference: Array, *, degree: int = 2, offset: float = 1.0) -> Array:
    z = z - z.mean(axis=0)
    z = z / np.sqrt(np.mean([sum(a * a) for a in z]))
    return pairwise(z, lambda a, b: (sum(a * b) + offset) ** degree)


def arc_cosine_reference(z: Array, reference: Array) -> Array:
    def similarity(a: Array, b: Array) -> float:
        norms = np.sqrt(sum(a * a) * sum(b * b))
        t = np.arccos(np.clip(sum(a * b) / norms, -1, 1))
        return float(norms * (np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi)

    return pairwise(z - z.mean(axis=0), similarity)


def of_distance(shape: Callable[..., float], *, fixed: float | None = None, own: bool = False) -> Any:
    """A reference `shape(d / sigma)` with sigma fixed, or the median of the reference or of the tokens."""

    def reference_kernel(z: Array, reference: Array) -> Array:
        sigma = fixed or median(z if own else reference)
        return pairwise(z, lambda a, b: shape(np.sqrt(sum((a - b) ** 2)) / sigma))

    return reference_kernel


def fourier_reference(z: Array, reference: Array) -> Array:
    frequencies = kernels._frequencies(z.shape[1], 256, 0, torch.float64, torch.device("cpu")).numpy()
    return pairwise(z, lambda a, b: np.mean(np.cos((a - b) @ frequencies / median(reference))))


def gauss(d: float) -> float:
    return float(np.exp(-(d**2) / 2))


CASES: dict[str, tuple[Kernel, Any]] = {
    "linear": (linear, linear_reference),
    "cosine": (cosine, cosine_reference),
    "polynomial": (polynomial, polynomial_reference),
    "polynomial-3": (
        partial(polynomial, degree=3, offset=0.5),
        partial(polynomial_reference, degree=3, offset=0.5),
    ),
    "arc_cosine": (arc_cosine, arc_cosine_reference),
    "rbf": (rbf, of_distance(gauss)),
    "rbf-fixed": (partial(rbf, bandwidth=3.0, bandwidth_rule="fixed"), of_distance(gauss, fixed=3.0)),
    "rbf-per-side": (partial(rbf, bandwidth_rule="median_per_side"), of_distance(gauss, own=True)),
    "laplacian": (kernels.laplacian, of_distance(lambda d: np.exp(-d))),
    "rational_quadratic": (kernels.rational_quadratic, of_distance(lambda d: 1 / (1 + d**2 / 2))),
    "rational_quadratic-3": (
        partial(kernels.rational_quadratic, alpha=3.0),
        of_distance(lambda d: (1 + d**2 / 6) ** -3),
    ),
    "rbf_mixture": (
        kernels.rbf_mixture,
        of_distance(lambda d: float(np.mean([gauss(d / m) for m in (0.25, 0.5, 1, 2, 4)]))),
    ),
    "rbf_fourier": (rbf_fourier, fourier_reference),
}
every_kernel = pytest.mark.parametrize("kernel", [case[0] for case in CASES.values()], ids=[*CASES])


@pytest.mark.parametrize(("kernel", "expected"), CASES.values(), ids=[*CASES])
def test_kernel_equals_its_equation_after_centring(kernel: Kernel, expected: Callable[..., Array]):
    tokens, reference = draw(3, 9, 5, seed=1) + 0.5, draw(3, 9, 5, seed=2)
    valid = some_valid(3, 9)
    out = kernel(tokens, reference, valid).double().numpy()
    for image in range(3):
        kept = valid[image].numpy()
        want = expected(tokens[image].double().numpy()[kept], reference[image].double().numpy()[kept])
        np.testing.assert_allclose(centre(out[image][np.ix_(kept, kept)]), centre(want), rtol=1e-5, atol=2e-5)


def test_rbf_is_exp_minus_one_of_the_distance():
    tokens = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    out = rbf(tokens, tokens, everything(tokens), bandwidth=5.0, bandwidth_rule="fixed")
    assert out[0, 0, 1].item() == pytest.approx(np.exp(-0.5) - 1)
    assert out[0, 0, 2].item() == 0
    assert torch.equal(out[0].diagonal(), torch.zeros(3))


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@every_kernel
def test_scale_and_common_offset_of_tokens(kernel: Kernel, scale: float, offset: float):
    """Offset in standard deviations; at 1e3 of them float32 tokens keep four digits of their deviations."""
    tokens, valid = draw(2, 16, 8), everything(draw(2, 16, 8))
    moved = (tokens + offset) * scale
    expected = kernel(tokens, tokens, valid)
    if isinstance(kernel, partial) and kernel.keywords.get("bandwidth_rule") == "fixed":
        kernel = partial(kernel, bandwidth=kernel.keywords["bandwidth"] * scale)
    out = kernel(moved, moved, valid) / (scale**2 if kernel in (linear, arc_cosine) else 1)
    if kernel is cosine and offset:  # its directions are those of the tokens as they are
        assert (out - expected).abs().max() > 0.1
    else:
        torch.testing.assert_close(out, expected, atol=1e-5 if offset < 100 else 5e-3, rtol=1e-4)


@pytest.mark.parametrize("name", OF_DISTANCES)
def test_only_the_per_side_rule_forgives_a_scale_of_one_side(name: str):
    tokens, reference = draw(2, 16, 8), draw(2, 16, 8, seed=1)
    valid, kernel = everything(tokens), getattr(kernels, name)
    once = kernel(tokens, reference, valid, bandwidth_rule="median_per_side")
    scaled = kernel(100 * tokens + 5, reference, valid, bandwidth_rule="median_per_side")
    torch.testing.assert_close(scaled, once, atol=1e-4, rtol=1e-4)
    assert (kernel(3 * tokens, reference, valid) - kernel(tokens, reference, valid)).abs().max() > 0.1


@every_kernel
def test_permuting_tokens_permutes_the_kernel(kernel: Kernel):
    tokens, reference, valid = draw(2, 12, 6, seed=3), draw(2, 12, 6, seed=4), some_valid(2, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    permuted = kernel(tokens[:, order], reference[:, order], valid[:, order])
    torch.testing.assert_close(
        permuted, kernel(tokens, reference, valid)[:, order][:, :, order], atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("garbage", [0.0, 1e6, torch.nan])
@every_kernel
def test_invalid_tokens_are_as_good_as_dropped(kernel: Kernel, garbage: float):
    tokens, reference = draw(1, 12, 6, seed=6), draw(1, 12, 6, seed=7)
    valid = some_valid(1, 12)
    kept = valid[0]
    expected = kernel(tokens[:, kept], reference[:, kept], valid[:, kept])
    tokens[:, ~kept], reference[:, ~kept] = garbage, garbage
    tokens.requires_grad_()
    out = kernel(tokens, reference, valid)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, kept][:, :, kept], expected, atol=2e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    assert gradient.isfinite().all()
    assert not gradient[:, ~kept].any()


FIXED = [partial(getattr(kernels, name), bandwidth=1.5, bandwidth_rule="fixed") for name in OF_DISTANCES]


@pytest.mark.parametrize(
    "kernel", [linear, cosine, polynomial, CASES["polynomial-3"][0], arc_cosine, rbf, *FIXED]
)
def test_gradcheck(kernel: Kernel):
    tokens = draw(2, 6, 4, seed=8, dtype=torch.float64).requires_grad_()
    reference, valid = draw(2, 6, 4, seed=9, dtype=torch.float64), some_valid(2, 6)
    assert kernel(tokens, reference, valid).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda z: kernel(z, reference, valid), tokens)


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
@pytest.mark.parametrize("count", [0, 1, 49])
@every_kernel
def test_collapsed_tokens_have_a_flat_kernel_and_finite_gradients(kernel: Kernel, count: int, value: float):
    tokens = torch.full((2, 49, 8), value, requires_grad=True)
    valid = torch.arange(49).expand(2, -1) < count
    out = kernel(tokens, tokens.detach(), valid)
    assert not out.any()
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 2])
@every_kernel
def test_few_valid_tokens(kernel: Kernel, count: int):
    tokens = draw(1, 9, 4).requires_grad_()
    out = kernel(tokens, tokens.detach(), torch.arange(9)[None] < count)
    assert out.isfinite().all()
    assert torch.autograd.grad(out.square().sum(), tokens)[0].isfinite().all()
    assert out.any() == (count == 2)


@every_kernel
def test_duplicate_and_zero_tokens_have_finite_gradients(kernel: Kernel):
    tokens = draw(1, 10, 4, seed=10)
    tokens[:, 3:7] = tokens[:, 2:3]
    tokens[:, 8] = 0
    tokens[:, 9] = tokens[:, :9].mean(dim=1)  # zero once centred
    tokens.requires_grad_()
    out = kernel(tokens, tokens.detach(), everything(tokens))
    (gradient,) = torch.autograd.grad(out.square().sum(), tokens)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


SIZES = [(2, 1), (2, 1024), (3, 1), (3, 1024), (49, 1), (49, 1024)]


@pytest.mark.parametrize(
    ("kernel", "tokens", "dim"),
    [(case[0], *size) for case in CASES.values() for size in SIZES]
    + [(kernels.laplacian, 2000, 1), (polynomial, 2000, 1024), (arc_cosine, 2000, 1)],
)
def test_sizes(kernel: Kernel, tokens: int, dim: int):
    z = draw(1, tokens, dim).requires_grad_()
    out = kernel(z, z.detach(), everything(z))
    assert out.isfinite().all()
    assert torch.autograd.grad(out.square().sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("dim", [1, 3])
def test_gradient_of_arc_cosine_at_parallel_tokens(dim: int):
    """In float32, against float64 finite differences of the equation: all tokens lie on a line."""
    direction = torch.tensor([[0.6, 0.0, 0.8]])[:, :dim]
    z = (torch.tensor([-2.0, -1.0, 0.5, 2.5])[:, None] * direction)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(arc_cosine(z, z.detach(), everything(z)).square().sum(), z)
    exact, step = z[0].detach().double().numpy(), 1e-6
    for place in np.ndindex(*exact.shape):
        change = np.zeros_like(exact)
        change[place] = step
        ends = [(arc_cosine_reference(exact + c, exact) ** 2).sum() for c in (change, -change)]
        assert gradient[0][place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-2)


@every_kernel
def test_autocast_and_half_precision_change_nothing(kernel: Kernel):
    tokens, reference, valid = draw(2, 12, 64, seed=11), draw(2, 12, 64, seed=12), some_valid(2, 12)
    expected = kernel(tokens, reference, valid)
    features = feature_map(kernel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kernel(tokens, reference, valid)
        if features is not None:
            assert features(tokens.bfloat16(), reference, valid).dtype == torch.float32
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    half, half_reference = tokens.bfloat16(), reference.bfloat16()
    widened = kernel(half.float(), half_reference.float(), valid)
    assert torch.equal(kernel(half, half_reference, valid), widened)


def test_reference_gets_no_gradient():
    tokens, reference = draw(1, 9, 4).requires_grad_(), draw(1, 9, 4, seed=1).requires_grad_()
    loss = rbf(tokens, reference, everything(tokens)).sum()
    student, teacher = torch.autograd.grad(loss, [tokens, reference], allow_unused=True)
    assert student.abs().sum() > 0
    assert teacher is None


@pytest.mark.parametrize("kernel", [rbf, kernels.rational_quadratic])
def test_wide_kernels_are_linear(kernel: Callable[..., Tensor]):
    tokens = draw(2, 16, 8, seed=14)
    valid = everything(tokens)
    wide = kernel(tokens, tokens, valid, bandwidth=1e5, bandwidth_rule="fixed").double().numpy() * 1e10
    for out, expected in zip(wide, linear(tokens, tokens, valid).double().numpy(), strict=True):
        np.testing.assert_allclose(centre(out), centre(expected), atol=1e-4)


@every_kernel
def test_kernels_of_no_images_are_empty(kernel: Kernel):
    tokens, valid = torch.zeros(0, 49, 8), torch.zeros(0, 49, dtype=torch.bool)
    assert kernel(tokens, tokens, valid).shape == (0, 49, 49)


@every_kernel
def test_kernels_can_be_pickled(kernel: Kernel):
    tokens = draw(1, 5, 3)
    again = pickle.loads(pickle.dumps(kernel))
    assert torch.equal(again(tokens, tokens, everything(tokens)), kernel(tokens, tokens, everything(tokens)))


@pytest.mark.parametrize(
    ("kernel", "sentence"),
    [
        (partial(rbf, bandwidth=0.0), "bandwidth above 0, got 0.0"),
        (partial(polynomial, degree=0), "degree of at least 1 and an offset of at least 0, got 0, 1.0"),
        (partial(polynomial, offset=-1.0), "got 2, -1.0"),
        (partial(kernels.rational_quadratic, alpha=0.0), "alpha above 0, got 0.0"),
        (partial(kernels.rbf_mixture, multipliers=[]), "multipliers above 0, got none"),
        (partial(kernels.rbf_mixture, multipliers=[1, -2]), "multipliers above 0, got 1, -2"),
        (partial(rbf_fourier, features=3), "an even number of at least 2 features, got 3"),
    ],
)
def test_bad_arguments_are_named(kernel: Kernel, sentence: str):
    tokens = draw(1, 4, 2)
    with pytest.raises(ValueError, match=sentence):
        kernel(tokens, tokens, everything(tokens))
