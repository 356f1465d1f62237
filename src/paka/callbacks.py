"""Lightning callbacks: progress, evaluation while training, and an alarm when it goes wrong."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from paka.benchmark import Benchmark
from paka.head import Branch
from paka.progress import animated, duration
from paka.result import printed
from paka.terminal import standard_output

SILENCE = 600.0
"""Seconds after which a run without a terminal says where it is, however long a tenth of it takes."""


class StepProgress(L.Callback):
    """One bar over the run's optimizer steps with loss, CKA, learning rate, images/s and the time that is left.

    Without a terminal it prints a line for every tenth of the run instead, and at least every ten minutes, so that
    the log of a batch job tells how far it is.

    Args:
        batch_size: Images per optimizer step.
        shown: Logged values to show, in this order, when the run logs them.
        clock: Returns seconds.
    """

    def __init__(
        self,
        batch_size: int,
        shown: tuple[str, ...] = ("loss", "cka", "lr"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batch_size, self.shown, self.clock = batch_size, shown, clock
        self.console = standard_output()
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        del pl_module
        self.started = self.spoke = self.clock()
        self.first_step = self.last_step = trainer.global_step
        if not trainer.is_global_zero or not animated(self.console):
            return
        columns = (
            TextColumn("post-train"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        self.bar = Progress(*columns, console=self.console)
        self.task = self.bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Advance after each optimizer step."""
        del pl_module, args
        step = trainer.global_step
        if step == self.last_step or not trainer.is_global_zero:
            return
        self.last_step = step
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=self._describe(trainer))
        elif self._is_due(step, trainer.max_steps):
            self.spoke = self.clock()
            self.console.print(f"step {step}/{trainer.max_steps}  {self._describe(trainer)}", highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        del trainer, pl_module
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        del trainer, pl_module, exception
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _is_due(self, step: int, steps: int) -> bool:
        return 10 * step // steps > 10 * (step - 1) // steps or self.clock() - self.spoke >= SILENCE

    def _describe(self, trainer: L.Trainer) -> str:
        logged = trainer.callback_metrics
        done, left = self.last_step - self.first_step, trainer.max_steps - self.last_step
        seconds = max(self.clock() - self.started, 1e-9)
        values = [f"{name} {float(logged[name]):.3g}" for name in self.shown if name in logged]
        rest = [f"about {duration(seconds / done * left)} left"] if left else []
        return "  ".join([*values, f"{self.batch_size * done / seconds:.0f} images/s", *rest])


class DenseEvaluation(L.Callback):
    """Score the exported branch on a small validation subset every few optimizer steps.

    Args:
        benchmark: What to run.
        every: Optimizer steps between evaluations.
        branch: `teacher` or `student`, whichever the run exports.

    Attributes:
        scores: The latest scores as printed, by `val/PROTOCOL`.
    """

    def __init__(self, benchmark: Benchmark, *, every: int, branch: str) -> None:
        self.benchmark, self.every, self.branch = benchmark, every, branch
        self.evaluated = 0
        self.scores: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Evaluate on the first process when `every` more optimizer steps are done."""
        del args
        step = trainer.global_step
        if step % self.every or step == self.evaluated or not trainer.is_global_zero:
            return
        self.evaluated = step
        encoder = cast(Branch, pl_module.get_submodule(self.branch)).encoder
        outcomes = self.benchmark.run(encoder)
        self.scores = {f"val/{name}": printed(found) for name, found in outcomes.items()}
        # Logged by hand: what goes through `self.log` is repeated in every later row.
        for logger in trainer.loggers:
            logger.log_metrics(self.scores, step=step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {"evaluated": self.evaluated, "scores": dict(self.scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.evaluated, self.scores = state_dict["evaluated"], state_dict["scores"]


class HealthAlarm(L.Callback):
    """Say when tokens collapse, and stop when the loss is no number any more; at the first step and those that are logged.

    Args:
        share: The alarm goes off once the effective rank of the student's tokens falls under this share of the first.

    Attributes:
        first: The first effective rank, None before; kept in the checkpoint.
        alarmed: Whether the alarm went off, which it does once a run.
    """

    def __init__(self, share: float = 0.25) -> None:
        self.share = share
        self.first: float | None = None
        self.alarmed = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Look at what this step logged.

        Raises:
            ValueError: The loss or a token is not finite.
        """
        del pl_module, args
        step = trainer.global_step
        if step > 1 and step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return  # nothing new, and a look would wait for the device
        logged = trainer.callback_metrics
        if "rankme" not in logged:
            return  # a resumed run's first micro-batch, before its first logged step
        loss, rank = float(logged["loss"]), float(logged["rankme"])
        if not (math.isfinite(loss) and math.isfinite(rank)):
            name, value = ("loss", loss) if not math.isfinite(loss) else ("rank of the tokens", rank)
            raise ValueError(
                f"expected a finite {name}, got {value} at step {step}: lower backbone.lr or backbone.head_lr, or set "
                "trainer.gradient_clip"
            )
        self.first = rank if self.first is None else self.first
        if rank < self.share * self.first and not self.alarmed:
            self.alarmed = True
            if trainer.is_global_zero:
                sys.stderr.write(
                    f"\nwarning: the student's tokens are collapsing: their effective rank fell from {self.first:.1f} "
                    f"to {rank:.1f} at step {step}; lower backbone.lr or backbone.head_lr, or warm up longer\n"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {"first": self.first, "alarmed": self.alarmed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.first, self.alarmed = state_dict["first"], state_dict["alarmed"]
