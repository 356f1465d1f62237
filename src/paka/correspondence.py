"""Correspondence: the tokens of two views of one image, resampled at the same points of the source image.

A view is a crop of the source image, perhaps flipped, seen by the encoder as `tokens x tokens` patch tokens.
Token `i` of an axis covers `[i, i + 1)` and has its centre at `i + 0.5`. The box that two views share is
divided into `grid x grid` bins, and each bin averages bilinear samples of the token map: ROI-align (He et
al., Mask R-CNN, 2017), which for a box is separable into one small matrix per axis.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from paka.precision import in_float32

# In tokens. Rounding must not cost a bin that ends on a token centre, nor add a sample to a bin of one token.
TOLERANCE = 1e-4


class Resampling(NamedTuple):
    """Separable ROI-align weights of one view, with bins oriented like the source image whatever the flip.

    Attributes:
        y: weights of the token rows, `(P, grid, tokens)`; every line sums to 1.
        x: weights of the token columns, `(P, grid, tokens)`; every line sums to 1.
        valid: bins whose samples all lie between token centres, `(P, grid, grid)` bool, rows first.
    """

    y: Tensor
    x: Tensor
    valid: Tensor


class Aligned(NamedTuple):
    """Tokens of two views at the same N = grid * grid source points.

    Attributes:
        student: `(P, N, D)` float32.
        teacher: `(P, N, D)` float32.
        valid: points that neither view had to extrapolate, `(P, N)` bool.
    """

    student: Tensor
    teacher: Tensor
    valid: Tensor


def shared_boxes(a: Tensor, b: Tensor) -> Tensor:
    """Return the box that two crops of one image have in common.

    Args:
        a: crops `(P, 4)` as x0, y0, x1, y1 in pixels of the source image, float32 or float64.
        b: crops `(P, 4)` of the same images.

    Returns:
        Intersections `(P, 4)`; an empty one has x1 <= x0 or y1 <= y0, and no valid point when resampled.

    Raises:
        ValueError: the boxes are not `(P, 4)`.
        TypeError: the boxes are in half precision or integers.
    """
    _check_boxes(a)
    _check_boxes(b)
    return torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], dim=1)


def resampling_weights(shared: Tensor, crop: Tensor, flip: Tensor, *, tokens: int, grid: int) -> Resampling:
    """Return the ROI-align weights that read the tokens of one view at the bins of a box.

    They equal `torchvision.ops.roi_align(aligned=True, sampling_ratio=-1)`: a bin of b tokens averages
    ceil(b) equidistant bilinear samples per axis. A sample outside the outermost token centres repeats the
    border token; that is extrapolation, so its bin is marked invalid.

    Args:
        shared: boxes to resample, `(P, 4)` in pixels of the source image, inside the crops.
        crop: the crops that the view shows, `(P, 4)`.
        flip: whether the view is the crop mirrored left to right, `(P,)` bool.
        tokens: tokens per side of the view.
        grid: bins per side of the box.

    Returns:
        Weights in the dtype of the boxes, and the valid bins.

    Raises:
        ValueError: the boxes are not `(P, 4)`, or `tokens` or `grid` is not positive.
        TypeError: the boxes are in half precision or integers.
    """
    _check_boxes(shared)
    _check_boxes(crop)
    if tokens < 1 or grid < 1:
        raise ValueError(f"expected at least 1 token and 1 bin per side, got tokens={tokens}, grid={grid}")
    x, x_valid = _axis_weights(shared[:, 0], shared[:, 2], crop[:, 0], crop[:, 2], tokens=tokens, grid=grid)
    y, y_valid = _axis_weights(shared[:, 1], shared[:, 3], crop[:, 1], crop[:, 3], tokens=tokens, grid=grid)
    x = torch.where(flip[:, None, None], x.flip(-1), x)
    return Resampling(y=y, x=x, valid=y_valid[:, :, None] & x_valid[:, None, :])


@in_float32
def resample(maps: Tensor, resampling: Resampling) -> Tensor:
    """Read token maps at the bins of a resampling.

    Args:
        maps: tokens of one view per pair, `(P, H, W, D)`.
        resampling: the weights of these views, with tokens = H = W.

    Returns:
        Tokens `(P, grid * grid, D)`, float32, row by row of the box.
    """
    y, x = resampling.y.to(maps.dtype), resampling.x.to(maps.dtype)
    rows = torch.einsum("pih,phwd->piwd", y, maps)
    return torch.einsum("pjw,piwd->pijd", x, rows).flatten(1, 2)


def sample_points(resampling: Resampling, crop: Tensor, flip: Tensor) -> Tensor:
    """Return where in the source image a resampling reads, as told by its weights.

    A bin reads at the weighted mean of the centres of the tokens it uses. This is exact at valid bins; at the
    others it is where the samples were clamped to.

    Args:
        resampling: the weights of one view.
        crop: the crops that the view shows, `(P, 4)` in pixels of the source image.
        flip: whether the view is mirrored left to right, `(P,)` bool.

    Returns:
        Points `(P, grid * grid, 2)` as x, y in pixels of the source image, float64.
    """
    x, y = _centres(resampling.x), _centres(resampling.y)
    x = torch.where(flip[:, None], 1 - x, x)
    box = crop.double()
    x = box[:, 0, None] + x * (box[:, 2] - box[:, 0])[:, None]
    y = box[:, 1, None] + y * (box[:, 3] - box[:, 1])[:, None]
    shape = resampling.valid.shape
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1).flatten(1, 2)


def align(
    student: Tensor,
    teacher: Tensor,
    student_crop: Tensor,
    teacher_crop: Tensor,
    student_flip: Tensor,
    teacher_flip: Tensor,
    *,
    grid: int,
) -> Aligned:
    """Resample the tokens of both views of each pair at the same source points.

    Args:
        student: token maps `(P, h, h, D)`, one view per pair.
        teacher: token maps `(P, H, H, D)` of the views they are compared with.
        student_crop: crops of the student's views, `(P, 4)` in pixels of the source image.
        teacher_crop: crops of the teacher's views, `(P, 4)`.
        student_flip: whether the student's view is mirrored, `(P,)` bool.
        teacher_flip: whether the teacher's view is mirrored, `(P,)` bool.
        grid: points per side of the shared box.

    Returns:
        Aligned tokens of both views and the points that are valid in both.

    Raises:
        ValueError: a token map is not square.
    """
    shared = shared_boxes(student_crop, teacher_crop)
    student_weights = resampling_weights(shared, student_crop, student_flip, tokens=_side(student), grid=grid)
    teacher_weights = resampling_weights(shared, teacher_crop, teacher_flip, tokens=_side(teacher), grid=grid)
    valid = (student_weights.valid & teacher_weights.valid).flatten(1)
    return Aligned(resample(student, student_weights), resample(teacher, teacher_weights), valid)


def _axis_weights(
    low: Tensor, high: Tensor, crop_low: Tensor, crop_high: Tensor, *, tokens: int, grid: int
) -> tuple[Tensor, Tensor]:
    """Return weights `(P, grid, tokens)` and validity `(P, grid)` of one axis of unflipped crops."""
    scale = tokens / (crop_high - crop_low)
    start = (low - crop_low) * scale
    bin_size = (high - low) * scale / grid
    offset, used = _bin_samples(bin_size, most=math.ceil(tokens / grid))

    bins = torch.arange(grid, device=low.device)
    position = start[:, None, None] + (bins[None, :, None] + offset[:, None, :]) * bin_size[:, None, None]
    index = position - 0.5  # 0 at the centre of the first token, tokens - 1 at the centre of the last
    inside = (index >= -TOLERANCE) & (index <= tokens - 1 + TOLERANCE)

    hats = _bilinear(index.clamp(0, tokens - 1), tokens) * used[:, None, :, None]
    valid = (inside | ~used[:, None, :]).all(dim=2) & (high > low)[:, None]
    return hats.sum(dim=2) / used.sum(dim=1)[:, None, None], valid


def _bin_samples(bin_size: Tensor, *, most: int) -> tuple[Tensor, Tensor]:
    """Return sample offsets in bins `(P, most)` and which are used: the first ceil(bin_size) of each pair.

    A box inside its crop never needs more than `most`, so shapes are static and nothing waits for the device.
    """
    count = torch.ceil(bin_size - TOLERANCE).clamp(1, most)[:, None]
    sample = torch.arange(most, device=bin_size.device)
    return (sample + 0.5) / count, sample < count


def _bilinear(index: Tensor, tokens: int) -> Tensor:
    """Return the linear interpolation weights `(..., tokens)` of fractional token indices `(...)`."""
    return (1 - (index[..., None] - torch.arange(tokens, device=index.device)).abs()).clamp_min(0)


def _centres(weights: Tensor) -> Tensor:
    """Return the weighted mean token centre of each bin `(P, grid)` in [0, 1] of the view's side, float64."""
    tokens = weights.shape[-1]
    centres = (torch.arange(tokens, device=weights.device, dtype=torch.float64) + 0.5) / tokens
    return weights.double() @ centres


def _side(maps: Tensor) -> int:
    """Return the side of square token maps `(P, H, H, D)`."""
    if maps.ndim != 4 or maps.shape[1] != maps.shape[2]:
        raise ValueError(f"expected square token maps (P, H, H, D) of square views, got {tuple(maps.shape)}")
    return maps.shape[1]


def _check_boxes(boxes: Tensor) -> None:
    """Raise unless the boxes are `(P, 4)` in a dtype that can tell pixels apart."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes (P, 4) as x0, y0, x1, y1, got shape {tuple(boxes.shape)}")
    if boxes.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 or float64 boxes, got {boxes.dtype}, which blurs source pixels")
