"""Formats that an encoder is exported in: one file per format, each with `refusal` and `write`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from paka.encoder import Encoder
from paka.encoder_spec import EncoderSpec

TOLERANCE = 1e-4
"""Most that tokens may differ, relative to the largest of them, for an export to count as the same encoder."""


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
        encoder: The encoder, on the CPU and in evaluation mode.
        spec: What it is but for its weights.
        metadata: What travels in the file of weights.
        sizes: Heights and widths in pixels that a graph of fixed size is wanted for; None for any size.
        opset: Version of ONNX's operators.
    """

    encoder: Encoder
    spec: EncoderSpec
    metadata: Mapping[str, str]
    sizes: Sequence[tuple[int, int]] | None = None
    opset: int = 18

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that it was trained on last."""
        return self.spec.grid * self.encoder.patch_size

    @property
    def position_size(self) -> tuple[int, int]:
        """Height and width in pixels at which no position embedding is resampled."""
        rows, columns = self.encoder.model.patch_embed.grid_size
        return rows * self.encoder.patch_size, columns * self.encoder.patch_size

    def picture(self, size: tuple[int, int], count: int = 1) -> Tensor:
        """Return random pictures (count, 3, *size) uint8, the same at each call."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)

    def pixels(self, images: Tensor) -> Tensor:
        """Return pictures as float32, normalised as the encoder does."""
        return (images.float() - cast(Tensor, self.encoder.mean)) / cast(Tensor, self.encoder.std)

    @torch.inference_mode()
    def patches(self, images: Tensor) -> Tensor:
        """Return patch tokens of pictures, (B, N, D), row by row."""
        tokens: Tensor = self.encoder(images).patches.flatten(1, 2)
        return tokens


@dataclass(frozen=True)
class Written:
    """What a format wrote, for the model card.

    Attributes:
        library: What loads it, by the hub's name.
        loading: Lines of Python that load it and encode `image.jpg`, run in the folder of the export.
        checked: How it was compared with the encoder, and what came of it.
        notes: What else whoever loads it has to know, a sentence each.
    """

    library: str
    loading: str
    checked: str
    notes: Sequence[str] = field(default_factory=tuple)


class Format(NamedTuple):
    """A format.

    Attributes:
        what: What it is, in a few words.
        refusal: Returns why an encoder cannot be written in it, as a clause; None if it can.
        write: Writes an encoder into a folder.
    """

    what: str
    refusal: Callable[[Export], str | None]
    write: Callable[[Export, Path], Written]


def check_difference(found: Tensor, expected: Tensor, what: str) -> float:
    """Return the largest difference of two arrays of tokens.

    Raises:
        ValueError: It is more than `TOLERANCE`.
    """
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"expected the tokens of paka from {what}, they differ by up to {difference:.2g}: nothing was exported"
        )
    return difference
