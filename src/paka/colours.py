"""Colours: of classes, and of the patch tokens of two encoders by their joint principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

# The Okabe-Ito colours, then each the one farthest from those before it in Oklab, as seen with and without
# protanopia, deuteranopia or tritanopia (Machado et al. 2009), and from white, black and the grey of void.
_PALETTE = """
0072b2 e69f00 009e73 d55e00 56b4e9 cc79a7 f0e442 60006c 483c00 a80c48 9078f0 60f090 30249c 6c5478 a8b484 906c48
fcc0fc 3cccc0 306000 6c0c3c 6c3cb4 a83c9c 006054 e4606c 7884c0 fc9060 78903c fc9cb4 5460d8 6c3c30 f084e4 9ce4b4
"""

VOID_COLOUR = (222, 222, 222)
"""Of pixels of which nothing is known."""
OPACITY = 0.7
"""Of class colours over an image."""

PERCENTILES = (2.0, 98.0)
"""Percentiles of a component that become 0 and 1, so that a few extreme tokens do not grey out the rest."""


def palette(classes: int) -> Pixels:
    """Return a colour for each class: distinct and colour-blind friendly for up to 32, then repeating.

    Args:
        classes: Number of classes C.

    Returns:
        `(C, 3)` uint8 RGB.
    """
    colours = np.frombuffer(bytes.fromhex(_PALETTE), dtype=np.uint8).reshape(-1, 3)
    return colours[np.arange(classes) % len(colours)]


def overlay(image: Pixels, mask: Pixels, palette: Pixels) -> Pixels:
    """Return class colours over the grey of an image, (..., H, W, 3) uint8; void is light grey.

    Args:
        image: (..., H, W, 3) uint8 RGB.
        mask: Class ids, (..., H, W) uint8, 255 void.
        palette: Colours of the classes, (C, 3) uint8 RGB.
    """
    lookup = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    lookup[: len(palette)] = palette
    grey = image.mean(axis=-1, keepdims=True)
    return np.asarray(OPACITY * lookup[mask] + (1 - OPACITY) * grey, dtype=np.uint8)


def pca_basis(*sides: Floats) -> tuple[Floats, ...]:
    """Return one basis for the tokens of encoders, and the tokens as it wants them.

    Each side is centred and scaled to an average norm of 1, so all weigh the same in the joint PCA. They
    share a basis because they share a frame: the second encoder started as the first. The colours of encoders
    whose frames differ by a rotation cannot be compared.

    Args:
        *sides: Tokens of each encoder, `(n, h, w, D)` with D at least 3.

    Returns:
        Basis `(D, 3)` float64, orthonormal, by falling variance, the largest entry of each direction
        positive; then the normalised tokens of each side, `(n, h, w, D)` float64.

    Raises:
        ValueError: The shapes differ or are not `(n, h, w, D)` with D at least 3.
    """
    shapes = {side.shape for side in sides}
    if len(shapes) != 1 or sides[0].ndim != 4 or sides[0].shape[-1] < 3:
        raise ValueError(
            f"features before and after must have one shape (n, h, w, D) with D of at least 3, "
            f"not {' and '.join(str(side.shape) for side in sides)}; extract both on the same images and grid"
        )
    units = [_unit_norm(side) for side in sides]
    rows = np.concatenate([side.reshape(-1, side.shape[-1]) for side in units])
    basis = np.linalg.eigh(rows.T @ rows)[1][:, :-4:-1]
    peaks = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    return basis * np.where(peaks < 0, -1.0, 1.0), *units


@dataclass(frozen=True)
class Colouring:
    """Principal components as colours in a fixed basis and range, so that tokens of other times can be compared.

    Attributes:
        basis: `(D, 3)` float64, see `pca_basis`.
        low: What becomes 0 of each component, `(3,)`.
        high: What becomes 1, `(3,)`.
    """

    basis: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, *sides: Floats) -> Colouring:
        """Fit basis and range to tokens of encoders; see `pca_basis` for what they are and for what is refused."""
        basis, *units = pca_basis(*sides)
        projected = np.stack([side @ basis for side in units])
        return cls(basis, *np.percentile(projected, PERCENTILES, axis=(0, 1, 2, 3)))

    def __call__(self, side: Floats) -> Floats:
        """Return colours `(n, h, w, 3)` float64 in [0, 1] of tokens `(n, h, w, D)`, which are centred and scaled first."""
        span = self.high - self.low
        varies = span > 1e-9
        scaled = (_unit_norm(side) @ self.basis - self.low) / np.where(varies, span, 1.0)
        return np.asarray(np.where(varies, scaled, 0.5).clip(0.0, 1.0))


def pca_rgb(*sides: Floats) -> tuple[Floats, ...]:
    """Return the first three joint principal components of encoders' tokens as colours.

    Args:
        *sides: Tokens of each encoder, `(n, h, w, D)`.

    Returns:
        `(n, h, w, 3)` float64 in [0, 1] for each. Equal colours mean equal components: basis and range are joint.

    Raises:
        ValueError: See `pca_basis`.
    """
    return tuple(map(Colouring.of(*sides), sides))


def _unit_norm(tokens: Floats) -> Floats:
    tokens = tokens.astype(np.float64)
    magnitude = np.abs(tokens).max()
    tokens = tokens - tokens.mean(axis=(0, 1, 2))
    norm = np.linalg.norm(tokens, axis=-1).mean()
    # Centring a constant leaves rounding errors, which must not be blown up into a pattern.
    return tokens / norm if norm > 1e-9 * magnitude else np.zeros_like(tokens)
