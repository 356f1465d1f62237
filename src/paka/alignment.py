"""Alignment of two kernels over the same tokens: centring, HSIC and centred kernel alignment (CKA).

Every estimator here is the cosine of the angle between two matrices. They differ in what is first taken out of
each kernel: its mean (biased), its mean and its diagonal (debiased), and also what the kernels of other images
hold (deconfounded). The cosine is taken per pair of views, or once over a batch.

Kernels of collapsed tokens have no direction. They are zero here, exactly, and align to 0 without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paka.collectives import largest_over_processes, sum_over_processes
from paka.distances import every_row, every_token
from paka.precision import in_float32

LEAST_UNBIASED = 4
"""Tokens below which the unbiased HSIC is not defined."""


@in_float32
def centre(kernel: Tensor, valid: Tensor | None = None, *, unbiased: bool = False) -> Tensor:
    """Return a kernel without its row and column means, over the n valid tokens of each image.

    Args:
        kernel: `(B, N, N)`, symmetric.
        valid: tokens that count, `(B, N)` bool; None for all.
        unbiased: False for `H K H` with `H = I - 1/n`. True for U-centring: the diagonal, where a token meets
            itself and noise meets the same noise, is left out, and inner products of such matrices are unbiased.

    Returns:
        `(B, N, N)` float32 whose rows and columns sum to 0; those of tokens that do not count are 0. All zero
        where nothing but rounding is left, and for fewer than 4 tokens if unbiased.

    Raises:
        ValueError: the kernel is not `(B, N, N)`, and nothing is said of `valid`.

    Source: Kornblith et al. 2019, equation 3; Szekely and Rizzo 2014 (arXiv 1310.2926), section 2.
    """
    valid = every_row(kernel) if valid is None else valid
    pairs = _pairs(valid)
    n = valid.sum(dim=1)[:, None, None]
    kernel = torch.where(pairs, kernel, 0)
    largest = kernel.detach().abs().amax(dim=(1, 2), keepdim=True)
    if unbiased:
        pairs = pairs & ~torch.eye(kernel.shape[1], dtype=torch.bool, device=kernel.device)
        pairs = pairs & (n >= LEAST_UNBIASED)
        kernel = torch.where(pairs, kernel, 0)
    rows = kernel.sum(dim=2, keepdim=True) / (n - 2 * int(unbiased)).clamp_min(1)
    columns = kernel.sum(dim=1, keepdim=True) / (n - 2 * int(unbiased)).clamp_min(1)
    mean = rows.sum(dim=1, keepdim=True) / (n - int(unbiased)).clamp_min(1)
    return _without_rounding(torch.where(pairs, kernel - rows - columns + mean, 0), largest)


@in_float32
def hsic(k: Tensor, l: Tensor, valid: Tensor | None = None, *, unbiased: bool = False) -> Tensor:  # noqa: E741 - K and L are the names in the literature
    """Return the Hilbert-Schmidt independence criterion of two kernels.

    Args:
        k: kernel `(B, N, N)`, symmetric.
        l: kernel `(B, N, N)` over the same tokens.
        valid: tokens that count, `(B, N)` bool; None for all.
        unbiased: False for `tr(K H L H) / (n - 1)^2`, whose bias is of order 1/n; True for the estimator without
            bias, in its form as an inner product of U-centred kernels over `n (n - 3)`.

    Returns:
        `(B,)` float32; 0 for fewer than two tokens, four if unbiased.

    Source: Gretton et al. 2005, equation 9; Song et al. 2012 (JMLR 13: Feature Selection via Dependence Maximization).
    """
    valid = every_row(k) if valid is None else valid
    inner = (centre(k, valid, unbiased=unbiased) * centre(l, valid, unbiased=unbiased)).sum(dim=(1, 2))
    return inner / _degrees(valid, unbiased=unbiased)


@in_float32
def cka(
    k_student: Tensor, k_teacher: Tensor, valid: Tensor | None = None, *, unbiased: bool = False
) -> Tensor:
    """Return the centred kernel alignment `HSIC(K_s, K_t) / sqrt(HSIC(K_s, K_s) HSIC(K_t, K_t))`.

    The biased one, the paper's, rises with the number of channels D: N independent tokens score about
    D / (D + N). With the unbiased HSIC they score 0.

    Args:
        k_student: kernel `(B, N, N)`, symmetric.
        k_teacher: kernel `(B, N, N)` over the same tokens.
        valid: tokens that count, `(B, N)` bool; None for all.
        unbiased: which HSIC, see `hsic`.

    Returns:
        `(B,)` float32, in [0, 1] for positive semi-definite kernels up to rounding, in [-1, 1] if unbiased. A
        collapsed side (all tokens alike, or too few valid) gives 0, and so is its gradient.

    Source: PaKA (arXiv 2509.05606); Cortes et al. 2012; Kornblith et al. 2019, equation 4.
    """
    return kernel_alignment(
        centre(k_student, valid, unbiased=unbiased), centre(k_teacher, valid, unbiased=unbiased)
    )


@in_float32
def deconfounded_cka(
    k_student: Tensor,
    k_teacher: Tensor,
    valid: Tensor | None = None,
    image: Tensor | None = None,
    bins: Tensor | None = None,
    *,
    unbiased: bool = False,
) -> Tensor:
    """Return the alignment of what is left of each centred kernel once the other images' mean is regressed out.

    Args:
        k_student: kernel `(P, N, N)`, symmetric, over a grid of points that means the same in all pairs.
        k_teacher: kernel `(P, N, N)` over the same tokens.
        valid: tokens that count, `(P, N)` bool; None for all.
        image: see `deconfound`; None where each pair is of an image of its own.
        bins: see `deconfound`.
        unbiased: see `centre`.

    Returns:
        `(P,)` float32 in [-1, 1]; a side on which nothing is left gives 0, and so is its gradient.

    Source: Cui et al. 2022 (arXiv 2202.00095), with the mean kernel of other images as the confounder.
    """
    valid = every_row(k_student) if valid is None else valid
    image = torch.arange(len(valid), device=valid.device) if image is None else image
    sides = (centre(kernel, valid, unbiased=unbiased) for kernel in (k_student, k_teacher))
    return kernel_alignment(*(deconfound(side, valid, image, bins, unbiased=unbiased) for side in sides))


@in_float32
def deconfound(
    centred: Tensor, valid: Tensor, image: Tensor, bins: Tensor | None = None, *, unbiased: bool = False
) -> Tensor:
    """Return what is left of each centred kernel once the mean kernel of the other images is regressed out.

    Near tokens resemble each other, and the same positions do so in every image. CKA rewards a student for that
    alone, up to its maximum; here it counts for nothing. Leaving out the whole image, not the pair, keeps the
    content that several pairs of an image share. The other images are those of all processes, which must call
    this together.

    Args:
        centred: centred kernels `(P, N, N)` over a grid of points that means the same in all pairs.
        valid: tokens that count, `(P, N)` bool.
        image: which image of the batch a pair belongs to, `(P,)` int64; each process has images of its own.
        bins: kind of each pair, `(P,)` int64 in [0, 8); only pairs of the same kind confound each other. The
            smaller a local, the more alike are its neighbouring tokens, so pairs are binned by scale.
        unbiased: whether the kernels are U-centred.

    Returns:
        `(P, N, N)` float32: the residuals of kernels of Frobenius norm 1, hence of norm up to 1. A pair without
        another image of its kind has no confounder and stays whole.

    Source: Cui et al. 2022 (arXiv 2202.00095).
    """
    unit = _unit(centred)
    confounder = _unit(mean_of_other_images(unit, valid, image, bins, unbiased=unbiased))
    left = unit - (unit * confounder).sum(dim=(1, 2), keepdim=True) * confounder
    return _without_rounding(left, torch.ones_like(left[:, :1, :1]))


BINS = 8
"""Largest number of kinds of pairs."""


@in_float32
def mean_of_other_images(
    unit: Tensor, valid: Tensor, image: Tensor, bins: Tensor | None = None, *, unbiased: bool = False
) -> Tensor:
    """Return the centred mean over other images' pairs of the same kind; arguments as for `deconfound`."""
    kind, kinds = (torch.zeros_like(image), 1) if bins is None else (bins, BINS)
    other = ((image[:, None] != image) & (kind[:, None] == kind)).to(unit.dtype)
    member = (torch.arange(kinds, device=kind.device)[:, None] == kind).to(unit.dtype)
    sums = []
    for values in (unit, _pairs(valid).to(unit.dtype)):
        here = torch.einsum("kq,qnm->knm", member, values)
        elsewhere = sum_over_processes(here) - here
        sums.append(
            torch.einsum("pq,qnm->pnm", other, values) + torch.einsum("kp,knm->pnm", member, elsewhere)
        )
    return centre(sums[0] / sums[1].clamp_min(1), valid, unbiased=unbiased)


