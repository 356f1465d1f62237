"""Kernels that are more than one function: those with explicit features, and the one with a smoothed bandwidth."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from paka import kernels
from paka.alignment import centre
from paka.command_line import check
from paka.config import CONF_DIR, build
from paka.distances import median_distance
from paka.kernels import Kernel, cosine, explicit, feature_map, linear, rbf, rbf_fourier
from paka.smoothed_median import SmoothedMedian


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_valid(images: int, tokens: int) -> Tensor:
    return torch.rand(images, tokens, generator=torch.Generator().manual_seed(99)) < 0.7


def everything(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize(
    ("kernel", "dim"), [(linear, 6), (cosine, 6), (rbf_fourier, 512), (partial(rbf_fourier, features=20), 20)]
)
def test_features_are_centred_and_give_the_kernel(kernel: Kernel, dim: int):
    tokens, reference, valid = draw(2, 12, 6) + 1, draw(2, 12, 6, seed=1), some_valid(2, 12)
    tokens[~valid] = torch.nan
    found = feature_map(kernel)
    assert found is not None
    out = found(tokens, reference, valid)
    assert out.shape == (2, 12, dim)
    assert not out[~valid].any()
    torch.testing.assert_close(out.sum(dim=1), torch.zeros(2, dim), atol=1e-5, rtol=0)
    torch.testing.assert_close(out @ out.transpose(1, 2), kernel(tokens, reference, valid))
    torch.testing.assert_close(centre(out @ out.transpose(1, 2), valid), kernel(tokens, reference, valid))


def test_kernels_without_features_have_no_map():
    assert feature_map(rbf) is None
    assert feature_map(partial(rbf, bandwidth=2.0)) is None
    assert feature_map(SmoothedMedian(rbf)) is None


def test_arguments_of_nested_partials_reach_the_map():
    kernel = partial(partial(rbf_fourier, features=8, seed=1), seed=2)
    tokens = draw(1, 9, 4)
    found = feature_map(kernel)
    assert found is not None
    expected = rbf_fourier.features(tokens, tokens, everything(tokens), features=8, seed=2)
    assert torch.equal(found(tokens, tokens, everything(tokens)), expected)


def test_a_map_of_ones_own_becomes_a_kernel():
    @explicit
    def first_channel(tokens: Tensor, reference: Tensor, valid: Tensor, *, factor: float = 1.0) -> Tensor:
        """First channel."""
        return factor * kernels.centred(tokens[:, :, :1], valid)

    tokens = draw(1, 5, 3)
    out = first_channel(tokens, tokens, everything(tokens), factor=2.0)
    torch.testing.assert_close(out, 4 * linear(tokens[:, :, :1], tokens, everything(tokens)))
    assert first_channel.__doc__ == "First channel."


@pytest.mark.parametrize("features", [64, 512])
def test_error_of_fourier_features(features: int):
    """Over 400 seeds: no bias, and the standard error that the docstring states, under 1 / sqrt(features)."""
    tokens = draw(1, 8, 4)
    valid = everything(tokens)
    options = {"bandwidth": 2.0, "bandwidth_rule": "fixed"}
    exact = rbf(tokens, tokens, valid, **options)[0].double()
    # Centred entries differ from those of the equation by their means; d^2 in feature space does not.
    draws = torch.stack(
        [
            rbf_fourier(tokens, tokens, valid, features=features, seed=seed, **options)[0]
            for seed in range(400)
        ]
    ).double()
    own = draws.diagonal(dim1=1, dim2=2)
    entries = -(own[:, :, None] + own[:, None, :] - 2 * draws) / 2
    pairs = ~torch.eye(8, dtype=torch.bool)
    error = (entries - exact)[:, pairs]
    stated = (1 - (1 + exact[pairs]).square()) / np.sqrt(features)
    assert error.mean(dim=0).abs().max() < 4 * stated.max() / np.sqrt(400)
    torch.testing.assert_close(error.std(dim=0) / stated, torch.ones_like(stated), atol=0.2, rtol=0)
    assert error.square().mean().sqrt() < 1 / np.sqrt(features)


def test_fourier_features_leave_the_global_generator_alone_and_repeat():
    tokens = draw(1, 9, 4)
    kernels._frequencies.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        first = rbf_fourier(tokens, tokens, everything(tokens))
    assert torch.equal(torch.rand(1), expected)
    tokens.requires_grad_()
    again = rbf_fourier(tokens, tokens.detach(), everything(tokens))
    again.sum().backward()
    assert torch.equal(first, again)
    assert not torch.equal(rbf_fourier(tokens, tokens.detach(), everything(tokens), seed=1), again)


def test_first_call_sets_the_median_and_the_next_move_it():
    smoothed = SmoothedMedian(rbf, bandwidth=0.5, momentum=0.9)
    tokens, valid = draw(3, 9, 4), some_valid(3, 9)
    valid[1] = torch.arange(9) == 4  # no distance, does not count
    one, two = draw(3, 9, 4, seed=1), 5 * draw(3, 9, 4, seed=2)
    first = median_distance(one, valid)[[0, 2]].mean().item()
    second = median_distance(two, valid)[[0, 2]].mean().item()
    for reference, value in ((one, first), (two, 0.9 * first + 0.1 * second)):
        out = smoothed(tokens, reference, valid)
        assert smoothed.median.item() == pytest.approx(value, rel=1e-6)
        expected = rbf(tokens, reference, valid, bandwidth=0.5 * value, bandwidth_rule="fixed")
        torch.testing.assert_close(out, expected)


def test_median_stays_in_evaluation_mode_and_without_images_that_count():
    smoothed = SmoothedMedian(rbf)
    tokens, valid = draw(2, 9, 4), torch.ones(2, 9, dtype=torch.bool)
    assert smoothed(tokens, tokens, valid & False).isfinite().all()
    assert smoothed.median == 0
    mean = median_distance(tokens, valid).mean().item()
    out = smoothed.eval()(tokens, tokens, valid)
    torch.testing.assert_close(out, rbf(tokens, tokens, valid, bandwidth=mean, bandwidth_rule="fixed"))
    assert smoothed.median == 0
    smoothed.train()(tokens, tokens, valid)
    before = smoothed.median.clone()
    smoothed(tokens, 7 * tokens, valid & False)
    evaluated = smoothed.eval()(tokens, 7 * tokens, valid)
    assert torch.equal(smoothed.median, before)
    torch.testing.assert_close(
        evaluated, rbf(tokens, tokens, valid, bandwidth=before.item(), bandwidth_rule="fixed")
    )


def test_median_is_saved_and_restored():
    smoothed, tokens = SmoothedMedian(rbf, momentum=0.5), draw(2, 9, 4)
    smoothed(tokens, tokens, everything(tokens))
    file = io.BytesIO()
    torch.save(smoothed.state_dict(), file)
    file.seek(0)
    restored = SmoothedMedian(rbf, momentum=0.5)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored.median, smoothed.median)
    for _ in range(2):
        outs = [one(tokens, 3 * tokens, everything(tokens)) for one in (smoothed, restored)]
        assert torch.equal(*outs)


def test_both_sides_stacked_share_one_median():
    smoothed = SmoothedMedian(rbf, momentum=0.5)
    student, teacher = 9 * draw(2, 9, 4), draw(2, 9, 4, seed=1)
    valid = some_valid(2, 9)
    out = smoothed(torch.cat([student, teacher]), torch.cat([teacher, teacher]), torch.cat([valid, valid]))
    sigma = median_distance(teacher, valid).mean()
    assert smoothed.median.item() == pytest.approx(sigma.item())
    for side, part in zip((student, teacher), out.chunk(2), strict=True):
        torch.testing.assert_close(part, rbf(side, teacher, valid, bandwidth=sigma, bandwidth_rule="fixed"))


def test_median_is_that_of_all_processes(monkeypatch: pytest.MonkeyPatch):
    """The other process has two images with median distances of 10 and 20."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(torch.tensor([30.0, 2.0])))
    smoothed, tokens = SmoothedMedian(rbf), draw(1, 9, 4)
    smoothed(tokens, tokens, everything(tokens))
    own = median_distance(tokens, everything(tokens)).item()
    assert smoothed.median.item() == pytest.approx((own + 30) / 3)


