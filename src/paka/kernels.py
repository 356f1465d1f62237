"""Kernels: pairwise similarities `(B, N, N)` of the N tokens `(B, N, D)` of one image.

A kernel is only ever compared after centring, so each is returned up to terms that centring removes. That
costs nothing and keeps its digits: linear and cosine are Gram matrices of *centred* tokens, and RBF is
`exp(...) - 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from paka.precision import in_float32

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`kernel(tokens (B, N, D), reference (B, N, D), valid (B, N) bool) -> (B, N, N)`.

`reference` holds the teacher's tokens, detached: what is measured on data, like a bandwidth, is measured
there and so is the same for both sides. Entries of tokens that are not valid carry no meaning, but are
finite.
"""


@in_float32
def linear(tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Return the linear kernel `<z_i, z_j>` of centred tokens, the paper's.

    Args:
        tokens: `(B, N, D)`.
        reference: not used.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B, N, N)` float32.

    Source: PaKA (arXiv 2509.05606); Kornblith et al. 2019, section 3.
    """
    del reference
    return _gram(_centred(tokens, valid))


@in_float32
def cosine(tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Return the linear kernel of unit tokens, `<z_i, z_j> / (|z_i| |z_j|)` up to centring.

    Each token counts the same, whatever its norm; a token of zeros has no direction and stays at zero.

    Args:
        tokens: `(B, N, D)`.
        reference: not used.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B, N, N)` float32.
    """
    del reference
    tokens = torch.where(valid[:, :, None], tokens, 0)
    norm = torch.linalg.vector_norm(tokens, dim=2, keepdim=True)
    limits = torch.finfo(norm.dtype)
    floor = (limits.eps * norm.detach().amax(dim=1, keepdim=True)).clamp_min(limits.tiny)
    return _gram(_centred(tokens / norm.clamp(min=floor), valid))


@in_float32
def rbf(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float = 1.0,
    bandwidth_rule: Literal["median", "fixed"] = "median",
) -> Tensor:
    """Return the Gaussian kernel `exp(-|z_i - z_j|^2 / (2 sigma^2)) - 1`.

    Args:
        tokens: `(B, N, D)`.
        reference: tokens `(B, N, D)` whose median distance sets sigma under the median rule, detached.
        valid: tokens that count, `(B, N)` bool.
        bandwidth: above 0; in median distances, or in token units under the fixed rule.
        bandwidth_rule: "median" is `sigma = bandwidth * median`, per image; "fixed" is `sigma = bandwidth`.

    Returns:
        `(B, N, N)` float32 in [-1, 0].

    Raises:
        ValueError: the bandwidth is not above 0, or the rule is unknown.

    Source: PaKA (arXiv 2509.05606); Kornblith et al. 2019, section 3.
    """
    if not bandwidth > 0:
        raise ValueError(f"expected a kernel bandwidth above 0, got {bandwidth}")
    if bandwidth_rule not in ("median", "fixed"):
        raise ValueError(f"expected bandwidth_rule 'median' or 'fixed', got {bandwidth_rule!r}")
    exponent = _squared_distances(tokens, valid) / (2 * bandwidth**2)
    if bandwidth_rule == "median":
        exponent = exponent / median_distance(reference, valid).square()[:, None, None]
    # Wide kernels differ from 1 by less than float32 resolves there, and centring would drop the 1 anyway.
    return torch.expm1(-exponent)


@in_float32
@torch.no_grad()
def median_distance(tokens: Tensor, valid: Tensor) -> Tensor:
    """Return the median Euclidean distance between different valid tokens of each image.

    Where more than half of the distances vanish, the result is the smallest distance that rounding can tell
    from zero; where all do, or there are fewer than two tokens, it is 1.

    Args:
        tokens: `(B, N, D)`.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B,)` float32 above 0, without gradient.
    """
    different = ~torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    pairs = (valid[:, :, None] & valid[:, None, :] & different).flatten(1)
    squared = _squared_distances(tokens, valid).flatten(1)

    # The other entries are sorted to the end; the middle is gathered, as its place differs per image.
    ordered = torch.where(pairs, squared, torch.inf).sort(dim=1).values
    count = pairs.sum(dim=1, keepdim=True)
    middle = torch.cat([(count - 1) // 2, count // 2], dim=1).clamp_min(0)
    median = ordered.gather(1, middle).sqrt().mean(dim=1)

    largest = torch.where(pairs, squared, 0).amax(dim=1)
    median = torch.maximum(median, (torch.finfo(squared.dtype).eps * largest).sqrt())
    return torch.where((median > 0) & median.isfinite(), median, 1)


def _squared_distances(tokens: Tensor, valid: Tensor) -> Tensor:
    """Return `|z_i - z_j|^2`, `(B, N, N)`, exactly zero on the diagonal."""
    gram = _gram(_centred(tokens, valid))
    norms = gram.diagonal(dim1=1, dim2=2)
    return (norms[:, :, None] + norms[:, None, :] - 2 * gram).clamp_min(0)


def _gram(tokens: Tensor) -> Tensor:
    """Return the inner products `(B, N, N)` of tokens `(B, N, D)`."""
    return tokens @ tokens.transpose(1, 2)


def _centred(tokens: Tensor, valid: Tensor) -> Tensor:
    """Subtract the mean of the valid tokens; the others become zero.

    Equal tokens become exactly zero: what the rounding of their mean leaves behind would look like structure
    to anything that is invariant to scale.
    """
    mask = valid[:, :, None]
    tokens = torch.where(mask, tokens, 0)
    mean = tokens.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp_min(1)
    centred = torch.where(mask, tokens - mean, 0)
    rounding = tokens.shape[1] * torch.finfo(tokens.dtype).eps * _largest(tokens)
    return torch.where(_largest(centred) > rounding, centred, 0)


def _largest(values: Tensor) -> Tensor:
    """Return the largest magnitude per image, `(B, 1, 1)`, without gradient."""
    return values.detach().abs().amax(dim=(1, 2), keepdim=True)
