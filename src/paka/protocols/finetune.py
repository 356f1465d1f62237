"""Fine-tuning: semantic segmentation with the whole encoder trained along, as a test of where it starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from paka.decoders import LinearDecoder, MaskTransformer
from paka.encoder import Encoder
from paka.optim import OneCycleSchedule, PolynomialSchedule
from paka.protocols import Outcome, Profile, shown
from paka.protocols.finetune_settings import Finetune
from paka.protocols.segmenter import Segmenter, segment
from paka.protocols.segmenter_training import Feed, Rates, SegmenterTraining, train
from paka.protocols.training_crops import CropDataset
from paka.sources import Source
from paka.statistics import MIOU, Metric, confusion_matrices

NOT_THE_RESULT = ("workers", "checkpoint_every", "accelerator", "stride")
"""Settings that a training can be continued with although they have changed."""


def finetune(
    encoder: Encoder,
    train: Source,
    query: Source,
    profile: Profile,
    *,
    seed: int,
    decoder: Literal["mask_transformer", "linear"] | None = None,
    settings: Finetune | None = None,
    folder: Path | None = None,
) -> Outcome:
    """Fine-tune a copy of an encoder on labelled images and segment the query images with it.

    On the CPU the result is a function of the arguments, bit by bit; on CUDA as far as torch has deterministic kernels.

    Args:
        encoder: Where the training starts; it stays as it is.
        train: Labelled training images.
        query: Labelled images of the same classes; their masks are read to score only.
        profile: Reads how scores are made, `interpolation`, and the settings of kind `Finetune`.
        seed: Seed of the decoder's initial weights, the order of the images, the crops, stochastic depth and dropout.
        decoder: In place of the one that the settings name.
        settings: In place of the profile's.
        folder: Where to keep a checkpoint, from which the same call goes on after a run was killed; None for none.

    Raises:
        ValueError: The settings do not fit encoder or images, the sources differ in their classes, or the folder has
            the checkpoint of another run.
        MemoryError: The device has not enough memory.
    """
    settings = settings or profile.of(Finetune)
    settings = replace(
        settings,
        decoder=decoder or settings.decoder,
        crop=settings.crop or min(profile.grid) * encoder.patch_size,
        interpolation=settings.interpolation or profile.interpolation,
    )
    _check(encoder, train, query, settings)
    with _memory_named(settings):
        trained = _trained(encoder, train, settings, seed=seed, folder=folder)
        if settings.best_every is None:
            return segment_source(trained.segmenter, query, settings, profile.iou)
        return best_of(trained.segmenter, trained.snapshots, query, settings, profile.iou)


def train_segmenter(
    encoder: Encoder, source: Source, settings: Finetune, *, seed: int, folder: Path | None = None
) -> Segmenter:
    """Return a segmenter in evaluation mode, trained from an encoder; arguments as `finetune`."""
    return _trained(encoder, source, settings, seed=seed, folder=folder).segmenter


def _trained(
    encoder: Encoder, source: Source, settings: Finetune, *, seed: int, folder: Path | None
) -> SegmenterTraining:
    """Return a finished training, whose segmenter is in evaluation mode."""
    segmenter = _segmenter(encoder, len(source.classes), settings, seed)
    crops = _crops(source, settings, segmenter.fill, seed)
    feed = Feed(crops, settings.batch, settings.steps, settings.workers)
    training = SegmenterTraining(
        segmenter,
        feed,
        _rates(settings),
        _identity(encoder, source, settings, seed),
        loss_over=settings.loss_over,
        snapshot_every=settings.best_every,
    )
    train(
        training,
        accelerator=settings.accelerator,
        precision=settings.precision,
        folder=folder,
        every=settings.checkpoint_every,
    )
    segmenter.eval()
    return training


def best_of(
    segmenter: Segmenter,
    snapshots: Mapping[int, Mapping[str, Tensor]],
    source: Source,
    settings: Finetune,
    metric: Metric = MIOU,
) -> Outcome:
    """Segment every image of a source with each of some decoders and return what is best, as published numbers are.

    Args:
        segmenter: Whose decoder is replaced.
        snapshots: States of the decoder by the optimizer step that they were reached at.
        source: Labelled images, which choose and are reported.
        settings: How windows are laid.
        metric: What is best.
    """
    found: dict[int, Outcome] = {}
    for step, state in snapshots.items():
        segmenter.decoder.load_state_dict(dict(state))
        found[step] = segment_source(segmenter, source, settings, metric)
    best = max(found, key=lambda step: metric.once(found[step].counts))
    note = f"{found[best].stated['note']}, best of {len(found)} scored on the same images: step {best}"
    return replace(found[best], stated={"note": note})


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
            interpolation=settings.interpolation or "area",
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
        settings.interpolation or "area",
    )


def _rates(settings: Finetune) -> Rates:
    warmup = settings.warmup_steps
    return Rates(
        settings.lr,
        settings.decoder_lr,
        settings.layer_decay,
        settings.weight_decay,
        OneCycleSchedule(1.0, warmup)
        if settings.schedule == "one_cycle"
        else PolynomialSchedule(1.0, settings.final_lr, settings.power, warmup),
        settings.gradient_clip,
        settings.decay_vectors,
    )


def _segmenter(encoder: Encoder, classes: int, settings: Finetune, seed: int) -> Segmenter:
    """Return an untrained segmenter whose decoder is drawn by the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        decoder: nn.Module = (
            LinearDecoder(
                encoder.dim,
                classes,
                batch_norm=True,
                dropout=settings.dropout,
                dropout_first=settings.dropout_first,
            )
            if settings.decoder == "linear"
            else MaskTransformer(encoder.dim, classes, settings.decoder_depth)
        )
    return Segmenter(encoder, decoder, drop_path=settings.drop_path, frozen=settings.frozen)


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
