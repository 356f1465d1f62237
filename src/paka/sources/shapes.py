"""Outlines of the procedural world: silhouettes of things and skylines of the stuff behind them.

A silhouette is a list of parts, drawn in order. Its foot is at the origin, y points down, and it is scaled
so that its filled area is 1: classes drawn in different shapes still cover equal shares of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One piece of a silhouette.

    Attributes:
        outline: Closed polygon, (n, 2) float32, x and y.
        angle: Direction the texture is laid along, in radians.
        light: Brightness factor of the whole piece; 1 is neutral.
        flat: Whether the piece is a plane face, instead of bulging towards the viewer.
    """

    outline: Points
    angle: float = 0.0
    light: float = 1.0
    flat: bool = False


def silhouette(kind: str, rng: np.random.Generator) -> list[Part]:
    """Draw the outline of one thing, scaled to area 1 with its foot at the origin.

    Args:
        kind: A key of `KINDS`.
        rng: Generator that the form is drawn from.
    """
    parts = KINDS[kind](rng)
    points = np.concatenate([part.outline for part in parts])
    foot = np.array([points[:, 0].mean(), points[:, 1].max()], np.float32)
    scale = 1 / np.sqrt(_covered_area(parts))
    outlines = [((part.outline - foot) * scale).astype(np.float32) for part in parts]
    return [replace(part, outline=outline) for part, outline in zip(parts, outlines, strict=True)]


def _covered_area(parts: list[Part]) -> float:
    """Area of the union of the parts, measured on a raster of 64 pixels per side."""
    points = np.concatenate([part.outline for part in parts])
    origin, extent = points.min(0), float(np.ptp(points, axis=0).max())
    raster = np.zeros((65, 65), np.uint8)
    for part in parts:
        cv2.fillPoly(raster, [np.rint((part.outline - origin) * (64 / extent)).astype(np.int32)], 1)
    return float(raster.sum()) * (extent / 64) ** 2


def skyline(kind: str, rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Draw a skyline, (side,) float32 heights between about -1 and 1: rolling `hills` or square `roofs`."""
    position = np.linspace(0, 1, side, dtype=np.float32)
    if kind == "roofs":
        corners = np.sort(rng.uniform(0, 1, int(rng.integers(2, 6))))
        heights = rng.uniform(-1, 1, len(corners) + 1).astype(np.float32)
        return heights[np.searchsorted(corners, position)]
    waves = np.arange(1, 6)
    phases, sizes = rng.uniform(0, 2 * np.pi, 5), rng.normal(0, 0.8, 5) / waves
    hills = sizes[:, None] * np.sin(4 * waves[:, None] * position + phases[:, None])
    return np.asarray(hills.sum(0), np.float32)


def _turn(points: Points, angle: float) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]], np.float32)


def _ellipse(centre: tuple[float, float], radii: tuple[float, float], angle: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    points = np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)], 1).astype(np.float32)
    return _turn(points, angle) + np.array(centre, np.float32)


def _limb(start: Points, end: Points, widths: tuple[float, float]) -> Part:
    """Tapered piece with round ends between two joints."""
    angle = float(np.arctan2(end[1] - start[1], end[0] - start[0]))
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, 9)
    cap = np.stack([np.cos(half), np.sin(half)], 1).astype(np.float32)
    outline = np.concatenate([start + _turn(widths[0] * cap, angle), end - _turn(widths[1] * cap, angle)])
    return Part(outline, angle)


def _blob(rng: np.random.Generator) -> list[Part]:
    """Rounded body with a wavy rim."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = np.arange(2, 6)
    sizes, phases = rng.normal(0, 0.3, 4) / waves, rng.uniform(0, 2 * np.pi, 4)
    radius = np.clip(1 + (sizes[:, None] * np.cos(waves[:, None] * turn + phases[:, None])).sum(0), 0.45, 1.8)
    points = np.stack([radius * np.cos(turn), radius * rng.uniform(0.7, 1.2) * np.sin(turn)], 1)
    return [Part(points.astype(np.float32), rng.uniform(0, np.pi))]


def _box(rng: np.random.Generator) -> list[Part]:
    """Block that shows its front, one side and its top, each lit differently."""
    width, height = rng.uniform(0.8, 1.5), rng.uniform(0.7, 1.6)
    depth = np.array([rng.uniform(0.25, 0.6) * rng.choice([-1, 1]), -rng.uniform(0.15, 0.45)], np.float32)
    left, right = -width / 2, width / 2
    edge = right if depth[0] > 0 else left
    front = np.array([[left, -height], [right, -height], [right, 0], [left, 0]], np.float32)
    flank = np.array([[edge, -height], [edge, 0]], np.float32)
    side = np.concatenate([flank, flank[::-1] + depth])
    top = np.concatenate([front[:2], front[1::-1] + depth])
    dim, angle = rng.uniform(0.55, 0.8), rng.uniform(-0.15, 0.15)
    tilt = rng.uniform(-0.2, 0.2)
    faces = [(top, angle, 1.2), (side, angle + 0.3, dim), (front, angle, 1.0)]
    return [Part(_turn(outline, tilt), lean + tilt, light, flat=True) for outline, lean, light in faces]


def _gem(rng: np.random.Generator) -> list[Part]:
    """Irregular polygon cut into two or three facets by lines from a point inside."""
    corners = int(rng.integers(5, 9))
    turn = np.sort(np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(-0.25, 0.25, corners))
    rim = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.75, 1.15, (corners, 1))
    heart = rng.uniform(-0.25, 0.25, (1, 2))
    cuts = np.sort(rng.choice(corners, int(rng.integers(2, 4)), replace=False))
    lean = rng.uniform(0, np.pi)
    parts = []
    for first, last in zip(cuts, np.roll(cuts, -1), strict=True):
        arc = np.arange(first, last + 1 + corners * (last <= first)) % corners
        outline = np.concatenate([rim[arc], heart]).astype(np.float32)
        parts.append(Part(outline, lean + rng.uniform(-0.4, 0.4), rng.uniform(0.65, 1.2), flat=True))
    return parts


