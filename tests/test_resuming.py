"""A run that was interrupted goes on as if nothing had been; another run starts from its weights alone."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.full_disks import files_of_at_most
from tests.stopping import SMALL, runs, train

from paka import checkpoints
from paka.checkpoints import WholeCheckpoints
from paka.disk import DiskFullError
from paka.run_folder import RunFolder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outputs/ of a run that SIGTERM stopped after step 3 of 6, in the midst of gathering gradients."""
    place = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        patched.setenv("PAKA_CACHE", str(place / "cache"))
        assert train(patched, *SMALL, "trainer.accumulate=2", stop_at=3) == 143
    return place


@pytest.fixture
def place(interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def metrics(run: Path) -> list[tuple[int, float]]:
    with (run / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]]


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def test_sigterm_leaves_a_whole_run(place: Path) -> None:
    (run,) = runs()
    assert RunFolder(run).state == "stopped"
    assert checkpoints.read(last(run)).step == 3, "gradients of a step are gathered to its end"
    assert [step for step, _ in metrics(run)] == [0, 1, 2]


def test_the_last_run_goes_on_in_its_folder_and_ends_like_an_uninterrupted_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    assert train(monkeypatch, "resume=last", "trainer.checkpoint_every=4") == 0
    printed = capfd.readouterr()
    assert f"resume: goes on from step 3 of 6 of {run}; optimizer, teacher, order of images" in printed.out
    assert "writes into the same folder, metrics.csv is continued" in printed.out
    assert "changed  trainer.checkpoint_every: 500 -> 4" in printed.out
    assert printed.err == ""
    assert runs() == [run]
    assert RunFolder(run).state == "finished"
    assert train(monkeypatch, *SMALL, "trainer.accumulate=2", "hydra.run.dir=whole") == 0
    assert metrics(run) == metrics(Path("whole"))
    resumed, whole = (load_file(one / "encoder.safetensors") for one in (run, Path("whole")))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    first, second = json.loads((run / "provenance.json").read_text())["before"][0], run / "report.md"
    assert "resume=" not in first["command"]
    card = (run / "model_card.md").read_text()
    assert first["command"] in card, "the command that began it"
    assert "Gone on with" in card
    assert f"from step 3 of {run}" in second.read_text()
    capfd.readouterr()
    assert train(monkeypatch, "resume=last") == 2
    assert "expected an interrupted run below" in " ".join(capfd.readouterr().err.split())
    assert train(monkeypatch, f"resume={run}") == 1
    assert "has finished all 6: set trainer.max_steps higher" in capfd.readouterr().err


