"""The health alarm speaks once, of the right numbers; progress tells how far a run is, on terminals and in logs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paka.callbacks import HealthAlarm, StepProgress


def after_step(alarm: HealthAlarm, step: int, rank: float, loss: float = 0.5) -> None:
    logged = {"loss": torch.tensor(loss), "rankme": torch.tensor(rank)}
    trainer: Any = SimpleNamespace(
        global_step=step, callback_metrics=logged, log_every_n_steps=5, is_global_zero=True
    )
    alarm.on_train_batch_end(trainer, None)  # type: ignore[arg-type]


def test_a_collapse_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    alarm = HealthAlarm()
    for step, rank in ((1, 80.0), (5, 70.0), (10, 60.0), (15, 21.0), (17, 1.0)):
        after_step(alarm, step, rank)
    assert capsys.readouterr().err == "", "a quarter is where it starts, and step 17 is not logged"
    after_step(alarm, 20, 19.0)
    after_step(alarm, 25, 2.0)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "effective rank fell from 80.0 to 19.0 at step 20" in line


def test_it_remembers_across_a_resume(capsys: pytest.CaptureFixture[str]) -> None:
    alarm, resumed = HealthAlarm(), HealthAlarm()
    after_step(alarm, 5, 80.0)
    resumed.load_state_dict(alarm.state_dict())
    after_step(resumed, 10, 10.0)
    assert "from 80.0 to 10.0" in capsys.readouterr().err
    again = HealthAlarm()
    again.load_state_dict(resumed.state_dict())
    after_step(again, 15, 5.0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(loss: float) -> None:
    with pytest.raises(ValueError, match=f"expected a finite loss, got {loss} at step 10"):
        after_step(HealthAlarm(), 10, 5.0, loss)
    after_step(HealthAlarm(), 12, 5.0, loss)
    with pytest.raises(ValueError, match=f"finite rank of the tokens, got {loss} at step 10"):
        after_step(HealthAlarm(), 10, loss)


def test_nothing_logged_yet_is_no_alarm() -> None:
    trainer: Any = SimpleNamespace(global_step=10, callback_metrics={}, log_every_n_steps=5)
    HealthAlarm().on_train_batch_end(trainer, None)  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(capsys: pytest.CaptureFixture[str], steps: int, seconds: float, first: int = 0) -> list[str]:
    """Lines of a run of `steps` steps that take `seconds` each."""
    clock = Clock()
    shown = StepProgress(batch_size=16, clock=clock)
    trainer: Any = SimpleNamespace(
        global_step=first, max_steps=steps, is_global_zero=True, callback_metrics={"loss": torch.tensor(0.5)}
    )
    shown.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(first + 1, steps + 1):
        trainer.global_step = step
        clock.now += seconds
        shown.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
    shown.on_train_end(trainer, None)  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_a_log_has_a_line_for_each_tenth_with_the_time_that_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = progress(capsys, steps=120, seconds=2.0)
    assert len(lines) == 10
    assert lines[0] == "step 12/120  loss 0.5  8 images/s  about 3 min 40 s left"
    assert lines[-1] == "step 120/120  loss 0.5  8 images/s"


def test_a_resumed_run_counts_its_own_steps_only(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress(capsys, steps=120, seconds=2.0, first=60)
    assert lines[0] == "step 72/120  loss 0.5  8 images/s  about 1 min 40 s left"


def test_a_long_run_is_never_silent_for_long(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress(capsys, steps=1000, seconds=60.0)
    assert len(lines) == 100, "every ten minutes of 17 hours"
    assert lines[0].endswith("about 16 h 30 min left")


def test_colours_may_be_forced_into_a_log_but_nothing_moves_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = progress(capsys, steps=20, seconds=2.0)
    assert len(lines) == 10
    assert not any("\x1b" in line for line in lines)
