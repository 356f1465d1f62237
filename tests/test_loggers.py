"""Runs as their loggers keep them: a sweep whose second job fails, and an evaluation, both read from the files they left."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from tests.configurations import composed
from tests.wandb_records import OfflineRun, offline_runs

from paka import loggers, relations
from paka.config import validate
from paka.wandb_run import RECORD, WandbRun, recorded_id

ENCODER = [
    "backbone.pretrained=false",
    "backbone.encoder.arch={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, img_size: 32}",
    "backbone.global_grid=4",
    "backbone.local_grid=2",
    "profile.grid=[4,4]",
    "profile.memory=100",
    "profile.k=5",
    "profile.bootstrap=20",
    "eval=in_context",
    "logger=[wandb,tensorboard,mlflow]",
]
TRAINING = [
    "experiment=demo",
    "data=folder",
    "backbone.batch_size=4",
    "objective.grid=2",
    "head.hidden=16",
    "head.out=8",
    "trainer.max_steps=2",
    "trainer.precision=32-true",
    "trainer.log_every=1",
    "trainer.workers=0",
    "run_name='a name / with slashes'",
    "logger.wandb.settings.x_stats_sampling_interval=0.5",
    "logger.wandb.artifact=true",
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for split, count in {"train": 6, "val": 2, "test": 4}.items():
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            image = np.random.default_rng([len(split), index]).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            image[:, 32:] //= 4
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[:, 32:] = 1
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            cv2.imwrite(str(root / "masks" / split / f"{index}.png"), mask)
    return root


def started(module: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as somebody who has no account anywhere."""
    named = ("WANDB_", "MLFLOW_", "NETRC")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(named)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**environment, "HOME": str(home), "OMP_NUM_THREADS": "1", "PAKA_CACHE": str(home / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def sweep(
    tmp_path_factory: pytest.TempPathFactory, photographs: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two jobs, of which the second comes to numbers that are not finite."""
    folder = tmp_path_factory.mktemp("sweep") / "a sweep"
    jobs = [f"hydra.sweep.dir={folder}", "optim.lr=5e-4,1e30"]
    home = tmp_path_factory.mktemp("home")
    return folder, started(
        "paka.train", "--multirun", *TRAINING, *ENCODER, f"data.root={photographs}", *jobs, home=home
    )


@pytest.fixture(scope="module")
def runs(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> list[OfflineRun]:
    return offline_runs(sweep[0])


@pytest.fixture(scope="module")
def job(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """Folder of the first job."""
    return next(sweep[0].rglob("results.csv")).parent


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_two_jobs_make_two_runs(runs: list[OfflineRun], sweep: tuple[Path, Any]) -> None:
    first, second = runs
    assert first.about.run_id != second.about.run_id
    assert [run.about.display_name for run in runs] == [
        "0_a name / with slashes",
        "1_a name / with slashes",
    ]
    assert {run.about.run_group for run in runs} == {"a sweep"}
    assert {run.about.job_type for run in runs} == {"train"}
    assert [run.config["optim"]["lr"] for run in runs] == [5e-4, 1e30]
    assert sweep[1].returncode == 1
    assert [run.exit_code for run in runs] == [0, 1]
    assert "figures/features" not in second.summary


def test_a_run_tells_what_it_was(runs: list[OfflineRun]) -> None:
    about, config = runs[0].about, runs[0].config
    assert list(about.tags) == ["tiny", "folder", "paka_deconfounded", "linear"]
    assert about.project == "paka"
    assert config["kernel"] == {"_target_": "paka.kernels.linear", "_partial_": True}
    assert config["head"]["hidden"] == 16
    assert "${" not in json.dumps(config)
    assert config["provenance"]["command"].startswith("python -m paka.train --multirun")
    revision = config["provenance"]["git"]
    assert revision is None or about.git.commit == revision.removesuffix("-dirty")


def test_scalars_are_those_of_metrics_csv(runs: list[OfflineRun], job: Path) -> None:
    run = runs[0]
    assert run.steps["*"] == "trainer/global_step"
    logged = [row for row in rows(job / "metrics.csv") if row["loss"]]
    found = [entry for entry in run.history if "loss" in entry]
    assert [entry["trainer/global_step"] for entry in found] == [int(row["step"]) for row in logged]
    for name in logged[0].keys() - {"step", "epoch"}:
        for entry, row in zip(found, logged, strict=True):
            assert entry[name] == pytest.approx(float(row[name]), rel=1e-6), name


def table(run: OfflineRun, name: str) -> list[dict[str, Any]]:
    found = json.loads(run.media(name).read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


@pytest.mark.parametrize(
    ("name", "file"), [("evaluation/results", "results.csv"), ("evaluation/per_class", "per_class.csv")]
)
def test_tables_hold_the_numbers_of_the_files(
    runs: list[OfflineRun], job: Path, name: str, file: str
) -> None:
    expected, found = rows(job / file), table(runs[0], name)
    assert len(found) == len(expected) > 0
    for row, texts in zip(found, expected, strict=True):
        assert row.keys() == texts.keys()
        for column, text in texts.items():
            value = row[column]
            if isinstance(value, str):
                assert value == text
            elif value is None:
                assert text == ""
            else:
                assert value == float(text)
    assert isinstance(found[0]["before"], float)


def test_scores_are_scalars_too(runs: list[OfflineRun], job: Path) -> None:
    (score,) = rows(job / "results.csv")
    for part in ("before", "after", "delta"):
        assert runs[0].summary[f"evaluation/in_context/mIoU/{part}"] == float(score[part])


def test_pictures_are_there_and_few(runs: list[OfflineRun]) -> None:
    names = [name for name in runs[0].summary if name.startswith("figures/")]
    assert {"figures/features", "figures/in_context", "figures/scores"} <= {*names}
    assert len(names) <= 8
    for name in names:
        image = cv2.imread(str(runs[0].media(name)))
        assert image is not None
        assert image.shape[0] == runs[0].summary[name]["height"]


def test_the_artifact_holds_the_weights(runs: list[OfflineRun], job: Path) -> None:
    (model,) = [one for one in runs[0].artifacts if one.type == "model"]
    entries = {entry.path: entry.local_path for entry in model.manifest.contents}
    assert "## Licence" in (job / "model_card.md").read_text()
    assert entries == {
        name: str(job / name) for name in ("encoder.safetensors", "report.md", "model_card.md")
    }


def test_one_sentence_at_the_start_and_a_line_at_the_end(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], runs: list[OfflineRun]
) -> None:
    out, err = sweep[1].stdout, sweep[1].stderr
    assert err.count("W&B: there is no key") == 2  # one for each job
    assert "wandb:" not in out + err
    assert [line.strip() for line in out.splitlines() if "wandb sync" in line] == [
        f"wandb sync '{run.folder}'" for run in runs
    ]


def test_tensorboard_and_mlflow_hold_the_same(job: Path, sweep: tuple[Path, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(job / "tensorboard")).Reload()
    assert len(events.Scalars("loss")) == 2
    assert "figures/features" in events.Tags()["images"]
    (score,) = rows(job / "results.csv")
    assert events.Scalars("evaluation/in_context/mIoU/after")[0].value == pytest.approx(float(score["after"]))
    found = [yaml.safe_load(path.read_text()) for path in sorted(sweep[0].rglob("mlflow/*/*/meta.yaml"))]
    by_name = {meta["run_name"]: meta["status"] for meta in found}
    assert by_name == {"0_a name / with slashes": 3, "1_a name / with slashes": 4}  # finished, failed
    kept = {path.name for path in (job / "mlflow").rglob("artifacts/*")}
    assert {"report.html", "results.csv", "figures"} <= kept


def test_the_dashboard_shows_what_runs_log(runs: list[OfflineRun]) -> None:
    script = Path(__file__).parents[1] / "experiments" / "dashboard" / "build.py"
    spec = importlib.util.spec_from_file_location("dashboard", script)
    assert spec is not None
    assert spec.loader is not None
    dashboard = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dashboard)
    assert [*dashboard.SECTIONS] == [
        "Loss and alignment",
        "Health",
        "Evaluation",
        "Optimisation",
        "System",
    ]
    logged = {*runs[0].summary, *runs[0].system}
    named = {metric for panels in dashboard.SECTIONS.values() for panel in panels for metric in panel.metrics}
    # Other protocols are scored under the same names, and this machine may have no GPU.
    named = {name for name in named if "gpu" not in name}
    named = {
        name.replace("/linear", "/in_context").replace("/overclustering", "/in_context") for name in named
    }
    assert named <= logged, named - logged
    printed = subprocess.run(
        [sys.executable, script, "--print"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "evaluation/linear/mIoU/delta" in printed.stdout
    sections = json.loads(printed.stdout)["section"]["panelBankConfig"]["sections"]
    axes = {one["name"]: {panel["config"].get("xAxis") for panel in one["panels"]} for one in sections}
    assert axes["Optimisation"] == {dashboard.STEP}
    assert axes["System"] == {"_runtime"}


def test_evaluation_is_logged_as_well(photographs: Path, job: Path, tmp_path: Path) -> None:
    data = ["benchmark=folder", f"benchmark.root={photographs}", f"compare=[{job}/encoder.safetensors]"]
    ended = started("paka.evaluate", *ENCODER, *data, f"hydra.run.dir={tmp_path / 'run'}", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (run,) = offline_runs(tmp_path / "run")
    assert (run.about.job_type, run.about.run_group, run.exit_code) == ("evaluate", "", 0)
    assert list(run.about.tags) == ["tiny", "folder", "compact"]
    (score,) = rows(tmp_path / "run" / "results.csv")
    (row,) = table(run, "evaluation/results")
    assert row["delta"] == float(score["delta"])
    assert "figures/features" in run.summary
    assert not (tmp_path / "run" / "metrics.csv").exists()


class Recorded(WandbRun):
    """A run that keeps how it ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), project="paka")
        self.ended: list[int] = []

    def start(self) -> None:
        """Open nothing."""

    def log_hyperparams(self, params: Any) -> None:
        """Keep nothing."""

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad"), 1),
        (SystemExit(130), 130),
        (SystemExit("words"), 1),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 1),
    ],
)
def test_however_a_run_ends_its_logger_is_told(error: BaseException, code: int, tmp_path: Path) -> None:
    run = Recorded(tmp_path)
    with pytest.raises(type(error)), loggers.logged([run], {}):
        raise error
    assert run.ended == [code]
    with loggers.logged([run], {}):
        pass
    assert run.ended == [code, 0]


