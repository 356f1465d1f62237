"""Interpolation as a matrix equals torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from paka.positions import Resampling
from paka.resampling_matrix import resample

KINDS = [
    Resampling("bicubic", antialias=True),
    Resampling("bicubic", antialias=False),
    Resampling("bicubic", antialias=False, offset=0.1),
    Resampling("bilinear", antialias=True),
    Resampling("bilinear", antialias=False),
    Resampling("bilinear", antialias=False, align_corners=True),
    Resampling("bicubic", antialias=False, align_corners=True),
    Resampling("bilinear", antialias=True, align_corners=True),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("new", [(16, 16), (11, 29), (7, 1), (33, 40)])
def test_positions_are_resampled_as_torch_does(kind: Resampling, new: tuple[int, int]) -> None:
    positions = torch.randn(1, 256, 5, generator=torch.Generator().manual_seed(0))
    expected = kind(positions, (16, 16), new)
    torch.testing.assert_close(resample(positions, (16, 16), new, kind), expected, rtol=0, atol=5e-5)


def test_the_same_grid_is_left_exactly_as_it_is() -> None:
    positions = torch.randn(1, 16, 5)
    assert torch.equal(resample(positions, (4, 4), (4, 4), Resampling("bicubic", offset=0.1)), positions)


def test_timms_own_is_the_default() -> None:
    grid = torch.randn(1, 3, 4, 4)
    positions = grid.permute(0, 2, 3, 1).flatten(1, 2)
    expected = F.interpolate(grid, size=(7, 2), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    found = resample(positions, (4, 4), (7, 2), Resampling()).unflatten(1, (7, 2))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
