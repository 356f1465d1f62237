"""Training of a segmenter by Lightning: a step depends on the seed and its number, so a killed run goes on as if not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from paka.datamodule import StepSampler
from paka.optim import parameter_groups
from paka.progress import report
from paka.protocols.segmenter import Segmenter
from paka.protocols.training_crops import CropDataset, Crops, collate
from paka.sources import VOID
from paka.tuning import layer_scales

CHECKPOINT = "finetune.ckpt"
"""Name of the checkpoint in its folder."""


@dataclass(frozen=True)
class Rates:
    """Learning rates of a segmenter as functions of the optimizer step.

    Attributes:
        encoder: Peak rate of the encoder's last block.
        decoder: Peak rate of the decoder.
        layer_decay: Factor on the encoder's rate per block below the last.
        weight_decay: Of AdamW, on matrices.
        schedule: Factor on all peak rates, of the step and the number of steps.
        gradient_clip: Largest norm of the gradient; None for any.
        decay_vectors: Whether biases and norms are decayed too.
    """

    encoder: float
    decoder: float
    layer_decay: float
    weight_decay: float
    schedule: Callable[[int, int], float]
    gradient_clip: float | None = None
    decay_vectors: bool = False


@dataclass(frozen=True)
class Feed:
    """Batches of crops by optimizer step.

    Attributes:
        crops: Single crops.
        batch: Crops per step.
        steps: Optimizer steps in the whole run.
        workers: Loader processes; 0 loads in the main process.
    """

    crops: CropDataset
    batch: int
    steps: int
    workers: int

    def loader(self, first_step: int) -> DataLoader[Any]:
        """Return the loader of all steps from `first_step` on."""
        sampler = StepSampler(len(self.crops.source), self.batch, self.steps, seed=self.crops.seed)
        sampler.first_step = first_step
        # Processes that are forked while OpenCV has threads may wait for them for ever.
        cv2.setNumThreads(1)
        return DataLoader(
            self.crops,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )


class SegmenterTraining(L.LightningModule):
    """Train a segmenter in place with cross-entropy over the labelled pixels of a batch.

    Args:
        segmenter: What is trained.
        feed: What it is trained on.
        rates: Learning rates and decay.
        identity: What the run is determined by, in words; a checkpoint of another one is refused.
        loss_over: See `labelled_loss`.
        snapshot_every: Optimizer steps between states of the decoder that are kept, the last one always; None for none.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        feed: Feed,
        rates: Rates,
        identity: Mapping[str, str],
        *,
        loss_over: str = "labelled",
        snapshot_every: int | None = None,
    ) -> None:
        super().__init__()
        self.segmenter, self.feed, self.rates, self.identity = segmenter, feed, rates, dict(identity)
        self.loss_over, self.snapshot_every = loss_over, snapshot_every
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.first_step = 0
        # A frozen encoder is no part of the checkpoint, which the identity says whose it is.
        self.strict_loading = not segmenter.frozen

    def configure_optimizers(self) -> Optimizer:
        """Return AdamW over encoder and decoder."""
        modules: dict[str, tuple[nn.Module, float]] = {
            "encoder": (self.segmenter.encoder, self.rates.encoder),
            "decoder": (self.segmenter.decoder, self.rates.decoder),
        }
        groups = parameter_groups(modules, layer_scales(self.segmenter.encoder, self.rates.layer_decay))
        decays = [
            {**group, "weight_decay": self.rates.weight_decay * (group["decays"] or self.rates.decay_vectors)}
            for group in groups
        ]
        return torch.optim.AdamW(decays)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches that are still to come."""
        return self.feed.loader(self.first_step)

    def on_train_batch_start(self, batch: Crops, batch_idx: int) -> None:
        """Draw stochastic depth as a function of seed and step; `train` gives the random state back."""
        del batch, batch_idx
        # A plain sum would give the next seed's draws one step later.
        mixed = np.random.SeedSequence([self.feed.crops.seed, self.global_step]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))

    def training_step(self, batch: Crops, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        del batch_idx
        return labelled_loss(self.segmenter(batch.images), batch.labels, over=self.loss_over)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set this step's rates, let the optimizer step, and keep the decoder if it is time."""
        step = self.global_step
        factor = self.rates.schedule(step, self.feed.steps)
        for group in cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups:
            group["lr"] = group["peak_lr"] * factor
        super().optimizer_step(*args, **kwargs)
        report((step + 1) / self.feed.steps)
        if self.snapshot_every and ((step + 1) % self.snapshot_every == 0 or step + 1 == self.feed.steps):
            state = self.segmenter.decoder.state_dict()
            self.snapshots[step + 1] = {name: value.detach().cpu().clone() for name, value in state.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is, and leave out what does not change."""
        checkpoint["identity"] = self.identity
        checkpoint["snapshots"] = self.snapshots
        if self.segmenter.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {
                name: value for name, value in state.items() if not name.startswith("segmenter.encoder.")
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on after the step that the checkpoint was saved at.

        Raises:
            ValueError: It belongs to another run.
        """
        theirs = checkpoint["identity"]
        differing = sorted(
            key for key in {*theirs, *self.identity} if theirs.get(key) != self.identity.get(key)
        )
        if differing:
            words = ", ".join(f"{key} {theirs.get(key)} (now {self.identity.get(key)})" for key in differing)
            message = f"expected a checkpoint of this run, got one with {words}: use another folder, or remove {CHECKPOINT}"
            raise ValueError(message)
        self.first_step = checkpoint["global_step"]
        self.snapshots = checkpoint["snapshots"]


def labelled_loss(logits: Tensor, labels: Tensor, *, over: str = "labelled") -> Tensor:
    """Return the mean cross-entropy over labelled pixels, 0 without any.

    Args:
        logits: (B, C, H, W).
        labels: Class ids with 255 for void, (B, H, W) uint8.
        over: `labelled`, or `all` to divide the sum by the number of all pixels.
    """
    # One row per pixel: torch's loss of maps is not deterministic on CUDA.
    rows, truth = logits.permute(0, 2, 3, 1).flatten(0, 2).float(), labels.flatten().long()
    total = F.cross_entropy(rows, truth, ignore_index=VOID, reduction="sum")
    return total / (len(truth) if over == "all" else (truth != VOID).sum().clamp_min(1))


class StepCheckpoint(Callback):
    """Save the whole run every so many optimizer steps and at its end, in the place of the last time.

    Args:
        path: File to save to.
        every: Optimizer steps between.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        """Save if it is time."""
        del pl_module, rest
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.part")
            trainer.save_checkpoint(part)
            # A run that is killed meanwhile still finds the last complete one.
            part.replace(self.path)


def train(
    module: SegmenterTraining,
    *,
    accelerator: str,
    precision: str,
    folder: Path | None = None,
    every: int = 1000,
) -> torch.device:
    """Train a segmenter to the end, from the folder's checkpoint on if there is one.

    torch's random state and its determinism are left as they were.

    Args:
        module: What is trained, in place.
        accelerator: Lightning's name of the device, as `auto`, `cpu` or `gpu`.
        precision: Lightning's name of the precision, as `32-true` or `bf16-mixed`.
        folder: Where the checkpoint is; None keeps none.
        every: Optimizer steps between checkpoints.

    Returns:
        The device that was trained on; the segmenter is there.

    Raises:
        ValueError: The checkpoint is that of another run.
    """
    path = None if folder is None else folder / CHECKPOINT
    with _quietly(), _own_randomness():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=cast(Any, precision),
            max_steps=module.feed.steps,
            gradient_clip_val=module.rates.gradient_clip,
            deterministic="warn",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=None if path is None else [StepCheckpoint(path, every)],
        )
        started = path is not None and path.is_file()
        trainer.fit(module, ckpt_path=str(path) if started else None, weights_only=True)
        device = trainer.strategy.root_device
    module.segmenter.to(device)
    return device


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence Lightning's remarks about what is meant to be as it is."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers")
            # The loader starts at the step that is resumed.
            warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before")
            warnings.filterwarnings("ignore", ".*LeafSpec")
            warnings.filterwarnings("ignore", ".*in eval mode at the start of training")
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Give torch's random state and its choice of deterministic kernels back as they were."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
