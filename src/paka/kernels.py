"""Kernels: pairwise similarities `(B, N, N)` of the N tokens `(B, N, D)` of one image.

A kernel is only ever compared after centring, so each is returned up to terms that centring removes. That
costs nothing and keeps its digits: Gram matrices are those of *centred* features, and what is 1 at distance
zero is returned less 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, Protocol, cast

import torch
from torch import Tensor, distributed, nn

from paka.distances import (
    BandwidthRule,
    centred,
    distances,
    gram,
    median_distance,
    sigmas,
    squared_distances,
    unit,
)
from paka.precision import in_float32

P = ParamSpec("P")

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`kernel(tokens (B, N, D), reference (B, N, D), valid (B, N) bool) -> (B, N, N)`.

`reference` holds the teacher's tokens, detached: what is measured on data, like a bandwidth, is measured
there and so is the same for both sides. An objective calls its kernel once per step, with the sides stacked
along the batch, `tokens = cat([student, teacher])` and `reference = cat([teacher, teacher])`: a kernel with
state moves once and gives both sides the same value.

The result is float32 (float64 for float64 tokens), finite, and zero where all valid tokens are alike.
Entries of tokens that are not valid carry no meaning, but are finite.
"""


class ExplicitKernel(Protocol[P]):
    """A kernel with its feature map `features(tokens, reference, valid, ...) -> (B, N, M)`."""

    features: Callable[Concatenate[Tensor, Tensor, Tensor, P], Tensor]

    def __call__(
        self, tokens: Tensor, reference: Tensor, valid: Tensor, *args: P.args, **kwargs: P.kwargs
    ) -> Tensor:
        """Return the Gram matrix of the features, `(B, N, N)`."""
        ...