@in_float32
@torch.no_grad()
def locality(
    k_student: Tensor,
    k_teacher: Tensor,
    valid: Tensor,
    image: Tensor,
    bins: Tensor | None = None,
    *,
    unbiased: bool = False,
) -> Tensor:
    """Return the part of each CKA that the mean of the teacher's kernels of other images explains.

    With c that mean kernel at norm 1, `<K_s, K_t> = <K_s, c> <c, K_t> + the product of what is left`; this is the
    first term.

    Args:
        k_student: kernel `(P, N, N)`, symmetric, over a grid of points that means the same in all pairs.
        k_teacher: kernel `(P, N, N)` over the same tokens.
        valid: tokens that count, `(P, N)` bool.
        image: see `deconfound`.
        bins: see `deconfound`.
        unbiased: see `centre`.

    Returns:
        `(P,)` float32 in [-1, 1], without gradient; 0 for a pair without another image of its kind.
    """
    student, teacher = (_unit(centre(kernel, valid, unbiased=unbiased)) for kernel in (k_student, k_teacher))
    mean = _unit(mean_of_other_images(teacher, valid, image, bins, unbiased=unbiased))
    return (student * mean).sum(dim=(1, 2)) * (mean * teacher).sum(dim=(1, 2))


@in_float32
def kernel_alignment(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 - K and L are the names in the literature
    """Return the cosine of the angle between two kernels, `<K, L> / (|K| |L|)` in the Frobenius product.

    Each is first brought to unit norm, so that the scale of the tokens, squared in K and once more in the
    product, cannot leave the range of float32.

    Args:
        k: kernel `(B, N, N)`.
        l: kernel `(B, N, N)`.

    Returns:
        `(B,)` float32 in [-1, 1]; 0 without gradient for a kernel of zeros.

    Source: Cristianini et al. 2001.
    """
    return (_unit(k) * _unit(l)).sum(dim=(1, 2))


@in_float32
def pooled_alignment(
    student: Tensor, teacher: Tensor, valid: Tensor, weight: Tensor, *, unbiased: bool = False
) -> Tensor:
    """Return the ratio of mean HSICs, in place of the mean of their ratios.

    Pairs whose kernels hold little, such as a patch of sky, then weigh little. The means run over the pairs of all
    processes, which must call this together.

    Args:
        student: centred or deconfounded kernels `(P, N, N)`.
        teacher: likewise, over the same tokens.
        valid: tokens that count, `(P, N)` bool.
        weight: weight of each pair, `(P,)`, at least 0.
        unbiased: which HSIC the kernels were centred for.

    Returns:
        A scalar, float32 in [-1, 1]; 0 without gradient when one side is all zero.

    Source: Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327), minibatch CKA.
    """
    weight = (weight / _degrees(valid, unbiased=unbiased)).to(student.dtype)
    # One factor for all pairs: it changes no ratio, and squares stay in the range of float32.
    s, t = (side / _positive(largest_over_processes(_peak(side[None])[0])) for side in (student, teacher))
    terms = torch.stack([(a * b).sum(dim=(1, 2)) @ weight for a, b in ((s, t), (s, s), (t, t))])
    cross, first, second = sum_over_processes(terms).unbind()
    collapsed = (first <= 0) | (second <= 0)
    return torch.where(collapsed, 0, cross / torch.where(collapsed, 1, first * second).sqrt())


@in_float32
def feature_cka(
    student: Tensor, teacher: Tensor, valid: Tensor | None = None, *, unbiased: bool = False
) -> Tensor:
    """Return `cka` of the kernels `F F^T` of centred features, without forming them.

    The same numbers from matrices of M x M instead of N x N entries: the form for more tokens than channels.

    Args:
        student: features `(B, N, M)` of mean 0 over the valid tokens, 0 at the others, as
            `paka.kernels.linear.features` makes them.
        teacher: features `(B, N, L)` likewise.
        valid: tokens that count, `(B, N)` bool; None for all.
        unbiased: which HSIC, see `hsic`.

    Returns:
        `(B,)` float32, as `cka`.

    Source: Kornblith et al. 2019, section 3; the unbiased form follows from Song et al. 2012, for
    kernels whose rows sum to 0.
    """
    valid = every_token(student) if valid is None else valid
    x, y = (side / _positive(_peak(side)[:, None, None]) for side in (student, teacher))
    cross, first, second = (
        _feature_product(a, b, valid, unbiased=unbiased) for a, b in ((x, y), (x, x), (y, y))
    )
    # The largest entry is 1, so the squared norm of the kernel is above 1 / M unless all is zero.
    floor = x.shape[1] * torch.finfo(x.dtype).eps
    collapsed = (first <= floor * _feature_product(x, x, valid, unbiased=False)) | (
        second <= floor * _feature_product(y, y, valid, unbiased=False)
    )
    return torch.where(collapsed, 0, cross / torch.where(collapsed, 1, first * second).sqrt())


def _feature_product(x: Tensor, y: Tensor, valid: Tensor, *, unbiased: bool) -> Tensor:
    """Return the Frobenius product of the centred, or U-centred, kernels of centred features."""
    biased = (x.transpose(1, 2) @ y).square().sum(dim=(1, 2))
    if not unbiased:
        return biased
    a, b = x.square().sum(dim=2), y.square().sum(dim=2)
    n = valid.sum(dim=1).to(x.dtype)
    below, pairs = (n - 2).clamp_min(1), ((n - 1) * (n - 2)).clamp_min(1)
    product = biased - n / below * (a * b).sum(dim=1) + a.sum(dim=1) * b.sum(dim=1) / pairs
    return torch.where(n >= LEAST_UNBIASED, product, 0)


def _pairs(valid: Tensor) -> Tensor:
    """Return which entries of a kernel count, `(B, N, N)` bool."""
    return valid[:, :, None] & valid[:, None, :]


def _degrees(valid: Tensor, *, unbiased: bool) -> Tensor:
    """Return what turns the product of two centred kernels into their HSIC, `(B,)`, at least 1."""
    n = valid.sum(dim=1)
    return (n * (n - 3) if unbiased else (n - 1).square()).clamp_min(1)


def _peak(values: Tensor) -> Tensor:
    """Return the largest magnitude per image, `(B,)`, without gradient."""
    magnitudes = values.detach().abs().flatten(1)
    return torch.nn.functional.pad(magnitudes, (0, 1)).amax(dim=1)  # an empty image has 0


def _positive(scale: Tensor) -> Tensor:
    """Return `scale`, with 1 in place of 0."""
    return torch.where(scale > 0, scale, 1)


def _without_rounding(kernel: Tensor, scale: Tensor) -> Tensor:
    """Return `kernel`, or zero where all of it is rounding of numbers as large as `scale`, `(B, 1, 1)`."""
    rounding = kernel.shape[1] * torch.finfo(kernel.dtype).eps * scale
    return torch.where(_peak(kernel)[:, None, None] > rounding, kernel, 0)


def _unit(kernel: Tensor) -> Tensor:
    """Return `kernel` at Frobenius norm 1, or zero where it is."""
    # The largest entry becomes 1, so the norm is at least 1 and needs no epsilon.
    scaled = kernel / _positive(_peak(kernel)[:, None, None])
    return scaled / scaled.square().sum(dim=(1, 2), keepdim=True).clamp_min(1).sqrt()
