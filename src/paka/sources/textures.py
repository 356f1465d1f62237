"""Texture families of the procedural world: periodic tiles of grey tones, one maker per class.

A tile is (SIDE, SIDE) uint8, wraps around at its edges, and holds PERIODS repeats of its structure per
side. Tones are standardised, so mean and contrast say nothing about the family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

SIDE = 256
"""Pixels per side of a tile."""
PERIODS = 20
"""Repeats of the texture's structure per side of a tile."""


def tile(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one member of a texture family.

    Args:
        name: A key of `FAMILIES`.
        rng: Generator that the family's parameters are drawn from.

    Returns:
        Periodic tones, (SIDE, SIDE) uint8, mean near 128 and standard deviation near 56, less what clipping takes.
    """
    grid = (np.arange(SIDE, dtype=np.float32) + 0.5) * (PERIODS / SIDE)
    bend = rng.uniform(0.05, 0.3)
    x = grid[None, :] + bend * noise(rng, 2, 5)
    y = grid[:, None] + bend * noise(rng, 2, 5)
    tones = FAMILIES[name](x, y, rng)
    tones = tones + rng.uniform(0.05, 0.25) * tones.std() * noise(rng, 8, 64)
    tones = (tones - tones.mean()) / tones.std()
    return np.asarray(np.clip(128 + 56 * tones, 0, 255), np.uint8)


def noise(rng: np.random.Generator, low: float, high: float) -> Field:
    """Draw periodic noise with a 1/f amplitude between two frequencies.

    Args:
        rng: Generator to draw from.
        low: Lowest frequency, in cycles per tile.
        high: Highest frequency, in cycles per tile.

    Returns:
        (SIDE, SIDE) float32 with mean 0 and standard deviation 1.
    """
    frequency = np.hypot(np.fft.fftfreq(SIDE, 1 / SIDE)[:, None], np.fft.rfftfreq(SIDE, 1 / SIDE)[None, :])
    band = (frequency >= low) & (frequency <= high)
    spectrum = np.zeros(frequency.shape, np.complex64)
    parts = rng.standard_normal((2, int(band.sum())))
    spectrum[band] = (parts[0] + 1j * parts[1]) / frequency[band]
    field = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return np.asarray(field / field.std(), np.float32)


def _soft_step(field: Field, sharpness: float) -> Field:
    """Push values towards -1 and 1."""
    return np.asarray(np.tanh(sharpness * field), np.float32)


def _wave(phase: Field) -> Field:
    return np.asarray(np.sin(2 * np.pi * phase), np.float32)


def _triangle(phase: Field) -> Field:
    """Triangle wave of period 1 between -0.5 and 0.5."""
    return np.asarray(np.abs(2 * (phase - np.floor(phase)) - 1) - 0.5, np.float32)


def _tones(rng: np.random.Generator, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Field:
    """One random tone per cell, unit standard deviation."""
    table = rng.standard_normal((64, 64), dtype=np.float32)
    return table[rows % 64, columns % 64]


def _cells(
    x: Field, y: Field, rng: np.random.Generator, count: int, jitter: float
) -> tuple[Field, Field, Field]:
    """Distances to the nearest and second nearest of count x count jittered points, and a tone per cell."""
    x, y = x * np.float32(count / PERIODS), y * np.float32(count / PERIODS)
    left, top = np.floor(x), np.floor(y)
    column, row = left.astype(np.int64), top.astype(np.int64)
    aside, below = x - left, y - top
    points = rng.uniform(0.5 - jitter, 0.5 + jitter, (2, count * count)).astype(np.float32)
    tones = rng.standard_normal(count * count, dtype=np.float32)
    first, second, nearest = np.full_like(x, 9), np.full_like(x, 9), np.zeros_like(column)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell = (row + down) % count * count + (column + right) % count
            across, along = points[0][cell] + right - aside, points[1][cell] + down - below
            distance = across * across + along * along
            second = np.minimum(second, np.maximum(first, distance))
            nearest = np.where(distance < first, cell, nearest)
            first = np.minimum(first, distance)
    return np.sqrt(first), np.sqrt(second), tones[nearest]


def _furrows(_x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Parallel bands, sharp or soft, wide or narrow."""
    bands = _soft_step(_wave(y) + rng.uniform(-0.5, 0.5), rng.uniform(0.8, 4))
    return bands + rng.uniform(0.0, 0.3) * noise(rng, 2, 6)


def _bricks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Running bond: courses shifted by half a brick, thin joints, a tone per brick."""
    courses = 2 * int(rng.integers(10, 13))
    bricks = round(courses / rng.uniform(1.7, 2.6))
    row = np.floor(y * (courses / PERIODS)).astype(np.int64) % courses
    across = x * (bricks / PERIODS) + 0.5 * (row % 2)
    column = np.floor(across).astype(np.int64) % bricks
    to_bed = 0.5 - np.abs(y * (courses / PERIODS) % 1 - 0.5)
    to_joint = (0.5 - np.abs(across % 1 - 0.5)) * (courses / bricks)
    edge = np.minimum(to_bed, to_joint).astype(np.float32)
    return _soft_step(edge - rng.uniform(0.1, 0.16), 12) + rng.uniform(0.15, 0.4) * _tones(rng, row, column)


def _meadow(_x: Field, _y: Field, rng: np.random.Generator) -> Field:
    """Overlapping short blades that lean about one direction, each with its own tone."""
    blades, margin = 1500, 32
    sheet = np.zeros((SIDE + 2 * margin, SIDE + 2 * margin), np.float32)
    roots = rng.uniform(0, SIDE, (blades, 2))
    angles = rng.normal(0, rng.uniform(0.25, 0.45), blades)
    reach = rng.uniform(10, 22, (blades, 1)) * np.stack([np.sin(angles), -np.cos(angles)], 1)
    tones = rng.uniform(0, 1, blades)
    ends = np.rint(16 * np.concatenate([roots, roots + reach], 1) + 16 * margin).astype(int).tolist()
    for (x0, y0, x1, y1), tone in zip(ends, tones.tolist(), strict=True):
        for right, down in _wraps(x0 >> 4, y0 >> 4, margin):
            start, end = (x0 + right, y0 + down), (x1 + right, y1 + down)
            cv2.line(sheet, start, end, tone, 2, cv2.LINE_8, 4)
    return sheet[margin:-margin, margin:-margin].copy()


def _wraps(x: int, y: int, margin: int) -> list[tuple[int, int]]:
    """Shifts by whole tiles, in sixteenths of a pixel, under which a mark rooted at x, y still touches the tile."""
    tile_side = 16 * SIDE
    sides = [[0] + [tile_side] * (place < 2 * margin) + [-tile_side] * (place > SIDE) for place in (x, y)]
    return [(right, down) for right in sides[0] for down in sides[1]]


def _cobbles(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Irregular domed stones with dark gaps between them."""
    first, second, tone = _cells(x, y, rng, int(rng.integers(15, 20)), rng.uniform(0.3, 0.48))
    gap = _soft_step(second - first - rng.uniform(0.06, 0.14), rng.uniform(6, 12))
    return np.asarray(gap - rng.uniform(0.3, 1.0) * first + rng.uniform(0.1, 0.35) * tone, np.float32)


def _marble(_x: Field, _y: Field, rng: np.random.Generator) -> Field:
    """Fractal clouds crossed by thin winding veins."""
    veins = np.exp(-np.abs(noise(rng, 3, rng.uniform(10, 16))) * rng.uniform(4, 8))
    return np.asarray(rng.uniform(1.2, 2.0) * veins + rng.uniform(0.4, 0.7) * noise(rng, 2, 48), np.float32)


def _wicker(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Basket weave: bundles of strands that alternate between lying across and upright."""
    count, strands = 2 * int(rng.integers(5, 8)), int(rng.integers(2, 4))
    across, down = x * (count / PERIODS), y * (count / PERIODS)
    lying = (np.floor(across) + np.floor(down)).astype(np.int64) % 2 == 0
    along, over = np.where(lying, across, down) % 1, np.where(lying, down, across) % 1
    ridge = np.abs(np.sin(np.pi * strands * over)) ** 0.6
    bundles = ridge * (0.55 + 0.45 * np.sin(np.pi * along)) + rng.uniform(-0.2, 0.2) * lying
    return np.asarray(bundles, np.float32)


def _dots(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Round spots of several sizes on an even ground."""
    first, _, tone = _cells(x, y, rng, int(rng.integers(14, 19)), rng.uniform(0.05, 0.22))
    return _soft_step(rng.uniform(0.26, 0.34) + 0.04 * tone - first, rng.uniform(8, 16))


def _coral(_x: Field, _y: Field, rng: np.random.Generator) -> Field:
    """Labyrinth of winding ridges of one width, without direction."""
    centre = rng.uniform(16, 21)
    return _soft_step(noise(rng, centre - 2.5, centre + 2.5) + rng.uniform(-0.4, 0.4), rng.uniform(1.5, 4))


def _checks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Chequerboard, with a little tone per square."""
    count = 2 * int(rng.integers(11, 16))
    across, down = x * (count / PERIODS), y * (count / PERIODS)
    squares = _soft_step(np.sin(np.pi * across) * np.sin(np.pi * down), rng.uniform(3, 8))
    rows, columns = np.floor(down).astype(np.int64) % count, np.floor(across).astype(np.int64) % count
    return squares + rng.uniform(0.05, 0.25) * _tones(rng, rows, columns)


def _agate(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Concentric rings around scattered centres."""
    count = int(rng.integers(5, 8))
    first, _, _ = _cells(x, y, rng, count, rng.uniform(0.2, 0.4))
    rings = _wave(first * (PERIODS / count) * rng.uniform(0.9, 1.2) + rng.uniform())
    return _soft_step(rings + rng.uniform(-0.4, 0.4), rng.uniform(1, 4))


def _scales(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Overlapping round scales in shifted rows, each shaded from root to rim."""
    radius, sharpness, slope = rng.uniform(0.68, 0.78), rng.uniform(5, 10), rng.uniform(0.3, 0.9)
    tones, done = np.zeros_like(x), np.zeros(x.shape, bool)
    x, y = x * (14 / PERIODS), y * 1.0
    for down in (1, 0, -1):
        row = np.floor(y) + down
        aside = (x - 0.5 * (row % 2)) % 1 - 0.5
        distance = np.hypot(aside, 0.7 * (y - row)) / radius
        inside = (distance < 1) & ~done
        tones[inside] = np.tanh(sharpness * (1 - distance[inside])) + slope * distance[inside]
        done |= inside
    return tones


def _zigzag(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Bands folded into chevrons."""
    folds = int(rng.integers(8, 13))
    bands = _wave(y + rng.uniform(0.9, 1.5) * _triangle(x * (folds / PERIODS)))
    return _soft_step(bands + rng.uniform(-0.4, 0.4), rng.uniform(0.8, 4))


FAMILIES: Mapping[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "furrows": _furrows,
    "bricks": _bricks,
    "meadow": _meadow,
    "cobbles": _cobbles,
    "marble": _marble,
    "wicker": _wicker,
    "toadstool": _dots,
    "coral": _coral,
    "crate": _checks,
    "agate": _agate,
    "lizard": _scales,
    "adder": _zigzag,
}
"""Maker of each class's texture, by class name."""
