"""Generated videos with the numbers of objects: things of the procedural world that move before one of its surfaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.miniatures.pictures import Picture
from paka.sources.painting import Look
from paka.sources.palettes import Palettes
from paka.sources.shapes import KINDS, silhouette
from paka.sources.textures import SIDE, tile
from paka.sources.world import STUFF, THINGS

OBJECTS = 2
"""Things in a video, numbered from 1; those of higher numbers are in front."""

Field = NDArray[np.float32]


class Thing(NamedTuple):
    """What moves through a video.

    Attributes:
        outlines: Polygons that it fills, (n, 2) each, in pixels around its middle.
        look: What its surface looks like, which moves and turns with it.
        start: Its middle in the first frame, x and y.
        step: How far it moves from frame to frame.
        turn: How far it turns from frame to frame, in radians.
    """

    outlines: list[Field]
    look: Look
    start: Field
    step: Field
    turn: float

    def paint(self, frame: int, pixels: NDArray[np.uint8], ids: NDArray[np.uint8], number: int) -> None:
        """Paint it as it is in a frame, into pixels (H, W, 3) and, by its number, into ids (H, W)."""
        cosine, sine = np.cos(frame * self.turn), np.sin(frame * self.turn)
        turned = np.array([[cosine, sine], [-sine, cosine]], np.float32)
        middle = self.start + frame * self.step
        covered = np.zeros(ids.shape, np.uint8)
        for outline in self.outlines:
            cv2.fillPoly(
                covered, [np.rint(16 * (outline @ turned + middle)).astype(np.int32)], 1, cv2.LINE_8, 4
            )
        rows, columns = np.indices(ids.shape, dtype=np.float32)
        x, y = columns - middle[0], rows - middle[1]
        own = (cosine * x + sine * y).astype(np.float32), (cosine * y - sine * x).astype(np.float32)
        np.copyto(pixels, self.look.paint(*own), where=covered[..., None].astype(bool))
        np.copyto(ids, np.uint8(number), where=covered.astype(bool))


def clip(number: int, frames: int, *, height: int = 96, width: int = 128, seed: int = 0) -> Iterator[Picture]:
    """Yield the frames of a video with the numbers of its objects.

    Things move and turn evenly, the surface behind them slides, and the light changes slowly. All have the same colours, so that
    texture and form tell them apart, as in the scenes.

    Args:
        number: Number of the video; each has other things.
        frames: Number of frames.
        height: Rows in pixels.
        width: Columns in pixels.
        seed: Seed of all videos.
    """
    rng = np.random.default_rng([seed, number])
    colours = Palettes(rng).draw()
    behind = _look(rng, colours, str(rng.choice(STUFF)))
    names = rng.permutation(THINGS)[:OBJECTS]
    things = [_thing(rng, _look(rng, colours, str(name)), height, width) for name in names]
    rows, columns = np.indices((height, width), dtype=np.float32)
    for frame in range(frames):
        pixels, ids = behind.paint(columns + np.float32(frame), rows), np.zeros((height, width), np.uint8)
        for place, thing in enumerate(things, start=1):
            thing.paint(frame, pixels, ids, place)
        light = 1 + 0.15 * np.sin(frame / 3 + number)
        noisy = light * pixels + rng.normal(0, 5, pixels.shape)
        yield noisy.clip(0, 255).astype(np.uint8), ids


def _look(rng: np.random.Generator, colours: NDArray[np.uint8], name: str) -> Look:
    offset = (rng.uniform(0, SIDE), rng.uniform(0, SIDE))
    return Look(tile(name, rng), colours, 8.0, rng.uniform(0, np.pi), 1.0, offset)


def _thing(rng: np.random.Generator, look: Look, height: int, width: int) -> Thing:
    size = rng.uniform(0.4, 0.55) * height
    outlines = [size * part.outline for part in silhouette(str(rng.choice(list(KINDS))), rng)]
    middle = np.concatenate(outlines).mean(axis=0)
    return Thing(
        outlines=[outline - middle for outline in outlines],
        look=look,
        start=(rng.uniform(0.25, 0.75, 2) * (width, height)).astype(np.float32),
        step=rng.uniform(-4, 4, 2).astype(np.float32),
        turn=rng.uniform(-0.08, 0.08),
    )