def test_gradients_pass_the_smoothed_kernel():
    smoothed, tokens = SmoothedMedian(rbf), draw(1, 9, 4).requires_grad_()
    out = smoothed(tokens, tokens.detach(), everything(tokens))
    smoothed(tokens, 2 * tokens.detach(), everything(tokens))  # moves the buffer before the backward pass
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    sigma = median_distance(tokens, everything(tokens)).item()
    fixed = rbf(tokens, tokens.detach(), everything(tokens), bandwidth=sigma, bandwidth_rule="fixed")
    torch.testing.assert_close(gradient, torch.autograd.grad(fixed.sum(), tokens)[0])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="bandwidth above 0, got 0"):
        SmoothedMedian(rbf, bandwidth=0)
    with pytest.raises(ValueError, match="momentum from 0 to below 1, got 1"):
        SmoothedMedian(rbf, momentum=1)


@pytest.mark.parametrize("file", sorted((CONF_DIR / "kernel").glob("*.yaml")), ids=lambda file: file.stem)
def test_configured_kernels_can_be_built_and_called(file: Path):
    kernel = build(cast(DictConfig, OmegaConf.load(file)))
    tokens = draw(2, 9, 4)
    out = kernel(tokens, tokens, everything(tokens))
    assert out.shape == (2, 9, 9)
    assert out.isfinite().all()
    assert isinstance(kernel, torch.nn.Module) == (file.stem == "rbf_smoothed")


def test_kernel_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    section = (CONF_DIR.parent / "docs" / "howto" / "kernel.md").read_text()
    code, node = (section.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml"))
    (tmp_path / "my_kernels.py").write_text(code)
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "matern.yaml").write_text(node)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = section.partition("python -m paka.train ")[2].partition("\n")[0].split()
    assert check(CONF_DIR, "train", get_args_parser().parse_args(command)) == []
    kernel = build(cast(DictConfig, OmegaConf.load(tmp_path / "kernel" / "matern.yaml")))
    tokens = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]).requires_grad_()
    out = kernel(tokens, tokens.detach(), everything(tokens))
    (gradient,) = torch.autograd.grad(out.sum(), tokens)
    far = (1 + 3**0.5) * np.exp(-(3**0.5)) - 1
    torch.testing.assert_close(out.detach(), torch.tensor([[[0, far], [far, 0]]], dtype=torch.float32))
    assert gradient.isfinite().all()
