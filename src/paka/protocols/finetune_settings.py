"""How a segmenter is trained on crops and applied by windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paka.resizing import Interpolation

Recolour = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
"""A change of an image's colours, (H, W, 3) uint8, as a function of a generator."""

CHOICES = {
    "decoder": ("mask_transformer", "linear"),
    "schedule": ("polynomial", "one_cycle"),
    "loss_over": ("labelled", "all"),
}
"""What the named settings may be."""


@dataclass(frozen=True)
class Finetune:
    """How a segmenter is trained end to end and applied.

    The mask transformer, drop path, crop, scales, flip, the rule of one class, power and end of the schedule are
    published; steps are 20,000 to 160,000 there. Layer decay, weight decay and warm-up are this project's choice.

    Attributes:
        decoder: `mask_transformer` or `linear`.
        decoder_depth: Blocks of the mask transformer.
        frozen: Whether the encoder stays as it is and the decoder alone is trained.
        dropout: Probability of dropping a channel of the tokens in the linear decoder.
        dropout_first: Whether that comes before its batch normalisation.
        steps: Optimizer steps.
        warmup_steps: Of these, steps over which the rates rise.
        batch: Crops per step, and windows per forward pass.
        crop: Side of crops and windows in pixels, a multiple of the encoder's patch; None for the shorter side of the
            profile's grid.
        short_side: What the shorter side of images is scaled to; None for `crop`.
        stride: Pixels between windows; None for two thirds of `crop`.
        interpolation: Filter that images are resized with; None for the profile's.
        scales: Range of the random scale on top of `short_side`.
        flip: Probability of mirroring a crop.
        largest_share: Share of a crop that one class may have, as far as ten draws avoid more.
        photometric: Change of the crops' colours; None for none.
        loss_over: The loss is a mean over the `labelled` pixels of a batch, or over `all`, void ones being 0.
        lr: Peak learning rate of the encoder's last block.
        decoder_lr: Peak learning rate of the decoder.
        layer_decay: Factor on the rate per block below the last.
        weight_decay: Of AdamW, on matrices.
        decay_vectors: Whether biases and norms are decayed too.
        schedule: `polynomial`, or `one_cycle`, see `paka.optim.OneCycleSchedule`.
        power: Power of the polynomial schedule.
        final_lr: Share of the peak rates that is left at its end.
        drop_path: Stochastic depth rate of the last block.
        gradient_clip: Largest norm of the gradient; None for any.
        best_every: Steps between decoders of which the one that scores best is kept, scored on the very images that are
            reported; None for the last one. The encoder has to be frozen.
        accelerator: Lightning's name of the device.
        precision: Lightning's name of the precision of the training; windows are segmented in float32.
        workers: Loader processes; 0 loads in the main process.
        checkpoint_every: Optimizer steps between checkpoints, where a folder is given.

    Raises:
        ValueError: A setting is out of range.

    Source: Segmenter (arXiv 2105.05633), with the settings of CrIBo's (arXiv 2310.07855) fine-tuning.
    """

    decoder: Literal["mask_transformer", "linear"] = "mask_transformer"
    decoder_depth: int = 2
    frozen: bool = False
    dropout: float = 0.0
    dropout_first: bool = False
    steps: int = 40_000
    warmup_steps: int = 0
    batch: int = 16
    crop: int | None = 512
    short_side: int | None = None
    stride: int | None = None
    interpolation: Interpolation | None = None
    scales: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    largest_share: float = 0.75
    photometric: Recolour | None = None
    loss_over: Literal["labelled", "all"] = "labelled"
    lr: float = 1e-4
    decoder_lr: float = 1e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.01
    decay_vectors: bool = False
    schedule: Literal["polynomial", "one_cycle"] = "polynomial"
    power: float = 0.9
    final_lr: float = 0.1
    drop_path: float = 0.1
    gradient_clip: float | None = None
    best_every: int | None = None
    accelerator: str = "auto"
    precision: str = "32-true"
    workers: int = 0
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name, choices in CHOICES.items():
            self._require(name, " or ".join(choices), met=getattr(self, name) in choices)
        for name in ("decoder_depth", "steps", "batch", "checkpoint_every"):
            self._require(name, "at least 1", met=getattr(self, name) >= 1)
        for name in ("crop", "short_side", "best_every"):
            value = getattr(self, name)
            self._require(name, "at least 1, or None", met=value is None or value >= 1)
        for name in ("warmup_steps", "workers", "weight_decay"):
            self._require(name, "at least 0", met=getattr(self, name) >= 0)
        self._require("warmup_steps", f"below steps={self.steps}", met=self.warmup_steps < self.steps)
        bounded = self.stride is None or 1 <= self.stride <= (self.crop or self.stride)
        self._require("stride", f"from 1 to crop={self.crop}, or None", met=bounded)
        self._check_numbers()

    def _check_numbers(self) -> None:
        low, high = self.scales
        self._require("scales", "two factors above 0 in ascending order", met=0 < low <= high < float("inf"))
        for name in ("lr", "decoder_lr", "power"):
            value = getattr(self, name)
            self._require(name, "finite and above 0", met=isfinite(value) and value > 0)
        for name in ("flip", "final_lr"):
            self._require(name, "in [0, 1]", met=0 <= getattr(self, name) <= 1)
        for name in ("layer_decay", "largest_share"):
            self._require(name, "in (0, 1]", met=0 < getattr(self, name) <= 1)
        for name in ("drop_path", "dropout"):
            self._require(name, "in [0, 1)", met=0 <= getattr(self, name) < 1)
        clip = self.gradient_clip
        self._require("gradient_clip", "above 0, or None", met=clip is None or clip > 0)
        linear = not self.dropout or self.decoder == "linear"
        self._require("dropout", "0 with another decoder than linear", met=linear)
        alone = self.best_every is None or self.frozen
        self._require("best_every", "None unless the encoder is frozen", met=alone)

    @property
    def window(self) -> int:
        """Side of crops and windows in pixels.

        Raises:
            ValueError: It was left to a profile.
        """
        if self.crop is None:
            raise ValueError("expected a crop in pixels, got None: say crop")
        return self.crop

    def _require(self, name: str, expected: str, *, met: bool) -> None:
        if not met:
            raise ValueError(f"expected {name} to be {expected}, got {getattr(self, name)}: change {name}")
