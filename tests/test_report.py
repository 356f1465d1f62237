"""`python -m paka.report` as its users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run_folders import bandwidth_sweep, write_run


def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paka.report", *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=cwd,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_it_prints_tables_and_paths_and_needs_no_torch(tmp_path: Path) -> None:
    sweep = bandwidth_sweep(tmp_path / "multi run")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "torch.py").write_text("raise AssertionError('torch was imported')\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")]))
    done = start(str(sweep), PYTHONPATH=paths, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("paka: 15 runs of 5 configurations with 3 seeds.")
    assert any(line.split()[:2] == ["1", "3"] and "✓" in line for line in lines)
    assert f"  report.html         {sweep}/report.html" in lines
    assert (sweep / "report.html").is_file()
    table = [line for line in (sweep / "report.md").read_text().splitlines() if line.startswith("| 0.5 |")]
    cells = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert any(
        [part for part in line.split() if part != "✓"] == [p for c in cells for p in c.split() if p != "✓"]
        for line in lines
    )


def test_one_run_is_reported_beside_its_own_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "report.html").write_text("its own")
    done = start(str(run), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").read_text() == "its own"
    assert (tmp_path / "report" / "report.html").is_file()
    refused = start(str(run), "--output", str(run))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "has a report of its own: choose another with --output" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required: DIR"),
        (["--bogus", "."], 2, "unrecognized arguments: --bogus"),
        (
            ["nowhere"],
            1,
            "error: expected a folder at nowhere, found nothing: name folders of runs, as below outputs/",
        ),
        (
            ["empty"],
            1,
            "error: expected runs of paka.train or paka.evaluate in empty, found none: name folders",
        ),
        (["file"], 1, "error: expected a folder at file, found a file"),
        (["foreign"], 1, "in foreign, found none"),
        (["run", "--output", "file/report"], 1, "error: Not a directory"),
        (
            ["run", "--reference", "x"],
            1,
            "error: expected a configuration to compare with, got 'x': it is none of 'as configured'",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.yaml").write_text("model: resnet\n")
    write_run(tmp_path / "run")
    done = start(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_what_is_written() -> None:
    done = start("--help")
    assert done.returncode == 0
    assert "comparisons.csv" in done.stdout