def _walker(rng: np.random.Generator) -> list[Part]:
    """Body, head and two to four pairs of legs with knees."""
    length, girth = rng.uniform(0.8, 1.3), rng.uniform(0.35, 0.55)
    pairs, reach = int(rng.integers(1, 4)), rng.uniform(0.6, 1.1)
    facing = rng.choice([-1.0, 1.0])
    parts = []
    for hip in np.linspace(-0.75, 0.75, pairs * 2) * length:
        swing = rng.uniform(-0.35, 0.35)
        joints = np.array(
            [[hip, 0], [hip + swing, 0.55 * reach], [hip - 0.3 * swing, reach + 0.2]], np.float32
        )
        parts.append(_limb(joints[0], joints[1], (0.24, 0.18)))
        parts.append(_limb(joints[1], joints[2], (0.18, 0.13)))
    neck = np.array([facing * 0.8 * length, -0.1], np.float32)
    head = np.array([facing * (length + rng.uniform(0.15, 0.5)), -rng.uniform(0.1, 0.8)], np.float32)
    tail = np.array([-facing * (length + rng.uniform(0.1, 0.7)), -rng.uniform(-0.3, 0.6)], np.float32)
    parts.append(_limb(np.array([-facing * 0.8 * length, 0], np.float32), tail, (0.2, 0.08)))
    parts.append(Part(_ellipse((0, 0), (length, girth), rng.uniform(-0.12, 0.12))))
    parts.append(_limb(neck, head, (0.26, 0.2)))
    parts.append(Part(_ellipse((float(head[0]), float(head[1])), (0.38, 0.3), facing * 0.3)))
    return parts


def _serpent(rng: np.random.Generator) -> list[Part]:
    """Chain of thick links that winds along the ground, with a head."""
    links = int(rng.integers(4, 7))
    headings = np.cumsum(rng.uniform(-0.9, 0.9, links)) + rng.choice([0.0, np.pi])
    steps = 0.62 * np.stack([np.cos(headings), 0.7 * np.sin(headings)], 1)
    joints = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)]).astype(np.float32)
    widths = np.linspace(0.16, 0.36, links + 1)
    parts = [_limb(joints[i], joints[i + 1], (widths[i], widths[i + 1])) for i in range(links)]
    parts.append(
        Part(_ellipse((float(joints[-1, 0]), float(joints[-1, 1])), (0.5, 0.38), float(headings[-1])))
    )
    return parts


KINDS: Mapping[str, Callable[[np.random.Generator], list[Part]]] = {
    "blob": _blob,
    "box": _box,
    "gem": _gem,
    "walker": _walker,
    "serpent": _serpent,
}
"""Maker of each silhouette, by name."""
