"""A run's folder says how the run stands and gives back what it left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from paka.run_folder import STATUS, RunFolder, recorded


def folder_of(path: Path, **status: object) -> RunFolder:
    path.mkdir(parents=True, exist_ok=True)
    OmegaConf.save({"seed": 3}, path / "config.yaml")
    if status:
        (path / STATUS).write_text(json.dumps(status))
    return RunFolder(path)


def test_a_finished_run_keeps_its_score(tmp_path: Path) -> None:
    run = folder_of(tmp_path)
    states = []

    def job() -> float:
        states.append(run.state)
        return 21.5

    assert recorded(tmp_path, job) == 21.5
    assert states == ["running"]
    assert run.state == "finished"
    status = run.status
    assert status is not None
    assert (status.score, status.error) == (21.5, "")
    assert status.ended is not None
    assert status.started <= status.ended


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (ValueError("expected a kernel, got none"), "failed", "expected a kernel, got none"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
        (KeyboardInterrupt(), "stopped", ""),
        (SystemExit(130), "stopped", ""),
        (SystemExit(143), "stopped", ""),
        (SystemExit(1), "failed", "1"),
    ],
)
def test_a_run_that_ends_otherwise_says_how(
    tmp_path: Path, error: BaseException, state: str, reason: str
) -> None:
    def job() -> None:
        raise error

    with pytest.raises(type(error)):
        recorded(tmp_path, job)
    run = folder_of(tmp_path)
    assert run.state == state
    assert run.status is not None
    assert run.status.error == reason


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from paka.run_folder import recorded; "
        "recorded(pathlib.Path(sys.argv[1]), lambda: os._exit(9))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    run = folder_of(tmp_path)
    assert run.status is not None
    assert run.status.state == "running"
    assert run.state == "killed"


def test_a_run_on_another_machine_counts_as_running(tmp_path: Path) -> None:
    run = folder_of(
        tmp_path, state="running", started="2026-11-25T00:00:00Z", host="another machine", pid=2**22 + 1
    )
    assert run.state == "running"


def test_files_are_read_back(tmp_path: Path) -> None:
    run = folder_of(tmp_path)
    assert run.config.seed == 3
    assert (run.choices, run.provenance, run.scores) == ({}, {}, [])
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save({"hydra": {"runtime": {"choices": {"kernel": "rbf"}}}}, tmp_path / ".hydra" / "hydra.yaml")
    assert RunFolder(tmp_path).choices == {"kernel": "rbf"}


def test_other_folders_and_damaged_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no config.yaml"):
        RunFolder(tmp_path)
    (tmp_path / "config.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="got a list"):
        _ = RunFolder(tmp_path).config
    (tmp_path / STATUS).write_text('{"state": "ru')
    with pytest.raises(ValueError, match="expected JSON"):
        _ = RunFolder(tmp_path).state
