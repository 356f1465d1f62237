"""Interpolation as a matrix: what torch's resampling does to a row of values, for sizes that a graph knows only when it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from paka.positions import Resampling

_REACH = 3
"""Neighbours on each side that a filter without antialiasing is looked up at; a bicubic one has two."""


def interpolation_matrix(old: int, new: int, resampling: Resampling) -> Tensor:
    """Return the matrix (new, old) that resamples a row of `old` values to `new` ones, float32.

    Equal to `torch.nn.functional.interpolate` up to rounding, and made of operations that ONNX has for any `new`.

    Args:
        old: Number of values that there are.
        new: Number of values that are wanted; may be a symbol while a graph is traced.
        resampling: How values are interpolated.
    """
    rows, columns = torch.arange(new).float()[:, None], torch.arange(old).float()[None]
    scale = _scale(old, rows, resampling)
    aligned = resampling.align_corners and not resampling.antialias  # torch's antialiasing keeps half pixels
    centres = rows * scale if aligned else (rows + 0.5) * scale - 0.5
    matrix = (
        _smoothed(centres, columns, scale, resampling)
        if resampling.antialias
        else _plain(centres, old, resampling)
    )
    return torch.where(rows[-1] + 1 == old, (rows == columns).float(), matrix)


def resample(positions: Tensor, old: tuple[int, int], new: tuple[int, int], resampling: Resampling) -> Tensor:
    """Resample positions, (1, h * w, D) on the grid `old`, to (1, h' * w', D) on the grid `new`."""
    height, width = (interpolation_matrix(*sides, resampling) for sides in zip(old, new, strict=True))
    grid = torch.einsum("yv,bvud->byud", height, positions.unflatten(1, old))
    return torch.einsum("xu,byud->byxd", width, grid).flatten(1, 2)


def _scale(old: int, rows: Tensor, resampling: Resampling) -> Tensor:
    """Return how many old values lie between two new ones."""
    new = rows[-1] + 1
    if resampling.align_corners:
        return (old - 1) / (new - 1).clamp(min=1) * (new > 1)
    return old / (new + resampling.offset)


def _smoothed(centres: Tensor, columns: Tensor, scale: Tensor, resampling: Resampling) -> Tensor:
    """Return the matrix of a filter that widens with the factor that the row shrinks by."""
    weights = _filter((columns - centres) / scale.clamp(min=1), resampling.mode, -0.5)
    return weights / weights.sum(dim=1, keepdim=True)


def _plain(centres: Tensor, old: int, resampling: Resampling) -> Tensor:
    """Return the matrix of a filter of fixed width; beyond the ends the outermost value goes on."""
    taps = centres.floor() + torch.arange(-_REACH, _REACH + 1).float()
    weights = _filter(taps - centres, resampling.mode, -0.75)
    places = (taps.clamp(0, old - 1)[..., None] == torch.arange(old).float()).float()
    return torch.einsum("nt,nto->no", weights, places)


def _filter(distance: Tensor, mode: str, a: float) -> Tensor:
    """Return an interpolation filter at a distance: a triangle, or Keys' cubic with the parameter `a`."""
    x = distance.abs()
    if mode == "bilinear":
        return (1 - x).clamp(min=0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
