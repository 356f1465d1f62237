"""Differentiable sorting: a sorting network whose comparators swap by degrees."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from paka.precision import in_float32

ROWS = 512
"""Rows sorted at a time. Only these keep the states of all layers, and small states stay in the cache."""


@in_float32
def soft_permutation(values: Tensor, steepness: float) -> Tensor:
    """Return the soft permutation matrix that sorts `values` in ascending order.

    Each comparator keeps the order of its inputs a, b to the degree `1/2 + atan(steepness * (b - a)) / pi`, the
    Cauchy distribution function, and mixes them accordingly. Gradients reach all values, however far apart.

    Args:
        values: `(..., n)`, any n from 1 on.
        steepness: Inverse temperature, over 0, in units of one over the values. The larger, the harder.

    Returns:
        `(..., n, n)` float32. Row r holds the weights with which each value is the r-th smallest. Rows and columns
        sum to 1. Only the input is kept for the backward pass, which sorts again.

    Source: Petersen et al. 2021 (arXiv 2105.04019), with the comparator of Petersen et al. 2022 (arXiv 2203.09630).
    """
    n = values.shape[-1]
    partners = [_partners(step, n, values.device) for step in merge_exchange(n)]
    permutations = [
        checkpoint(_sort, rows, partners, steepness, use_reentrant=False, preserve_rng_state=False)
        for rows in values.reshape(-1, n).split(ROWS)
    ]
    return torch.cat(permutations).view(*values.shape, n)


@functools.cache
def merge_exchange(n: int) -> tuple[tuple[int, int, int], ...]:
    """Return the layers of Batcher's odd-even merge sorting network for n inputs.

    Each layer is a triple (bit, residue, distance): position i is compared with i + distance, the smaller value
    going to i, wherever `i & bit == residue` and `i + distance < n`. Comparators of a layer share no position.

    Args:
        n: Number of inputs; it need not be a power of two.

    Returns:
        `t (t + 1) / 2` layers with `t = ceil(log2(n))`: 10 for 16 inputs, 21 for 49.

    Source: Batcher 1968; in this form Knuth, The Art of Computer Programming 3, algorithm 5.2.2M.
    """
    layers = []
    top = 1 << max((n - 1).bit_length() - 1, 0)
    bit = top if n > 1 else 0
    while bit:
        reach, residue, distance = top, 0, bit
        while reach >= bit:
            layers.append((bit, residue, distance))
            distance, residue, reach = reach - bit, bit, reach // 2
        bit //= 2
    return tuple(layers)


def _partners(layer: tuple[int, int, int], n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return per position its partner, `(n,)` int64, and 1 or, where it takes the larger value, -1.

    A position without a comparator is its own partner. Made on the device, as a copy would wait for it; tensors
    are not cached, since those of inference mode could not be used in training.
    """
    bit, residue, distance = layer
    position = torch.arange(n, device=device)
    smaller = (position & bit).eq(residue) & (position < n - distance)
    larger = smaller.roll(distance)
    return position + distance * smaller.long() - distance * larger.long(), 1 - 2 * larger.long()


def _sort(values: Tensor, partners: list[tuple[Tensor, Tensor]], steepness: float) -> Tensor:
    """Send values `(rows, n)` through the layers and return what each output is made of, `(rows, n, n)`."""
    n = values.shape[1]
    weights = torch.eye(n, dtype=values.dtype, device=values.device).expand(len(values), n, n)
    for partner, sign in partners:
        other = values.index_select(1, partner)
        # Without a comparator both are the same value, and any mixture of them is that value.
        keep = torch.atan(steepness * sign * (other - values)) / math.pi + 0.5
        values = torch.lerp(other, values, keep)
        weights = torch.lerp(weights.index_select(1, partner), weights, keep[:, :, None])
    return weights
