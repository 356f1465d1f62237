"""Fine-tuning: semantic segmentation with the whole encoder trained along, as a test of where it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from paka.decoders import LinearDecoder, MaskTransformer
from paka.encoder import Encoder
from paka.optim import PolynomialSchedule
from paka.photometric import Photometric
from paka.protocols import Outcome, Profile, shown
from paka.protocols.segmenter import Segmenter, segment
from paka.protocols.segmenter_training import Feed, Rates, SegmenterTraining, train
from paka.protocols.training_crops import CropDataset
from paka.sources import Source
from paka.statistics import MIOU, Metric, confusion_matrices

NOT_THE_RESULT = ("workers", "checkpoint_every", "accelerator", "stride")
"""Settings that a training can be continued with although they have changed."""


@dataclass(frozen=True)
class Finetune:
    """How a segmenter is trained end to end and applied.

    The mask transformer, drop path, crop, scales, flip, the rule of one class, power and end of the schedule are
    published; steps are 20,000 to 160,000 there. Layer decay, weight decay and warm-up are this project's choice.

    Attributes:
        decoder: `mask_transformer` or `linear`.
        decoder_depth: Blocks of the mask transformer.
        steps: Optimizer steps.
        warmup_steps: Of these, steps over which the rates rise.
        batch: Crops per step, and windows per forward pass.
        crop: Side of crops and windows in pixels, a multiple of the encoder's patch; None for the shorter side of the
            profile's grid.
        short_side: What the shorter side of images is scaled to; None for `crop`.
        stride: Pixels between windows; None for two thirds of `crop`.
        scales: Range of the random scale on top of `short_side`.
        flip: Probability of mirroring a crop.
        largest_share: Share of a crop that one class may have, as far as ten draws avoid more.
        photometric: Change of the crops' colours; None for none.
        lr: Peak learning rate of the encoder's last block.
        decoder_lr: Peak learning rate of the decoder.
        layer_decay: Factor on the rate per block below the last.
        weight_decay: Of AdamW, on matrices.
        power: Power of the polynomial schedule.
        final_lr: Share of the peak rates that is left at the end.
        drop_path: Stochastic depth rate of the last block.
        gradient_clip: Largest norm of the gradient; None for any.
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
    steps: int = 40_000
    warmup_steps: int = 0
    batch: int = 16
    crop: int | None = 512
    short_side: int | None = None
    stride: int | None = None
    scales: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    largest_share: float = 0.75
    photometric: Photometric | None = None
    lr: float = 1e-4
    decoder_lr: float = 1e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.01
    power: float = 0.9
    final_lr: float = 0.1
    drop_path: float = 0.1
    gradient_clip: float | None = None
    accelerator: str = "auto"
    precision: str = "32-true"
    workers: int = 0
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        self._require(
            "decoder", "mask_transformer or linear", met=self.decoder in ("mask_transformer", "linear")
        )
        for name in ("decoder_depth", "steps", "batch", "checkpoint_every"):
            self._require(name, "at least 1", met=getattr(self, name) >= 1)
        for name in ("crop", "short_side"):
            value = getattr(self, name)
            self._require(name, "at least 1, or None", met=value is None or value >= 1)
        for name in ("warmup_steps", "workers", "weight_decay"):
            self._require(name, "at least 0", met=getattr(self, name) >= 0)
        self._require("warmup_steps", f"below steps={self.steps}", met=self.warmup_steps < self.steps)
        bounded = self.stride is None or 1 <= self.stride <= (self.crop or self.stride)
        self._require("stride", f"from 1 to crop={self.crop}, or None", met=bounded)
        low, high = self.scales
        self._require("scales", "two factors above 0 in ascending order", met=0 < low <= high < float("inf"))
        for name in ("lr", "decoder_lr", "power"):
            value = getattr(self, name)
            self._require(name, "finite and above 0", met=isfinite(value) and value > 0)
        for name in ("flip", "final_lr"):
            self._require(name, "in [0, 1]", met=0 <= getattr(self, name) <= 1)
        for name in ("layer_decay", "largest_share"):
            self._require(name, "in (0, 1]", met=0 < getattr(self, name) <= 1)
        self._require("drop_path", "in [0, 1)", met=0 <= self.drop_path < 1)
        clip = self.gradient_clip
        self._require("gradient_clip", "above 0, or None", met=clip is None or clip > 0)

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


def finetune(
    encoder: Encoder,
    train: Source,
    query: Source,
    profile: Profile,
    *,
    seed: int,
    decoder: Literal["mask_transformer", "linear"] | None = None,
    folder: Path | None = None,
) -> Outcome:
    """Fine-tune a copy of an encoder on labelled images and segment the query images with it.

    On the CPU the result is a function of the arguments, bit by bit; on CUDA as far as torch has deterministic kernels.

    Args:
        encoder: Where the training starts; it stays as it is.
        train: Labelled training images.
        query: Labelled images of the same classes; their masks are read to score only.
        profile: Reads how scores are made, and the settings of kind `Finetune`.
        seed: Seed of the decoder's initial weights, the order of the images, the crops and stochastic depth.
        decoder: In place of the one that the settings name.
        folder: Where to keep a checkpoint, from which the same call goes on after a run was killed; None for none.

    Raises:
        ValueError: The settings do not fit encoder or images, the sources differ in their classes, or the folder has
            the checkpoint of another run.
        MemoryError: The device has not enough memory.
    """
    settings = profile.of(Finetune)
    side = settings.crop or min(profile.grid) * encoder.patch_size
    settings = replace(settings, decoder=decoder or settings.decoder, crop=side)
    _check(encoder, train, query, settings)
    with _memory_named(settings):
        segmenter = train_segmenter(encoder, train, settings, seed=seed, folder=folder)
        return segment_source(segmenter, query, settings, profile.iou)


