"""Kernels against float64 references written from their equations, and their invariances."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.kernels import Kernel, cosine, linear, median_distance, rbf

Array = NDArray[np.float64]
KERNELS: list[Kernel] = [linear, cosine, rbf, partial(rbf, bandwidth=3.0, bandwidth_rule="fixed")]
NAMES = ["linear", "cosine", "rbf", "rbf-fixed"]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_valid(images: int, tokens: int) -> Tensor:
    return torch.rand(images, tokens, generator=torch.Generator().manual_seed(99)) < 0.7


def everything(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def centred(kernel: Array) -> Array:
    n = len(kernel)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.asarray(h @ kernel @ h)


def pairwise(z: Array, similarity: Callable[[Array, Array], float]) -> Array:
    return np.array([[similarity(a, b) for b in z] for a in z])


def linear_reference(z: Array, reference: Array) -> Array:
    return pairwise(z, lambda a, b: sum(a * b))


def cosine_reference(z: Array, reference: Array) -> Array:
    return pairwise(z, lambda a, b: sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)))


def rbf_reference(z: Array, reference: Array, *, bandwidth: float = 1.0, fixed: bool = False) -> Array:
    distances = [np.sqrt(sum((a - b) ** 2)) for i, a in enumerate(reference) for b in reference[:i]]
    sigma = bandwidth if fixed else bandwidth * float(np.median(distances))
    return pairwise(z, lambda a, b: np.exp(-sum((a - b) ** 2) / (2 * sigma**2)))


def rbf_fixed_reference(z: Array, reference: Array) -> Array:
    return rbf_reference(z, reference, bandwidth=3.0, fixed=True)


REFERENCES = [linear_reference, cosine_reference, rbf_reference, rbf_fixed_reference]


@pytest.mark.parametrize(("kernel", "expected"), list(zip(KERNELS, REFERENCES, strict=True)), ids=NAMES)
def test_kernel_equals_its_equation_after_centring(kernel: Kernel, expected: Callable[..., Array]) -> None:
    tokens, reference = draw(3, 9, 5, seed=1) + 0.5, draw(3, 9, 5, seed=2)
    valid = some_valid(3, 9)
    out = kernel(tokens, reference, valid).double().numpy()
    for image in range(3):
        kept = valid[image].numpy()
        want = expected(tokens[image].double().numpy()[kept], reference[image].double().numpy()[kept])
        np.testing.assert_allclose(centred(out[image][np.ix_(kept, kept)]), centred(want), atol=2e-5)


def test_rbf_is_exp_minus_one_of_the_distance() -> None:
    tokens = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    out = rbf(tokens, tokens, everything(tokens), bandwidth=5.0, bandwidth_rule="fixed")
    assert out[0, 0, 1].item() == pytest.approx(np.exp(-0.5) - 1)
    assert out[0, 0, 2].item() == 0
    assert torch.equal(out[0].diagonal(), torch.zeros(3))


@pytest.mark.parametrize("offset", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("kernel", [linear, rbf])
def test_a_common_offset_changes_nothing(kernel: Kernel, offset: float) -> None:
    tokens = draw(2, 16, 8)
    shifted = tokens + offset
    expected = kernel(tokens, tokens, everything(tokens))
    torch.testing.assert_close(kernel(shifted, shifted, everything(tokens)), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
def test_scale_of_tokens(scale: float) -> None:
    tokens = draw(2, 16, 8)
    valid = everything(tokens)
    scaled = tokens * scale
    torch.testing.assert_close(linear(scaled, tokens, valid) / scale**2, linear(tokens, tokens, valid))
    torch.testing.assert_close(cosine(scaled, tokens, valid), cosine(tokens, tokens, valid))
    torch.testing.assert_close(rbf(scaled, scaled, valid), rbf(tokens, tokens, valid))


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
def test_permuting_tokens_permutes_the_kernel(kernel: Kernel) -> None:
    tokens, reference, valid = draw(2, 12, 6, seed=3), draw(2, 12, 6, seed=4), some_valid(2, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    permuted = kernel(tokens[:, order], reference[:, order], valid[:, order])
    torch.testing.assert_close(permuted, kernel(tokens, reference, valid)[:, order][:, :, order])


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("garbage", [0.0, 1e6, torch.nan])
def test_invalid_tokens_are_as_good_as_dropped(kernel: Kernel, garbage: float) -> None:
    tokens, reference = draw(1, 12, 6, seed=6), draw(1, 12, 6, seed=7)
    valid = some_valid(1, 12)
    kept = valid[0]
    expected = kernel(tokens[:, kept], reference[:, kept], valid[:, kept])
    tokens[:, ~kept], reference[:, ~kept] = garbage, garbage
    out = kernel(tokens, reference, valid)
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, kept][:, :, kept], expected)


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
def test_gradcheck(kernel: Kernel) -> None:
    tokens = draw(2, 6, 4, seed=8, dtype=torch.float64).requires_grad_()
    reference, valid = draw(2, 6, 4, seed=9, dtype=torch.float64), some_valid(2, 6)
    assert torch.autograd.gradcheck(lambda z: kernel(z, reference, valid), tokens)


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_collapsed_tokens_have_a_flat_kernel_and_finite_gradients(kernel: Kernel, value: float) -> None:
    tokens = torch.full((2, 49, 8), value, requires_grad=True)
    out = kernel(tokens, tokens.detach(), everything(tokens))
    assert torch.equal(out, torch.zeros(2, 49, 49))
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
def test_duplicate_and_zero_tokens_have_finite_gradients(kernel: Kernel) -> None:
    tokens = draw(1, 10, 4, seed=10)
    tokens[:, 3:7] = tokens[:, 2:3]
    tokens[:, 8] = 0
    tokens.requires_grad_()
    out = kernel(tokens, tokens.detach(), everything(tokens))
    (gradient,) = torch.autograd.grad(out.square().sum(), tokens)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
def test_autocast_changes_nothing(kernel: Kernel) -> None:
    tokens, reference, valid = draw(2, 12, 64, seed=11), draw(2, 12, 64, seed=12), some_valid(2, 12)
    expected = kernel(tokens, reference, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kernel(tokens, reference, valid)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)
    assert kernel(tokens.bfloat16(), reference.bfloat16(), valid).dtype == torch.float32
    assert kernel(tokens.double(), reference.double(), valid).dtype == torch.float64


@pytest.mark.parametrize("tokens", [2, 3, 4, 7, 49])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_median_distance_equals_numpy(tokens: int, offset: float) -> None:
    """Over all numbers of valid tokens, so that even and odd counts of distances occur."""
    z = draw(tokens, tokens, 5, seed=13) + offset
    valid = torch.arange(tokens) <= torch.arange(tokens)[:, None]
    out = median_distance(z, valid)
    assert out[0] == 1  # a single token has no distance
    for image in range(1, tokens):
        kept = z[image, : image + 1].double().numpy()
        distances = [np.linalg.norm(a - b) for i, a in enumerate(kept) for b in kept[:i]]
        assert out[image].item() == pytest.approx(np.median(distances), rel=1e-4)


def test_median_distance_of_degenerate_tokens() -> None:
    flat = torch.full((1, 9, 3), 0.3)
    assert median_distance(flat, everything(flat)).item() == 1
    assert median_distance(flat, torch.zeros(1, 9, dtype=torch.bool)).item() == 1
    flat[0, 0, 0] = 100.3
    assert 0 < median_distance(flat, everything(flat)).item() < 0.1
    assert not median_distance(flat.requires_grad_(), everything(flat)).requires_grad


def test_reference_gets_no_gradient() -> None:
    tokens, reference = draw(1, 9, 4).requires_grad_(), draw(1, 9, 4, seed=1).requires_grad_()
    loss = rbf(tokens, reference, everything(tokens)).sum()
    student, teacher = torch.autograd.grad(loss, [tokens, reference], allow_unused=True)
    assert student.abs().sum() > 0
    assert teacher is None


def test_wide_rbf_is_linear() -> None:
    tokens = draw(2, 16, 8, seed=14)
    valid = everything(tokens)
    wide = rbf(tokens, tokens, valid, bandwidth=1e5, bandwidth_rule="fixed").double().numpy() * 1e10
    for out, expected in zip(wide, linear(tokens, tokens, valid).double().numpy(), strict=True):
        np.testing.assert_allclose(centred(out), centred(expected), atol=1e-4)


def test_kernels_of_no_pairs_are_empty() -> None:
    tokens, valid = torch.zeros(0, 49, 8), torch.zeros(0, 49, dtype=torch.bool)
    for kernel in KERNELS:
        assert kernel(tokens, tokens, valid).shape == (0, 49, 49)


def test_bad_bandwidths_are_named() -> None:
    tokens = draw(1, 4, 2)
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"bandwidth above 0, got {bandwidth}"):
            rbf(tokens, tokens, everything(tokens), bandwidth=bandwidth)
    with pytest.raises(ValueError, match="'median' or 'fixed', got 'mean'"):
        rbf(tokens, tokens, everything(tokens), bandwidth_rule="mean")  # type: ignore[arg-type]
