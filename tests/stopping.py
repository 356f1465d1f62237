"""Training in this process or another, with a signal that comes at the end of a step: `python -m tests.stopping STEP SIGNAL ...`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from paka import resuming
from paka.callbacks import HealthAlarm
from paka.train import main

ARCH = "{patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, img_size: 32}"
SMALL = [
    "backbone.pretrained=false",
    f"backbone.encoder.arch={ARCH}",
    "backbone.encoder.drop_path=0.5",
    "backbone.global_grid=4",
    "backbone.local_grid=2",
    "backbone.batch_size=4",
    "objective.grid=2",
    "head.hidden=16",
    "head.out=8",
    "trainer.max_steps=6",
    "trainer.log_every=1",
    "trainer.accelerator=cpu",
    "trainer.workers=0",
    "data.source.train=12",
    "data.source.val=2",
    "data.source.test=2",
    "data.source.size=32",
    "eval=none",
]
"""Six steps of the smallest run, without scores; paths are dropped, so that random numbers matter."""


def signalled(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Have a signal come while `step` ends."""
    inner = HealthAlarm.on_train_batch_end

    def late(self: HealthAlarm, trainer: L.Trainer, *arguments: Any) -> None:
        inner(self, trainer, *arguments)
        whole = (arguments[-1] + 1) % trainer.accumulate_grad_batches == 0
        if trainer.global_step == step - (not whole) and not self.__dict__.setdefault("sent", False):
            self.__dict__["sent"] = True
            os.kill(os.getpid(), number)

    monkeypatch.setattr(HealthAlarm, "on_train_batch_end", late)


def train(monkeypatch: pytest.MonkeyPatch, *overrides: str, stop_at: int | None = None) -> int:
    """Train in this process, below the current folder; return the exit code."""
    resuming._FOLDERS.clear()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["train.py", *overrides])
        if stop_at is not None:
            signalled(patched, stop_at)
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def runs(below: Path = resuming.OUTPUTS) -> list[Path]:
    """Return the folders of runs, the oldest first."""
    return sorted((path.parent for path in below.glob("*/*/status.json")), key=lambda path: path.name)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as own:
        if int(sys.argv[1]):
            signalled(own, int(sys.argv[1]), getattr(signal, sys.argv[2]))
        sys.argv = ["train.py", *sys.argv[3:]]
        main()
