"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SLURM's word that the time is up; nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import lightning as L

from paka.launch import rank, slurm_job

_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler, None)
"""Handlers that nobody installed; any other, such as submitit's, is left in charge."""


class Interrupt(L.Callback):
    """Turn a signal into a stop after the current optimizer step; a second Ctrl-C stops at once.

    As a context manager it is in charge of SIGINT, SIGTERM and, in a SLURM job, SIGUSR1; outside of training they
    end the program. Lightning's own handling of SLURM would save in the midst of a step, and into a folder that jobs share.

    Attributes:
        received: The signal that asked for the stop, None before; of another process, SIGTERM.
        step: Optimizer steps that are done.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.step = 0
        self.training = False
        wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if slurm_job() else [])]
        self.previous = {number: signal.getsignal(number) for number in wanted}
        self.own = [number for number in wanted if self.previous[number] in _UNTOUCHED]

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.received is not None

    def __enter__(self) -> Self:
        """Take charge of the signals."""
        for number in self.own:
            signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give them back."""
        del kind, error, traceback
        for number in self.own:
            signal.signal(number, self.previous[number])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take charge again: Lightning has put handlers of its own before ours."""
        del pl_module
        self.__enter__()
        self.training, self.step = True, trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stop on all processes after the same optimizer step when one of them was asked to."""
        del pl_module
        *_, number = args
        if (number + 1) % trainer.accumulate_grad_batches:
            return  # in the midst of a step
        self.step = trainer.global_step
        stop = self.requested
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.received = self.received or signal.SIGTERM
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let signals end the program again."""
        del trainer, pl_module
        self.training = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Let signals end the program again."""
        del trainer, pl_module, exception
        self.training = False

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        again = self.requested and number == signal.SIGINT
        self.received = signal.Signals(number)
        if again or not self.training:
            raise SystemExit(128 + number)
        hint = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        sys.stderr.write(f"\n{self.received.name}: stopping after this step{hint}\n")


@contextmanager
def put_off() -> Iterator[None]:
    """Keep signals back for the length of the block, which is not to be broken off, and hand them on after it.

    Signals are the main thread's, and so is this.
    """
    came: list[int] = []
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last is submitit's
    handlers = {number: signal.getsignal(number) for number in wanted}
    in_charge = {number: handler for number, handler in handlers.items() if callable(handler)}

    def keep(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    for number in in_charge:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in in_charge.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)


def requeue() -> str:
    """Have SLURM start this job again; return in a sentence what came of it."""
    job = slurm_job()
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError as error:
        return f"SLURM job {job} could not be requeued: {error}"
    if done.returncode:
        return f"SLURM job {job} could not be requeued: {done.stderr.strip() or done.stdout.strip()}"
    return f"SLURM job {job} is requeued and goes on by itself"


def is_requeued_by(received: signal.Signals | None) -> bool:
    """Return whether a signal is SLURM's warning, after which the job has to be requeued by itself."""
    return received == signal.SIGUSR1 and bool(slurm_job()) and rank() == 0
