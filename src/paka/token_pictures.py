"""Pictures of frozen tokens themselves: their components, their kernels and what they are nearest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.benchmark import Benchmark
from paka.document import Figure
from paka.encoded import Encoded
from paka.encoder import Encoder
from paka.features import DenseFeatures, Transform, read_images
from paka.figures.features import features_figure
from paka.figures.matrices import kernels_figure
from paka.figures.neighbours import Patch as PatchPicture
from paka.figures.neighbours import Query, neighbours_figure
from paka.frames import Frame
from paka.protocols import shown
from paka.protocols.in_context import label_shares
from paka.retrieval import Patch, contrast, nearest_patches, patch_of, rarest_patches, sorted_kernel
from paka.scores import decimal
from paka.sources import VOID, Source

SEARCHED = 200
"""Training images whose patches are looked through at most, evenly spaced: what a picture may cost."""

NEIGHBOURS = 5
"""Patches that are shown beside each that is looked for."""

QUERIES = 4
"""Patches that are looked for."""

CONTEXT = 7
"""Patches across a picture of one."""


class Kernel(NamedTuple):
    """Similarities of the labelled tokens of an image, sorted by class.

    Attributes:
        values: Cosines, (N, N).
        within: Mean cosine of tokens of one class.
        between: Mean cosine of tokens of different classes.
    """

    values: Tensor
    within: float
    between: float


@dataclass(frozen=True)
class TokenView:
    """What an encoder makes of the few images that pictures show.

    Attributes:
        query: Features of scored images, those of `shown`.
        train: Features of training images; None without labelled ones.
    """

    query: DenseFeatures
    train: DenseFeatures | None


@dataclass(frozen=True)
class TokenPictures:
    """What can be shown of tokens: which images, patches and classes, the same for all encoders.

    Attributes:
        benchmark: The labelled images.
        frame: The grid of tokens that they are brought to.
    """

    benchmark: Benchmark
    frame: Frame

    @cached_property
    def chosen(self) -> list[int]:
        """Numbers of the scored images that are shown."""
        return shown(len(self.benchmark.images("query")))

    @cached_property
    def searched(self) -> list[int]:
        """Numbers of the training images that are looked through."""
        count = len(self.benchmark.images("train"))
        return sorted({*np.linspace(0, count - 1, min(SEARCHED, count)).astype(int).tolist()})

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """The images that are shown, (n, H, W, 3) uint8, without what none of them fills of the frame."""
        images = read_images(self.benchmark.images("query"), self.chosen, self.frame)
        rows, columns = self.grid
        return images.permute(0, 2, 3, 1).numpy()[:, : rows * self.frame.patch, : columns * self.frame.patch]

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the images that are shown fill at most."""
        source = self.benchmark.images("query")
        fits = [self.frame.fit(*source.image(n).shape[:2]) for n in self.chosen]
        return max(rows for rows, _ in fits), max(columns for _, columns in fits)

    @property
    def has_neighbours(self) -> bool:
        """Whether there are labelled images to look for patches in."""
        return bool(self.benchmark.query.classes) and self.benchmark.train is not None

    def view(self, encoder: Encoder, transform: Transform | None, *, name: str) -> TokenView:
        """Return an encoder's features of the images that pictures show, changed if they are to be.

        Args:
            encoder: The encoder.
            transform: Change of its tokens, fitted on the training images that are looked through.
            name: What the encoder is called.
        """
        encoded = Encoded(self.benchmark, encoder, name=name)
        query = encoded.part("query", self.chosen)
        if self.benchmark.train is None:
            return TokenView(query, None)
        train = encoded.part("train", self.searched) if self.has_neighbours or transform else None
        if transform is not None and train is not None:
            train, query = transform(train, query)
        return TokenView(query, train)

    def kernels(self, views: Mapping[str, TokenView]) -> tuple[dict[str, Kernel], Tensor, int]:
        """Return the kernels of one image by encoder, the sorted classes of its tokens, (N,), and its number.

        It is the image with patches of most classes; of equal ones the first.
        """
        query = next(iter(views.values())).query
        shares = label_shares(query, torch.arange(len(query)))
        labelled = shares.any(dim=2)
        found = [len(shares[n][labelled[n]].argmax(dim=1).unique()) for n in range(len(query))]
        image = int(np.argmax(found))
        classes = shares[image][labelled[image]].argmax(dim=1)
        ordered = classes.sort().values
        kernels = {}
        for title, view in views.items():
            values = sorted_kernel(view.query.tokens[image].flatten(0, 1)[labelled[image]], classes)
            kernels[title] = Kernel(values, *contrast(values, ordered))
        return kernels, ordered, image

    def queries(self, view: TokenView) -> list[Patch]:
        """Return the patches that are looked for: see `rarest_patches`, by how rare classes are in training images."""
        if view.train is None:
            return []
        shares = label_shares(view.query, torch.arange(len(view.query)))
        patches = rarest_patches(shares, frequency(view.train), seed=self.benchmark.seed)
        places = np.linspace(0, len(patches) - 1, min(QUERIES, len(patches))).astype(int)
        return [patches[place] for place in places]

    def neighbours(self, queries: Sequence[Patch], view: TokenView) -> list[list[Patch]]:
        """Return the nearest patches of other images for each patch, the nearest first."""
        if view.train is None or not queries:
            return [[] for _ in queries]
        tokens = view.query.tokens.flatten(1, 2)
        wanted = torch.stack([tokens[patch.image, patch.place] for patch in queries])
        count = min(NEIGHBOURS, len(view.train))
        found = nearest_patches(wanted, view.train.tokens, count, valid=view.train.valid)
        images = found[..., 0].unique()
        shares = dict(zip(images.tolist(), label_shares(view.train, images), strict=True))
        return [
            [patch_of(shares[image][place], image, place) for image, place in row.tolist()] for row in found
        ]

    def drawn(self, queries: Sequence[Patch], found: Mapping[str, list[list[Patch]]]) -> list[Query]:
        """Return the pictures of patches and of their neighbours, by encoder."""
        scored, train = self.benchmark.images("query"), self.benchmark.images("train")
        return [
            Query(
                self._picture(scored, self.chosen, patch),
                {
                    title: [self._picture(train, self.searched, one) for one in rows[number]]
                    for title, rows in found.items()
                },
            )
            for number, patch in enumerate(queries)
        ]

    def _picture(self, source: Source, numbers: Sequence[int], patch: Patch) -> PatchPicture:
        image = source.image(numbers[patch.image])
        row, column = divmod(patch.place, self.frame.columns)
        name = "void" if patch.label is None else source.classes[patch.label]
        return PatchPicture(*around(image, self.frame.fit(*image.shape[:2]), (row, column)), name)

    def draw_features(self, path: Path, views: Mapping[str, TokenView], *, joint: bool) -> Figure:
        """Draw the components of tokens; `joint` where all encoders share a frame."""
        rows, columns = self.grid
        sides = {
            title: view.query.tokens[:, :rows, :columns].float().numpy() for title, view in views.items()
        }
        features_figure(path, self.images, sides, joint=joint)
        if joint:
            basis = "in one joint basis" if len(views) > 1 else "over all images"
        else:
            fitted = f"fitted on {len(self.searched)} evenly spaced training images"
            basis = f"each side in a basis of its own, and the tokens after changed as {fitted}"
        return Figure(
            path,
            f"The first three principal components of the frozen patch tokens as red, green and blue, {basis}. Patches of "
            "similar colour have similar tokens.",
            "Rows of images beside maps of their patch tokens",
        )

    def draw_kernels(self, path: Path, views: Mapping[str, TokenView]) -> Figure:
        """Draw the kernels of one image."""
        kernels, classes, image = self.kernels(views)
        source = self.benchmark.images("query")
        notes = {
            title: f"mean cosine within classes {decimal(one.within)}, between classes {decimal(one.between)}"
            for title, one in kernels.items()
        }
        kernels_figure(
            path,
            {title: one.values.numpy() for title, one in kernels.items()},
            classes.numpy().astype(np.uint8),
            names=source.classes,
            colours=source.palette,
            notes=notes,
        )
        return Figure(
            path,
            f"Kernel matrices: the cosine of each two labelled patch tokens of scored image {self.chosen[image]}, sorted "
            "by class. It is the first of those with most classes among the images shown. Bright squares along the "
            "diagonal are classes whose tokens are alike.",
            f"Matrices of similarities; {'; '.join(f'{title.lower()}: {note}' for title, note in notes.items())}",
        )

    def draw_neighbours(self, path: Path, views: Mapping[str, TokenView]) -> Figure | None:
        """Draw patches and those nearest to them; None where no patch shows a single class."""
        queries = self.queries(next(iter(views.values())))
        if not queries:
            return None
        found = {title: self.neighbours(queries, view) for title, view in views.items()}
        neighbours_figure(path, self.drawn(queries, found))
        same = {title: _same(queries, rows) for title, rows in found.items()}
        return Figure(
            path,
            f"Patches of scored images and the patches most like them, by the cosine of their tokens, at most one of each of "
            f"{len(self.searched)} evenly spaced training images. A tick says that most of a patch's labelled pixels "
            "show the class that is looked for. Nobody chose the patches: each is drawn by the seed from those of the "
            "rarest class of an evenly spaced image, another class each time where it has one.",
            f"Patches in boxes; neighbours of the same class: {', '.join(f'{title.lower()} {count}' for title, count in same.items())}",
        )