def test_a_full_disk_ends_the_logging_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Full:
        dir = str(tmp_path)
        offline, disabled = True, False

        def finish(self, exit_code: int) -> None:
            del exit_code
            raise OSError(28, "No space left on device")

    run = WandbRun(str(tmp_path), project="paka")
    run._experiment = Full()  # type: ignore[assignment]
    run.finish(0)
    assert capsys.readouterr().err == "W&B: not everything could be logged: No space left on device\n"


def test_a_run_that_goes_on_in_its_folder_is_the_same_run_and_any_other_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    for name, value in {"HOME": str(tmp_path), "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    first, second = tmp_path / "first", tmp_path / "second"
    checkpoint = str(first / "checkpoints" / "last.ckpt")
    assert recorded_id(first, checkpoint) is None
    for folder, resumed in ((first, None), (first, checkpoint), (second, checkpoint)):
        with loggers.logged([WandbRun(str(folder), project="paka", resumed=resumed)], {"seed": 0}):
            pass
    wandb.teardown()  # until then, something may not be written yet
    began, went_on = (run.about.run_id for run in offline_runs(first))
    (other,) = (run.about.run_id for run in offline_runs(second))
    assert recorded_id(first, checkpoint) == began == went_on != other
    assert recorded_id(first, None) is None, "what is started anew in a folder is another run"
    (first / RECORD).write_text("{")
    assert recorded_id(first, checkpoint) is None


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_what_wandb_was_set_to_is_kept_to(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {mode}\n")
    wandb.teardown()  # settings are read once
    try:
        assert WandbRun(str(tmp_path), project="paka")._decided() == (mode, "")
    finally:
        wandb.teardown()


def test_what_was_not_sent_in_time_can_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow:
        dir = str(tmp_path / "wandb" / "run-1" / "files")
        offline, disabled = False, False

        def finish(self, exit_code: int) -> None:
            del exit_code
            raise TimeoutError("Timed out finishing run.")

    run = WandbRun(str(tmp_path), project="paka")
    run._experiment = Slow()  # type: ignore[assignment]
    run.finish(0)
    assert capsys.readouterr() == (f"  wandb sync {tmp_path}/wandb/run-1\n", "")


def test_the_end_of_a_run_is_waited_for_for_less_than_slurm_warns_ahead() -> None:
    import wandb

    settings = wandb.Settings(**composed("logger=wandb").logger.wandb.settings)
    assert 0 < settings.finish_timeout <= 60


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_missing_package_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "find_spec", lambda package: None)
    (problem,) = validate(composed(f"logger={name}"))
    assert problem.startswith(f"logger: expected the package {name} for logger={name}, found none: install ")
    assert ("[" + name + "]" in problem) == (name != "wandb")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("logger.csv=null", "logger.csv: expected a logger, because reports read metrics.csv"),
        ("logger.wandb.mode=dryrun", "logger.wandb.mode: expected null or one of online, offline"),
        ("logger.wandb.project=a/b", "logger.wandb.project: expected up to 128 characters without any of"),
        ("logger.wandb.images=-1", "logger.wandb.images: expected an integer of at least 0"),
    ],
)
def test_settings_of_loggers(override: str, problem: str) -> None:
    (found,) = validate(composed("logger=wandb", override))
    assert found.startswith(problem)


def test_nothing_imports_wandb_unasked(tmp_path: Path) -> None:
    code = """
import sys
from paka.config import entry

def run(cfg):
    import paka.posttraining, paka.evaluation
    sys.exit(sys.modules.get("wandb") is not None or "mlflow" in sys.modules or "tensorboard" in sys.modules)

entry("train", run)()
"""
    command = [sys.executable, "-c", code, f"hydra.run.dir={tmp_path}"]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
