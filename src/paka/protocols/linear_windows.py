"""Linear segmentation by crops and windows: a linear decoder trained on random crops through the frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from paka.encoder import Encoder
from paka.protocols import Outcome, Profile
from paka.protocols.distortion import Distortion
from paka.protocols.finetune import finetune
from paka.protocols.finetune_settings import Finetune, Recolour
from paka.sources import Source


@dataclass(frozen=True)
class LinearWindows(Finetune):
    """How the linear decoder is trained and applied; what concerns the encoder's training has no effect.

    The defaults are the published recipe. Where the code behind published numbers does what the text does not say, they
    are not: `loss_over`, `decay_vectors`, `dropout_first`, `best_every` and the distortion's hue.

    Source: DINOv2 (arXiv 2304.07193) and DINOv3 (arXiv 2508.10104), linear segmentation of ADE20K.
    """

    decoder: Literal["mask_transformer", "linear"] = "linear"
    frozen: bool = True
    dropout: float = 0.1
    warmup_steps: int = 1500
    photometric: Recolour | None = field(default_factory=Distortion)
    decoder_lr: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Literal["polynomial", "one_cycle"] = "one_cycle"
    drop_path: float = 0.0


def linear_windows(
    encoder: Encoder,
    train: Source,
    query: Source,
    profile: Profile,
    *,
    seed: int,
    folder: Path | None = None,
) -> Outcome:
    """Train a linear decoder on crops and segment the query images by sliding windows; see `finetune` for both.

    Args:
        encoder: Stays as it is.
        train: Labelled training images.
        query: Labelled images of the same classes; with `best_every`, their masks choose among decoders.
        profile: Reads how scores are made, and the settings of kind `LinearWindows`.
        seed: Seed of the decoder's initial weights, the order of the images, the crops and dropout.
        folder: Where to keep a checkpoint, from which the same call goes on after a run was killed; None for none.

    Raises:
        ValueError: As for `finetune`.
        MemoryError: The device has not enough memory.
    """
    settings = profile.of(LinearWindows)
    return finetune(encoder, train, query, profile, seed=seed, settings=settings, folder=folder)
