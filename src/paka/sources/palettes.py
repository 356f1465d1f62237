"""Harmonised random colours for the procedural world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Palettes:
    """Colours of one scene.

    Hues gather around a few directions of the colour circle that belong together. Lightness, contrast and which
    end of the texture's tones is the lighter one are drawn alike for every object, so colour tells no class.

    Args:
        rng: Generator that everything is drawn from.
    """

    _HARMONIES = (
        (0.0, 0.08, -0.08),
        (0.0, 0.5, 0.04),
        (0.0, 0.33, 0.67),
        (0.0, 0.42, 0.58),
        (0.0, 0.25, 0.5),
    )

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._hues = rng.uniform() + np.array(self._HARMONIES[rng.integers(len(self._HARMONIES))])
        self._chroma = rng.uniform(0.04, 0.12)

    def draw(self) -> NDArray[np.uint8]:
        """Draw the colours of one object, one per tone: (256, 1, 3) uint8."""
        rng = self._rng
        contrast, middle = rng.uniform(0.14, 0.5), rng.uniform(0.4, 0.8)
        lightness = middle + contrast * np.array([-0.5, rng.uniform(-0.2, 0.2), 0.5]) * rng.choice([-1, 1])
        hue = rng.choice(self._hues) + rng.normal(0, 0.03) + rng.normal(0, 0.06, 3)
        hue[2] = rng.choice(self._hues) if rng.uniform() < 0.35 else hue[2]
        chroma = np.clip(self._chroma * rng.uniform(0.3, 1.6, 3), 0, 0.16)
        stops = oklch_to_srgb(np.stack([np.clip(lightness, 0.1, 0.97), chroma, hue], 1))
        places = (0.0, rng.uniform(0.35, 0.65), 1.0)
        colours = np.stack([np.interp(np.arange(256) / 255, places, channel) for channel in stops.T], 1)
        return np.asarray(np.rint(255 * colours)[:, None], np.uint8)


_CONES = np.array(
    [[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775], [0.2158037573, -0.0638541728, -1.2914855480]]
)
_PRIMARIES = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)


def oklch_to_srgb(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert colours from OKLCH to sRGB (Ottosson 2020, "A perceptual color space for image processing").

    Args:
        colours: Lightness in [0, 1], chroma and hue in turns, (n, 3).

    Returns:
        Red, green and blue in [0, 1], clipped to the gamut, (n, 3).
    """
    lightness, chroma, turn = colours.T
    a, b = chroma * np.cos(2 * np.pi * turn), chroma * np.sin(2 * np.pi * turn)
    cones = np.stack([lightness, a, b], 1) @ _CONES
    linear = np.clip(cones**3 @ _PRIMARIES, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
