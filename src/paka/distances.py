"""Centred tokens, their inner products and distances, and the bandwidths that distances are measured in.

What kernels are made of; a kernel sees to the precision with `paka.precision.in_float32`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from paka.precision import in_float32

BandwidthRule = Literal["median", "median_per_side", "fixed"]
"""The unit of `bandwidth`: the median distance of the image's `reference`, that of its `tokens`, or 1.

Medians are taken over different valid tokens and carry no gradient. A `bandwidth` that is a number has to be
above 0; one that is a 0-d tensor is not looked at, as that would wait for the device.
"""


def every_token(tokens: Tensor) -> Tensor:
    """Return that all tokens (B, N, D) count, `(B, N)` bool: what stands for `valid` where nothing is said.

    Raises:
        ValueError: the tokens are not `(B, N, D)`.
    """
    if tokens.ndim != 3:
        raise ValueError(
            f"expected tokens (B, N, D), got shape {tuple(tokens.shape)}: give one image as tokens[None], a map "
            "(B, h, w, D) as tokens.flatten(1, 2)"
        )
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


def every_row(kernel: Tensor) -> Tensor:
    """Return that all tokens of kernels (B, N, N) count, `(B, N)` bool.

    Raises:
        ValueError: the kernels are not `(B, N, N)`.
    """
    if kernel.ndim != 3 or kernel.shape[1] != kernel.shape[2]:
        raise ValueError(
            f"expected kernels (B, N, N), got shape {tuple(kernel.shape)}: make them of tokens (B, N, D) with a "
            "function of paka.kernels, as linear(tokens)"
        )
    return every_token(kernel)


def distances(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
) -> Tensor:
    """Return `|z_i - z_j| / sigma`, with gradient zero where it is zero; otherwise as `squared_distances`."""
    squared = squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule)
    # The root of zero has no derivative, and one `where` would still multiply its infinity by zero.
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)


@in_float32
def squared_distances(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
) -> Tensor:
    """Return `|z_i - z_j|^2 / sigma^2`, exactly zero where rounding cannot tell the distance from zero.

    Args:
        tokens: `(B, N, D)`.
        reference: the teacher's tokens `(B, N, D)`; None for the tokens themselves.
        valid: tokens that count, `(B, N)` bool; None for all.
        bandwidth: above 0, in the unit of the rule.
        bandwidth_rule: how sigma is made from it, see `BandwidthRule`.

    Returns:
        `(B, N, N)` float32 of at least 0.

    Raises:
        ValueError: the bandwidth is a number that is not above 0, or the rule is unknown.
    """
    sigma = sigmas(tokens, reference, valid, bandwidth, bandwidth_rule)
    # One by one, as the square of a small sigma may not be a number above 0 any more.
    return _squared(tokens, valid) / sigma / sigma


def sigmas(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
) -> Tensor:
    """Return the bandwidth of each image in token units, `(B, 1, 1)`; arguments as `squared_distances`."""
    if not isinstance(bandwidth, Tensor) and not bandwidth > 0:
        raise ValueError(f"expected a kernel bandwidth above 0, got {bandwidth}")
    if bandwidth_rule == "median":
        unit = median_distance(tokens if reference is None else reference, valid)
    elif bandwidth_rule == "median_per_side":
        unit = median_distance(tokens, valid)
    elif bandwidth_rule == "fixed":
        unit = tokens.new_ones(len(tokens))
    else:
        raise ValueError(
            f"expected a bandwidth_rule out of {', '.join(get_args(BandwidthRule))}, got {bandwidth_rule!r}"
        )
    return (bandwidth * unit)[:, None, None]


@in_float32
@torch.no_grad()
def median_distance(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the median Euclidean distance between different valid tokens of each image.

    Where more than half of the distances vanish, the result is the smallest distance that rounding can tell
    from zero; where all do, or there are fewer than two tokens, it is 1.

    Args:
        tokens: `(B, N, D)`.
        valid: tokens that count, `(B, N)` bool; None for all.

    Returns:
        `(B,)` float32 above 0, without gradient.
    """
    valid = every_token(tokens) if valid is None else valid
    different = ~torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    pairs = (valid[:, :, None] & valid[:, None, :] & different).flatten(1)
    squared = _squared(tokens, valid).flatten(1)

    # The other entries are sorted to the end; the middle is gathered, as its place differs per image.
    ordered = torch.where(pairs, squared, torch.inf).sort(dim=1).values
    count = pairs.sum(dim=1, keepdim=True)
    middle = torch.cat([(count - 1) // 2, count // 2], dim=1).clamp_min(0)
    median = ordered.gather(1, middle).sqrt().mean(dim=1)

    largest = torch.where(pairs, squared, 0).amax(dim=1)
    median = torch.maximum(median, (_rounding(tokens) * largest).sqrt())
    return torch.where((median > 0) & median.isfinite(), median, 1)


def _squared(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Return `|z_i - z_j|^2`, `(B, N, N)`, exactly zero on the diagonal and wherever rounding hides it."""
    products = gram(centred(tokens, valid))
    norms = products.diagonal(dim1=1, dim2=2)
    total = norms[:, :, None] + norms[:, None, :]
    squared = total - 2 * products
    return torch.where(squared > _rounding(tokens) * total, squared, 0)


def _rounding(tokens: Tensor) -> float:
    """Return the relative error of an inner product of tokens `(B, N, D)`: errors of D terms, at random."""
    return math.sqrt(tokens.shape[2]) * torch.finfo(tokens.dtype).eps


def gram(tokens: Tensor) -> Tensor:
    """Return the inner products `(B, N, N)` of tokens `(B, N, D)`."""
    return tokens @ tokens.transpose(1, 2)


def centred(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Subtract the mean of the valid tokens; the others become zero.

    Equal tokens become exactly zero: what the rounding of their mean leaves behind would look like structure
    to anything that is invariant to scale.

    Args:
        tokens: `(B, N, D)`.
        valid: tokens that count, `(B, N)` bool; None for all.

    Returns:
        `(B, N, D)` float32.
    """
    mask = (every_token(tokens) if valid is None else valid)[:, :, None]
    tokens = torch.where(mask, tokens, 0)
    mean = tokens.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp_min(1)
    remaining = torch.where(mask, tokens - mean, 0)
    rounding = tokens.shape[1] * torch.finfo(tokens.dtype).eps * _largest(tokens)
    return torch.where(_largest(remaining) > rounding, remaining, 0)


def unit(tokens: Tensor) -> Tensor:
    """Return tokens `(B, N, D)` at norm 1; those whose norm is zero, or next to it in their image, stay so."""
    norm = torch.linalg.vector_norm(tokens, dim=2, keepdim=True)
    limits = torch.finfo(norm.dtype)
    floor = (limits.eps * norm.detach().amax(dim=1, keepdim=True)).clamp_min(limits.tiny)
    units: Tensor = tokens / norm.clamp(min=floor)
    return units


def _largest(values: Tensor) -> Tensor:
    """Return the largest magnitude per image, `(B, 1, 1)`, without gradient."""
    return values.detach().abs().amax(dim=(1, 2), keepdim=True)