def explicit(features: Callable[Concatenate[Tensor, Tensor, Tensor, P], Tensor]) -> ExplicitKernel[P]:
    """Make a feature map into the kernel of its inner products; the map stays at hand as `.features`.

    Args:
        features: `features(tokens, reference, valid, ...) -> (B, N, M)`, centred over the valid tokens and zero
            at the others.
    """
    mapped = in_float32(features)

    @in_float32
    @functools.wraps(features)
    def kernel(tokens: Tensor, reference: Tensor, valid: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return gram(mapped(tokens, reference, valid, *args, **kwargs))

    with_map = cast(ExplicitKernel[P], kernel)
    with_map.features = mapped
    return with_map


def feature_map(kernel: Kernel) -> Kernel | None:
    """Return the feature map `(tokens, reference, valid) -> (B, N, M)` of an explicit kernel, or None.

    The arguments of a `functools.partial` around the kernel are those of the map as well.
    """
    if not isinstance(kernel, functools.partial):
        return cast("Kernel | None", getattr(kernel, "features", None))
    features = feature_map(kernel.func)
    return None if features is None else functools.partial(features, *kernel.args, **kernel.keywords)


@explicit
def linear(tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Linear kernel `<z_i, z_j>` of centred tokens, the paper's; its features `(B, N, D)` are those tokens.

    Source: PaKA (arXiv 2509.05606); Kornblith et al. 2019, section 3.
    """
    del reference
    return centred(tokens, valid)


@explicit
def cosine(tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Linear kernel of unit tokens, `<z_i, z_j> / (|z_i| |z_j|)`; its features `(B, N, D)` are those, centred.

    Each token counts the same, whatever its norm; a token of zeros has no direction and stays at zero. The
    tokens are not centred before: a common offset changes the result.
    """
    del reference
    return centred(unit(torch.where(valid[:, :, None], tokens, 0)), valid)


@in_float32
def polynomial(
    tokens: Tensor, reference: Tensor, valid: Tensor, *, degree: int = 2, offset: float = 1.0
) -> Tensor:
    """Return the polynomial kernel `(<z_i, z_j> + offset)^degree - offset^degree`.

    The tokens z are centred and divided by their root-mean-square norm over the image, so that neither a
    common offset nor the scale of the tokens changes the result, and `offset`, at least 0, weighs the low
    powers alike at any scale.

    Raises:
        ValueError: the degree is under 1 or the offset under 0.
    """
    if degree < 1 or not offset >= 0:
        raise ValueError(
            f"expected a degree of at least 1 and an offset of at least 0, got {degree}, {offset}"
        )
    del reference
    z = centred(tokens, valid)
    mean_square = z.square().sum(dim=(1, 2), keepdim=True) / valid.sum(dim=1).clamp_min(1)[:, None, None]
    products = gram(z / torch.where(mean_square > 0, mean_square, 1).sqrt())

    # Horner's scheme on the binomial expansion without its constant term, which would cost the small powers digits.
    result = torch.zeros_like(products)
    for power in range(degree, 0, -1):
        result = (result + math.comb(degree, power) * offset ** (degree - power)) * products
    return result


@in_float32
def arc_cosine(tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Return the arc-cosine kernel of order 1, `|z_i| |z_j| (sin t + (pi - t) cos t) / pi` with t their angle.

    It is the kernel of a wide layer of rectified linear units. The tokens are centred; it needs no bandwidth
    and scales with their square.

    Source: Cho & Saul 2009, section 2.
    """
    del reference
    z = centred(tokens, valid)
    norm: Tensor = torch.linalg.vector_norm(z, dim=2)

    # Where tokens are parallel the angle has no derivative, but there that of the cosine is zero.
    limit = 1 - torch.finfo(z.dtype).eps
    cos = gram(unit(z)).clamp(-limit, limit)
    angle = cos.acos()
    order_1 = angle.sin() + (math.pi - angle) * cos
    return norm[:, :, None] * norm[:, None, :] * order_1 / math.pi


@in_float32
def rbf(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
) -> Tensor:
    """Return the Gaussian kernel `exp(-|z_i - z_j|^2 / (2 sigma^2)) - 1`, in [-1, 0].

    `bandwidth` and `bandwidth_rule` set sigma, as in all kernels of distances: see `BandwidthRule`.

    Raises:
        ValueError: the bandwidth is a number that is not above 0, or the rule is unknown.

    Source: PaKA (arXiv 2509.05606); Kornblith et al. 2019, section 3.
    """
    # Wide kernels differ from 1 by less than float32 resolves there, hence expm1.
    return torch.expm1(-squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule) / 2)


@in_float32
def laplacian(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
) -> Tensor:
    """Return the Laplacian kernel `exp(-|z_i - z_j| / sigma) - 1`, in [-1, 0].

    Its gradient at distance zero, where it has a cusp, is zero. Raises as `rbf`.
    """
    return torch.expm1(-distances(tokens, reference, valid, bandwidth, bandwidth_rule))


@in_float32
def rational_quadratic(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
    alpha: float = 1.0,
) -> Tensor:
    """Return the rational quadratic kernel `(1 + |z_i - z_j|^2 / (2 alpha sigma^2))^-alpha - 1`, in [-1, 0].

    It mixes RBF kernels of all widths, the more wide ones the smaller `alpha`, above 0. Raises as `rbf`.

    Source: Rasmussen & Williams 2006, equation 4.19.
    """
    _expect_above_zero("alpha", alpha)
    squared = squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule)
    return torch.expm1(-alpha * torch.log1p(squared / (2 * alpha)))


@in_float32
def rbf_mixture(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
    multipliers: Sequence[float] = (0.25, 0.5, 1, 2, 4),
) -> Tensor:
    """Return the mean of RBF kernels less 1 whose bandwidths are `bandwidth` times each multiplier, in [-1, 0].

    Raises as `rbf`, and where there is no multiplier or one is not above 0.
    """
    _expect_above_zero("multipliers", *multipliers)
    squared = squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule)
    total = torch.zeros_like(squared)
    for multiplier in multipliers:
        total = total + torch.expm1(-squared / (2 * multiplier**2))
    return total / len(multipliers)


@explicit
def rbf_fourier(
    tokens: Tensor,
    reference: Tensor,
    valid: Tensor,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
    features: int = 512,
    seed: int = 0,
) -> Tensor:
    """RBF kernel up to chance: inner products of random Fourier features `(B, N, features)`.

    The features are cosines and sines at `features / 2` frequencies that depend on nothing but `seed` and D.
    Before centring, an entry for tokens d apart has expectation `exp(-d^2 / (2 sigma^2))` over seeds and
    standard error `(1 - exp(-d^2 / sigma^2)) / sqrt(features)`. Raises as `rbf`, and where `features` is not an
    even number of at least 2.

    Source: Rahimi & Recht 2007, algorithm 1; the error: Sutherland & Schneider 2015.
    """
    if features < 2 or features % 2:
        raise ValueError(f"expected an even number of at least 2 features, got {features}")
    z = centred(tokens, valid) / sigmas(tokens, reference, valid, bandwidth, bandwidth_rule)
    phase = z @ _frequencies(z.shape[2], features // 2, seed, z.dtype, z.device)

    # The cosine less 1, which centring would remove, so that the features of like tokens are exactly zero.
    waves = torch.cat([-2 * (phase / 2).sin().square(), phase.sin()], dim=2)
    return centred(waves / math.sqrt(features // 2), valid)


class SmoothedMedian(nn.Module):
    """A kernel of distances whose bandwidth follows the teacher's median distance by a moving average.

    One image's median jumps from step to step, this one value for all images hardly does. In training mode each
    call moves the buffer `median` towards the mean of `median_distance(reference)` over the images of all
    processes that have two valid tokens, which must call this together; the first such call sets it. In
    evaluation mode it stays; while it is 0, not set yet, each call goes by its own images.

    Args:
        kernel: Called as `kernel(tokens, reference, valid, bandwidth=tensor, bandwidth_rule="fixed")`.
        bandwidth: Sigma in smoothed medians, above 0.
        momentum: Share of the old value that each call keeps, from 0 to below 1.

    Raises:
        ValueError: the bandwidth is not above 0, or the momentum is out of range.
    """

    median: Tensor

    def __init__(
        self, kernel: Callable[..., Tensor], *, bandwidth: float = 1.0, momentum: float = 0.99
    ) -> None:
        super().__init__()
        _expect_above_zero("bandwidth", bandwidth)
        if not 0 <= momentum < 1:
            raise ValueError(f"expected a momentum from 0 to below 1, got {momentum}")
        self.kernel, self.bandwidth, self.momentum = kernel, bandwidth, momentum
        self.register_buffer("median", torch.tensor(0.0))

    def forward(self, tokens: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
        """Return the kernel `(B, N, N)` at the smoothed bandwidth, as `Kernel` describes it."""
        total, images = self._medians(reference, valid)
        now = torch.where(images > 0, total / images.clamp_min(1), self.median)
        smoothed = torch.where(self.median > 0, self.median, now)
        if self.training:
            smoothed = torch.lerp(now, smoothed, self.momentum)
            self.median.copy_(smoothed)
        # Where no image has counted yet there is no kernel to speak of, but it has to be finite.
        sigma = self.bandwidth * torch.where(smoothed > 0, smoothed, 1)
        return self.kernel(tokens, reference, valid, bandwidth=sigma, bandwidth_rule="fixed")

    def _medians(self, reference: Tensor, valid: Tensor) -> Tensor:
        """Return the sum of the median distances and the number of images they are of, `(2,)`."""
        counted = valid.sum(dim=1) >= 2
        medians = torch.where(counted, median_distance(reference, valid), 0)
        sums = torch.stack([medians, counted.to(medians)]).sum(dim=1).to(self.median)
        if self.training and distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        return sums


def _expect_above_zero(name: str, *values: float) -> None:
    if not values or not all(value > 0 for value in values):
        raise ValueError(f"expected {name} above 0, got {', '.join(map(str, values)) or 'none'}")


@functools.lru_cache(maxsize=16)
def _frequencies(dim: int, count: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return frequencies `(dim, count)` of the standard RBF kernel, the same on all devices.

    They are kept, as each copy to the device would wait for it, and made outside inference mode, whose tensors
    cannot be trained with later.
    """
    with torch.inference_mode(mode=False):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(dim, count, generator=generator, dtype=torch.float64).to(device, dtype)
