"""Small stand-ins that several tests share: a source of noise, a tiny encoder, tiny views."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from paka.encoder import Encoder, create_encoder
from paka.objectives import Correspondences
from paka.photometric import Photometric
from paka.sources import Source
from paka.views import MultiCrop


class NoiseImages(Source):
    """A source of 24 smooth random images of 48 x 40 pixels with two classes and three tags."""

    name = "noise"
    split = "train"
    classes = ("left", "right")
    tag_names = ("a", "b", "c")

    def __len__(self) -> int:
        return 24

    def item(self, index: int) -> str:
        return f"noise {index}"

    def image(self, index: int) -> np.ndarray:
        coarse = np.random.default_rng([1, index]).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        return coarse.repeat(8, axis=0).repeat(8, axis=1)

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((48, 40), dtype=np.uint8)
        mask[:, 20 + index % 5 :] = 1
        return mask

    def tags(self, index: int) -> np.ndarray:
        return (np.random.default_rng([2, index]).random(3) < 0.5) | (np.arange(3) == index % 3)


def multi_crop(**changes: object) -> MultiCrop:
    """Views of 32 and 16 pixels: grids of 4 and 2 tokens for `tiny_encoder`."""
    options: dict[str, object] = {
        "global_size": 32,
        "local_size": 16,
        "globals": 2,
        "locals": 2,
        "global_scale": (0.4, 1.0),
        "local_scale": (0.1, 0.4),
        "ratio": (0.75, 4 / 3),
        "flip": 0.5,
        "containment": 0.9,
        "global_pairs": True,
        "student_globals": True,
        "photometric": Photometric(0.4, 0.4, 0.4, 0.1, 0.8, 0.2, 0.5, (0.1, 1.0)),
    }
    return MultiCrop(**{**options, **changes})  # type: ignore[arg-type]


def tiny_encoder(seed: int = 0) -> Encoder:
    """A random transformer of two blocks, 16 channels and 8-pixel patches."""
    torch.manual_seed(seed)
    arch = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}
    return create_encoder("vit_tiny_patch16_224", arch=arch, pretrained=False)


POINTS, CHANNELS = 49, 16


def draw(*shape: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(*shape)


def correspondences(pairs: int = 6, *, images: int = 3, **changes: Any) -> Correspondences:
    """Random aligned tokens of `pairs` pairs, dealt out to the images in turn; everything else is absent."""
    fields: dict[str, Any] = {
        "aligned_student": draw(pairs, POINTS, CHANNELS, seed=1),
        "aligned_teacher": draw(pairs, POINTS, CHANNELS, seed=2),
        "valid": torch.ones(pairs, POINTS, dtype=torch.bool),
        "image": torch.arange(pairs) % images,
        "scale": torch.ones(len(changes.get("image", range(pairs)))),
        "images": images,
        "student_globals": None,
        "student_locals": None,
        "teacher": None,
        "image_student": None,
        "image_teacher": None,
        "clean": torch.zeros(images, 3, 16, 16, dtype=torch.uint8),
        "tags": torch.zeros(images, 0),
    }
    return Correspondences(**(fields | changes))
