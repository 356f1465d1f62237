"""The command line of a run that goes on: which run, and what of its settings holds."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from paka.launch import RANKS
from paka.resuming import job, next_command, settings
from paka.run_folder import RunFolder

Run = Callable[..., Path]

CHECKPOINT = Path("checkpoints", "last.ckpt")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Writes what a run leaves at the beginning, below the current folder."""
    for name in (*RANKS, "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def write(
        name: str,
        *overrides: str,
        checkpoint: bool = True,
        choices: dict[str, str] | None = None,
        **status: Any,
    ) -> Path:
        folder = Path(name)
        (folder / ".hydra").mkdir(parents=True)
        (folder / "checkpoints").mkdir()
        if checkpoint:
            (folder / CHECKPOINT).touch()
        OmegaConf.save({"trainer": {"max_steps": 4}}, folder / "config.yaml")
        hydra = {"overrides": {"task": [*overrides]}, "runtime": {"choices": choices or {}}}
        OmegaConf.save({"hydra": hydra}, folder / ".hydra" / "hydra.yaml")
        record = {"state": "stopped", "started": "2026-11-25T18:45:51Z", **status}
        (folder / "status.json").write_text(json.dumps(record))
        return folder

    return write


def test_settings_of_the_run_hold_unless_typed_anew(run: Run) -> None:
    run("outputs/day/time", "kernel=rbf", "kernel.bandwidth=2", "seed=3", "init_from=a")
    path = "resume=outputs/day/time/checkpoints/last.ckpt"
    assert settings(["resume=last"]) == ["kernel=rbf", "kernel.bandwidth=2", "seed=3", path]
    assert settings(["kernel=linear", "resume=last"]) == ["kernel=linear", "seed=3", path]
    assert settings(["resume=last", "seed=4"]) == ["kernel=rbf", "kernel.bandwidth=2", path, "seed=4"]
    assert settings(["seed=1", "resume=null"]) == ["seed=1", "resume=null"]


def test_a_job_of_a_sweep_goes_on_by_itself_with_what_the_preset_chose(run: Run) -> None:
    chosen = {
        "kernel": "rbf",
        "data": "scenes",
        "experiment": "demo",
        "sweep": "bandwidth",
        "logger": "[csv,wandb]",
    }
    typed = ["kernel.bandwidth=0.5", "experiment=demo", "sweep=bandwidth", "sweep_dir=kept"]
    folder = run("kept/bandwidth-0.5", *typed, choices={**chosen, "hydra/launcher": "basic"})
    assert settings([f"resume={folder}"]) == [
        "kernel.bandwidth=0.5",
        "experiment=demo",
        "kernel=rbf",
        "data=scenes",
        f"resume={folder}/checkpoints/last.ckpt",
    ]
    assert "kernel=rbf" not in settings(["kernel=cosine", f"resume={folder}"])


@pytest.mark.parametrize("name", ["a b", "jürgen", "日本", "run (1)", "it's", "a,b=[c]"])
def test_the_command_to_go_on_can_be_typed_whatever_the_folder_is_called(run: Run, name: str) -> None:
    folder = run(name)
    (override,) = shlex.split(next_command(folder))[3:]
    (resumed,) = settings([override])
    assert OverridesParser.create().parse_override(resumed).value() == str(folder / CHECKPOINT)


def test_what_hydra_cannot_read_is_a_sentence(run: Run) -> None:
    with pytest.raises(ValueError, match=r"expected a value that Hydra can read, got /data/my run \(1\)/x"):
        settings(["resume=/data/my run (1)/x"])


def test_steps_are_read_as_hydra_reads_them(run: Run) -> None:
    run("outputs/day/time", state="finished")
    with pytest.raises(FileNotFoundError, match="expected an interrupted run"):
        settings(["resume=last", "trainer.max_steps=4"])
    assert "resume=outputs/day/time/checkpoints/last.ckpt" in settings(
        ["resume=last", "trainer.max_steps=1e1"]
    )


def test_a_run_that_goes_on_elsewhere_is_passed_over_aloud(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("outputs/day/older")
    newer = run("outputs/day/newer", state="running", host="node17", pid=1)
    os.utime(newer / CHECKPOINT, (2e9, 2e9))
    assert settings(["resume=last"]) == ["resume=outputs/day/older/checkpoints/last.ckpt"]
    assert "passed over outputs/day/newer, which is running as process 1 of node17" in capsys.readouterr().err


def test_a_process_that_was_given_the_number_later_is_not_the_run(run: Run) -> None:
    this = {"state": "running", "host": platform.node(), "pid": os.getpid()}
    assert RunFolder(run("before", **this, started="2020-01-01T00:00:00Z")).state == "killed"
    assert RunFolder(run("now", **this, started="2099-01-01T00:00:00Z")).state == "running"


@pytest.fixture
def restarted(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Writes runs in a job that SLURM has started again."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    return run


def test_a_requeued_run_from_weights_goes_on_from_its_checkpoint(restarted: Run) -> None:
    typed = ["init_from=other", "kernel=rbf"]
    restarted("outputs/day/time", *typed, job=job(typed))
    assert settings(typed) == ["kernel=rbf", "resume=outputs/day/time/checkpoints/last.ckpt"]


def test_a_requeued_run_that_resumes_another_does_so_again_before_its_first_checkpoint(
    restarted: Run,
) -> None:
    typed = ["resume=old", "trainer.max_steps=8"]
    restarted("old", "kernel=rbf", state="finished")
    restarted("outputs/day/new", checkpoint=False, job=job(typed))
    again = ["kernel=rbf", "resume=old/checkpoints/last.ckpt", "trainer.max_steps=8"]
    assert settings(typed) == [*again, "hydra.run.dir=outputs/day/new"]


@pytest.mark.parametrize("typed", [["sweep=bandwidth"], ["-m", "seed=0,1"]])
def test_a_requeued_sweep_goes_on_in_its_folder(restarted: Run, typed: list[str]) -> None:
    restarted("multirun/day/time/seed-0", state="finished", job=job(typed))
    restarted("multirun/day/other/seed-0", state="finished", job=job([*typed, "seed=2"]))
    assert settings(typed) == [*typed, "sweep_dir=multirun/day/time"]
    kept = [*typed, "sweep_dir=outputs/kept"]
    restarted("outputs/kept/seed-0", state="finished", job=job(kept))
    assert settings(kept) == kept, "and not in one of its jobs"
