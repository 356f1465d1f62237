"""Painting for the procedural world: layers, textured surfaces, bulging bodies, shadows, camera.

Lengths are in units of a 128-pixel image. Layers are painted at twice the resolution of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from paka.sources.palettes import oklch_to_srgb
from paka.sources.shapes import Part
from paka.sources.textures import PERIODS, SIDE

Field = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Window = tuple[slice, slice]
"""Rows and columns of a canvas."""

UNIT = 128
"""Side of the image in the units of length used here."""


@dataclass(frozen=True)
class Look:
    """How one object is painted.

    Attributes:
        tones: Texture tile, (SIDE, SIDE) uint8.
        colours: Colour of each tone, (256, 1, 3) uint8.
        period: Length of one repeat of the texture.
        angle: Direction of the texture, in radians.
        stretch: Elongation of the texture along that direction.
        offset: Where on the tile the texture starts, in tile pixels.
    """

    tones: Bytes
    colours: Bytes
    period: float
    angle: float
    stretch: float
    offset: tuple[float, float]

    def paint(self, x: Field, y: Field, *, angle: float = 0.0) -> Bytes:
        """Colours at surface coordinates x and y, which broadcast to (H, W): (H, W, 3) uint8."""
        scale, turn = SIDE / PERIODS / self.period, self.angle + angle
        cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
        along = x * np.float32(cosine / self.stretch) + y * np.float32(sine / self.stretch)
        across = y * np.float32(cosine * self.stretch) - x * np.float32(sine * self.stretch)
        along, across = along + np.float32(self.offset[0]), across + np.float32(self.offset[1])
        tones = cv2.remap(self.tones, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(cv2.LUT(cv2.merge([tones, tones, tones]), self.colours), np.uint8)


class Canvas:
    """Layers of a scene while it is painted, each (S, S) with S twice the side of the image.

    Attributes:
        colour: Colours without light, (S, S, 3) uint8.
        shade: Brightness factors, float32.
        haze: Share of the air's colour in what is seen, float32 in [0, 1].
        owner: Number of the topmost object, uint8; objects are numbered from the back to the front.
    """

    def __init__(self, size: int) -> None:
        self.side, self.scale = 2 * size, 2 * size / UNIT
        self.colour = np.zeros((self.side, self.side, 3), np.uint8)
        self.shade = np.ones((self.side, self.side), np.float32)
        self.haze = np.zeros((self.side, self.side), np.float32)
        self.owner = np.zeros((self.side, self.side), np.uint8)
        self.axis = ((np.arange(self.side) + 0.5) / self.scale).astype(np.float32)

    def window(self, points: Field) -> Window:
        """Smallest window that covers `points` (n, 2), given in canvas pixels; it may be empty."""
        low = np.clip(np.floor(points.min(0)).astype(int) - 1, 0, self.side)
        high = np.clip(np.ceil(points.max(0)).astype(int) + 2, 0, self.side)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def coordinates(self, window: Window) -> tuple[Field, Field]:
        """Positions of a window's pixels: x (1, W) and y (H, 1)."""
        return self.axis[None, window[1]], self.axis[window[0], None]

    def put(
        self, window: Window, where: Bytes, colour: Bytes, shade: Field | float, haze: Field | float
    ) -> None:
        """Write colours, brightness and haze to those pixels of a window where `where` is 1."""
        mask = where.astype(bool)
        np.copyto(self.colour[window], colour, where=mask[..., None])
        np.copyto(self.shade[window], np.asarray(shade, np.float32), where=mask)
        np.copyto(self.haze[window], np.asarray(haze, np.float32), where=mask)