def frequency(features: DenseFeatures) -> Tensor:
    """Return how many labelled pixels show each class, (C,) int64."""
    counts = [torch.bincount(labels.flatten(), minlength=VOID + 1) for labels in features.labels]
    return torch.stack(counts).sum(dim=0)[: features.num_classes]


def _same(queries: Sequence[Patch], rows: Sequence[Sequence[Patch]]) -> str:
    """Return how many of all neighbours are of the class that is looked for, in words."""
    hits = [one.label == patch.label for patch, row in zip(queries, rows, strict=True) for one in row]
    return f"{sum(hits)} of {len(hits)}"


def around(
    image: NDArray[np.uint8], grid: tuple[int, int], place: tuple[int, int], *, side: int = 180
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Return a patch with what is around it, and where it is in there.

    Args:
        image: The image, (H, W, 3) uint8.
        grid: Rows and columns of patches that it has.
        place: Row and column of the patch.
        side: Side of the picture in pixels.

    Returns:
        A square picture (side, side, 3) of `CONTEXT` patches of the longer side, or of the whole shorter side of the
        image, moved to lie within it; and left, top, width and height of the patch as shares of the picture.
    """
    high, wide = image.shape[0] / grid[0], image.shape[1] / grid[1]
    extent = min(CONTEXT * max(high, wide), *image.shape[:2])
    middle = (place[0] + 0.5) * high, (place[1] + 0.5) * wide
    top, left = (
        min(max(centre - extent / 2, 0.0), length - extent)
        for centre, length in zip(middle, image.shape[:2], strict=True)
    )
    corner = round(top), round(left)
    whole = max(round(extent), 1)
    crop = image[corner[0] : corner[0] + whole, corner[1] : corner[1] + whole]
    way = cv2.INTER_AREA if whole > side else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(crop, (side, side), interpolation=way), dtype=np.uint8)
    box = (place[1] * wide - corner[1], place[0] * high - corner[0], wide, high)
    return picture, (box[0] / whole, box[1] / whole, box[2] / whole, box[3] / whole)
