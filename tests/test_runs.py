"""Runs are found wherever they are, and whatever is left of them is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.run_folders import write_run

from paka.runs import Run, find, read, refuse_run


def one(folder: Path) -> Run:
    (run,) = read(find([folder]), [folder])
    return run


def test_runs_are_found_to_any_depth_once_and_in_order(tmp_path: Path) -> None:
    for name in ("10_run", "2_run", "a folder/deep er/run"):
        write_run(tmp_path / name)
    (tmp_path / "multirun.yaml").write_text("hydra: {}")
    (tmp_path / "a folder" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "2_run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.yaml").write_text("a: 1\n")
    found = find([tmp_path, tmp_path / "2_run"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "2_run",
        "10_run",
        "a folder/deep er/run",
    ]
    assert [run.name for run in read(found, [tmp_path])] == ["2_run", "10_run", "a folder/deep er/run"]
    assert one(tmp_path / "2_run").name == "2_run"


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="name folders"):
            find([folder])
    write_run(tmp_path / "doctor", job="doctor")
    with pytest.raises(FileNotFoundError, match=r"expected runs of paka\.train or paka\.evaluate"):
        find([tmp_path])
    with pytest.raises(ValueError, match="has a report of its own"):
        refuse_run(write_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("state", "error", "reason"),
    [
        ("failed", "expected a kernel,\n got none", "expected a kernel, got none"),
        ("stopped", "", "by Ctrl-C, before its end"),
        ("killed", "", "its process is gone, and left no reason"),
        ("running", "", "it has not ended yet"),
        ("finished", "", ""),
    ],
)
def test_each_state_has_its_reason(tmp_path: Path, state: str, error: str, reason: str) -> None:
    run = one(write_run(tmp_path / "run", "seed=4", state=state, error=error))
    assert (run.state, run.reason, run.seed) == (state, reason, 4)
    assert run.counts == (state == "finished")


def test_a_run_that_failed_before_it_wrote_its_configuration_is_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "seed=4", state="failed", error="expected a folder, found none")
    (folder / "config.yaml").unlink()
    assert (one(folder).state, one(folder).reason) == ("failed", "expected a folder, found none")
    assert one(folder).seed == 4
    (folder / "status.json").write_text('{"state": "fai')
    assert one(folder).state == "killed"
    (folder / "status.json").unlink()
    assert one(folder).state == "killed"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", "a: [1\n"),
        ("config.yaml", "- 1\n"),
        ("config.yaml", "a: ${nothing}\n"),
        ("results.csv", "protocol,score\n"),
        ("results.csv", "half"),
        ("results.csv", ""),
        ("status.json", '{"state": "ru'),
        ("status.json", '{"unknown": 1}'),
        ("status.json", "[1]"),
        ("provenance.json", "[1"),
        (".hydra/hydra.yaml", "- 1"),
        (".hydra/overrides.yaml", "a: 1"),
        (".hydra/config.yaml", "\x00"),
    ],
)
def test_damaged_files_never_end_a_report(tmp_path: Path, file: str, content: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / file).write_text(content)
    run = one(folder)
    harmless = file in (".hydra/overrides.yaml", ".hydra/config.yaml")
    assert run.state == ("finished" if harmless else "damaged")
    assert bool(run.reason) != harmless
    assert "\n" not in run.reason


@pytest.mark.parametrize("job", ["train", "${task_name}"])
def test_runs_of_other_programs_are_passed_over(tmp_path: Path, job: str) -> None:
    write_run(tmp_path / "ours")
    for name in ("theirs", "theirs_begun"):
        folder = tmp_path / name / ".hydra"
        folder.mkdir(parents=True)
        record = {"hydra": {"job": {"name": job}, "runtime": {"choices": {"hydra/job_logging": "default"}}}}
        OmegaConf.save(OmegaConf.create(record), folder / "hydra.yaml")
    for name in ("theirs_begun", "lightning"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.yaml").write_text("trainer: {}\n")
        (tmp_path / name / "metrics.csv").write_text("step\n")
    assert find([tmp_path]) == [tmp_path / "ours"]


def test_a_run_without_a_status_counts_if_it_has_results(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "status.json").unlink()
    assert one(folder).counts
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "results.csv").unlink()
    assert one(tmp_path / "other").state == "killed"


def test_a_run_without_scores_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "results.csv").unlink()
    run = one(folder)
    assert not run.counts
    assert "nothing to score" in run.reason


def test_curves_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "metrics.csv").write_text(
        "loss,step,val/linear\n0.5,0,\n0.6,1,\n0.4,1,\nnan,2,\n,2,20.5\n0.3,3"
    )
    assert one(folder).curves == {"loss": ([0, 1, 3], [0.5, 0.4, 0.3]), "val/linear": ([2], [20.5])}
    (folder / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    assert one(folder).curves == {}


def test_settings_are_resolved_and_composed_ones_are_not(tmp_path: Path) -> None:
    run = one(write_run(tmp_path / "run", "kernel.bandwidth=0.5"))
    assert run.settings["objective.loss.kernel.bandwidth"] == 0.5
    assert run.composed["objective.loss.kernel"] == "${kernel}"
    assert (run.typed, run.choices["kernel"], run.steps) == (frozenset({"kernel.bandwidth"}), "rbf", 40)
    assert json.dumps([*run.settings.values()])
    assert OmegaConf.load(run.path / "config.yaml").seed == run.seed
