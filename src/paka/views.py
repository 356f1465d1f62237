"""Views of an image: crop boxes, flips and augmented pixels, all drawn from one generator.

A view is a rectangle of whole pixels of the source image, resized to a square and perhaps mirrored.
Boxes are kept, so which token of one view shows which token of another is known exactly.

Legend: B images, G globals, L locals, S and s their sides in pixels, T tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.boxes import Box, area, containment, draw_box, draw_inside, intersection_area
from paka.photometric import Photometric
from paka.resizing import Interpolation, Pixels, resize


class Views(NamedTuple):
    """One collated batch of views; boxes are whole source pixels.

    Attributes:
        teacher: Globals as the teacher sees them, (B, G, 3, S, S) uint8: clean, or those of the student.
        globals: The same boxes and flips, augmented, (B, G, 3, S, S) uint8; (B, 0, 3, S, S) when unused.
        locals: Augmented locals, (B, L, 3, s, s) uint8.
        boxes: Crop boxes x0, y0, x1, y1 of globals then locals, (B, G + L, 4) float32.
        flips: Which views are mirrored, (B, G + L) bool.
        global_pairs: Rows (image, student global, teacher global), (P, 3) int64.
        local_pairs: Rows (image, student local, teacher global), (Q, 3) int64; the local counts from 0.
        possible_pairs: Pairs of each image if all views overlapped, (B,) int64.
        tags: Image-level tags, (B, T) float32 in {0, 1}.
        index: Index of each image in its source, (B,) int64.
        unreadable: Index of the image that was to be shown there and cannot be read, or -1, (B,) int64.
    """

    teacher: Tensor
    globals: Tensor
    locals: Tensor
    boxes: Tensor
    flips: Tensor
    global_pairs: Tensor
    local_pairs: Tensor
    possible_pairs: Tensor
    tags: Tensor
    index: Tensor  # type: ignore[assignment]  # a batch is never searched with tuple.index
    unreadable: Tensor


def render(
    image: NDArray[Pixels],
    box: Box,
    size: tuple[int, int],
    *,
    flip: bool = False,
    interpolation: Interpolation = "area",
) -> NDArray[Pixels]:
    """Crop, resize once and perhaps mirror.

    Pixel centres map linearly, `source = left + (target + 0.5) * width / side`, for all filters.

    Args:
        image: (H, W, 3) uint8 or float32.
        box: Crop box in source pixels.
        size: Height and width of the result in pixels.
        flip: Mirror the result left to right.
        interpolation: Filter of `paka.resizing.resize`.

    Returns:
        (height, width, 3), contiguous, same dtype.
    """
    left, top, right, bottom = box
    resized = resize(image[top:bottom, left:right], size, interpolation)
    return np.ascontiguousarray(resized[:, ::-1] if flip else resized)


class Sample(NamedTuple):
    """The views of one image, before collation; arrays as in `Views` without the batch axis."""

    teacher: NDArray[np.uint8]
    globals: NDArray[np.uint8]
    locals: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    flips: NDArray[np.bool_]
    global_pairs: list[tuple[int, int]]
    local_pairs: list[tuple[int, int]]
    possible_pairs: int


@dataclass(frozen=True)
class MultiCrop:
    """Draw globals and locals of one image, and list which of them are compared.

    Each local is drawn inside a parent global by at least the share `containment` of its own area, and is
    compared with every global that contains that much of it (global-local intersection maximisation, GLIM,
    arXiv 2509.05606, Sec. 4). Locals take the globals as parents in turn. With `containment` None they have
    no parents: they are drawn anywhere in the image and compared with every global they overlap.

    But for the sizes, the defaults are those of `conf/augmentation/paka.yaml`:

        >>> views = MultiCrop(global_size=128, local_size=56).batch([np.zeros((200, 300, 3), np.uint8)], seed=0)
        >>> views.teacher.shape, views.locals.shape
        (torch.Size([1, 2, 3, 128, 128]), torch.Size([1, 4, 3, 56, 56]))

    Attributes:
        global_size: Side S of a global in pixels.
        local_size: Side s of a local in pixels.
        globals: Number of globals G, seen by the teacher.
        locals: Number of locals L, seen augmented by the student.
        global_scale: Range of a global's area as a fraction of the image's.
        local_scale: Range of a local's area as a fraction of the image's or, see `local_scale_of`, the parent's.
        ratio: Range of width / height of a crop, before it is resized to a square.
        flip: Probability of mirroring a view left to right.
        containment: Least share m of a local's area inside a global it is compared with, in [0, 1]; with 0
            any overlap counts. None draws the locals independently of the globals.
        global_pairs: Compare the student's globals with the teacher's other globals.
        student_globals: Render augmented globals; needed by `global_pairs` and by image-level objectives.
        photometric: Augmentation of the student's views; None for none.
        clean_teacher: Show the teacher clean globals; otherwise the augmented ones of the student.
        least_overlap: Two globals, or without `containment` a local and a global, are compared only if they
            share more than this fraction of the image's area.
        local_scale_of: Whose area `local_scale` is a fraction of.
        pair_with: Compare a local with every global that contains it, or with its parent only.
        overlap: The measure that `containment` bounds; there is only this one.

    Raises:
        ValueError: The teacher needs globals that are not rendered, parents are needed without
            `containment`, or `overlap` is another measure.
    """

    global_size: int
    local_size: int
    globals: int = 2
    locals: int = 4
    global_scale: tuple[float, float] = (0.25, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.25)
    ratio: tuple[float, float] = (0.75, 1.3333333)
    flip: float = 0.5
    containment: float | None = 0.9
    global_pairs: bool = True
    student_globals: bool = True
    photometric: Photometric | None = field(default_factory=Photometric)
    clean_teacher: bool = True
    least_overlap: float = 0.0
    local_scale_of: Literal["image", "parent"] = "image"
    pair_with: Literal["containing", "parent"] = "containing"
    overlap: Literal["containment"] = "containment"

    def __post_init__(self) -> None:
        if not (self.clean_teacher or self.student_globals):
            raise ValueError(
                "expected student_globals=True with clean_teacher=False, whose teacher sees them, got False"
            )
        if self.containment is None and "parent" in (self.local_scale_of, self.pair_with):
            raise ValueError("expected a containment where local_scale_of or pair_with is parent, got None")
        if self.overlap != "containment":
            raise ValueError(f"expected overlap='containment', got {self.overlap!r}")

    @property
    def possible_pairs(self) -> int:
        """Number of pairs per image if every local lay inside every global and all globals overlapped.

        It does not depend on `pair_with`: where locals meet only their parents, 1 / G of theirs is the most.
        """
        crossed = self.globals * (self.globals - 1) if self.global_pairs else 0
        return self.locals * self.globals + crossed

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> Sample:
        """Return the views of `image`, (H, W, 3) uint8, as a function of `rng` alone."""
        shape = image.shape[0], image.shape[1]
        outer, inner = self.draw_boxes(rng, shape)
        boxes = [*outer, *inner]
        flips = rng.random(len(boxes)) < self.flip
        sides = [self.global_size] * self.globals + [self.local_size] * self.locals
        clean = [
            render(image, box, (side, side), flip=flip)
            for box, side, flip in zip(boxes, sides, flips.tolist(), strict=True)
        ]
        plain, small = clean[: self.globals], clean[self.globals :]
        large = [self._augment(view, rng) for view in plain] if self.student_globals else []
        small = [self._augment(view, rng) for view in small]
        return Sample(
            _stack(plain if self.clean_teacher else large, self.global_size),
            _stack(large, self.global_size),
            _stack(small, self.local_size),
            np.asarray(boxes, dtype=np.float32),
            flips,
            self._global_pairs(outer, shape) if self.global_pairs else [],
            self._local_pairs(inner, outer, shape),
            self.possible_pairs,
        )

    def batch(self, images: Sequence[NDArray[np.uint8]], *, seed: int | Sequence[int]) -> Views:
        """Return the views of a batch of images, each a function of the seed and of its place in the batch.

        Args:
            images: Images of any sizes, (H, W, 3) uint8 RGB each.
            seed: Seed, or several numbers that make one, as of a run and of a step.

        Raises:
            ValueError: There is no image, or one has another shape or type.
        """
        for place, image in enumerate(images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(
                    f"expected images (H, W, 3) uint8, got {image.shape} {image.dtype} at place {place} of the batch"
                )
        if not len(images):
            raise ValueError("expected at least one image, got none")
        seeds = np.random.SeedSequence(seed).spawn(len(images))
        samples = [self(image, np.random.default_rng(one)) for image, one in zip(images, seeds, strict=True)]
        untagged = np.zeros(0, dtype=np.bool_)
        return collate([(sample, untagged, place, -1) for place, sample in enumerate(samples)])

    def draw_boxes(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[list[Box], list[Box]]:
        """Return the boxes of the globals and of the locals in an image of `shape` (H, W)."""
        outer = [draw_box(rng, shape, self.global_scale, self.ratio) for _ in range(self.globals)]
        if self.containment is None:
            return outer, [draw_box(rng, shape, self.local_scale, self.ratio) for _ in range(self.locals)]
        parents = itertools.islice(itertools.cycle(outer), self.locals)
        inner = [
            draw_inside(rng, shape, parent, self._scale_inside(parent, shape), self.ratio, self.containment)
            for parent in parents
        ]
        return outer, inner

    def _scale_inside(self, parent: Box, shape: tuple[int, int]) -> tuple[float, float]:
        """Return the range of the area of a local in `parent`, as a fraction of the image's."""
        if self.local_scale_of == "image":
            return self.local_scale
        share = area(parent) / (shape[0] * shape[1])
        return self.local_scale[0] * share, self.local_scale[1] * share

    def _augment(self, view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        return view if self.photometric is None else self.photometric(view, rng)

    def _local_pairs(
        self, inner: list[Box], outer: list[Box], shape: tuple[int, int]
    ) -> list[tuple[int, int]]:
        least = (self.least_overlap if self.containment is None else 0.0) * shape[0] * shape[1]
        return [
            (i, o)
            for (i, local), (o, parent) in itertools.product(enumerate(inner), enumerate(outer))
            if (self.pair_with == "containing" or o == i % self.globals)
            and intersection_area(local, parent) > least
            and (self.containment is None or containment(local, parent) >= self.containment)
        ]

    def _global_pairs(self, outer: list[Box], shape: tuple[int, int]) -> list[tuple[int, int]]:
        least = self.least_overlap * shape[0] * shape[1]
        candidates = itertools.permutations(range(len(outer)), 2)
        return [(a, b) for a, b in candidates if intersection_area(outer[a], outer[b]) > least]


def _stack(views: list[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Stack (side, side, 3) views to (V, 3, side, side); V may be 0."""
    if not views:
        return np.zeros((0, 3, side, side), dtype=np.uint8)
    return np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2))


Shown = tuple[Sample, NDArray[np.bool_], int, int]
"""Views of an image, its tags, its index, and the index of an unreadable one that it stands in for, or -1."""


def collate(samples: Sequence[Shown]) -> Views:
    """Stack samples into one batch; pair lists gain their image's position."""
    views, tags, index, unreadable = zip(*samples, strict=True)
    return Views(
        teacher=_tensor([view.teacher for view in views]),
        globals=_tensor([view.globals for view in views]),
        locals=_tensor([view.locals for view in views]),
        boxes=_tensor([view.boxes for view in views]),
        flips=_tensor([view.flips for view in views]),
        global_pairs=_pairs([view.global_pairs for view in views]),
        local_pairs=_pairs([view.local_pairs for view in views]),
        possible_pairs=torch.tensor([view.possible_pairs for view in views]),
        tags=_tensor(tags).float(),
        index=torch.tensor(index),
        unreadable=torch.tensor(unreadable),
    )


def _tensor(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _pairs(lists: Sequence[list[tuple[int, int]]]) -> Tensor:
    rows = [(image, student, teacher) for image, pairs in enumerate(lists) for student, teacher in pairs]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
