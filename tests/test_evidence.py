"""The command that a run closes with."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from paka import evidence


def test_the_next_command_leaves_the_folder_of_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = SimpleNamespace(runtime=SimpleNamespace(choices={"kernel": "linear"}))
    monkeypatch.setattr(evidence.HydraConfig, "get", lambda: choices)
    typed = ["seed=3", "hydra.run.dir=run1", "output_dir=run1", "resume=last"]
    monkeypatch.setattr(sys, "argv", ["train.py", *typed])
    assert evidence.next_command(OmegaConf.create()) == "python -m paka.train seed=3 kernel=rbf"


def test_a_job_of_a_sweep_suggests_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "in_sweep", lambda cfg: True)
    assert evidence.next_command(OmegaConf.create()) is None
