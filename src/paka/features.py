"""Dense features of labelled images: what every evaluation protocol reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.collectives import own_share, wait_for_all
from paka.encoder import Encoder, Tokens
from paka.feature_store import Extent, Storage, in_memory
from paka.frames import Frame
from paka.modes import in_evaluation
from paka.progress import tracked
from paka.sources import KeypointPair, Source
from paka.workspace import Workspace, memory_named


@dataclass(frozen=True)
class DenseFeatures:
    """Tokens and labels of n images.

    Attributes:
        tokens: Frozen patch tokens, (n, h, w, D) on the CPU, float32 or float16, perhaps mapped from a file. Beyond
            an image that does not fill its frame, its outermost tokens are repeated.
        labels: Class ids at the pixels the encoder saw, (n, H, W) uint8 with 255 for void; numbers of objects where
            there are videos.
        num_classes: Number of classes C; 0 without masks, and labels of (n, 0, 0) then.
        depth: Depth of the same pixels in metres, (n, H, W) float32 with 0 for unknown; (n, 0, 0) without.
        valid: Which tokens are the image's own, (n, h, w) bool; None if all are.
        globals: One token for each image, (n, D) float32: the class token, or the mean patch without one.
        tags: Which tags the images carry, (n, T) bool; T may be 0.
        attention: Attention of the class token to the patches, (n, h, w) float32; (n, 0, 0) without a class token.
        sizes: Height and width of the images themselves in pixels, (n, 2) int32.
        pairs: Pairs of images with points that both show.
        videos: The images of each video, in the order of time.
        own_mask: Reads the mask of an image at the image's own size, (H, W) uint8; None where only `labels` are known,
            and where there are no videos.
        workspace: Where protocols compute, and keep what is large.
        pictured: Which of the images are shown in pictures; None for evenly spaced ones.
        names: What the tags are called, or the classes where there are no tags.
    """

    tokens: Tensor
    labels: Tensor
    num_classes: int
    depth: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    valid: Tensor | None = None
    globals: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    tags: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    attention: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    sizes: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.int32))
    pairs: tuple[KeypointPair, ...] = ()
    videos: tuple[range, ...] = ()
    own_mask: Callable[[int], NDArray[np.uint8]] | None = None
    workspace: Workspace = field(default_factory=Workspace)
    pictured: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.tokens)

    def part(self, images: range) -> DenseFeatures:
        """Return the features of consecutive images, without a copy; pairs and videos stay behind."""
        rows = slice(images.start, images.stop)
        names = ("tokens", "labels", "depth", "valid", "globals", "tags", "attention", "sizes")
        values = {name: getattr(self, name) for name in names}
        parts = {name: value[rows] for name, value in values.items() if value is not None and len(value)}
        pictured = tuple(number - images.start for number in self.shown if number in images)
        return replace(self, **parts, pairs=(), videos=(), pictured=pictured)

    @property
    def shown(self) -> tuple[int, ...]:
        """Which of the images are shown in pictures."""
        return tuple(shown(len(self))) if self.pictured is None else self.pictured


SHOWN = 6
"""Images that are shown in pictures."""


def shown(images: int) -> list[int]:
    """Return which of n images are shown in pictures: up to `SHOWN`, evenly spaced."""
    return sorted({*np.linspace(0, images - 1, min(SHOWN, images)).astype(int).tolist()})


Transform = Callable[[DenseFeatures, DenseFeatures], tuple[DenseFeatures, DenseFeatures]]
"""A training-free change of frozen tokens, fitted on the first argument and applied to both."""


@torch.inference_mode()
def extract(
    encoder: Encoder,
    source: Source,
    *,
    frame: Frame,
    indices: Sequence[int],
    storage: Storage | None = None,
    workspace: Workspace | None = None,
) -> DenseFeatures:
    """Encode labelled images at one resolution.

    Args:
        encoder: The frozen encoder; the mode of each of its parts is restored afterwards.
        source: Labelled images.
        frame: The grid of tokens that images, masks and depth are brought to.
        indices: Which images, from the first on where they belong to pairs or videos.
        storage: Where the tokens are kept, and which of the images it has already; None keeps them in the workspace. In a
            shared workspace it has to be one that all processes share, and each encodes its share of the images.
        workspace: Where the encoder is, and where there is room; None is the CPU and memory.

    Raises:
        ValueError: A token is not finite.
        MemoryError: The tokens or labels do not fit, or the device has no room for a batch.
    """
    workspace = workspace or Workspace()
    storage = storage or in_memory(extent(encoder, frame, len(indices)), workspace)
    missing = storage.missing(own_share(len(indices)) if workspace.shared else range(len(indices)))
    batches = [missing[start : start + workspace.batch] for start in range(0, len(missing), workspace.batch)]
    with in_evaluation(encoder):
        for places in tracked(batches, len(batches)):
            storage.put(places, **_encode(encoder, source, frame, [indices[place] for place in places]))
    if workspace.shared:
        wait_for_all()
    return _with_labels(storage, source, frame, indices, workspace)


def taken(storage: Storage, source: Source, *, frame: Frame, indices: Sequence[int]) -> DenseFeatures:
    """Return stored features of some of the images that a storage holds all of, with their labels.

    Args:
        storage: Features of all images of the source.
        source: Labelled images.
        frame: The grid of tokens that they were brought to.
        indices: Which images.
    """
    chosen = torch.as_tensor(indices)
    arrays = {name: array[chosen] for name, array in storage.arrays.items()}
    return _with_labels(Storage(arrays), source, frame, indices, Workspace())


def extent(encoder: Encoder, frame: Frame, images: int) -> Extent:
    """Return how much the features are that an encoder makes of some images."""
    return Extent(images, frame.rows, frame.columns, encoder.dim, encoder.has_class_token)


def _encode(encoder: Encoder, source: Source, frame: Frame, chosen: Sequence[int]) -> dict[str, Tensor]:
    """Return what the encoder makes of some images, on the CPU, by the names of `paka.feature_store.ARRAYS`."""
    device = encoder.device
    images = [source.image(index) for index in chosen]
    with memory_named(f"{len(chosen)} images at a time", "lower batch, or profile.grid"):
        found = encoder([_to_tensor(frame.image(image)).to(device) for image in images], attention=True)
    tokens = torch.cat([_filled(one.patches, frame) for one in found]).float().cpu()
    _check_finite(tokens, source, chosen)
    return {
        "tokens": tokens,
        "globals": torch.cat([pooled(one, encoder) for one in found]).float().cpu(),
        "attention": torch.cat([_filled(one.attention[..., None], frame)[..., 0] for one in found]).cpu(),
        "sizes": torch.tensor([image.shape[:2] for image in images], dtype=torch.int32),
    }


def _with_labels(
    storage: Storage, source: Source, frame: Frame, indices: Sequence[int], workspace: Workspace
) -> DenseFeatures:
    n, arrays = len(indices), storage.arrays
    labels, depth = torch.zeros(n, 0, 0, dtype=torch.uint8), torch.zeros(n, 0, 0)
    if source.classes or source.videos:
        labels = workspace.empty(n, *frame.size, dtype=torch.uint8, what=f"the masks of {n} images")
        for place, index in enumerate(indices):
            labels[place] = torch.from_numpy(frame.mask(source.mask(index)))
    if source.has_depth:
        depth = workspace.empty(n, *frame.size, dtype=torch.float32, what=f"the depth of {n} images")
        for place, index in enumerate(indices):
            depth[place] = torch.from_numpy(frame.depth(source.depth(index)))
    return DenseFeatures(
        arrays["tokens"],
        labels,
        len(source.classes),
        depth,
        _valid(arrays["sizes"], frame),
        arrays["globals"],
        torch.from_numpy(np.stack([source.tags(index) for index in indices])),
        arrays["attention"],
        arrays["sizes"],
        tuple(pair for pair in source.pairs if max(pair[:2]) < n),
        tuple(range(video.start, min(video.stop, n)) for video in source.videos if video.start < n),
        (lambda place: source.mask(indices[place])) if source.videos else None,
        workspace,
        names=tuple(source.tag_names or source.classes),
    )


def pooled(tokens: Tokens, encoder: Encoder) -> Tensor:
    """Return one token for each of B images, (B, D): the class token, or the mean patch of an encoder without one."""
    return tokens.prefix[:, 0] if encoder.has_class_token else tokens.patches.mean(dim=(1, 2))


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def _filled(maps: Tensor, frame: Frame) -> Tensor:
    """Repeat the outermost tokens of maps (1, h, w, D) to the right and below until they fill the frame."""
    rows, columns = maps.shape[1:3]
    if (rows, columns) == (frame.rows, frame.columns) or not rows:
        return maps
    wanted = torch.arange(frame.rows).clamp_max(rows - 1), torch.arange(frame.columns).clamp_max(columns - 1)
    return maps[:, wanted[0]][:, :, wanted[1]]


def _check_finite(patches: Tensor, source: Source, chosen: Sequence[int]) -> None:
    finite = patches.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        first = chosen[int((~finite).nonzero()[0, 0])]
        message = (
            f"expected finite tokens, got NaN or infinity for {source.item(first)}: "
            "the weights are damaged, or overflow in half precision"
        )
        raise ValueError(message)


def _valid(sizes: Tensor, frame: Frame) -> Tensor | None:
    """Return which tokens of the frame are each image's own, (n, h, w) bool, of sizes (n, 2); None if all are."""
    own = torch.zeros(len(sizes), frame.rows, frame.columns, dtype=torch.bool)
    for place, (height, width) in enumerate(sizes.tolist()):
        rows, columns = frame.fit(height, width)
        own[place, :rows, :columns] = True
    return None if own.all() else own