def test_a_changed_run_gets_its_own_folder_which_begins_with_the_metrics(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    before = metrics(run)
    assert train(monkeypatch, f"resume={run}", "trainer.max_steps=8", "optim.lr=0.5") == 0
    printed = capfd.readouterr().out
    assert "changed  optim.lr: 0.0001 -> 0.5" in printed
    assert "changed  trainer.max_steps: 6 -> 8" in printed
    assert "schedules run over 8 steps now, not 6" in printed
    (other,) = [one for one in runs() if one != run]
    assert metrics(other)[:3] == before
    assert [step for step, _ in metrics(other)] == [*range(8)]
    with (other / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[3] > 1e3 * rates[2], "the new rate counts, not the one in the checkpoint"
    assert RunFolder(run).state == "stopped", "and the first is as it was"
    kept = torch.load(last(other), weights_only=True)["optimizer_states"][0]["param_groups"]
    assert kept[0]["peak_lr"] == 0.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=1", "seed: 0 -> 1, which makes the order of images"),
        ("backbone.batch_size=2", "backbone.batch_size: 4 -> 2, which makes the order of images"),
        ("data.limit=8", "data.limit: none -> 8"),
        ("head.out=4", "head.out: 8 -> 4, whose weights the checkpoint holds"),
        ("tuning=bias", "tuning.biases_only: False -> True"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    override: str,
    words: str,
) -> None:
    (run,) = runs()
    assert train(monkeypatch, f"resume={run}", override) == 1
    error = capfd.readouterr().err
    assert words in error
    assert f"start anew from its weights with init_from={run}" in error
    assert error.count("\n") == 1


def test_it_is_refused_before_torch_is_imported(place: Path) -> None:
    script = (
        "import sys; from paka.train import main; sys.argv[1:] = ['resume=last', 'seed=1']\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "False\n"), done.stderr


def test_objectives_of_other_shapes_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    assert train(monkeypatch, f"resume={run}", "objective=image_tags") == 1
    error = capfd.readouterr().err
    assert "does not hold the weights of this run: " in error
    assert (
        "objective.loss._target_: paka.objectives.paka.PaKA -> paka.objectives.image_tags.ImageTags" in error
    )


def test_a_moved_checkpoint_still_knows_its_settings(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    moved = last(run).rename(place / "a b.ckpt")
    assert train(monkeypatch, *SMALL, "trainer.accumulate=2", f"resume='{moved}'", "seed=3") == 1
    assert "seed: 0 -> 3" in capfd.readouterr().err
    assert train(monkeypatch, *SMALL, "trainer.accumulate=2", f"resume='{moved}'") == 0
    printed = capfd.readouterr().out
    assert f"goes on from step 3 of 6 of {moved}" in printed
    assert "metrics.csv begins at step 3" in printed


@pytest.mark.parametrize("damage", ["truncated", "zeros"])
def test_a_damaged_checkpoint_is_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    (run,) = runs()
    held = bytearray(last(run).read_bytes())
    middle = len(held) // 2
    held[middle : middle + 512] = bytes(512)
    (run / "checkpoints" / "older.ckpt").write_bytes(last(run).read_bytes())
    last(run).write_bytes(held[:-300] if damage == "truncated" else held)
    assert train(monkeypatch, f"resume={run}") == 1
    error = capfd.readouterr().err
    assert error.startswith(f"error: expected a whole checkpoint in {last(run)}, it is damaged (")
    assert error.count("\n") == 1
    assert f"use resume={run}/checkpoints/older.ckpt, an older one" in error


def test_mistakes_about_runs_end_with_2(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    assert train(monkeypatch, "resume=/nowhere.ckpt") == 2
    assert "expected a checkpoint or a run's folder at resume=/nowhere.ckpt" in capfd.readouterr().err
    assert train(monkeypatch, f"resume={run}", f"init_from={run}") == 2
    assert "init_from: expected null with resume" in capfd.readouterr().err
    assert train(monkeypatch, f"init_from={run}", "backbone.weights=a.pth") == 2
    assert "backbone.weights: expected null with init_from" in capfd.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train(monkeypatch, "resume=last") == 2
    assert f"set resume={run}" in capfd.readouterr().err
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running", "pid": os.getpid()}))
    assert train(monkeypatch, f"resume={run}") == 2
    assert f"{run} is running as process {os.getpid()}" in capfd.readouterr().err


def test_a_warm_start_takes_student_teacher_and_heads(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    quiet = ["optim.lr=1e-12", "optim.head_lr=1e-12", "trainer.max_steps=1", "hydra.run.dir=warm"]
    quiet += ["teacher.momentum.start=1", "seed=5"]
    assert train(monkeypatch, *SMALL, *quiet, f"init_from={run}") == 0
    printed = capfd.readouterr().out
    assert "init_from: took the encoders of student and teacher and the heads from" in printed
    assert "at step 3; optimizer, schedule and step are new" in printed
    assert '"before" in the results is the teacher\'s encoder as it was taken' in printed
    old, new = (checkpoints.read(last(one)) for one in (run, Path("warm")))
    assert new.step == 1
    for name, value in old.weights.items():
        if torch.is_tensor(value) and not name.startswith("objective"):
            torch.testing.assert_close(new.weights[name], value, atol=1e-6, rtol=0)
    assert not torch.equal(old.weights["student.head.0.weight"], old.weights["teacher.head.0.weight"])


def test_a_warm_start_leaves_out_heads_that_do_not_fit(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run,) = runs()
    changed = ["head.out=4", "tuning=lora", "trainer.max_steps=1", "hydra.run.dir=warm"]
    assert train(monkeypatch, *SMALL, *changed, f"init_from={run}") == 0
    printed = capfd.readouterr().out
    assert "took the teacher's encoder for both branches, because not all of it trains" in printed
    assert "the head is new (4.bias (8 for 4) does not fit)" in printed
    export = Path("warm/encoder.safetensors")
    assert (
        train(monkeypatch, *SMALL, "trainer.max_steps=1", "hydra.run.dir=third", f"init_from={export}") == 0
    )
    assert (
        "took the encoder from warm/encoder.safetensors; the head is new (there is none)"
        in capfd.readouterr().out
    )
    assert train(monkeypatch, *SMALL, "trainer.max_steps=1", "hydra.run.dir=fourth", "init_from=warm") == 0
    before = load_file(export)
    merged = checkpoints.read(last(Path("fourth"))).weights
    name = "blocks.0.attn.qkv.weight"
    torch.testing.assert_close(merged[f"teacher.encoder.model.{name}"], before[name], atol=1e-3, rtol=0)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"weights": torch.ones(10)}, path)
    with files_of_at_most(20_000), pytest.raises(DiskFullError) as caught:
        WholeCheckpoints().save_checkpoint({"weights": torch.zeros(100_000)}, path)
    assert f"expected room for a file of 402 kB in {tmp_path}, but the file is too large" in str(caught.value)
    assert f"go on from the last checkpoint with resume={tmp_path}" in str(caught.value)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(10))
    assert [one.name for one in path.parent.iterdir()] == ["last.ckpt"]


def test_a_run_on_a_full_disk_ends_with_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (run,) = runs()
    with monkeypatch.context() as patched:
        patched.setattr("paka.metrics_file._Writer.save", full)
        assert train(patched, f"resume={run}") == 1
    error = capfd.readouterr().err
    assert "error: expected room for another file in" in error
    assert f"resume={run.absolute()}" in error
    assert "Traceback" not in error
    assert RunFolder(run).state == "failed"
    assert train(monkeypatch, "resume=last") == 0
    assert [step for step, _ in metrics(run)] == [0, 1, 2, 3, 4, 5]


def test_slurm_requeues_the_job_which_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real processes: SLURM's warning at step 3, and the job as SLURM starts it again."""
    record = tmp_path / "scontrol"
    record.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    record.chmod(0o755)
    slurm = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "PAKA_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }

    def job(*arguments: str, restarts: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.stopping", *arguments, *SMALL],
            env={**os.environ, **slurm, "SLURM_RESTART_COUNT": str(restarts)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    warned = job("3", "SIGUSR1", restarts=0)
    assert warned.returncode == 138, warned.stderr
    assert "SLURM job 4242 is requeued and goes on by itself" in warned.stdout
    assert (tmp_path / "calls").read_text() == "requeue 4242\n"
    again = job("0", "SIGUSR1", restarts=1)
    assert again.returncode == 0, again.stderr
    (run,) = runs(tmp_path / "outputs")
    assert f"goes on from step 3 of 6 of {run.relative_to(tmp_path)}" in again.stdout
    assert [step for step, _ in metrics(run)] == [*range(6)]
    assert not [*tmp_path.rglob("hpc_ckpt*")]
