"""The procedural world: one labelled scene from one random generator.

Six kinds of stuff cover backdrop, hills, walls and ground; six kinds of things stand on them. Classes differ
in texture and form only: palettes, places and sizes are drawn alike for all of them. Lengths are in units of a
128-pixel image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.sources.painting import UNIT, Bytes, Canvas, Field, Look, cast_shadow, develop, paint_part, topmost
from paka.sources.palettes import Palettes
from paka.sources.shapes import KINDS, Part, silhouette, skyline
from paka.sources.textures import SIDE, tile

WORLD_VERSION = 5
"""Raise whenever the same seed renders to different pixels; caches of other versions are then left alone."""
STUFF = ("furrows", "bricks", "meadow", "cobbles", "marble", "wicker")
"""Classes that cover backdrop, hills, walls and ground."""
THINGS = ("toadstool", "coral", "crate", "agate", "lizard", "adder")
"""Classes that stand in front of the stuff."""
CLASSES = STUFF + THINGS
"""Names of the classes, in order of their ids."""
VARIANTS = 24
"""Members of each texture family that one split of the scenes draws on; scale, angle and colours vary with every object."""
PORTRAIT_VARIANTS = 1 << 16
"""The same for portraits: practically every subject has a texture of its own, as pictures from many places have."""

_HABITS = {
    "toadstool": "blob",
    "coral": "blob",
    "crate": "box",
    "agate": "gem",
    "lizard": "walker",
    "adder": "serpent",
}

Mapping = Callable[[Field, Field], tuple[Field, Field, Field | float]]
"""From image positions x (1, W), y (H, 1) to surface coordinates u, v and haze."""


@dataclass(frozen=True)
class Surface:
    """A region of stuff.

    Attributes:
        region: The pixels it covers unless something is in front, (S, S) bool.
        mapping: How its plane lies in the image.
        period: Typical length of one repeat of its texture.
    """

    region: NDArray[np.bool_]
    mapping: Mapping
    period: float


class Scene:
    """What one scene shares while it is laid out and painted.

    Args:
        seed: Seed of the world.
        split: Number of the split.
        index: Number of the image.
        size: Side of the image, in pixels.
        variants: Members of each texture family to draw on.
    """

    def __init__(self, seed: int, split: int, index: int, size: int, *, variants: int = VARIANTS) -> None:
        self.rng = np.random.default_rng([seed, split, index])
        self.canvas = Canvas(size)
        self.light = _light(self.rng)
        self.horizon = float(self.rng.uniform(35, 75))
        self.classes: list[int] = []
        self._palettes = Palettes(self.rng)
        self._world = (seed, split)
        self._variants = variants

    def look(self, name: str, period: float) -> Look:
        """Draw how one object of class `name` is painted, with repeats of about `period`."""
        rng = self.rng
        tones = _tones(*self._world, name, int(rng.integers(self._variants)))
        angle = rng.normal(0, 0.15) if rng.uniform() < 0.5 else rng.uniform(0, np.pi)
        scale = np.exp(rng.uniform(np.log(0.65), np.log(1.6)))
        offset = (rng.uniform(0, SIDE), rng.uniform(0, SIDE))
        return Look(tones, self._palettes.draw(), period * scale, angle, np.exp(rng.normal(0, 0.08)), offset)

    def number(self, name: str) -> int:
        """Number the next object, which belongs to class `name`."""
        self.classes.append(CLASSES.index(name))
        return len(self.classes) - 1


@lru_cache(maxsize=1024)
def _tones(seed: int, split: int, name: str, variant: int) -> Bytes:
    return tile(name, np.random.default_rng([seed, split, CLASSES.index(name), variant, 1]))


def _light(rng: np.random.Generator) -> tuple[float, float]:
    """Direction in the image towards the light: to the left or right, and up."""
    angle = rng.uniform(0.25, 1.2)
    return float(rng.choice([-1, 1]) * np.cos(angle)), float(-np.sin(angle))


def render(seed: int, split: int, index: int, size: int) -> tuple[Bytes, Bytes]:
    """Render image `index` of a split.

    Args:
        seed: Seed of the world.
        split: Number of the split, so that splits never share an image.
        index: Number of the image.
        size: Side of the image, in pixels.

    Returns:
        The image (size, size, 3) uint8 RGB and its mask (size, size) uint8 with ids of `CLASSES`.
    """
    scene = Scene(seed, split, index, size)
    _paint_stuff(scene)
    _paint_things(scene)
    image = develop(scene.canvas, scene.light, scene.rng)
    return image, np.array(scene.classes, np.uint8)[topmost(scene.canvas.owner)]


def render_portrait(seed: int, split: int, index: int, size: int) -> tuple[Bytes, Bytes]:
    """Render a picture with one subject: a large thing before some stuff, or stuff that fills the picture.

    Args:
        seed: Seed of the world.
        split: Number of the split.
        index: Number of the image.
        size: Side of the image, in pixels.

    Returns:
        The image (size, size, 3) uint8 RGB and the subject's id in all of a (size, size) uint8 array: a label of
        the image, which says nothing of where the subject is.
    """
    scene = Scene(seed, split, index, size, variants=PORTRAIT_VARIANTS)
    subject = str(scene.rng.choice(CLASSES))
    side = scene.canvas.side
    upright = scene.rng.uniform() < 0.5
    if not upright:
        scene.horizon = 0.0
    whole = np.ones((side, side), bool)
    surface = Surface(whole, _upright(0.1), 8.5) if upright else Surface(whole, _level(scene), 11)
    _paint_surfaces(scene, [surface], [subject if subject in STUFF else str(scene.rng.choice(STUFF))])
    if subject in THINGS:
        foothold = np.array([scene.rng.uniform(44, 84), scene.rng.uniform(92, 124)], np.float32)
        _thing(scene, subject, foothold, lift=0.0, size=scene.rng.uniform(50, 80), haze=0.05)
    image = develop(scene.canvas, scene.light, scene.rng)
    return image, np.full((size, size), CLASSES.index(subject), np.uint8)


def _paint_stuff(scene: Scene) -> None:
    """Cover the canvas with three or four regions of different classes."""
    surfaces = _lay_out(scene)
    _paint_surfaces(scene, surfaces, [str(name) for name in scene.rng.permutation(STUFF)[: len(surfaces)]])


def _paint_surfaces(scene: Scene, surfaces: list[Surface], names: list[str]) -> None:
    """Paint surfaces of the named classes, the later ones in front."""
    owner = scene.canvas.owner
    for name, surface in zip(names, surfaces, strict=True):
        np.copyto(owner, np.uint8(scene.number(name)), where=surface.region)
    for number, (name, surface) in enumerate(zip(names, surfaces, strict=True)):
        _cover(scene, surface, (owner == number).astype(np.uint8), scene.look(name, surface.period))


def _cover(scene: Scene, surface: Surface, visible: Bytes, look: Look) -> None:
    """Paint the visible part of a surface."""
    left, top, width, height = cv2.boundingRect(visible)
    shade = scene.rng.uniform(0.85, 1.1)
    if width == 0:
        return
    window = slice(top, top + height), slice(left, left + width)
    u, v, haze = surface.mapping(*scene.canvas.coordinates(window))
    scene.canvas.put(window, visible[window], look.paint(u, v), shade, haze)


def _lay_out(scene: Scene) -> list[Surface]:
    """Draw the regions from the back to the front: backdrop, perhaps hills, a wall, the ground, perhaps a path."""
    rng, side = scene.rng, scene.canvas.side
    x, y = scene.canvas.coordinates((slice(side), slice(side)))
    extras = rng.permutation(["hills", "wall", "path"])[: rng.integers(1, 3)]
    surfaces = [Surface(np.ones((side, side), bool), _upright(0.22), 8.5)]
    if "hills" in extras:
        surfaces.append(_hills(scene, y))
    if "wall" in extras:
        surfaces.append(_wall(scene, x, y))
    waves = skyline("hills", rng, side)
    edge = scene.horizon + rng.uniform(-0.12, 0.12) * (x - 64) + rng.uniform(0, 3) * waves
    ground = y > edge
    surfaces.append(Surface(ground, _level(scene), 11))
    if "path" in extras:
        surfaces.append(Surface(ground & _path(scene, x, y), _level(scene), 11))
    return surfaces


def _hills(scene: Scene, y: Field) -> Surface:
    """Hills or roofs along the horizon."""
    rng = scene.rng
    line = skyline(str(rng.choice(["hills", "roofs"])), rng, scene.canvas.side)
    top = scene.horizon - rng.uniform(8, 20) - 9 * line
    return Surface(y > top[None, :], _upright(rng.uniform(0.05, 0.18)), 8.5)


def _upright(haze: float) -> Mapping:
    """A plane that faces the viewer."""
    return lambda x, y: (x, y, haze)


def _level(scene: Scene) -> Mapping:
    """A level plane: repeats shrink, and flatten, towards its vanishing line above the horizon."""
    vanish = scene.horizon - scene.rng.uniform(35, 60)
    squat = scene.rng.uniform(0.8, 1.1) * (UNIT - vanish)

    def mapping(x: Field, y: Field) -> tuple[Field, Field, Field]:
        depth = np.maximum(y - vanish, 12) / np.float32(UNIT - vanish)
        haze = np.broadcast_to(0.25 * (1 - depth) ** 2, (y.shape[0], x.shape[1]))
        return (x - 64) / depth, np.float32(squat) / depth, haze

    return mapping


def _path(scene: Scene, x: Field, y: Field) -> NDArray[np.bool_]:
    """A strip that widens towards the viewer, or all of one side: a road, a river, another field."""
    rng = scene.rng
    nearness = (y - scene.horizon) / (UNIT - scene.horizon)
    start, end = rng.uniform(20, 108), rng.uniform(0, 128)
    middle = start + (end - start) * nearness + 4 * skyline("hills", rng, scene.canvas.side)[:, None]
    if rng.uniform() < 0.5:
        return np.asarray(x < middle if rng.uniform() < 0.5 else x > middle)
    return np.asarray(np.abs(x - middle) < rng.uniform(8, 14) + rng.uniform(18, 40) * np.maximum(nearness, 0))


def _wall(scene: Scene, x: Field, y: Field) -> Surface:
    """A wall along one side whose top and foot converge: repeats shrink into the distance."""
    rng = scene.rng
    mirrored = rng.uniform() < 0.5
    width, vanish = rng.uniform(40, 75), rng.uniform(95, 130)
    eye, top, foot = scene.horizon - 8, rng.uniform(35, 90), rng.uniform(25, 60)

    def depth(x: Field) -> tuple[Field, Field]:
        across = UNIT - x if mirrored else x
        return across, np.maximum(vanish - across, 12) / np.float32(vanish)

    def mapping(x: Field, y: Field) -> tuple[Field, Field, Field]:
        far = depth(x)[1]
        haze = np.broadcast_to(0.2 * (1 - far), (y.shape[0], x.shape[1]))
        return np.float32(0.9 * vanish) / far, (y - eye) / far, haze

    across, far = depth(x)
    return Surface((across < width) & (y > eye - top * far) & (y < eye + foot * far), mapping, 10)


def _paint_things(scene: Scene) -> None:
    """Put three to eight things on the ground or in the air, the farthest first."""
    rng = scene.rng
    count = int(rng.integers(3, 9))
    bulk = rng.uniform(0.75, 1.15) * np.sqrt(6 / count)
    for foot in np.sort(rng.uniform(scene.horizon + 4, UNIT + 8, count)):
        nearness = (foot - scene.horizon) / (UNIT - scene.horizon)
        size = bulk * (20 + 20 * nearness) * np.exp(rng.uniform(-0.3, 0.3))
        lift = rng.uniform(10, 60) if rng.uniform() < 0.25 else 0.0
        foothold = np.array([rng.uniform(6, UNIT - 6), foot], np.float32)
        _thing(
            scene, str(rng.choice(THINGS)), foothold, lift=lift, size=min(size, 52), haze=0.2 * (1 - nearness)
        )


def _thing(scene: Scene, name: str, foothold: Field, *, lift: float, size: float, haze: float) -> None:
    """Paint one thing and the shadow it casts.

    Args:
        scene: The scene so far.
        name: Class of the thing.
        foothold: Where it touches or hovers over the ground, x and y.
        lift: How high above the ground it hovers.
        size: Square root of its area.
        haze: Haze between it and the viewer.
    """
    rng = scene.rng
    parts = silhouette(_HABITS[name] if rng.uniform() < 0.7 else str(rng.choice(list(KINDS))), rng)
    _shadow(scene, parts, foothold, lift=lift, size=size)
    look, number = scene.look(name, 7.5), scene.number(name)
    base = foothold - np.array([0, lift], np.float32)
    for part in parts:
        outline = (part.outline * np.float32(size) + base) * np.float32(scene.canvas.scale)
        paint_part(
            scene.canvas,
            part,
            outline,
            look,
            number=number,
            light=scene.light,
            haze=float(np.clip(haze, 0, 1)),
        )


def _shadow(scene: Scene, parts: list[Part], foothold: Field, *, lift: float, size: float) -> None:
    """Cast the thing's shadow: its outline laid over on the ground, away from the light."""
    lean = 0.9 * scene.light[0]
    lay = np.array([[1, 0], [lean, 0.35]], np.float32) * np.float32(size)
    base = foothold - np.array([lean * 0.3 * lift, 0], np.float32)
    outlines = [(part.outline @ lay + base) * np.float32(scene.canvas.scale) for part in parts]
    cast_shadow(scene.canvas, outlines, 1.5 + 0.08 * lift)
