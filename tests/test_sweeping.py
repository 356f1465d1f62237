"""Sweeps: what their jobs are called, how they end and how they are gone on with."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from paka.command_line import check
from paka.config import CONF_DIR, entry
from paka.launch import RANKS, rank
from paka.locks import locked, place
from paka.run_folder import RunFolder
from paka.sweep_job import MARKS, PLACES, in_turn
from paka.sweep_names import VARIABLE, Plan, folder_name, job_folder, tell

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
sys.argv[0] = "train.py"
{}
"""
NO_REPORT = "import paka.report; paka.report.run = lambda *arguments: None"

Sweep = Callable[..., int]


@pytest.fixture(scope="module")
def small_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that composes quickly, with what the program's own says of runs and sweeps."""
    folder = tmp_path_factory.mktemp("conf")
    shutil.copytree(CONF_DIR / "sweep", folder / "sweep")
    for name, values in {"rbf": {"bandwidth": 1.0}, "linear": {"_partial_": True}, "cosine": {}}.items():
        (folder / "kernel").mkdir(exist_ok=True)
        OmegaConf.save(values, folder / "kernel" / f"{name}.yaml")
    full = OmegaConf.load(CONF_DIR / "train.yaml")
    quiet = [{f"override hydra/{group}": "none"} for group in ("job_logging", "hydra_logging")]
    small = {
        "defaults": [{"kernel": "linear"}, "_self_", {"sweep": None}, *quiet],
        "backbone": {"lr": 1.0, "head_lr": 1.0},
        "run_name": "small",
        "logger": "csv",
        **{key: full._get_node(key) for key in ("seed", "resume", "output_dir", "sweep_dir", "hydra")},
    }
    OmegaConf.save(small, folder / "train.yaml")
    return folder


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_conf: Path) -> Iterator[Sweep]:
    """Returns the exit code of a sweep with a stand-in for training."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLE, json.dumps(Plan((), 1)))  # taken back in the end
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paka.config.CONF_DIR", small_conf)
    monkeypatch.setattr("paka.config._refuse_mistakes", lambda name: None)
    monkeypatch.setattr("paka.report.run", _report)
    interrupt = signal.getsignal(signal.SIGINT)

    def run(job: Callable[[DictConfig], float | None], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            entry("train", job)()
        except SystemExit as stop:
            if isinstance(stop.code, str):  # which Python prints
                raise
            return stop.code or 0
        return 0

    yield run
    assert signal.getsignal(signal.SIGINT) is interrupt


def _report(folders: Sequence[Path], output_dir: Path, reference: str | None) -> None:
    assert reference is None
    (output_dir / "runs.txt").write_text("\n".join(run.name for run in folders))


def states(folder: Path) -> dict[str, str]:
    return {path.parent.name: RunFolder(path.parent).state for path in sorted(folder.glob("*/status.json"))}


def cells(printed: str, first: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.lstrip().startswith(f"{first}  ")]
    return line.split()


def test_a_failed_job_does_not_stop_the_others(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(cfg: DictConfig) -> float:
        if cfg.seed == 1:
            raise ZeroDivisionError("a bug")
        if cfg.seed == 2:
            RunFolder("nowhere")  # an error of this package, which is the user's to mend
        return 10.5 + cfg.seed

    assert sweep(job, "-m", "seed=0,1,2,3", "sweep_dir=kept") == 1
    assert states(tmp_path / "kept") == {
        "seed-0": "finished",
        "seed-1": "failed",
        "seed-2": "failed",
        "seed-3": "finished",
    }
    printed, errors = capsys.readouterr()
    assert "a sweep of 4 jobs, one after the other" in printed
    assert cells(printed, "1")[:4] == ["1", "0", "finished", "10.50"]
    assert cells(printed, "2")[:3] == ["2", "1", "failed"]
    assert cells(printed, "2")[-2:] == ["a", "bug"]
    assert cells(printed, "4")[:4] == ["4", "3", "finished", "13.50"]
    assert "2 of 4 jobs finished" in printed
    assert "python -m paka.train -m seed=0,1,2,3 sweep_dir=kept" in printed
    assert errors.count("Traceback") == 1, "bugs have one, mistakes a sentence"
    assert "ZeroDivisionError: a bug" in errors
    assert "error: expected the folder of a run at nowhere" in errors
    assert (tmp_path / "kept" / "runs.txt").read_text().split() == ["kept"], (
        "failed jobs are in the report, too"
    )


def test_finished_jobs_are_passed_over_and_more_may_come(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def job(cfg: DictConfig) -> float:
        ran.append((cfg.kernel.bandwidth, cfg.seed))
        if len(ran) == 2:
            raise KeyboardInterrupt
        return 20.0

    command = ["sweep=bandwidth", "kernel.bandwidth=1,2", "seed=0", "sweep_dir=kept"]
    assert sweep(job, *command) == 130
    printed = capsys.readouterr().out
    assert "1 of 2 jobs finished" in printed
    assert "python -m paka.train sweep=bandwidth kernel.bandwidth=1,2 seed=0 sweep_dir=kept" in printed
    assert not (tmp_path / "kept" / "runs.txt").exists()
    left = tmp_path / "kept" / "bandwidth-2_seed-0" / "left.txt"
    left.touch()
    assert sweep(job, *command) == 0
    assert ran == [(1, 0), (2, 0), (2, 0)]
    assert not left.exists(), "what the stopped job left is gone"
    assert "job 1 of 2: kernel.bandwidth=1 seed=0: finished before, score 20.00" in capsys.readouterr().out
    assert sweep(job, *command[:1], "kernel.bandwidth=2,4", "seed=0,1", command[-1]) == 0
    assert ran[3:] == [(2, 1), (4, 0), (4, 1)], "one seed was swept before, and is known again"
    assert "1 more in the folder, of earlier sweeps\n\n4 of 4 jobs finished" in capsys.readouterr().out


def test_a_killed_sweep_runs_the_rest_only(sweep: Sweep, tmp_path: Path) -> None:
    def job(cfg: DictConfig) -> float:
        if cfg.seed == 1 and cfg.kernel.bandwidth == 2 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        with (tmp_path / "ran.txt").open("a") as file:
            file.write(f"{cfg.kernel.bandwidth},{cfg.seed} ")
        return cfg.kernel.bandwidth + cfg.seed

    parent = os.getpid()
    command = ["sweep=bandwidth", "kernel.bandwidth=1,2", "sweep_dir=kept"]
    process = multiprocessing.get_context("fork").Process(target=sweep, args=(job, *command))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [*states(tmp_path / "kept").values()] == [*["finished"] * 3, "killed"]
    assert sweep(job, *command) == 0
    assert (tmp_path / "ran.txt").read_text().split() == ["1,0", "1,1", "2,0", "2,1"]
    scores = [
        RunFolder(path.parent).status.score for path in sorted((tmp_path / "kept").glob("*/status.json"))
    ]  # type: ignore[union-attr]
    assert scores == [1, 2, 2, 3]


def test_jobs_of_another_configuration_are_refused_untouched(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-m", "kernel=linear,cosine", "sweep_dir=kept"]
    assert sweep(lambda cfg: 1.0, *command) == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="seed is 0 there and 3 here; choose another sweep_dir"):
        sweep(lambda cfg: 0.0, *command, "seed=3")
    assert {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()} == kept
    capsys.readouterr()
    assert sweep(lambda cfg: 2.0, *command, "run_name=other", "logger=other") == 0, "names are no settings"
    assert "finished before, score 1.00" in capsys.readouterr().out


def test_a_name_with_the_number_of_the_job_does_not_keep_a_sweep_from_going_on(sweep: Sweep) -> None:
    command = ["-m", "seed=0,1", "sweep_dir=kept", "logger='${paka.numbered:${run_name}}'"]
    assert sweep(lambda cfg: float(cfg.logger == f"{cfg.seed}_small"), *command) == 0
    assert sweep(lambda cfg: 1 / 0, *command) == 0


def test_files_of_somebody_are_not_cleared_away(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine" / "precious.txt"
    mine.parent.mkdir()
    mine.touch()
    assert sweep(lambda cfg: 1.0, "-m", "seed=0", "run_name=mine", "sweep_dir=.") == 1
    assert mine.exists()
    assert "found files of something else, such as precious.txt" in capsys.readouterr().err


def test_a_job_that_was_killed_at_its_beginning_goes_on(sweep: Sweep, tmp_path: Path) -> None:
    unfinished = tmp_path / "kept" / "seed-0" / ".config.yaml.123"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    assert sweep(lambda cfg: 1.0, "-m", "seed=0,1", "sweep_dir=kept") == 0
    assert not unfinished.exists()


def test_the_marks_of_a_job_are_cleared_last(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, removed, unlink = tmp_path / "kept" / "seed-0", [], Path.unlink

    def noted(path: Path, *, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok=missing_ok)

    assert sweep(lambda cfg: 1 / 0, "-m", "seed=0,1", "sweep_dir=kept") == 1
    for name in ("a.csv", "z.csv"):
        (folder / name).touch()
    monkeypatch.setattr(Path, "unlink", noted)
    assert sweep(lambda cfg: 1.0, "-m", "seed=0,1", "sweep_dir=kept") == 0
    assert {*removed[:2]} == {"a.csv", "z.csv"}
    assert {*removed[2:4]} == {*MARKS}


def test_a_report_that_cannot_be_written_is_told_after_the_jobs(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folders: Sequence[Path], output_dir: Path, reference: str | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("paka.report.run", full)
    assert sweep(lambda cfg: 1.0, "-m", "seed=0,1", "sweep_dir=kept") == 1
    printed, errors = capsys.readouterr()
    assert "2 of 2 jobs finished" in printed
    assert "error: no report: the disk is full; python -m paka.report kept writes one" in errors


def test_a_stop_is_told_by_its_own_exit_code_and_without_a_report(sweep: Sweep, tmp_path: Path) -> None:
    def job(cfg: DictConfig) -> float:
        if cfg.seed == 1:
            raise SystemExit(143)
        return 1.0

    assert sweep(job, "-m", "seed=0,1", "sweep_dir=kept") == 143
    assert not (tmp_path / "kept" / "runs.txt").exists()


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a file."""
    script = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
    path.parent.mkdir(parents=True, exist_ok=True)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_two_sweeps_in_one_folder(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-m", "seed=0,1", "sweep_dir=kept"]
    with held(tmp_path / "kept" / ".lock") as other:
        with pytest.raises(SystemExit, match="error: expected kept at rest, found another sweep at work"):
            sweep(lambda cfg: 1.0, *command)
        other.kill()
        other.wait()
        with held(tmp_path / "kept" / "seed-1" / ".lock"):
            assert sweep(lambda cfg: 1.0, *command) == 1
    assert "kept/seed-1 at rest, found another process at work there" in capsys.readouterr().err
    assert sweep(lambda cfg: 1.0, *command) == 0


def test_places_are_shared_out_one_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv(PLACES, "2")
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    tell(Plan((), 3, ("4", "GPU-b")))
    with held(tmp_path / ".place-0"):
        with in_turn(tmp_path):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b", "the first place is another job's"
        with held(tmp_path / ".place-1") as other:
            threading.Timer(0.3, other.kill).start()
            began = time.monotonic()
            with place(tmp_path, 2) as number:
                assert number == 1
            assert time.monotonic() - began > 0.2, "it has waited for the second"
    with in_turn(tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"


def test_a_lock_ends_with_the_block(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), locked(tmp_path / "lock") as taken:
        assert not taken
    with locked(tmp_path / "lock") as taken:
        assert taken


def test_a_stopped_job_goes_on_from_its_checkpoint(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kept" / "seed-1"
    resumed = []

    def job(cfg: DictConfig) -> float:
        resumed.append(cfg.resume)
        path = Path(cfg.output_dir)
        if cfg.seed == 1 and not cfg.resume:
            (path / "checkpoints").mkdir()
            with zipfile.ZipFile(path / "checkpoints" / "last.ckpt", "w") as archive:
                archive.writestr(zipfile.ZipInfo("weights"), b"0" * 10_000)
            raise SystemExit(130)
        return 1.0

    command = ["-m", "seed=0,1", "sweep_dir=kept"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert sweep(job, *command) == 130
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-30])
    assert sweep(job, *command) == 130
    assert resumed == [None, None, None], "a damaged checkpoint is none"
    damaged = bytearray(whole)
    damaged[5000] ^= 1
    checkpoint.write_bytes(damaged)
    assert sweep(job, *command) == 130
    assert checkpoint.read_bytes() == whole
    assert sweep(job, *command) == 0
    assert resumed[3:] == [None, str(checkpoint)]
    assert "job 2 of 2: seed=1, from its last checkpoint" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.MovedIn20Warning")
def test_the_optimiser_sees_the_scores_and_repeats_its_proposals(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def job(cfg: DictConfig) -> float:
        seen.append(cfg.kernel.bandwidth)
        if len(seen) == 2:
            raise ValueError("no luck")
        return 50 - cfg.kernel.bandwidth

    command = ["sweep=optuna", "hydra.sweeper.n_trials=3", "sweep_dir=kept"]
    assert sweep(job, *command) == 1
    best = OmegaConf.load(tmp_path / "kept" / "optimization_results.yaml").best_params["kernel.bandwidth"]
    assert best == min(seen[0], seen[2])
    first = [*seen]
    assert sweep(job, *command) == 0
    assert seen == [*first, first[1]], "only the trial that failed ran again"
    printed = capsys.readouterr().out
    assert re.search(r"\n *2  \d\.\d{1,4} +\d", printed), "numbers are short"


def test_jobs_are_called_by_what_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    tell(Plan(("kernel.bandwidth", "seed"), 4))
    fixed = ["backbone=tiny", "kernel.bandwidth=0.25", "+seed=1"]
    assert job_folder(fixed, "name") == "bandwidth-0.25_seed-1"
    tell(Plan(("backbone.lr", "optim.lr"), 4))
    assert job_folder(["optim.lr=2", "backbone.lr=1"], "name") == "backbone.lr-1_optim.lr-2"
    tell(Plan((), 1))
    assert job_folder(fixed, "tiny_scenes") == "tiny_scenes"


@pytest.mark.parametrize("text", ["../up", "/absolute", "a b", "a/b", "[0.2,1]", "{a: b}", "", "..", "ä=ö", "x" * 300])  # fmt: skip
def test_names_of_folders_are_safe(text: str, tmp_path: Path) -> None:
    name = folder_name(text)
    assert (tmp_path / name).resolve().parent == tmp_path
    assert len(name) < 120
    assert name not in (folder_name(text + " "), folder_name(text + "?"))
    parsed = OverridesParser.create().parse_override(f"resume=multirun/{name}/last.ckpt")
    assert parsed.value() == f"multirun/{name}/last.ckpt", "it needs no quotes"


def test_a_run_cannot_be_named_out_of_its_folder(sweep: Sweep, tmp_path: Path) -> None:
    def job(cfg: DictConfig) -> float:
        written.append(Path(cfg.output_dir).resolve())
        return 1.0

    written: list[Path] = []
    assert sweep(job, "run_name='../../../a b'") == 0
    assert sweep(job, "-m", "run_name='../../a b',c/d") == 0
    assert all(folder.is_relative_to(tmp_path) for folder in written)
    assert [folder.parents[2].name for folder in written] == [tmp_path.name, "multirun", "multirun"]


def problems(*arguments: str) -> list[str]:
    return check(CONF_DIR, "train", get_args_parser().parse_args(arguments))


def test_a_preset_takes_one_value_for_what_it_sweeps(sweep: Sweep, tmp_path: Path) -> None:
    command = ["sweep=bandwidth", "kernel.bandwidth=3", "seed=0,1", "sweep_dir=kept"]
    assert sweep(lambda cfg: cfg.kernel.bandwidth, *command) == 0
    assert [*states(tmp_path / "kept")] == ["bandwidth-3_seed-0", "bandwidth-3_seed-1"]


def test_every_kernel_is_in_the_sweep_over_kernels() -> None:
    swept = OmegaConf.load(CONF_DIR / "sweep" / "kernel.yaml").hydra.sweeper.params.kernel
    assert sorted(swept.split(",")) == sorted(path.stem for path in (CONF_DIR / "kernel").glob("*.yaml"))


@pytest.mark.parametrize(("kind", "name"), [("sweeper", "optuna"), ("launcher", "submitit_slurm")])
def test_a_missing_plugin_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, name: str
) -> None:
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][kind], f"{name}.yaml")
    (problem,) = problems(f"sweep={name}", "--config-dir", str(tmp_path))  # composed anew
    assert problem.startswith(f"hydra/{kind}/{name}: expected its plugin, which is not installed; install")
    assert "pip install " in problem


