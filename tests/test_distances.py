"""Distances, medians and bandwidths against numpy, where rounding matters above all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from paka.distances import centred, distances, median_distance, sigmas, squared_distances


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def everything(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("dim", [1, 5, 1024])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_distances_equal_numpy(dim: int, offset: float, scale: float):
    z = (draw(1, 20, dim) + offset) * scale
    out = distances(z, z, everything(z), scale, "fixed")[0].numpy()
    exact = z[0].double().numpy()
    want = np.array([[np.sqrt(sum((a - b) ** 2)) for b in exact] for a in exact]) / scale
    np.testing.assert_allclose(out, want, atol=3e-3 * want.max())
    assert not out.diagonal().any()


@pytest.mark.parametrize("dim", [2, 64, 1024])
@pytest.mark.parametrize("tokens", [7, 49, 200])
def test_duplicates_are_at_distance_zero_and_others_are_not(tokens: int, dim: int):
    z = draw(2, tokens, dim, seed=1) + 3
    z[:, 1::2] = z[:, :1]
    out = squared_distances(z, z, everything(z), 1.0, "fixed")
    alike = torch.arange(tokens) % 2 == 1
    alike[0] = True
    assert not out[:, alike][:, :, alike].any()
    assert (out[:, alike][:, :, ~alike] > 0).all()


def test_gradient_of_distances_leaves_out_those_of_zero():
    z = draw(1, 8, 3, seed=2, dtype=torch.float64)
    z[0, 1] = z[0, 4]
    z.requires_grad_()
    weight = draw(8, 8, seed=3, dtype=torch.float64)
    out = distances(z, z, everything(z), 2.0, "fixed")[0]
    (gradient,) = torch.autograd.grad((weight * out).sum(), z)
    want = np.zeros((8, 3))
    points = z[0].detach().numpy()
    for i in range(8):
        for j in range(8):
            difference = points[i] - points[j]
            if difference.any():
                step = weight[i, j].item() * difference / np.linalg.norm(difference) / 2
                want[i] += step
                want[j] -= step
    np.testing.assert_allclose(gradient[0].numpy(), want, atol=1e-12)


@pytest.mark.parametrize("rule", ["median", "median_per_side", "fixed"])
def test_sigma_of_each_rule(rule: str):
    tokens, reference = draw(2, 9, 4, seed=4).requires_grad_(), 3 * draw(2, 9, 4, seed=5)
    valid = everything(tokens)
    expected = {
        "median": 0.5 * median_distance(reference, valid),
        "median_per_side": 0.5 * median_distance(tokens, valid),
        "fixed": torch.full((2,), 0.5),
    }[rule]
    for bandwidth in (0.5, torch.tensor(0.5)):
        sigma = sigmas(tokens, reference, valid, bandwidth, rule)  # type: ignore[arg-type]
        torch.testing.assert_close(sigma, expected[:, None, None])
        assert not sigma.requires_grad


@pytest.mark.parametrize("bandwidth", [1e-30, 1e-10, 1e10, 1e30])
def test_extreme_bandwidths_give_no_nan(bandwidth: float):
    z = draw(1, 9, 4).requires_grad_()
    kernel = torch.expm1(-squared_distances(z, z.detach(), everything(z), bandwidth, "fixed"))
    assert kernel.isfinite().all()
    assert torch.autograd.grad(kernel.sum(), z)[0].isfinite().all()


def test_bad_bandwidths_are_named():
    tokens = draw(1, 4, 2)
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"bandwidth above 0, got {bandwidth}"):
            distances(tokens, tokens, everything(tokens), bandwidth, "median")
    with pytest.raises(ValueError, match="median, median_per_side, fixed, got 'mean'"):
        distances(tokens, tokens, everything(tokens), 1.0, "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [2, 3, 4, 7, 49])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_median_distance_equals_numpy(tokens: int, offset: float):
    """Over all numbers of valid tokens, so that even and odd counts of distances occur."""
    z = draw(tokens, tokens, 5, seed=13) + offset
    valid = torch.arange(tokens) <= torch.arange(tokens)[:, None]
    out = median_distance(z, valid)
    assert out[0] == 1  # a single token has no distance
    for image in range(1, tokens):
        kept = z[image, : image + 1].double().numpy()
        pairs = [np.linalg.norm(a - b) for i, a in enumerate(kept) for b in kept[:i]]
        assert out[image].item() == pytest.approx(np.median(pairs), rel=1e-4)


def test_median_distance_of_degenerate_tokens():
    flat = torch.full((1, 9, 3), 0.3)
    assert median_distance(flat, everything(flat)).item() == 1
    assert median_distance(flat, torch.zeros(1, 9, dtype=torch.bool)).item() == 1
    flat[0, 0, 0] = 100.3
    assert 0 < median_distance(flat, everything(flat)).item() < 0.1
    assert not median_distance(flat.requires_grad_(), everything(flat)).requires_grad


def test_centred_tokens_sum_to_zero_and_equal_ones_are_zero():
    tokens = draw(2, 9, 4, seed=6) + 10
    valid = torch.arange(9) < torch.tensor([[9], [5]])
    out = centred(tokens, valid)
    torch.testing.assert_close(out.sum(dim=1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    assert not out[~valid].any()
    assert not centred(torch.full((1, 49, 3), 0.1), torch.ones(1, 49, dtype=torch.bool)).any()
