"""Encoders that are kept while training, and which of them is exported: the last, or the best by an estimate without labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L

from paka import choice, weights
from paka.choice import Estimates
from paka.encoder import Encoder
from paka.features import DenseFeatures, extract
from paka.frames import Frame
from paka.head import Branch
from paka.sources import Source
from paka.sources.subset import Subset
from paka.tuning import merge


class Snapshots(L.Callback):
    """Write the exported branch's encoder every so many optimizer steps, before the first one and after the last.

    Args:
        folder: Where `step_000120.safetensors` goes.
        every: Optimizer steps between.
        branch: `teacher` or `student`, whichever the run exports.
        plain: The encoder that training started from, for the layout without adapters.
        facts: What has to travel with the weights.
    """

    def __init__(
        self, folder: Path, *, every: int, branch: str, plain: Encoder, facts: Mapping[str, str]
    ) -> None:
        self.folder, self.every, self.branch, self.plain, self.facts = folder, every, branch, plain, facts

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the start."""
        self._keep(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Keep the encoder if it is time."""
        del args
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        path = self.folder / f"step_{trainer.global_step:06d}.safetensors"
        if not trainer.is_global_zero or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        adapted = cast(Branch, pl_module.get_submodule(self.branch)).encoder
        merged = merge(adapted, copy.deepcopy(self.plain))
        weights.save(merged.model, path, **self.facts)


def snapshots(folder: Path) -> list[Path]:
    """Return the encoders in a folder, in the order of their names."""
    return sorted(folder.glob("*.safetensors"))


def estimate_files(
    paths: Sequence[Path], encoder: Encoder, source: Source, frame: Frame, *, seed: int
) -> Estimates:
    """Return label-free estimates of encoders in files, from evenly spaced images.

    Args:
        paths: At least two files of weights.
        encoder: What they are weights of.
        source: Images; their labels are not read.
        frame: The grid of tokens that images are brought to.
        seed: Seed of clusterings and draws.

    Raises:
        ValueError: There are fewer than two files, or a file does not fit.
    """
    images = Unlabelled(source)
    extracted = ((path.stem, _features(path, encoder, images, frame)) for path in paths)
    return choice.estimate(extracted, len(paths), seed=seed)


class Unlabelled(Subset):
    """Evenly spaced images of a source, as many as estimates are made of, without their labels.

    Args:
        source: The whole.
    """

    classes = ()
    pairs = ()
    videos = ()

    def __init__(self, source: Source) -> None:
        super().__init__(source, choice.evenly(len(source)))
        self.has_depth = False


def _features(path: Path, encoder: Encoder, images: Source, frame: Frame) -> DenseFeatures:
    other = copy.deepcopy(encoder)
    weights.load_file(other.model, path)
    return extract(other, images, frame=frame, indices=range(len(images)))