def test_jobs_on_several_devices_need_who_starts_their_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    several = ["sweep=submitit_slurm", "seed=0", "trainer=ddp", "trainer.devices=4"]
    (problem,) = {*problems(*several)}
    for way in ("submitit_local", "hydra.launcher.tasks_per_node=4", "torchrun --nproc-per-node=4"):
        assert way in problem
    assert problems(*several, "hydra.launcher.tasks_per_node=4", "hydra.launcher.gpus_per_node=4") == []
    with monkeypatch.context() as script:  # of SLURM, in which Lightning would start the processes
        for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}.items():
            script.setenv(name, value)
        (problem,) = {*problems("-m", "seed=0", "trainer.devices=4")}
        script.setenv("SLURM_NTASKS", "4")  # of srun
        assert problems("-m", "seed=0", "trainer.devices=4") == []
        (problem,) = {*problems("sweep=optuna", "trainer.devices=4")}
        assert problem.startswith("hydra/sweeper: expected basic with several processes")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert problems("-m", "seed=0", "trainer.devices=4") == []
    (problem,) = {*problems("sweep=optuna", "trainer.devices=4")}
    assert problem.startswith("hydra/sweeper: expected basic with several processes")


def test_lightnings_own_processes_are_told_apart_in_a_script_of_slurm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)
    assert rank() == 1


