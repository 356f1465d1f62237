"""What a run that is resumed goes on from, checked against what it is to become, and told in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from paka import checkpoints
from paka.changes import changes, plain, refuse
from paka.metrics_file import NAME, rows_until
from paka.module import PostTraining
from paka.resuming import run_of

SHOWN = 12
"""Changed settings that are listed one by one."""


class Resumption:
    """A checkpoint and the run that goes on from it.

    Args:
        cfg: The configuration of the present, with the checkpoint at `resume`.

    Attributes:
        metrics: Rows of `metrics.csv` up to the checkpoint, if it lies in its run's folder.

    Raises:
        ValueError: The checkpoint is damaged, or cannot go on under this configuration.
    """

    def __init__(self, cfg: DictConfig) -> None:
        path = Path(cfg.resume)
        self.output_dir, self.max_steps = Path(cfg.output_dir), cfg.trainer.max_steps
        self.kept, self.run = checkpoints.read(path), run_of(path)
        self.config = self.kept.config or (plain(self.run.config) if self.run else {})
        self.changes = changes(self.config, plain(cfg)) if self.config else []
        refuse(self.changes, path)
        if self.max_steps < self.kept.step:
            message = f"trainer.max_steps: expected at least {self.kept.step}, the steps that resume={path} has done, got {self.max_steps}"
            raise ValueError(message)
        self.metrics = rows_until(self.run.path / NAME, self.kept.step) if self.run else []

    @property
    def fact(self) -> str:
        """Where the run goes on, for its report."""
        return f"from step {self.kept.step} of {self.run.path if self.run else self.kept.path}"

    def told(self, module: PostTraining) -> list[str]:
        """Return what is restored and what has changed, a line each.

        Args:
            module: What is trained.

        Raises:
            ValueError: The checkpoint's weights are not those of the module.
        """
        self._check(module)
        before = self.config.get("trainer", {}).get("max_steps", self.max_steps)
        lines = [
            f"resume: goes on from step {self.kept.step} of {before} of {self.run.path if self.run else self.kept.path}; optimizer, "
            "teacher, order of images and random numbers are restored",
            f"  {self._place()}",
            *(f"  changed  {change}" for change in self.changes[:SHOWN]),
        ]
        lines += (
            [f"  changed  {len(self.changes) - SHOWN} more settings"] if len(self.changes) > SHOWN else []
        )
        if not self.config:
            lines.append(
                "  the checkpoint does not say under which settings it was written: they are taken to be the same"
            )
        return [*lines, *self._schedules(module, before)]

    def _check(self, module: PostTraining) -> None:
        problems = checkpoints.misfits(self.kept.weights, module.state_dict())
        if problems:
            reasons = "; ".join(map(str, self.changes[:4])) or "settings that are not known"
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            message = (
                f"resume={self.kept.path} does not hold the weights of this run: {', '.join(problems[:3])}{more} (changed: {reasons}): "
                f"leave these as they were, or start anew from its weights with init_from={self.kept.path}"
            )
            raise ValueError(message)

    def _place(self) -> str:
        if self.run is None:
            return f"writes into {self.output_dir}; metrics.csv begins at step {self.kept.step}, because its run is not beside the checkpoint"
        if self.run.path.resolve() == self.output_dir.resolve():
            return "writes into the same folder, metrics.csv is continued"
        return f"is another run from here on and writes into {self.output_dir}; metrics.csv begins with that of the first"

    def _schedules(self, module: PostTraining, before: int) -> Sequence[str]:
        """Return what a run of another length does to the schedules."""
        if before == self.max_steps:
            return []
        old, new = (
            replace(module.recipe, max_steps=steps).at(self.kept.step) for steps in (before, self.max_steps)
        )
        rates = " instead of ".join(f"{100 * one['lr_factor']:.3g} %" for one in (new, old))
        return [
            f"  schedules run over {self.max_steps} steps now, not {before}: the learning rates go on at {rates} of their peak, so this is not "
            f"what {self.max_steps} steps from the start would have given"
        ]
