from __future__ import annotations

import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from tests.programs import run

from paka.command_line import check
from paka.config import CONF_DIR
from paka.launch import RANKS

ROOT = Path(__file__).parents[1]
KERNELS = ", ".join(sorted(path.stem for path in (CONF_DIR / "kernel").glob("*.yaml")))

WITHOUT_TORCH = """
import sys
from paka.{name} import main
try:
    main()
finally:
    assert not {{"torch", "lightning", "timm", "albumentations", "cv2"}} & sys.modules.keys()
"""

WITH_RUN = """
import sys
from paka.config import entry
def run(cfg):
    {body}
entry("train", run)()
"""


def problems(*arguments: str, name: str = "train") -> list[str]:
    return check(CONF_DIR, name, get_args_parser().parse_args(arguments))


def python(code: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("-c", code, *arguments, cwd=cwd, env=environment, own=True)


def running(body: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a program whose run is `body`; what is imported before is not the question."""
    return run("-c", WITH_RUN.format(body=body), *arguments, cwd=cwd, env=environment)


BAD_INPUT = [
    (["backbone=vitx"], "backbone: expected one of the 66 that --help lists, got 'vitx'; did you mean vits?"),
    (["bakbone=vitb"], "bakbone: no such key; did you mean backbone?"),
    (
        ["kernel.bandwith=1"],
        "kernel.bandwith: no such key with kernel=linear; kernel=laplacian has kernel.bandwidth",
    ),
    (["kernel=rbf", "kernel.bandwith=1"], "kernel.bandwith: no such key; did you mean kernel.bandwidth"),
    (
        ["trainer.foo=1"],
        "trainer.foo: no such key; expected one of accelerator, accumulate, checkpoint_every",
    ),
    (["foo=bar"], "foo: no such key; expected one of augmentation, backbone"),
    (["+foo=bar"], "foo: no such key; expected one of augmentation, backbone"),
    (["++foo=bar"], "foo: no such key; expected one of augmentation, backbone"),
    (["++trainer.max_stpes=3"], "trainer.max_stpes: no such key; did you mean trainer.max_steps?"),
    (["+trainer.max_steps=3"], "trainer.max_steps: expected trainer.max_steps=3, without a plus"),
    (["+experiment=demo"], "experiment: expected experiment=demo, without a plus"),
    (["~kernel"], "kernel: cannot be removed; expected kernel=VALUE"),
    (["backbone=null"], "backbone: expected one of the 66 that --help lists, got null"),
    (["experiment=[demo,camvd]"], "experiment: expected one of .* got 'camvd'; did you mean camvid?"),
    (["seed=abc"], "seed: expected an integer, got 'abc'"),
    (["seed=2.5"], "seed: expected an integer, got 2.5"),
    (["seed=null"], "seed: expected an integer, got null"),
    (["backbone.lr=fast"], "backbone.lr: expected a number, got 'fast'"),
    (["backbone.pretrained=maybe"], "backbone.pretrained: expected true or false, got 'maybe'"),
    (["kernel=rbf", "kernel.bandwidth=wide"], "kernel.bandwidth: expected a number above 0, got 'wide'"),
    (["kernel=rbf", "kernel.bandwidth=null"], "kernel.bandwidth: expected a number above 0, got null"),
    (["data.source.train=many"], "data.source.train: expected an integer of at least 1, got 'many'"),
    (["profile.grid=16"], "profile.grid: expected a list like [.*], got 16"),
    (["backbone.encoder=5"], "backbone.encoder: expected a mapping of _target_, model"),
    (["backbone.encoder.model=null"], "backbone.encoder.model: expected text, got null"),
    (["kernel"], "kernel: expected NAME=VALUE"),
    (["kernel=rbf,linear"], "kernel: expected one value, got rbf,linear; add --multirun to run them all"),
    (
        ["-m", "kernel=rbf,cosin"],
        f"kernel: expected one of {KERNELS}, got 'cosin'; did you mean cosine?",
    ),
    (["-m", "kernel=rbf", "kernel.bandwidth=1,-2"], "kernel.bandwidth: expected a number above 0, got -2"),
    (["-m", "kernel=linear,rbf", "kernel.bandwidth=1"], "kernel.bandwidth: no such key with kernel=linear"),
    (["-m", "seed=0,1", "trainer.devices=2"], "trainer.devices: expected 1 in a sweep"),
    (
        ["sweep=[bandwidth,submit_local]"],
        "sweep: expected one of .* got 'submit_local'; did you mean submitit_local?",
    ),
    (["sweep=bandwidth", "seed=x"], "seed: expected an integer, got 'x'"),
    (["sweep=bandwidth", "kernel.bandwidth=1,0"], "kernel.bandwidth: expected a number above 0, got 0"),
    (["data=folder"], "data.root: expected a value, got none; add data.root=..."),
    (["profile.blue_st=0.255"], "profile.blue_st: no such key; did you mean profile.blue_std?"),
    (["profile=neoc"], "profile: expected one of .* got 'neoc'; did you mean neco?"),
    (["benchmark.root=x"], "benchmark.root: no such key; benchmark is the same as data here: set data.root"),
    (["hydra.foo=1"], "Key 'foo' not in 'HydraConf'"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), BAD_INPUT, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    found = list(dict.fromkeys(problems(*arguments)))
    assert len(found) == 1
    assert re.match(re.escape(sentence).replace(r"\.\*", ".*"), found[0]), found[0]
    assert "\n" not in found[0]
    assert "+" not in found[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["backbone=vitb", "kernel=rbf"],
        ["experiment=demo", "trainer.max_steps=2"],
        ["experiment=demo", "kernel=rbf", "kernel.bandwidth=0.5"],
        ["++trainer.max_steps=2"],
        ["backbone=vitb", "backbone.encoder.arch={depth: 4}", "backbone.encoder.arch.depth=3"],
        ["backbone.weights=model.safetensors"],
        ["data=camvid", "data.root=/somewhere/camvid"],
        ["data=coco", "data.root=/somewhere", "benchmark=camvid", "benchmark.root=/elsewhere"],
        ["augmentation.photometric=null"],
        ["trainer.devices=auto", "trainer.workers=0", "trainer.gradient_clip=3"],
        ["run_name=a_${backbone.name}"],
        ["hydra.run.dir=x", "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"],
        ["hydra/job_logging=none"],
        ["-m", "kernel=rbf", "kernel.bandwidth=0.5,1", "seed=0,1"],
        ["-m", "kernel=glob(*)"],
        ["-m", "backbone.lr=interval(0.1,1)"],
        ["sweep=bandwidth"],
        ["sweep=[containment,submitit_local]", "hydra.job.env_set.PAKA_SIDE_BY_SIDE=2", "sweep_dir=here"],
        ["sweep=kernel", "seed=0"],
        ["sweep=augmentation", "seed=0"],
        ["sweep=optuna", "hydra.sweeper.n_trials=3"],
        ["--cfg", "job", "data=folder"],
    ],
    ids=" ".join,
)
def test_good_input(arguments: list[str]):
    assert problems(*arguments) == []


def test_mistakes_are_listed_together():
    keys = [
        one.partition(":")[0] for one in problems("seed=x", "trainer.max_stpes=1", "backbone.local_grid=20")
    ]
    assert keys == ["seed", "trainer.max_stpes", "backbone.local_grid"]


def test_evaluation_has_its_own_keys():
    assert problems("split=test", "features=whiten", name="evaluate") == []
    assert problems("features=pca", name="evaluate") == [
        "features: expected one of none, zscore, whiten, rasa, got 'pca'"
    ]
    assert problems("kernel=rbf", name="evaluate")[0].startswith("kernel: no such key")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "data: expected data=.* or benchmark=.*, got neither; add one, as data=folder data.root=PATH"),
        (["benchmark=none"], "data: expected data=.* got neither"),
        (["data=voz"], "data: expected one of .*, got 'voz'"),
        (["data=coco"], "data.root: expected a value, got none"),
        (["data=scenes", "sample=0"], "sample: expected null or an integer of at least 1, got 0"),
        (["data=scenes", "contact_sheet=-1"], "contact_sheet: expected an integer of at least 0, got -1"),
        (["data=scenes", "sampel=3"], "sampel: no such key; did you mean sample?"),
        (["data=scenes", "backbone=tiny"], "backbone: no such key"),
    ],
)
def test_the_doctor_refuses(arguments: list[str], sentence: str):
    (found,) = problems(*arguments, name="doctor")
    assert re.match(sentence.replace("?", r"\?"), found), found


def test_the_doctor_takes_data_a_benchmark_or_both():
    data, benchmark = ["data=coco", "data.root=x"], ["benchmark=camvid", "benchmark.root=y"]
    for arguments in (
        data,
        benchmark,
        [*data, *benchmark],
        ["data=coco", "miniature=x"],
        ["benchmark=folder", "miniature=x"],
    ):
        assert problems(*arguments, name="doctor") == []


def test_presets_of_the_user_are_found(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    preset = tmp_path / "experiment" / "mine.yaml"
    preset.write_text("# @package _global_\ntrainer:\n  max_steps: 5\n")
    assert problems("--config-dir", str(tmp_path), "experiment=mine") == []
    preset.write_text("# @package _global_\ntrainer:\n  max_stpes: 5\n")
    (problem,) = problems("--config-dir", str(tmp_path), "experiment=mine")
    assert "max_stpes" in problem
    (problem,) = problems("--config-dir", str(tmp_path / "none"))
    assert problem.startswith("--config-dir: expected a folder, found none at ")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("train", ["kernel.bandwith=1"], "kernel.bandwith: no such key"),
        ("train", ["--backbone", "vitb"], "--backbone: no such option; settings are written name=value"),
        ("evaluate", ["split=train"], "split: expected one of val, test, got 'train'"),
        ("doctor", ["data=coco"], "data.root: expected a value, got none; add data.root=..."),
        ("doctor", [], "data: expected data="),
        ("export", [], "run: expected a value, got none; add run=..."),
        (
            "export",
            ["run=x", "to=tensorrt"],
            "to: expected one of timm, dinov2_hub, hf, onnx, or a list of them, got",
        ),
        ("export", ["run=x", "sizes=224"], "sizes: expected null or a list of sizes in pixels"),
    ],
)
def test_mistake_ends_the_program_before_torch(
    name: str, arguments: list[str], sentence: str, tmp_path: Path
):
    started = time.monotonic()
    done = python(WITHOUT_TORCH.format(name=name), *arguments, cwd=tmp_path)
    print(f"answered in {time.monotonic() - started:.2f} s")  # noqa: T201 - shown by pytest -s
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info", "searchpath"]], ids=" ".join)
def test_hydras_own_options_work(arguments: list[str], tmp_path: Path):
    done = python(WITHOUT_TORCH.format(name="train"), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {
        "--help": "How similar two tokens are to each other",
        "--cfg": "max_steps:",
        "--info": str(CONF_DIR),
    }[arguments[0]] in done.stdout


def test_module_is_the_same_program(tmp_path: Path):
    code = "import runpy, sys; sys.argv[0] = 'train'; runpy.run_module('paka.train', run_name='__main__', alter_sys=True)"
    done = python(code, "kernel=rfb", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"kernel: expected one of {KERNELS}, got 'rfb'; did you mean rbf?\n"


def test_log_is_a_file_and_warnings_are_shown(tmp_path: Path):
    body = (
        "import logging; logging.getLogger('paka').info('quiet'); logging.getLogger('paka').warning('loud')"
    )
    done = running(body, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "WARNING: loud\n")
    (log,) = tmp_path.rglob("train.log")
    assert "quiet" in log.read_text()


def test_run_sees_the_configuration_and_its_folder(tmp_path: Path):
    body = "print(cfg.seed, cfg.output_dir, cfg.run_name, cfg.method)"
    done = running(body, "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seed, folder, run_name, method = done.stdout.split()
    assert (seed, run_name, method) == ("3", "tiny_scenes_paka_linear", "paka")
    assert Path(folder).is_relative_to(tmp_path / "outputs")
    assert (Path(folder) / ".hydra" / "config.yaml").is_file()


INPUT_ERROR = "from paka.sources.folder import Folder; Folder('dev', root='images')"


def test_input_error_of_the_package_is_one_sentence(tmp_path: Path):
    done = running(INPUT_ERROR, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "'dev'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_traceback_on_demand_and_for_bugs(tmp_path: Path):
    shown = running(INPUT_ERROR, cwd=tmp_path, PAKA_TRACEBACK="1")
    bug = running("raise ValueError('not of the package')", cwd=tmp_path)
    for done in (shown, bug):
        assert done.returncode == 1
        assert "Traceback" in done.stderr or "Error executing job" in done.stderr


def test_other_processes_of_a_run_leave_nothing(tmp_path: Path):
    done = running("print('ran')", cwd=tmp_path, RANK="1")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert not list(tmp_path.iterdir())
    silent = python(WITHOUT_TORCH.format(name="train"), "seed=x", cwd=tmp_path, RANK="1")
    assert (silent.returncode, silent.stderr) == (2, "")


@pytest.mark.slow
def test_wheel_holds_configuration_and_assets(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("paka_ssl-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        f"paka/conf/{path.relative_to(CONF_DIR).as_posix()}" for path in CONF_DIR.rglob("*.yaml")
    } <= names
    package = ROOT / "src" / "paka"
    shipped = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {f"paka/{path.relative_to(package).as_posix()}" for path in shipped} <= names
    assert not [name for name in names if name.startswith("tests/")]
