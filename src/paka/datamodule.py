"""Feeding views to the trainer: a sample depends on (seed, epoch, index), a batch on the step alone."""

from __future__ import annotations

import contextlib
import csv
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from paka.sources import Source
from paka.views import MultiCrop, Shown, Views, collate

Key = tuple[int, int]
"""Epoch and index of an image in its source."""

UNREADABLE = (ValueError, FileNotFoundError)
"""What a source raises for an image that cannot be read."""

STANDING_IN = 100
"""Images tried in the place of one that cannot be read."""

LARGEST_SHARE = 0.01
"""Share of the images that may be skipped; above it something is wrong with the data."""


class StepSampler(Sampler[list[Key]]):
    """Yield one process's share of every batch, counted in optimizer steps.

    The data are passed through in a fresh permutation per epoch, incomplete batches dropped. Step t's global
    batch is a function of (seed, t), cut into `accumulate` micro-batches and those into `world` equal shares,
    so any number of processes sees the same images at the same step and a resumed run continues exactly.

    Args:
        length: Number of images.
        batch_size: Images per optimizer step over all processes and micro-batches.
        max_steps: Optimizer steps in the whole run.
        seed: Seed of the permutations.
        rank: This process.
        world: Number of processes.
        accumulate: Micro-batches per optimizer step.

    Raises:
        ValueError: `batch_size` exceeds `length` or cannot be shared out equally.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        max_steps: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ) -> None:
        if batch_size > length:
            message = f"expected at least one batch of {batch_size} images, found {length}: lower batch_size"
            raise ValueError(message)
        if batch_size % (world * accumulate):
            message = f"expected a batch_size divisible by devices x accumulate = {world} x {accumulate}, got {batch_size}"
            raise ValueError(message)
        self.length, self.batch_size, self.max_steps, self.seed = length, batch_size, max_steps, seed
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.first_step = 0

    def __len__(self) -> int:
        """Return the micro-batches of the whole run, including those before `first_step`."""
        return self.max_steps * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield micro-batches of (epoch, index) from `first_step` on."""
        for step in range(self.first_step, self.max_steps):
            for micro in np.split(self.batch(step), self.accumulate):
                yield [(int(epoch), int(index)) for epoch, index in np.split(micro, self.world)[self.rank]]

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the (epoch, index) rows of the global batch of `step`, (batch_size, 2) int64."""
        epoch, position = divmod(step, self.length // self.batch_size)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        indices = order[position * self.batch_size : (position + 1) * self.batch_size]
        return np.stack([np.full_like(indices, epoch), indices], axis=1)


@dataclass(frozen=True)
class ViewDataset(Dataset[Shown]):
    """Views of a source's images, by (epoch, index).

    Attributes:
        source: Where the images come from.
        multi_crop: How views are drawn.
        seed: Seed of the views.
    """

    source: Source
    multi_crop: MultiCrop
    seed: int

    def __getitem__(self, key: Key) -> Shown:
        """Return the views of one image as a function of (seed, epoch, index).

        The next readable image stands in for one that cannot be read.

        Raises:
            ValueError: Neither the image nor the `STANDING_IN` behind it can be read.
        """
        epoch, index = key
        shown, image = self._readable(index)
        views = self.multi_crop(image, np.random.default_rng([self.seed, epoch, index]))
        return views, self.source.tags(shown), shown, -1 if shown == index else index

    def _readable(self, index: int) -> tuple[int, NDArray[np.uint8]]:
        """Return the first image from `index` on that can be read."""
        for step in range(STANDING_IN):
            shown = (index + step) % len(self.source)
            with contextlib.suppress(*UNREADABLE):
                return shown, self.source.image(shown)
        return index, self.source.image(index)  # raises


class Skipped:
    """The images that were skipped because they cannot be read: counted, and listed in a file.

    Args:
        source: Where the images come from.
        path: CSV file to append to; None lists nothing.
    """

    def __init__(self, source: Source, path: Path | None) -> None:
        self.source, self.path = source, path
        self.indices: set[int] = set()

    def add(self, indices: Iterable[int]) -> None:
        """Note images that could not be read.

        Raises:
            ValueError: They are more than 1 % of the source's.
        """
        for index in sorted({*indices} - self.indices):
            self.indices.add(index)
            self._write(index)
        count, whole = len(self.indices), len(self.source)
        if count > LARGEST_SHARE * whole:
            raise ValueError(
                f"{count} of {whole} images cannot be read, {self.source.item(min(self.indices))} the first of them: expected "
                f"at most {LARGEST_SHARE:.0%}; {self.path or 'skipped.csv'} lists them, repair or remove them"
            )

    def _write(self, index: int) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            if not file.tell():
                csv.writer(file).writerow(["index", "image", "reason"])
            csv.writer(file).writerow([index, self.source.item(index), self._reason(index)])

    def _reason(self, index: int) -> str:
        try:
            self.source.image(index)
        except UNREADABLE as error:
            return str(error)
        return "it could not be read the first time"


class PostTrainingData(L.LightningDataModule):
    """Lightning's hand on the views of one source.

    Args:
        source: The images; masks are never read.
        multi_crop: How views are drawn.
        batch_size: Images per optimizer step over all processes and micro-batches.
        max_steps: Optimizer steps in the whole run.
        seed: Seed of order and views.
        workers: Loader processes; 0 loads in the main process.
        accumulate: Micro-batches per optimizer step.
        skipped: CSV file in which unreadable images are listed; other processes than the first add their rank.
    """

    def __init__(
        self,
        source: Source,
        multi_crop: MultiCrop,
        *,
        batch_size: int,
        max_steps: int,
        seed: int,
        workers: int = 0,
        accumulate: int = 1,
        skipped: Path | None = None,
    ) -> None:
        super().__init__()
        self.dataset = ViewDataset(source, multi_crop, seed)
        self.batch_size, self.max_steps, self.seed = batch_size, max_steps, seed
        self.workers, self.accumulate = workers, accumulate
        self.first_step = 0
        self.skipped = Skipped(source, skipped)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this process's share of all steps that are still to be done."""
        # Processes that are forked while OpenCV has threads may wait for them for ever.
        cv2.setNumThreads(1)
        sampler = self._sampler()
        sampler.first_step = self.first_step
        rank = self.trainer.global_rank if self.trainer else 0
        if rank and self.skipped.path is not None:
            self.skipped.path = self.skipped.path.with_name(f"skipped-rank{rank}.csv")
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            worker_init_fn=_single_threaded,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def example(self) -> Views:
        """Return this process's first micro-batch, made here and now."""
        return collate([self.dataset[key] for key in next(iter(self._sampler()))])

    def _sampler(self) -> StepSampler:
        return StepSampler(
            len(self.dataset.source),
            self.batch_size,
            self.max_steps,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
            accumulate=self.accumulate,
        )

    def state_dict(self) -> dict[str, int]:
        """Return the number of finished optimizer steps, all the loader needs to go on, and that of the images."""
        return {"step": self.trainer.global_step if self.trainer else 0, "images": len(self.dataset.source)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on after the step that `state_dict` was saved at.

        Raises:
            ValueError: There are more or fewer images than there were, so their order would be another.
        """
        known, found = state_dict.get("images", len(self.dataset.source)), len(self.dataset.source)
        if known != found:
            raise ValueError(
                f"expected the {known} images of the run that is resumed, found {found}, so their order would be another: bring them "
                "back, or start anew from its weights with init_from"
            )
        self.first_step = state_dict["step"]

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        """Move a batch as it is: uint8 crosses to the device, floats are made there.

        Raises:
            ValueError: Too many images cannot be read.
        """
        del dataloader_idx
        if bool((batch.unreadable >= 0).any()):
            self.skipped.add(batch.unreadable[batch.unreadable >= 0].tolist())
        return Views(*(tensor.to(device, non_blocking=True) for tensor in batch))


def _single_threaded(worker: int) -> None:
    """Keep a loader process to one thread, because its images come from its own cores, and alive while a run stops.

    Ctrl-C and SLURM send their signals to all processes. If a loader process died of one, the step that the run wants to
    end would fail; of SIGTERM, by which its own process may also be rid of it, it dies a minute late.
    """
    del worker
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