def test_a_sweep_is_needed_to_keep_one() -> None:
    assert problems("sweep_dir=kept") == [
        "sweep_dir: expected a sweep to keep there, got one run; add --multirun or sweep=..."
    ]


def test_an_optimiser_needs_scores() -> None:
    (problem,) = {*problems("sweep=optuna", "eval=none")}
    assert problem.startswith("eval: expected labelled images and a protocol that trials are scored by")


def started(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in RANKS}
    paths = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(code), *arguments],
        env=inherited | paths | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_jobs_in_processes_of_their_own(tmp_path: Path) -> None:
    code = f"""{NO_REPORT}
def run(cfg):
    import os
    if cfg.seed == 1:
        raise ZeroDivisionError("a bug")
    return float(os.getpid())
from paka.config import entry
entry("train", run)()
"""
    command = ["-m", "sweep=submitit_local", "seed=0,1", f"sweep_dir={tmp_path}"]
    out, err = (process := started(code, *command, CUDA_VISIBLE_DEVICES="")).communicate(timeout=120)
    assert process.returncode == 1, err
    assert states(tmp_path) == {"seed-0": "finished", "seed-1": "failed"}
    status = RunFolder(tmp_path / "seed-0").status
    assert status is not None
    assert status.score == status.pid != process.pid
    assert "a sweep of 2 jobs, by submitit_local, " in out
    assert cells(out, "2")[2] == "failed"