def read_images(source: Source, indices: Sequence[int], frame: Frame) -> Tensor:
    """Return images in the frame, as (n, 3, H, W) uint8."""
    return _stacked(frame.picture(source.image(index)) for index in indices).permute(0, 3, 1, 2).contiguous()


def read_masks(source: Source, indices: Sequence[int], frame: Frame) -> Tensor:
    """Return masks in the frame, as (n, H, W) uint8."""
    return _stacked(frame.mask(source.mask(index)) for index in indices)


def read_depths(source: Source, indices: Sequence[int], frame: Frame) -> Tensor:
    """Return depths in the frame in metres, as (n, H, W) float32 with 0 where they are not known."""
    return _stacked(frame.depth(source.depth(index)) for index in indices)


def _stacked(arrays: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays)))


def zscore(train: DenseFeatures, query: DenseFeatures) -> tuple[DenseFeatures, DenseFeatures]:
    """Give every channel zero mean and unit variance over the training tokens."""
    flat = _own(train)
    mean, std = flat.mean(dim=0), flat.std(dim=0)
    return _affine(train, query, mean, torch.diag(1.0 / std.clamp_min(1e-6 * std.max())))


def whiten(train: DenseFeatures, query: DenseFeatures) -> tuple[DenseFeatures, DenseFeatures]:
    """Rotate to the principal axes of the training tokens and give each unit variance (PCA whitening)."""
    flat = _own(train).double()
    mean = flat.mean(dim=0)
    covariance = (flat - mean).T @ (flat - mean) / (len(flat) - 1)
    variances, axes = torch.linalg.eigh(covariance)
    matrix = axes / variances.clamp_min(1e-8 * variances.max()).sqrt()
    return _affine(train, query, mean.float(), matrix.float())


