"""Views of an image: crop boxes, flips and photometric augmentation, all drawn from one generator.

A view is a rectangle of whole pixels of the source image, resized to a square and perhaps mirrored.
Boxes are kept, so which token of one view shows which token of another is known exactly.

Legend: B images, G globals, L locals, S and s their sides in pixels, T tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = TypeVar("Pixels", np.uint8, np.float32)
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the source image; right and bottom are exclusive."""
GRAY = np.uint8(128)
"""What erased cells are painted with."""


class Views(NamedTuple):
    """One collated batch of views; boxes are whole source pixels.

    Attributes:
        teacher: Clean globals, (B, G, 3, S, S) uint8.
        globals: The same boxes and flips, augmented, (B, G, 3, S, S) uint8; (B, 0, 3, S, S) when unused.
        locals: Augmented locals, (B, L, 3, s, s) uint8.
        boxes: Crop boxes x0, y0, x1, y1 of globals then locals, (B, G + L, 4) float32.
        flips: Which views are mirrored, (B, G + L) bool.
        global_pairs: Rows (image, student global, teacher global), (P, 3) int64.
        local_pairs: Rows (image, student local, teacher global), (Q, 3) int64; the local counts from 0.
        tags: Image-level tags, (B, T) float32 in {0, 1}.
        index: Index of each image in its source, (B,) int64.
    """

    teacher: Tensor
    globals: Tensor
    locals: Tensor
    boxes: Tensor
    flips: Tensor
    global_pairs: Tensor
    local_pairs: Tensor
    tags: Tensor
    index: Tensor  # type: ignore[assignment]  # a batch is never searched with tuple.index


def render(image: NDArray[Pixels], box: Box, size: tuple[int, int], *, flip: bool = False) -> NDArray[Pixels]:
    """Crop, resize once and perhaps mirror.

    Pixel centres map linearly, `source = left + (target + 0.5) * width / side`, for both filters.

    Args:
        image: (H, W, 3) uint8 or float32.
        box: Crop box in source pixels.
        size: Height and width of the result in pixels.
        flip: Mirror the result left to right.

    Returns:
        (height, width, 3), contiguous, same dtype.
    """
    left, top, right, bottom = box
    crop = image[top:bottom, left:right]
    # OpenCV's area filter is exact only where both sides shrink; elsewhere it quietly changes its geometry.
    shrinks = crop.shape[0] >= size[0] and crop.shape[1] >= size[1]
    resized = cv2.resize(crop, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:, ::-1] if flip else resized)


def containment(inner: Box, outer: Box) -> float:
    """Return the share of `inner`'s own area that lies inside `outer`, in [0, 1] (GLIM's measure)."""
    return intersection_area(inner, outer) / ((inner[2] - inner[0]) * (inner[3] - inner[1]))