def train_segmenter(
    encoder: Encoder, source: Source, settings: Finetune, *, seed: int, folder: Path | None = None
) -> Segmenter:
    """Return a segmenter in evaluation mode, trained from an encoder; arguments as `finetune`."""
    segmenter = _segmenter(encoder, len(source.classes), settings, seed)
    crops = _crops(source, settings, segmenter.fill, seed)
    feed = Feed(crops, settings.batch, settings.steps, settings.workers)
    identity = _identity(encoder, source, settings, seed)
    train(
        SegmenterTraining(segmenter, feed, _rates(settings), identity),
        accelerator=settings.accelerator,
        precision=settings.precision,
        folder=folder,
        every=settings.checkpoint_every,
    )
    return segmenter.eval()


def segment_source(
    segmenter: Segmenter, source: Source, settings: Finetune, metric: Metric = MIOU
) -> Outcome:
    """Segment every image of a source and count, both at the image's own size."""
    segmenter.eval()
    classes, wanted = len(source.classes), shown(len(source))
    pictures, counts = {}, []
    for index in range(len(source)):
        found = segment(
            segmenter,
            source.image(index),
            short_side=settings.short_side or settings.window,
            window=settings.window,
            stride=settings.stride or max(2 * settings.window // 3, 1),
            batch=settings.batch,
        )
        prediction, mask = torch.from_numpy(found), torch.tensor(source.mask(index))
        counts.append(confusion_matrices(prediction[None], mask[None], classes))
        if index in wanted:
            pictures[index] = prediction
    stated = {"note": f"{settings.steps} steps of {settings.batch} crops of {settings.window} px"}
    return Outcome(torch.cat(counts), (metric,), pictures, stated)


def _crops(source: Source, settings: Finetune, fill: tuple[int, int, int], seed: int) -> CropDataset:
    return CropDataset(
        source,
        seed,
        settings.window,
        settings.short_side or settings.window,
        settings.scales,
        settings.flip,
        settings.largest_share,
        fill,
        settings.photometric,
    )


def _rates(settings: Finetune) -> Rates:
    return Rates(
        settings.lr,
        settings.decoder_lr,
        settings.layer_decay,
        settings.weight_decay,
        PolynomialSchedule(1.0, settings.final_lr, settings.power, settings.warmup_steps),
        settings.gradient_clip,
    )


def _segmenter(encoder: Encoder, classes: int, settings: Finetune, seed: int) -> Segmenter:
    """Return an untrained segmenter whose decoder is drawn by the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        decoder: nn.Module = (
            LinearDecoder(encoder.dim, classes, batch_norm=True)
            if settings.decoder == "linear"
            else MaskTransformer(encoder.dim, classes, settings.decoder_depth)
        )
    return Segmenter(encoder, decoder, drop_path=settings.drop_path)


def _identity(encoder: Encoder, source: Source, settings: Finetune, seed: int) -> dict[str, str]:
    """Return what the training is determined by, in words."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    choices = {key: str(value) for key, value in asdict(settings).items() if key not in NOT_THE_RESULT}
    images = f"{source.name} {source.split}, {len(source)} images of {len(source.classes)} classes"
    return {**choices, "encoder": digest.hexdigest()[:16], "images": images, "seed": str(seed)}


def _check(encoder: Encoder, train: Source, query: Source, settings: Finetune) -> None:
    patch = encoder.patch_size
    if settings.window % patch:
        near = max(settings.window // patch, 1) * patch
        message = f"expected a crop of whole patches of {patch} pixels, got {settings.window}: set crop to {near} or {near + patch}"
        raise ValueError(message)
    if not train.classes or train.classes != query.classes:
        message = (
            "expected training and query images labelled with the same classes, "
            f"got {len(train.classes)} and {len(query.classes)} of them: choose two splits of one data set"
        )
        raise ValueError(message)
    if settings.batch > len(train):
        message = f"expected at least batch={settings.batch} training images, got {len(train)}: lower batch"
        raise ValueError(message)
    if not len(query):
        raise ValueError("expected at least one query image, got none: choose another split")


@contextmanager
def _memory_named(settings: Finetune) -> Iterator[None]:
    """Say which settings take the memory that a device has not got."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        message = (
            f"expected room for batches of {settings.batch} crops of {settings.window} x {settings.window} pixels, "
            "but the device has run out of memory: lower batch or crop"
        )
        raise MemoryError(message) from error