def fill(outlines: list[Field], window: Window) -> Bytes:
    """Pixels of a window that any of the outlines, in canvas pixels, covers: (H, W) uint8 in {0, 1}."""
    rows, columns = window
    inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    corner = np.array([columns.start + 0.5, rows.start + 0.5], np.float32)
    for outline in outlines if inside.size else ():
        cv2.fillPoly(inside, [np.rint((outline - corner) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return inside


def cast_shadow(canvas: Canvas, outlines: list[Field], reach: float) -> None:
    """Darken what lies under the outlines, with an edge that fades over about `reach`."""
    width = max(3, int(reach * canvas.scale) | 1)
    points = np.concatenate(outlines)
    window = canvas.window(np.concatenate([points - width, points + width]))
    if canvas.shade[window].size:
        dark = fill(outlines, window).astype(np.float32)
        canvas.shade[window] *= 1 - np.float32(0.5) * cv2.blur(cv2.blur(dark, (width, width)), (width, width))


def paint_part(
    canvas: Canvas,
    part: Part,
    outline: Field,
    look: Look,
    *,
    number: int,
    light: tuple[float, float],
    haze: float,
) -> None:
    """Paint one piece of a thing, its texture wrapped around its bulge and lit from one side.

    Args:
        canvas: Where to paint.
        part: The piece; its own outline is not looked at.
        outline: The outline where it is to appear, (n, 2) in canvas pixels.
        look: Texture and colours.
        number: Number of the thing.
        light: Direction towards the light in the image, x and y.
        haze: Haze between the piece and the viewer, in [0, 1].
    """
    window = canvas.window(outline)
    inside = fill([outline], window)
    if not inside.any():
        return
    x, y = canvas.coordinates(window)
    lit: Field | float = part.light
    if not part.flat:
        slope_x, slope_y, rim = _bulge(inside, outline)
        lit = (0.95 + 0.5 * (light[0] * slope_x + light[1] * slope_y) - 0.35 * rim).astype(np.float32)
        x, y = x + 2.5 * slope_x, y + 2.5 * slope_y
    canvas.put(window, inside, look.paint(x, y, angle=part.angle), lit, haze)
    np.copyto(canvas.owner[window], np.uint8(number), where=inside.astype(bool))


def _bulge(inside: Bytes, outline: Field) -> tuple[Field, Field, Field]:
    """Slopes in x and y of a cushion over a piece, from -1 to 1, and how near its rim is, from 0 to 1."""
    reach = max(3, int(0.45 * np.sqrt(cv2.contourArea(outline))) | 1)
    height = cv2.blur(inside.astype(np.float32), (reach, reach), borderType=cv2.BORDER_CONSTANT)
    height = cv2.blur(height, (reach, reach), borderType=cv2.BORDER_CONSTANT)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=-reach / 8, borderType=cv2.BORDER_REPLICATE)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=-reach / 8, borderType=cv2.BORDER_REPLICATE)
    return (
        np.asarray(slope_x, np.float32),
        np.asarray(slope_y, np.float32),
        np.asarray((1 - height) ** 2, np.float32),
    )


def develop(canvas: Canvas, light: tuple[float, float], rng: np.random.Generator) -> Bytes:
    """Light, haze and reduce the canvas, then add what a camera adds: blur, vignette and noise.

    Args:
        canvas: The painted scene.
        light: Direction towards the light in the image, x and y.
        rng: Generator of the amounts.

    Returns:
        The image, (S / 2, S / 2, 3) uint8 RGB.
    """
    size = canvas.side // 2
    lit = cv2.multiply(canvas.colour, cv2.merge([canvas.shade] * 3), dtype=cv2.CV_32F)
    colour = cv2.resize(lit, (size, size), interpolation=cv2.INTER_AREA)
    haze = cv2.resize(canvas.haze, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    haze = haze * np.float32(rng.uniform(0.3, 1.6))
    air = 255 * oklch_to_srgb(np.array([[rng.uniform(0.6, 0.9), 0.04, rng.uniform()]])).astype(np.float32)
    colour = (colour + haze * (air - colour)) * _illumination(size, light, rng)
    blur = rng.uniform(0, 0.6) * size / UNIT
    if blur > 0.25:
        colour = cv2.GaussianBlur(colour, (5, 5), blur)
    grain = rng.standard_normal(colour.shape, dtype=np.float32)
    colour = colour + np.float32(rng.uniform(2, 7)) * grain
    return np.asarray(np.clip(colour + 0.5, 0, 255), np.uint8)


def _illumination(size: int, light: tuple[float, float], rng: np.random.Generator) -> Field:
    """Key light: its tint, its gradient across the image, and the vignette, (size, size, 3)."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    gradient = 1 + rng.uniform(0.0, 0.25) * (light[0] * x + 0.6 * light[1] * y)
    vignette = 1 - rng.uniform(0.0, 0.14) * (x**2 + y**2)
    warmth = rng.uniform(-0.08, 0.08)
    tint = rng.uniform(0.88, 1.12) * np.array([1 + warmth, 1.0, 1 - warmth])
    return np.asarray((gradient * vignette)[..., None] * tint, np.float32)


def topmost(owner: Bytes) -> Bytes:
    """Reduce object numbers (S, S) to (S / 2, S / 2): the one that most of a pixel shows, in a tie the front one."""
    a, b, c, d = owner[::2, ::2], owner[::2, 1::2], owner[1::2, ::2], owner[1::2, 1::2]
    # The second largest of four numbers: the largest holds only where it occurs twice.
    return np.maximum(
        np.minimum(np.maximum(a, b), np.maximum(c, d)), np.maximum(np.minimum(a, b), np.minimum(c, d))
    )
