"""The health alarm: it speaks once, of the right numbers, and stops what is not finite."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paka.callbacks import HealthAlarm


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