def intersection_area(a: Box, b: Box) -> int:
    """Return the area in pixels that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


@dataclass(frozen=True)
class Photometric:
    """Colour jitter, grey, blur and erasure of a student view; the teacher's views get none of it.

    Attributes:
        brightness: Brightness and, below, contrast and saturation are scaled by a factor in [1 - x, 1 + x].
        contrast: See `brightness`.
        saturation: See `brightness`.
        hue: The hue is shifted by [-hue, hue] turns.
        jitter_probability: Probability of the colour jitter.
        gray_probability: Probability of dropping the colour.
        blur_probability: Probability of a Gaussian blur.
        blur_sigma: Range of the blur's standard deviation in pixels of the view.
        erase: Probability of painting a cell of the view grey.
        erase_cell: Side of these square cells in pixels of the view.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_probability: float
    gray_probability: float
    blur_probability: float
    blur_sigma: tuple[float, float]
    erase: float = 0.0
    erase_cell: int = 8

    @cached_property
    def pipeline(self) -> A.Compose:
        """The transforms in albumentations' terms."""
        jitter = A.ColorJitter(
            brightness=_around_one(self.brightness),
            contrast=_around_one(self.contrast),
            saturation=_around_one(self.saturation),
            hue=(-self.hue, self.hue),
            p=self.jitter_probability,
        )
        blur = A.GaussianBlur(blur_limit=0, sigma_limit=tuple(self.blur_sigma), p=self.blur_probability)
        return A.Compose([jitter, A.ToGray(p=self.gray_probability), blur])

    def __call__(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an augmented copy of `view`, (H, W, 3) uint8, as a function of `rng` alone."""
        # Albumentations repeats one stream in every worker unless each sample seeds it.
        self.pipeline.set_random_seed(int(rng.integers(2**31)))
        augmented: NDArray[np.uint8] = self.pipeline(image=view)["image"]
        return self._erase(augmented, rng) if self.erase else augmented

    def _erase(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        height, width = view.shape[:2]
        cells = rng.random((-(-height // self.erase_cell), -(-width // self.erase_cell))) < self.erase
        erased = np.kron(cells, np.ones((self.erase_cell, self.erase_cell), bool))[:height, :width]
        return np.where(erased[..., None], GRAY, view)


def _around_one(strength: float) -> tuple[float, float]:
    return max(0.0, 1.0 - strength), 1.0 + strength


def draw_box(
    rng: np.random.Generator, shape: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> Box:
    """Draw a crop of random area, aspect and position inside an image of `shape` (H, W).

    Args:
        rng: Source of randomness.
        shape: Height and width of the image in pixels.
        scale: Smallest and largest area as a fraction of the image's.
        ratio: Smallest and largest width / height, drawn on a log scale; sides are clipped to the image.
    """
    width, height = _draw_size(rng, shape, scale, ratio, limit=shape)
    left = int(rng.integers(shape[1] - width + 1))
    top = int(rng.integers(shape[0] - height + 1))
    return left, top, left + width, top + height


def draw_inside(
    rng: np.random.Generator,
    shape: tuple[int, int],
    parent: Box,
    scale: Sequence[float],
    ratio: Sequence[float],
    least: float,
) -> Box:
    """Draw a crop of which at least the share `least` lies inside `parent`, without rejection.

    The overhang is drawn first, as a share in [least, 1] split at random between the two axes, and bounds
    how far the crop may stick out of the parent. Sides are clipped to the parent's.
    """
    parent_size = parent[3] - parent[1], parent[2] - parent[0]
    width, height = _draw_size(rng, shape, scale, ratio, limit=parent_size)
    inside, split = rng.uniform(least, 1.0), rng.uniform()
    overhang_x = int((1.0 - inside**split) * width)
    overhang_y = int((1.0 - inside ** (1.0 - split)) * height)
    left = _draw_offset(rng, parent[0], parent[2], width, overhang_x, shape[1])
    top = _draw_offset(rng, parent[1], parent[3], height, overhang_y, shape[0])
    return left, top, left + width, top + height


def _draw_size(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: Sequence[float],
    ratio: Sequence[float],
    limit: tuple[int, int],
) -> tuple[int, int]:
    area = shape[0] * shape[1] * rng.uniform(scale[0], scale[1])
    aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
    width = int(np.clip(round(np.sqrt(area * aspect)), 1, limit[1]))
    height = int(np.clip(round(np.sqrt(area / aspect)), 1, limit[0]))
    return width, height


def _draw_offset(rng: np.random.Generator, low: int, high: int, side: int, overhang: int, bound: int) -> int:
    first = max(low - overhang, 0)
    last = min(high - side + overhang, bound - side)
    return int(rng.integers(first, last + 1))


class Sample(NamedTuple):
    """The views of one image, before collation; arrays as in `Views` without the batch axis."""

    teacher: NDArray[np.uint8]
    globals: NDArray[np.uint8]
    locals: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    flips: NDArray[np.bool_]
    global_pairs: list[tuple[int, int]]
    local_pairs: list[tuple[int, int]]


@dataclass(frozen=True)
class MultiCrop:
    """Draw globals and locals of one image, and list which of them are compared.

    Each local is drawn inside a parent global by at least the share `containment` of its own area, and is
    compared with every global that contains that much of it (global-local intersection maximisation, GLIM,
    arXiv 2509.05606, Sec. 4). Locals take the globals as parents in turn.

    Attributes:
        global_size: Side S of a global in pixels.
        local_size: Side s of a local in pixels.
        globals: Number of globals G, seen clean by the teacher.
        locals: Number of locals L, seen augmented by the student.
        global_scale: Range of a global's area as a fraction of the image's.
        local_scale: Range of a local's area as a fraction of the image's.
        ratio: Range of width / height of a crop, before it is resized to a square.
        flip: Probability of mirroring a view left to right.
        containment: Least share m of a local's area inside a global it is compared with.
        global_pairs: Compare the student's globals with the teacher's other globals.
        student_globals: Render augmented globals; needed by `global_pairs` and by image-level objectives.
        photometric: Augmentation of the student's views; None for none.
    """

    global_size: int
    local_size: int
    globals: int
    locals: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    containment: float
    global_pairs: bool
    student_globals: bool
    photometric: Photometric | None

    @property
    def possible_pairs(self) -> int:
        """Number of pairs per image if every local lay inside every global and all globals overlapped."""
        crossed = self.globals * (self.globals - 1) if self.global_pairs else 0
        return self.locals * self.globals + crossed

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
        """Return the views of `image`, (H, W, 3) uint8, as a function of `rng` alone."""
        outer, inner = self.draw_boxes(rng, (image.shape[0], image.shape[1]))
        boxes = [*outer, *inner]
        flips = rng.random(len(boxes)) < self.flip
        sides = [self.global_size] * self.globals + [self.local_size] * self.locals
        clean = [
            render(image, box, (side, side), flip=flip)
            for box, side, flip in zip(boxes, sides, flips.tolist(), strict=True)
        ]
        teacher, small = clean[: self.globals], clean[self.globals :]
        large = [self._augment(view, rng) for view in teacher] if self.student_globals else []
        small = [self._augment(view, rng) for view in small]
        return Sample(
            _stack(teacher, self.global_size),
            _stack(large, self.global_size),
            _stack(small, self.local_size),
            np.asarray(boxes, dtype=np.float32),
            flips,
            self._overlapping(outer) if self.global_pairs else [],
            self._contained(inner, outer),
        )

    def draw_boxes(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[list[Box], list[Box]]:
        """Return the boxes of the globals and of the locals in an image of `shape` (H, W)."""
        outer = [draw_box(rng, shape, self.global_scale, self.ratio) for _ in range(self.globals)]
        parents = itertools.islice(itertools.cycle(outer), self.locals)
        inner = [
            draw_inside(rng, shape, parent, self.local_scale, self.ratio, self.containment)
            for parent in parents
        ]
        return outer, inner

    def _augment(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        return view if self.photometric is None else self.photometric(view, rng)

    def _contained(self, inner: list[Box], outer: list[Box]) -> list[tuple[int, int]]:
        candidates = itertools.product(enumerate(inner), enumerate(outer))
        return [(i, o) for (i, a), (o, b) in candidates if containment(a, b) >= self.containment]

    def _overlapping(self, outer: list[Box]) -> list[tuple[int, int]]:
        candidates = itertools.permutations(range(len(outer)), 2)
        return [(a, b) for a, b in candidates if intersection_area(outer[a], outer[b]) > 0]


def _stack(views: list[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Stack (side, side, 3) views to (V, 3, side, side); V may be 0."""
    if not views:
        return np.zeros((0, 3, side, side), dtype=np.uint8)
    return np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2))


def collate(samples: Sequence[tuple[Sample, NDArray[np.bool_], int]]) -> Views:
    """Stack (sample, tags, index) triples into one batch; pair lists gain their image's position."""
    views, tags, index = zip(*samples, strict=True)
    return Views(
        teacher=_tensor([view.teacher for view in views]),
        globals=_tensor([view.globals for view in views]),
        locals=_tensor([view.locals for view in views]),
        boxes=_tensor([view.boxes for view in views]),
        flips=_tensor([view.flips for view in views]),
        global_pairs=_pairs([view.global_pairs for view in views]),
        local_pairs=_pairs([view.local_pairs for view in views]),
        tags=_tensor(tags).float(),
        index=torch.tensor(index),
    )


def _tensor(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _pairs(lists: Sequence[list[tuple[int, int]]]) -> Tensor:
    rows = [(image, student, teacher) for image, pairs in enumerate(lists) for student, teacher in pairs]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
