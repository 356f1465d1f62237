"""Diagnostics against numpy, closed forms and planted structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from paka.diagnostics import MOST_TOKENS, diagnose, effective_rank, norm_outliers, positional_r2
from paka.encoder import Tokens


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(200, 16), (16, 200), (50, 50)])
def test_effective_rank_equals_its_equation(shape: tuple[int, int]) -> None:
    tokens = draw(*shape) * torch.logspace(0, -3, shape[1])
    singular = np.linalg.svd(tokens.double().numpy(), compute_uv=False)
    shares = singular / singular.sum()
    assert effective_rank(tokens).item() == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    torch.testing.assert_close(effective_rank(1e-4 * tokens), effective_rank(tokens))
    torch.testing.assert_close(effective_rank(2**13 * tokens.bfloat16()), effective_rank(tokens.bfloat16()))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_equal_singular_values_is_their_number(rank: int) -> None:
    left, right = (torch.linalg.qr(draw(side, rank, seed=side)).Q for side in (60, 20))
    assert effective_rank(left @ right.T).item() == pytest.approx(rank, abs=1e-3)
    assert effective_rank(torch.zeros(60, 20)).item() == 1


def coordinates(images: int, side: int, dim: int) -> Tensor:
    """Tokens of noise in which two directions hold the position."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    place = torch.stack([rows, columns], dim=-1) / side
    return draw(images, side, side, dim) + 30 * place @ draw(2, dim, seed=9)


def test_positional_r2_finds_positions_and_nothing_in_noise() -> None:
    assert positional_r2(coordinates(16, 7, 32)).item() > 0.95
    assert positional_r2(draw(16, 7, 7, 32)).item() < 0.05
    assert positional_r2(draw(4, 7, 7, 512)).item() < 0.05, "more channels than tokens"
    for tokens in (draw(1, 7, 7, 8), draw(4, 1, 1, 8), torch.zeros(4, 7, 7, 8)):
        assert positional_r2(tokens).item() == 0
    tokens = coordinates(16, 7, 32)
    torch.testing.assert_close(positional_r2(1e-3 * tokens + 5), positional_r2(tokens), atol=1e-3, rtol=0)


def test_alike_views_of_an_image_do_not_meet() -> None:
    assert positional_r2(draw(4, 5, 5, 256).repeat_interleave(2, dim=0)).item() < 0.05


def test_a_part_of_the_tokens_shows_all_columns_of_the_grid() -> None:
    patches = torch.zeros(256, 7, 7, 49)
    patches.view(256, 49, 49)[:] = torch.eye(49)
    found = diagnose(Tokens(patches, patches[:, 0, :0]))
    assert found["rankme"].item() == pytest.approx(49, abs=0.1)


def test_norm_outliers_are_counted() -> None:
    patches = draw(8, 7, 7, 64)
    assert norm_outliers(patches).item() == 0
    patches[0, 0, :4] *= 10
    patches[3, 2, 1] = 0
    assert norm_outliers(patches).item() == pytest.approx(5 / (8 * 49))
    units = torch.nn.functional.normalize(draw(8, 7, 7, 64), dim=-1)
    assert norm_outliers(units).item() == 0


def test_tokens_that_are_no_numbers_do_not_end_the_run_here() -> None:
    patches = draw(4, 7, 7, 8)
    patches[0, 0, 0] = torch.nan
    found = diagnose(Tokens(patches, patches[:, 0, :1]))
    assert found["rankme"].isnan()
    assert found["positional_r2"].item() == 0


def test_diagnose_is_detached_and_takes_part_of_many_tokens() -> None:
    patches = draw(60, 7, 7, 8).requires_grad_()
    found = diagnose(Tokens(patches, patches[:, 0, :1]))
    assert found.keys() == {"rankme", "positional_r2", "norm_outliers"}
    assert not any(value.requires_grad for value in found.values())
    assert MOST_TOKENS < 60 * 49
    assert found["rankme"].item() == pytest.approx(8, abs=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = diagnose(Tokens(patches, patches[:, 0, :1]))
    assert all(torch.equal(inside[name], value) for name, value in found.items())
