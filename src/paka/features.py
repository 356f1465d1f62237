"""Dense features of labelled images: what every evaluation protocol reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from paka.encoder import Encoder
from paka.sources import Source
from paka.views import render


@dataclass(frozen=True)
class DenseFeatures:
    """Patch tokens and labels of n images.

    Attributes:
        tokens: Frozen patch tokens, (n, h, w, D) float32 on the CPU.
        labels: Class ids at the pixels the encoder saw, (n, H, W) uint8 with 255 for void.
        num_classes: Number of classes C; 0 without masks, and labels of (n, 0, 0) then.
        depth: Depth of the same pixels in metres, (n, H, W) float32 with 0 for unknown; (n, 0, 0) without.
    """

    tokens: Tensor
    labels: Tensor
    num_classes: int
    depth: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))


Transform = Callable[[DenseFeatures, DenseFeatures], tuple[DenseFeatures, DenseFeatures]]
"""A training-free change of frozen tokens, fitted on the first argument and applied to both."""


@torch.inference_mode()
def extract(
    encoder: Encoder, source: Source, *, grid: Sequence[int], indices: Sequence[int], batch_size: int = 32
) -> DenseFeatures:
    """Encode labelled images at one resolution.

    Images are resized to the grid without keeping their aspect, as the field's protocols do; masks by
    nearest neighbour.

    Args:
        encoder: The frozen encoder; its mode is restored afterwards.
        source: Labelled images.
        grid: Rows and columns of tokens.
        indices: Which images.
        batch_size: Images per forward pass.
    """
    size = grid[0] * encoder.patch_size, grid[1] * encoder.patch_size
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    tokens = [
        encoder(images.to(device)).patches.float().cpu()
        for images in _image_batches(source, indices, size, batch_size)
    ]
    encoder.train(training)
    none = torch.zeros(len(indices), 0, 0)
    return DenseFeatures(
        torch.cat(tokens),
        read_masks(source, indices, size) if source.classes else none.to(torch.uint8),
        len(source.classes),
        read_depth(source, indices, size) if source.has_depth else none,
    )


def read_images(source: Source, indices: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return images resized to `size` (H, W), as (n, 3, H, W) uint8."""
    resized = []
    for index in indices:
        image = source.image(index)
        resized.append(render(image, (0, 0, image.shape[1], image.shape[0]), size))
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()


def read_masks(source: Source, indices: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return masks resized to `size` (H, W) by nearest neighbour, as (n, H, W) uint8."""
    masks = [
        cv2.resize(source.mask(index), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for index in indices
    ]
    return torch.from_numpy(np.stack(masks))


def read_depth(source: Source, indices: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return depth resized to `size` (H, W) by nearest neighbour, as (n, H, W) float32 in metres."""
    depths = [
        cv2.resize(source.depth(index), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        for index in indices
    ]
    return torch.from_numpy(np.stack(depths))


def _image_batches(
    source: Source, indices: Sequence[int], size: tuple[int, int], batch_size: int
) -> Iterator[Tensor]:
    for start in range(0, len(indices), batch_size):
        yield read_images(source, indices[start : start + batch_size], size)


def zscore(train: DenseFeatures, query: DenseFeatures) -> tuple[DenseFeatures, DenseFeatures]:
    """Give every channel zero mean and unit variance over the training tokens."""
    flat = train.tokens.flatten(0, 2)
    mean, std = flat.mean(dim=0), flat.std(dim=0)
    return _affine(train, query, mean, torch.diag(1.0 / std.clamp_min(1e-6 * std.max())))


def whiten(train: DenseFeatures, query: DenseFeatures) -> tuple[DenseFeatures, DenseFeatures]:
    """Rotate to the principal axes of the training tokens and give each unit variance (PCA whitening)."""
    flat = train.tokens.flatten(0, 2).double()
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
    target = position.expand(count, rows, columns, 2).flatten(0, 2)
    flat = train.tokens.flatten(0, 2).double()
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


ROUNDS = 9
"""Rounds of `rasa`, as in its source."""


def _affine(
    train: DenseFeatures, query: DenseFeatures, mean: Tensor, matrix: Tensor
) -> tuple[DenseFeatures, DenseFeatures]:
    changed = [replace(side, tokens=(side.tokens - mean) @ matrix) for side in (train, query)]
    return changed[0], changed[1]


TRANSFORMS: dict[str, Transform | None] = {"none": None, "zscore": zscore, "whiten": whiten, "rasa": rasa}
"""Training-free changes by name."""
