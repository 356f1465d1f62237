"""Every data set by the documented commands: its miniature is written, post-trained on for 5 steps, and scored."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tests.configurations import OPTIONS, choosing, composed
from tests.programs import run

DATA = [
    option
    for group, option in OPTIONS
    if group == "data" and "miniature" in composed(*choosing("data", option)).data
]
PROBES = {
    **{"nyu": "depth", "spair": "correspondence", "keypoints": "correspondence"},
    **dict.fromkeys(("davis", "frames"), "label_propagation"),
}
"""What data sets without classes are scored by."""
SMALL = ["backbone.batch_size=8", "trainer.max_steps=5", "trainer.workers=0", "head.hidden=32", "head.out=16"]
PROFILE = ["profile.grid=[8,8]", "profile.linear_epochs=1", "profile.bootstrap=20"]


def paka(program: str, *arguments: str, folder: Path) -> str:
    env = {"PAKA_CACHE": str(folder / "cache")}
    done = run("-m", f"paka.{program}", *arguments, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_a_miniature_is_written_trained_on_and_scored(name: str, tmp_path: Path) -> None:
    paka("doctor", f"data={name}", "miniature=mini", folder=tmp_path)
    assert "sound" in paka("doctor", f"data={name}", "data.root=mini", folder=tmp_path)
    probe = f"eval={PROBES.get(name, 'in_context')}"
    data = [f"data={name}", "data.root=mini", probe]
    paka("train", *data, *SMALL, *PROFILE, "hydra.run.dir=run", folder=tmp_path)
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    if composed(*choosing("data", name)).data.splits is None:
        return
    benchmark = [f"benchmark={name}", "benchmark.root=mini", probe]
    paka("evaluate", *benchmark, *PROFILE, "hydra.run.dir=score", folder=tmp_path)
    row, *_ = csv.DictReader((tmp_path / "score" / "results.csv").read_text().splitlines())
    assert row["benchmark"] == name
    assert 0 <= float(row["before"]) <= 100
