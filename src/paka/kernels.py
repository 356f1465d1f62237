"""Kernels: pairwise similarities `(B, N, N)` of the N tokens `(B, N, D)` of one image.

A kernel is only ever compared after centring, so each is returned up to terms that centring removes. That
costs nothing and keeps its digits: Gram matrices are those of *centred* features, and what is 1 at distance
zero is returned less 1. Tokens are all that a kernel needs; in training, the teacher's tokens say how wide it is:

    >>> import torch
    >>> from paka.kernels import rbf
    >>> rbf(torch.randn(2, 49, 64), bandwidth=0.5).shape
    torch.Size([2, 49, 49])
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, cast

import torch
from torch import Tensor

from paka.distances import (
    BandwidthRule,
    centred,
    distances,
    every_token,
    gram,
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
state moves once and gives both sides the same value. The kernels here also do without both: `reference` is
then the tokens themselves, and all of them are valid.

The result is float32 (float64 for float64 tokens), finite, and zero where all valid tokens are alike.
Entries of tokens that are not valid carry no meaning, but are finite.
"""


class ExplicitKernel(Protocol[P]):
    """A kernel with its feature map `features(tokens, reference, valid, ...) -> (B, N, M)`."""

    features: Callable[Concatenate[Tensor, Tensor, Tensor, P], Tensor]

    def __call__(
        self,
        tokens: Tensor,
        reference: Tensor | None = None,
        valid: Tensor | None = None,
        *args: P.args,
        **kwargs: P.kwargs,
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
    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        return gram(mapped(*args, **kwargs))

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
def linear(tokens: Tensor, reference: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Linear kernel `<z_i, z_j>` of centred tokens, the paper's; its features `(B, N, D)` are those tokens.

    Source: PaKA (arXiv 2509.05606); Kornblith et al. 2019, section 3.
    """
    del reference
    return centred(tokens, valid)


@explicit
def cosine(tokens: Tensor, reference: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Linear kernel of unit tokens, `<z_i, z_j> / (|z_i| |z_j|)`; its features `(B, N, D)` are those, centred.

    Each token counts the same, whatever its norm; a token of zeros has no direction and stays at zero. The
    tokens are not centred before: a common offset changes the result.
    """
    del reference
    valid = every_token(tokens) if valid is None else valid
    return centred(unit(torch.where(valid[:, :, None], tokens, 0)), valid)


@in_float32
def polynomial(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    degree: int = 2,
    offset: float = 1.0,
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
    valid = every_token(tokens) if valid is None else valid
    z = centred(tokens, valid)
    mean_square = z.square().sum(dim=(1, 2), keepdim=True) / valid.sum(dim=1).clamp_min(1)[:, None, None]
    products = gram(z / torch.where(mean_square > 0, mean_square, 1).sqrt())

    # Horner's scheme on the binomial expansion without its constant term, which would cost the small powers digits.
    result = torch.zeros_like(products)
    for power in range(degree, 0, -1):
        result = (result + math.comb(degree, power) * offset ** (degree - power)) * products
    return result


@in_float32
def arc_cosine(tokens: Tensor, reference: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
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
    reference: Tensor | None = None,
    valid: Tensor | None = None,
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
    reference: Tensor | None = None,
    valid: Tensor | None = None,
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
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
    alpha: float = 1.0,
) -> Tensor:
    """Return the rational quadratic kernel `(1 + |z_i - z_j|^2 / (2 alpha sigma^2))^-alpha - 1`, in [-1, 0].

    It mixes RBF kernels of all widths, the more wide ones the smaller `alpha`, above 0. Raises as `rbf`.

    Source: Rasmussen & Williams 2006, equation 4.19.
    """
    expect_above_zero("alpha", alpha)
    squared = squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule)
    return torch.expm1(-alpha * torch.log1p(squared / (2 * alpha)))


@in_float32
def rbf_mixture(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    bandwidth: float | Tensor = 1.0,
    bandwidth_rule: BandwidthRule = "median",
    multipliers: Sequence[float] = (0.25, 0.5, 1, 2, 4),
) -> Tensor:
    """Return the mean of RBF kernels less 1 whose bandwidths are `bandwidth` times each multiplier, in [-1, 0].

    Raises as `rbf`, and where there is no multiplier or one is not above 0.
    """
    expect_above_zero("multipliers", *multipliers)
    squared = squared_distances(tokens, reference, valid, bandwidth, bandwidth_rule)
    total = torch.zeros_like(squared)
    for multiplier in multipliers:
        total = total + torch.expm1(-squared / (2 * multiplier**2))
    return total / len(multipliers)


@explicit
def rbf_fourier(
    tokens: Tensor,
    reference: Tensor | None = None,
    valid: Tensor | None = None,
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


def expect_above_zero(name: str, *values: float) -> None:
    """Raise unless there are values, all of them above 0."""
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
