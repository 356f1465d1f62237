"""What runs differ in: found from their configurations, named shortly, and nothing that follows from something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.run_folders import base, write_run

from paka.configurations import columns, label, numbers, short_labels
from paka.runs import Run, find, read


def runs_of(folder: Path) -> list[Run]:
    return read(find([folder]), [folder])


def names(folder: Path) -> list[str]:
    return [column.name for column in columns(runs_of(folder))]


def test_a_swept_key_is_a_column_and_neither_its_copies_nor_the_seed_are(tmp_path: Path) -> None:
    for bandwidth in (0.5, 1):
        for seed in (0, 1):
            write_run(tmp_path / f"{bandwidth} {seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}")
    runs = runs_of(tmp_path)
    (column,) = columns(runs)
    assert (column.key, column.name, column.group) == ("kernel.bandwidth", "bandwidth", False)
    assert {column.text(run) for run in runs} == {"0.5", "1"}


def test_the_same_without_a_record_of_hydra(tmp_path: Path) -> None:
    for bandwidth in (0.5, 1):
        for seed in (0, 1):
            folder = write_run(
                tmp_path / f"{bandwidth} {seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}"
            )
            for file in ("config", "overrides", "hydra"):
                (folder / ".hydra" / f"{file}.yaml").unlink()
    assert names(tmp_path) == ["bandwidth"]


def of_kernel(folder: Path, kernel: str, *overrides: str, **keys: Any) -> None:
    config = base(kernel={"_target_": f"paka.kernels.{kernel}", **keys})
    write_run(folder, f"kernel={kernel}", *overrides, choices={"kernel": kernel}, config=config)


def test_an_option_stands_for_what_its_file_holds(tmp_path: Path) -> None:
    of_kernel(tmp_path / "a", "linear")
    of_kernel(tmp_path / "b", "polynomial", degree=2, offset=1.0)
    runs = runs_of(tmp_path)
    (column,) = columns(runs)
    assert column.group
    assert [column.text(run) for run in runs] == ["linear", "polynomial"]


def test_a_key_beside_an_option_is_a_column_if_it_was_typed(tmp_path: Path) -> None:
    of_kernel(tmp_path / "a", "linear")
    for bandwidth in (0.5, 2):
        of_kernel(tmp_path / f"b{bandwidth}", "rbf", f"kernel.bandwidth={bandwidth}", bandwidth=1.0)
    runs = runs_of(tmp_path)
    found = columns(runs)
    assert [column.name for column in found] == ["kernel", "bandwidth"]
    texts = [tuple(column.text(run) for column in found) for run in runs]
    assert texts == [("linear", "-"), ("rbf", "0.5"), ("rbf", "2")]
    assert label(["kernel", "bandwidth"], texts[0]) == "kernel=linear"


def test_two_keys_that_change_together_are_both_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "backbone.lr=1e-4", "backbone.head_lr=1e-3")
    write_run(tmp_path / "b", "backbone.lr=2e-4", "backbone.head_lr=2e-3")
    assert names(tmp_path) == ["lr", "head_lr"]


def test_names_are_as_long_as_they_have_to_be(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "data.limit=5", "profile.limit=1", "trainer.max_steps=4")
    write_run(tmp_path / "b", "data.limit=6", "profile.limit=2", "trainer.max_steps=8")
    assert sorted(names(tmp_path)) == ["data.limit", "max_steps", "profile.limit"]


def test_what_changes_no_result_is_no_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "trainer.workers=4", "resume=null", "profile.bootstrap=100", "run_name=x")
    write_run(tmp_path / "b", "trainer.workers=0", "resume=last.ckpt", "profile.bootstrap=50", "eval.every=2")
    write_run(tmp_path / "c", "batch=8", "device=cpu", "profile.settings.finetune.checkpoint_every=2")
    assert names(tmp_path) == []
    assert label([], ()) == "as configured"


def test_short_labels_leave_out_what_is_clear() -> None:
    keys = ["kernel", "unbiased", "bandwidth"]
    found = short_labels(keys, [("rbf", "true", "0.5"), ("linear", "false", "-")])
    assert [*found.values()] == ["rbf, unbiased=true, bandwidth=0.5", "linear, unbiased=false"]
    alike = short_labels(["student", "teacher"], [("ema", "-"), ("-", "ema")])
    assert [*alike.values()] == ["student=ema", "teacher=ema"]


def test_numbers_are_finite() -> None:
    assert numbers(["1", "2e-3"]) == [1.0, 0.002]
    assert numbers(["1", "rbf"]) is None
    assert numbers(["1", "inf"]) is None
