"""Checkpoints: written whole or not at all, holding what a run goes on from, and read back with care."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from paka.disk import full_disk, whole
from paka.interrupt import put_off

CONFIG = "paka_config"
"""Key under which a checkpoint holds the run's resolved configuration, as plain types."""


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints of which a reader, and whoever goes on after a full disk, never sees a part.

    Lightning's own go through the system's folder of temporary files: from another file system they arrive by copying, which
    may end half-way. These are written beside their place, brought to the disk, and then take it. Signals wait until that is
    done: what a handler raises within torch's writer comes out of it as another error.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            DiskFullError: There is no room for it; what was at `path` is still there.
        """
        del storage_options
        path = Path(path)
        measured = _Measured()
        try:
            with put_off(), whole(path) as unfinished, unfinished.open("wb") as file:
                measured.file = file
                torch.save(checkpoint, measured)  # type: ignore[arg-type]  # torch needs no more than this of a file
                if measured.error is not None:
                    raise measured.error
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise full_disk(error, path.parent.parent, needed=measured.size) or error from error


class _Measured:
    """What torch writes to: it keeps the first error to itself, and learns the size that would have been needed.

    An error that passes through torch's writer ends the process in its destructor.
    """

    def __init__(self) -> None:
        self.file: IO[bytes] | None = None
        self.error: OSError | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        """Write bytes, or count them if the disk is full already."""
        count = len(memoryview(data).cast("B")) if not isinstance(data, bytes) else len(data)
        self.size += count
        if self.file is not None and self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return count

    def flush(self) -> None:
        """Do nothing; the file is flushed at the end."""


@dataclass(frozen=True)
class Kept:
    """What a checkpoint holds beside a run's weights.

    Attributes:
        path: The file.
        step: Optimizer steps that are done.
        config: The resolved configuration of its run; empty if another program wrote it.
        weights: The module's state dict, in memory only as far as it is looked at.
    """

    path: Path
    step: int
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path, key: str = "resume") -> Kept:
    """Return what a checkpoint of this package's training holds.

    Args:
        path: The file.
        key: Under which it was named, for what errors advise.

    Raises:
        ValueError: It is damaged, or no such checkpoint.
    """
    held = _load(path, key)
    if not isinstance(held, dict) or not {"state_dict", "global_step", "loops"} <= held.keys():
        raise ValueError(
            f"expected a checkpoint of a training run in {path}, got other weights: start from them with init_from={path}"
        )
    return Kept(path, int(held["global_step"]), held.get(CONFIG, {}), held["state_dict"])


def _load(path: Path, key: str) -> Any:
    """Return what a file of torch's holds, after its checksums were compared."""
    reason = "it is not whole"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is None:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [reason])[0]
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"expected plain types in {path}, got what could run code: use a checkpoint of this package"
        ) from error
    others = sorted({*path.parent.glob("*.ckpt")} - {path}, key=lambda other: -other.stat().st_mtime)
    way = f"{key}={others[0]}, an older one" if others else "an older one, or start again"
    raise ValueError(f"expected a whole checkpoint in {path}, it is damaged ({reason}): use {way}")


class Recorded(L.Callback):
    """Put the run's configuration into its checkpoints, and random numbers on a footing that can be resumed.

    Random numbers of a step, such as the paths that are dropped, are a function of (seed, step, micro-batch, process).

    Args:
        config: The resolved configuration as plain types.
        seed: The run's seed.
    """

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        self.config, self.seed = dict(config), seed

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration."""
        del trainer, pl_module
        checkpoint[CONFIG] = self.config

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Seed the micro-batch."""
        del pl_module
        *_, number = args
        micro = number % trainer.accumulate_grad_batches
        torch.manual_seed(_seed(self.seed, trainer.global_step, micro, trainer.global_rank))


def _seed(*numbers: int) -> int:
    """Return one seed of 63 bits that tells lists of numbers apart."""
    import numpy as np

    words = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(words[0]) >> 1


def misfits(weights: Mapping[str, Any], module: Mapping[str, Any]) -> list[str]:
    """Return what keeps a checkpoint's weights from being a module's, as names with the reason.

    Args:
        weights: State dict of the checkpoint.
        module: State dict of the module.
    """
    shapes = [
        f"{name} ({_shape(weights[name])} for {_shape(module[name])})"
        for name in sorted(weights.keys() & module.keys())
        if isinstance(module[name], Tensor) and _shape(weights[name]) != _shape(module[name])
    ]
    missing = [f"{name} (missing)" for name in sorted(module.keys() - weights.keys())]
    return [*shapes, *missing, *(f"{name} (unknown)" for name in sorted(weights.keys() - module.keys()))]


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__