SMALL = [
    "experiment=demo",
    "backbone.pretrained=false",
    "backbone.encoder.arch={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, img_size: 32}",
    *(f"backbone.{setting}" for setting in ("global_grid=4", "local_grid=2", "batch_size=4")),
    *(f"data.source.{setting}" for setting in ("train=12", "val=4", "test=4", "size=32")),
    *("objective.grid=2", "head.hidden=16", "head.out=8", "trainer.max_steps=2", "trainer.precision=32-true"),
    *("trainer.log_every=1", "trainer.workers=0", "eval=in_context"),
    *("profile.grid=[4,4]", "profile.memory=100", "profile.k=5", "profile.bootstrap=20"),
    *("sweep=bandwidth", "kernel.bandwidth=0.5,2"),
]


@pytest.mark.slow  # `test_a_killed_sweep_runs_the_rest_only` is the quick one
def test_a_killed_sweep_finishes_the_rest_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    code = "from paka.train import main; main()"
    process = started(code, *SMALL, f"sweep_dir={tmp_path / 'killed'}")
    deadline = time.monotonic() + 120
    while [*states(tmp_path / "killed").values()].count("finished") < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    first = states(tmp_path / "killed")
    assert 2 <= [*first.values()].count("finished") < 4
    printed = {}
    for name in ("killed", "undisturbed"):
        process = started(code, *SMALL, f"sweep_dir={tmp_path / name}")
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        printed[name] = out
    assert printed["killed"].count("finished before") == [*first.values()].count("finished")
    assert states(tmp_path / "killed") == states(tmp_path / "undisturbed")
    assert len(states(tmp_path / "killed")) == 4
    scores = set()
    for name in states(tmp_path / "killed"):
        one, other = (tmp_path / sweep / name for sweep in ("killed", "undisturbed"))
        for file in ("results.csv", "metrics.csv"):
            assert (one / file).read_text() == (other / file).read_text(), file
        ended = [RunFolder(folder).status for folder in (one, other)]
        assert ended[0] is not None
        assert ended[1] is not None
        assert ended[0].score == ended[1].score is not None, "scored on validation images at the end"
        scores.add(ended[0].score)
    assert len(scores) > 1
    for file in ("report.md", "configurations.csv", "comparisons.csv", "class_gains.csv"):
        one, other = ((tmp_path / sweep / file).read_text() for sweep in ("killed", "undisturbed"))
        assert one.replace(str(tmp_path / "killed"), str(tmp_path / "undisturbed")) == other, file
