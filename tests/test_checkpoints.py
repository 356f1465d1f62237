"""Checkpoints are whole, whatever comes while they are written, and what is said of a damaged one can be typed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paka import checkpoints
from paka.checkpoints import WholeCheckpoints
from paka.disk import ABANDONED
from paka.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_checkpoint_is_written_ends_the_run_after_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, sent = checkpoints._Measured.write, []

    def signalled(self: Any, data: Any) -> int:
        if not sent:
            sent.append(os.kill(os.getpid(), number))
        return write(self, data)

    monkeypatch.setattr(checkpoints._Measured, "write", signalled)
    path = tmp_path / "last.ckpt"
    with Interrupt() as interrupt, pytest.raises(SystemExit) as ended:
        WholeCheckpoints().save_checkpoint({"weights": torch.ones(1000)}, path)
    assert ended.value.code == 128 + number
    assert interrupt.received == number
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(1000))
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_advice_on_a_damaged_checkpoint_names_the_key_that_was_typed(key: str, tmp_path: Path) -> None:
    WholeCheckpoints().save_checkpoint({}, tmp_path / "older.ckpt")
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "older.ckpt").read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"it is damaged .*: use {key}={tmp_path}/older.ckpt, an older one"):
        checkpoints.read(tmp_path / "last.ckpt", key=key)


def test_what_a_killed_process_left_is_removed_by_the_next_checkpoint(tmp_path: Path) -> None:
    names = {"killed": ".last.ckpt.123", "at_work": ".last.ckpt.124", "other": ".last.ckpt.old.123"}
    for name in names.values():
        (tmp_path / name).touch()
    for name in ("killed", "other"):
        os.utime(tmp_path / names[name], (0, time.time() - ABANDONED - 60))
    WholeCheckpoints().save_checkpoint({}, tmp_path / "last.ckpt")
    assert {one.name for one in tmp_path.iterdir()} == {"last.ckpt", names["at_work"], names["other"]}
