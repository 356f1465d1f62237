"""Alignment of two kernels over the same tokens: centring, HSIC and centred kernel alignment (CKA)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from paka.precision import in_float32


@in_float32
def centre(kernel: Tensor, valid: Tensor) -> Tensor:
    """Return `H K H` with `H = I - 1/n`, over the n valid tokens of each image.

    Args:
        kernel: `(B, N, N)`.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B, N, N)` float32 whose rows and columns sum to 0; those of tokens that do not count are 0.

    Source: Kornblith et al. 2019, equation 3.
    """
    pairs = valid[:, :, None] & valid[:, None, :]
    n = valid.sum(dim=1).clamp_min(1)[:, None, None]
    kernel = torch.where(pairs, kernel, 0)
    rows = kernel.sum(dim=2, keepdim=True) / n
    columns = kernel.sum(dim=1, keepdim=True) / n
    mean = rows.sum(dim=1, keepdim=True) / n
    return torch.where(pairs, kernel - rows - columns + mean, 0)


@in_float32
def hsic(k: Tensor, l: Tensor, valid: Tensor) -> Tensor:  # noqa: E741 - K and L are the names in the literature
    """Return the biased Hilbert-Schmidt independence criterion `tr(K H L H) / (n - 1)^2`.

    Args:
        k: kernel `(B, N, N)`, symmetric.
        l: kernel `(B, N, N)` over the same tokens.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B,)` float32, 0 for fewer than two tokens.

    Source: Gretton et al. 2005, equation 9.
    """
    n = valid.sum(dim=1)
    return (centre(k, valid) * centre(l, valid)).sum(dim=(1, 2)) / (n - 1).clamp_min(1).square()


@in_float32
def cka(k_student: Tensor, k_teacher: Tensor, valid: Tensor) -> Tensor:
    """Return the centred kernel alignment `HSIC(K_s, K_t) / sqrt(HSIC(K_s, K_s) HSIC(K_t, K_t))`, biased.

    This is the cosine of the angle between the two centred kernels, and is computed as such: each is first
    brought to unit Frobenius norm, so that the scale of the tokens, squared in K and once more in HSIC,
    cannot leave the range of float32.

    Args:
        k_student: kernel `(B, N, N)`, symmetric.
        k_teacher: kernel `(B, N, N)` over the same tokens.
        valid: tokens that count, `(B, N)` bool.

    Returns:
        `(B,)` float32, in [0, 1] for positive semi-definite kernels up to rounding. A collapsed side (all
        tokens alike, or fewer than two valid) has no direction: CKA is 0 and so is its gradient.

    Source: PaKA (arXiv 2509.05606); Cortes et al. 2012; Kornblith et al. 2019, equation 4.
    """
    return (_unit_centred(k_student, valid) * _unit_centred(k_teacher, valid)).sum(dim=(1, 2))


@in_float32
def deconfounded_cka(k_student: Tensor, k_teacher: Tensor, valid: Tensor, image: Tensor) -> Tensor:
    """Return the alignment of what is left of each centred kernel once the other images' mean is regressed out.

    Near tokens resemble each other, and the same positions do so in every image. Biased CKA rewards a student for
    that alone, up to its maximum; here it counts for nothing. Leaving out the whole image, not the pair, keeps the
    content of an image that several pairs share. The other images are those of all processes, which must call this
    together.

    Args:
        k_student: kernel `(P, N, N)`, symmetric, over a grid of points that means the same in all pairs.
        k_teacher: kernel `(P, N, N)` over the same tokens.
        valid: tokens that count, `(P, N)` bool.
        image: which image of the batch a pair belongs to, `(P,)` int64; each process has images of its own.

    Returns:
        `(P,)` float32 in [-1, 1]; a side on which nothing is left gives 0, and so is its gradient. Undefined
        for pairs of a single image, which keep their biased CKA.

    Source: Cui et al. 2022 (arXiv 2202.00095), with the mean kernel of other images as the confounder.
    """
    student = _without_confounder(_unit_centred(k_student, valid), valid, image)
    teacher = _without_confounder(_unit_centred(k_teacher, valid), valid, image)
    return (student * teacher).sum(dim=(1, 2))


def _without_confounder(kernel: Tensor, valid: Tensor, image: Tensor) -> Tensor:
    """Regress the mean of the other images' kernels out of each centred unit kernel (P, N, N)."""
    other = (image[:, None] != image).to(kernel.dtype)
    entries = (valid[:, :, None] & valid[:, None, :]).to(kernel.dtype)
    total = torch.einsum("pq,qnm->pnm", other, kernel) + _elsewhere(kernel.sum(dim=0))
    count = torch.einsum("pq,qnm->pnm", other, entries) + _elsewhere(entries.sum(dim=0))
    mean = total / count.clamp_min(1)
    confounder = _unit_centred(mean, valid)
    left = kernel - (kernel * confounder).sum(dim=(1, 2), keepdim=True) * confounder
    return _unit(left, torch.ones_like(left[:, :1, :1]))


def _elsewhere(local: Tensor) -> Tensor:
    """Return the sum over the other processes of a tensor that each has; gradients find their way back to them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return torch.zeros_like(local)
    everywhere: Tensor = all_reduce(local)
    return everywhere - local


def _unit_centred(kernel: Tensor, valid: Tensor) -> Tensor:
    """Return the centred kernel at Frobenius norm 1, or zero where only rounding is left of it."""
    before = torch.where(valid[:, :, None] & valid[:, None, :], kernel.detach(), 0)
    return _unit(centre(kernel, valid), before.abs().amax(dim=(1, 2), keepdim=True))


def _unit(kernel: Tensor, scale: Tensor) -> Tensor:
    """Return `kernel` at Frobenius norm 1, or zero where all of it is rounding of numbers as large as `scale`."""
    largest = kernel.detach().abs().amax(dim=(1, 2), keepdim=True)
    rounding = kernel.shape[1] * torch.finfo(kernel.dtype).eps * scale

    # The largest entry becomes 1, so the norm is at least 1 and needs no epsilon; over infinity all become 0.
    scaled = kernel / torch.where(largest > rounding, largest, torch.inf)
    return scaled / scaled.square().sum(dim=(1, 2), keepdim=True).clamp_min(1).sqrt()
