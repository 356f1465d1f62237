"""The data doctor by its command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.programs import run, start
from tests.trees import write_folder

from paka.config import CONF_DIR
from paka.sources.folder import Folder

SOURCE = CONF_DIR.parent / "src"

WRITER = """
from tests.programs import run, start
from tests.trees import write_folder

def write(root, *, images=20, seed=0):
    write_folder(root, {"train": images - 4, "val": 2, "test": 2})
"""

MINE = """
defaults:
  - folder
  - _self_
name: mine
miniature:
  _target_: writer.write
  _partial_: true
"""

SLOW = """
import time
from pathlib import Path
from paka.sources.folder import Folder

class Slow(Folder):
    def image(self, index):
        Path("reading").touch()
        time.sleep(0.3)
        return super().image(index)
"""


def paths(cwd: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, cwd, CONF_DIR.parent))),
        "PYTHONIOENCODING": "utf-8",
    }


def doctor(*arguments: str, cwd: Path, own: bool = False) -> tuple[int, str, str]:
    done = run("-m", "paka.doctor", *arguments, cwd=cwd, env=paths(cwd), own=own)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def in_run(*more: str, group: str = "benchmark") -> list[str]:
    return [f"{group}=folder", f"{group}.root=tree", "hydra.run.dir=run", *more]


def test_sound_data_twice_into_the_same_folder(tmp_path: Path):
    write_folder(tmp_path / "tree")
    first, second = (doctor(*in_run(), cwd=tmp_path, own=own) for own in (True, False))
    assert (first[0], first[2]) == (second[0], second[2]) == (0, "")
    assert re.sub(r"in [0-9.]+ s", "", first[1]) == re.sub(r"in [0-9.]+ s", "", second[1])
    for line in ("folder is sound: 19 images read in", "  python -m paka.evaluate benchmark=folder"):
        assert line in first[1]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"findings.json", "problems.csv", "contact_sheet.png", "config.yaml", "provenance.json"} <= names
    assert (tmp_path / "run/problems.csv").read_text().splitlines() == ["split,item,sentence"]


def test_terminal_and_json_say_the_same(tmp_path: Path):
    write_folder(tmp_path / "tree")
    _, output, _ = doctor(*in_run(), cwd=tmp_path)
    report = json.loads((tmp_path / "run/findings.json").read_text())
    for split in report["splits"]:
        line = next(line for line in output.splitlines() if line.startswith(f"folder  {split['split']} "))
        assert line.split()[3:6] == [str(split["images"]), str(split["read"]), "0"]
    for row in report["splits"][0]["classes"]:
        line = next(line for line in output.splitlines() if line.startswith(f"{row['class']} "))
        assert f"{row['share']:.2f} %" in line


def test_problems_are_listed_and_the_exit_code_is_1(tmp_path: Path):
    tree = write_folder(tmp_path / "tree", {"train": 30, "val": 1, "test": 1})
    for index in range(12):
        (tree / f"images/train/{index}.png").write_bytes(b"")
    code, output, errors = doctor(*in_run(), cwd=tmp_path)
    assert code == 1
    assert output.count("cannot decode image") == 10
    assert "and 2 more in problems.csv" in output
    assert errors.startswith("error: folder is not sound: 12 problems, listed in ")
    assert errors.count("\n") == 1
    rows = list(csv.DictReader((tmp_path / "run/problems.csv").read_text().splitlines()))
    assert sorted(Path(row["item"]).name for row in rows) == sorted(f"{index}.png" for index in range(12))


def test_data_are_checked_in_the_split_that_is_post_trained_on(tmp_path: Path):
    write_folder(tmp_path / "tree", {"train": 9})
    code, output, _ = doctor(*in_run("sample=4", "contact_sheet=0", group="data"), cwd=tmp_path)
    assert code == 0
    assert "folder is sound: 4 images read" in output
    assert "python -m paka.train data=folder data.root=tree" in output
    assert not (tmp_path / "run/contact_sheet.png").exists()


def test_data_and_benchmark_of_the_same_images_are_read_once(tmp_path: Path):
    write_folder(tmp_path / "tree")
    code, output, _ = doctor(*in_run("data=folder", "data.root=tree"), cwd=tmp_path)
    assert code == 0
    assert "data, train" in output
    assert "19 images read" in output


def test_what_is_missing_is_said_with_where_it_is_published(tmp_path: Path):
    code, output, _ = doctor("data=coco", "data.root=nowhere", cwd=tmp_path)
    assert code == 1
    assert "data root nowhere does not exist" in output
    assert "its owners publish it at https://cocodataset.org/#download" in output


def test_images_without_masks_cannot_be_a_benchmark(tmp_path: Path):
    code, _, errors = doctor("benchmark.root=x", "benchmark=folder", "benchmark.splits=null", cwd=tmp_path)
    assert (code, errors) == (
        1,
        "error: benchmark: expected labelled images, but folder has none; check data=folder\n",
    )


def write_presets(folder: Path) -> list[str]:
    (folder / "writer.py").write_text(WRITER)
    for group in ("data", "benchmark"):
        (folder / "conf" / group).mkdir(parents=True)
    (folder / "conf/data/mine.yaml").write_text(MINE)
    (folder / "conf/benchmark/mine.yaml").write_text("defaults:\n  - /data@_here_: mine\n")
    return ["--config-dir", "conf"]


@pytest.mark.parametrize(
    "groups",
    [
        ["data"],
        *(pytest.param(groups, marks=pytest.mark.slow) for groups in (["benchmark"], ["data", "benchmark"])),
    ],
    ids="+".join,
)
def test_a_miniature_is_written_where_nothing_is_and_passes(groups: list[str], tmp_path: Path):
    presets = write_presets(tmp_path)
    chosen = [f"{group}=mine" for group in groups]
    code, output, errors = doctor(*presets, *chosen, "miniature=mini", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert len(Folder("train", root=tmp_path / "mini")) == 16
    for line in filter(lambda line: line.startswith("  python -m paka.doctor "), output.splitlines()):
        code, output, errors = doctor(*presets, *shlex.split(line)[3:], cwd=tmp_path)
        assert (code, errors) == (0, "")
        assert "mine is sound" in output
    code, _, errors = doctor(*presets, *chosen, "miniature=mini", cwd=tmp_path)
    assert (code, errors) == (
        1,
        "error: miniature: expected a new or empty folder, got mini; choose another or empty it\n",
    )


def test_not_every_data_set_has_a_miniature(tmp_path: Path):
    code, _, errors = doctor("data=scenes", "miniature=mini", cwd=tmp_path)
    assert (code, errors) == (
        1,
        "error: data: expected a data set that has a miniature, but scenes has none; choose another\n",
    )
    assert not (tmp_path / "mini").exists()


def test_ctrl_c_ends_it_with_a_sentence(tmp_path: Path):
    write_folder(tmp_path / "tree", {"train": 100})
    (tmp_path / "slow.py").write_text(SLOW)
    slow = in_run("data.source._target_=slow.Slow", group="data")
    process = start("-m", "paka.doctor", *slow, cwd=tmp_path, env=paths(tmp_path))
    deadline = time.monotonic() + 30
    while not (tmp_path / "reading").exists():
        assert time.monotonic() < deadline
        time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "stopped before every image was read, so nothing is known; sample=100 takes less time\n"


def test_the_picture_is_a_picture(tmp_path: Path):
    write_folder(tmp_path / "tree")
    doctor(*in_run("contact_sheet=5"), cwd=tmp_path)
    with Image.open(tmp_path / "run/contact_sheet.png") as sheet:
        assert sheet.width == 2000