def rasa(train: DenseFeatures, query: DenseFeatures) -> tuple[DenseFeatures, DenseFeatures]:
    """Remove the directions that tell where a patch is, found on the training tokens.

    In each of 9 rounds a linear map predicts row and column, and its two directions are projected out. The map is
    fitted by least squares, in closed form, where the source trains a sigmoid of it by gradient descent. Once no
    position is left, further rounds remove what goes with it by chance.

    Raises:
        ValueError: Tokens have no more channels than are removed.

    Source: RASA in Franca (arXiv 2507.14137).
    """
    count, rows, columns, dim = train.tokens.shape
    if dim <= 2 * ROUNDS:
        raise ValueError(f"features=rasa expected tokens of more than {2 * ROUNDS} channels, got {dim}")
    sides = torch.linspace(-0.5, 0.5, rows), torch.linspace(-0.5, 0.5, columns)
    position = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).double()
    target = position.expand(count, rows, columns, 2)
    target = target.flatten(0, 2) if train.valid is None else target[train.valid]
    flat = _own(train).double()
    flat = flat - flat.mean(dim=0)
    kept = torch.eye(dim, dtype=torch.float64)
    for _ in range(ROUNDS):
        left = flat @ kept
        covariance = left.T @ left
        ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        directions = torch.linalg.solve(covariance + ridge, left.T @ target)
        # The other columns of the full Q are an orthonormal basis of what is left, whatever the directions.
        kept = kept @ torch.linalg.qr(directions, mode="complete").Q[:, 2:]
    return _affine(train, query, torch.zeros(dim), (kept @ kept.T).float())


def _own(features: DenseFeatures) -> Tensor:
    """Return the tokens that show images, without those that fill up their frames, (N, D)."""
    return features.tokens.flatten(0, 2) if features.valid is None else features.tokens[features.valid]


ROUNDS = 9
"""Rounds of `rasa`, as in its source."""


def _affine(
    train: DenseFeatures, query: DenseFeatures, mean: Tensor, matrix: Tensor
) -> tuple[DenseFeatures, DenseFeatures]:
    changed = [replace(side, tokens=(side.tokens - mean) @ matrix) for side in (train, query)]
    return changed[0], changed[1]


TRANSFORMS: dict[str, Transform | None] = {"none": None, "zscore": zscore, "whiten": whiten, "rasa": rasa}
"""Training-free changes by name."""
