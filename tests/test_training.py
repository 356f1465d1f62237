"""The program as its users start it: files, repeatability, resuming, interrupts, two processes, bad data."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from paka.statistics import mean_iou

ARCH = "{patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, img_size: 32}"
SMALL = [
    "experiment=demo",
    "data=folder",
    "backbone.pretrained=false",
    f"backbone.encoder.arch={ARCH}",
    "backbone.global_grid=4",
    "backbone.local_grid=2",
    "backbone.batch_size=4",
    "objective.grid=2",
    "head.hidden=16",
    "head.out=8",
    "trainer.max_steps=4",
    "trainer.precision=32-true",
    "trainer.log_every=1",
    "trainer.workers=0",
    "profile.grid=[4,4]",
    "profile.memory=100",
    "profile.k=5",
    "profile.clusters=6",
    "profile.linear_epochs=2",
    "profile.linear_batch=4",
    "profile.bootstrap=20",
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten training and six test images of two textures side by side, with masks and some void."""
    root = tmp_path_factory.mktemp("photographs")
    for split, count in {"train": 10, "val": 4, "test": 6}.items():
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng([len(split), index])
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            image[:, 32:] //= 4
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[:, 32:] = 1
            mask[:4] = 255
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            cv2.imwrite(str(root / "masks" / split / f"{index}.png"), mask)
    return root


def start(command: Sequence[str], **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, *command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def train(folder: Path, root: Path, *overrides: str, launcher: Sequence[str] = ()) -> str:
    module = ["-m", "paka.train"] if not launcher else [*launcher, "-m", "paka.train"]
    command = [*module, *SMALL, f"data.root={root}", f"hydra.run.dir={folder}", *overrides]
    process = start(command)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in rows(folder / "metrics.csv") if row["loss"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> tuple[Path, str]:
    """A complete run and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder, photographs)


def test_a_run_leaves_everything_it_promises(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    for name in (
        "config.yaml",
        "provenance.json",
        "metrics.csv",
        "results.csv",
        "report.md",
        "report.html",
        "per_class.csv",
        "resamples.npz",
        "encoder.safetensors",
    ):
        assert (folder / name).stat().st_size > 0, name
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert {"features.png", "in_context.png", "linear.png", "overclustering.png", "curves.png"} <= figures
    assert "report.html" in printed
    assert [row["protocol"] for row in rows(folder / "results.csv")] == [
        "in_context",
        "linear",
        "overclustering",
    ]
    assert len(losses(folder)) == 4
    assert "Next" in printed
    banner = printed.split("step 1")[0].strip().splitlines()
    assert len(banner) <= 12


def test_the_results_begin_with_the_agreed_columns(finished: tuple[Path, str]) -> None:
    header = (finished[0] / "results.csv").read_text().splitlines()[0]
    assert header.startswith(
        "benchmark,protocol,profile,metric,split,seed,before,after,delta,ci_low,ci_high,memory,k,note"
    )


def test_the_encoder_loads_back_into_timm(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    model = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        dynamic_img_size=True,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
        img_size=32,
    )
    model.load_state_dict(load_file(folder / "encoder.safetensors"))
    assert "model.load_state_dict(load_file(" in (folder / "report.md").read_text()


def test_the_same_seed_gives_the_same_results(
    finished: tuple[Path, str], photographs: Path, tmp_path: Path
) -> None:
    train(tmp_path, photographs, "trainer.workers=2", "eval.every=2", "eval.subset=3")
    scored = [row["step"] for row in rows(tmp_path / "metrics.csv") if row["val/in_context"]]
    assert scored == ["2", "4"], "scoring while training is logged once each time and changes nothing"
    assert (tmp_path / "results.csv").read_text() == (finished[0] / "results.csv").read_text()
    assert losses(tmp_path) == losses(finished[0])


@pytest.mark.parametrize("features", ["none", pytest.param("whiten", marks=pytest.mark.slow)])
def test_evaluation_scores_an_export_as_the_run_did(
    finished: tuple[Path, str], photographs: Path, tmp_path: Path, features: str
) -> None:
    settings = [
        setting
        for setting in SMALL
        if setting.startswith(("backbone.pretrained", "backbone.enc", "profile."))
    ]
    command = ["-m", "paka.evaluate", *settings, "benchmark=folder", f"benchmark.root={photographs}"]
    export = finished[0] / "encoder.safetensors"
    settings = [f"compare=[{export}]", f"features={features}", "method=compared"]
    process = start([*command, *settings, f"hydra.run.dir={tmp_path}"])
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {row["method"] for row in rows(tmp_path / "results.csv")} == {"compared"}
    columns = ("protocol", "before", "after") if features == "none" else ("protocol", "before")
    scored, expected = (
        [[row[column] for column in columns] for row in rows(folder / "results.csv")]
        for folder in (tmp_path, finished[0])
    )
    assert scored == expected


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    finished: tuple[Path, str], photographs: Path, tmp_path: Path
) -> None:
    train(tmp_path / "most", photographs, "trainer.checkpoint_every=3", "eval=none")
    kept = tmp_path / "most" / "checkpoints" / "last.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] == 3
    train(tmp_path / "rest", photographs, f"resume={kept}")
    assert losses(tmp_path / "rest") == losses(finished[0])[3:]
    whole, resumed = (load_file(path / "encoder.safetensors") for path in (finished[0], tmp_path / "rest"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_control_c_leaves_a_checkpoint_and_says_how_to_go_on(photographs: Path, tmp_path: Path) -> None:
    command = ["-m", "paka.train", *SMALL, f"data.root={photographs}", f"hydra.run.dir={tmp_path}"]
    process = start([*command, "trainer.max_steps=100000", "eval=none"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "provenance.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"resume={tmp_path}/checkpoints/last.ckpt" in out
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0


def test_two_processes_give_the_losses_of_one(
    finished: tuple[Path, str], photographs: Path, tmp_path: Path
) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    train(tmp_path, photographs, "trainer=ddp", "trainer.devices=2", "trainer.max_steps=4", launcher=launcher)
    np.testing.assert_allclose(losses(tmp_path), losses(finished[0]), atol=1e-5)
    one, two = (rows(path / "results.csv") for path in (finished[0], tmp_path))
    assert [row["before"] for row in one] == [row["before"] for row in two]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.root=/nowhere"], "/nowhere does not exist"),
        (["resume=/nowhere.ckpt"], "expected a checkpoint at resume=/nowhere.ckpt"),
        (["backbone.batch_size=64"], "expected at least one batch of 64 images, found 10"),
        (
            ["profile.k=90", "profile.memory=95", "profile.train_images=2"],
            "expected a memory of at least k=90",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    photographs: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    process = start(
        ["-m", "paka.train", *SMALL, f"data.root={photographs}", f"hydra.run.dir={tmp_path}", *overrides]
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in err
    assert "Traceback" not in err


def unlabelled(root: Path, count: int, *broken: int) -> Path:
    """A plain folder of photographs, some of them cut off."""
    root.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{index:03d}.jpg"), pixels)
    for index in broken:
        path = root / f"{index:03d}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    return root


def test_unreadable_photographs_are_skipped_and_listed(tmp_path: Path) -> None:
    root = unlabelled(tmp_path / "photos", 120, 7)
    out = train(tmp_path / "run", root, "backbone.batch_size=40", "trainer.max_steps=3", "trainer.workers=1")
    (row,) = rows(tmp_path / "run" / "skipped.csv")
    assert row["image"] == f"{root}/007.jpg"
    assert "it is truncated" in row["reason"]
    assert "skipped.csv" in out
    assert "1 images that cannot be read" in (tmp_path / "run" / "report.md").read_text()


def test_too_many_of_them_stop_the_run(tmp_path: Path) -> None:
    root = unlabelled(tmp_path / "photos", 40, 3, 4)
    process = start(["-m", "paka.train", *SMALL, f"data.root={root}", f"hydra.run.dir={tmp_path / 'run'}", "trainer.max_steps=10"])  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "of 40 images cannot be read" in err
    assert "Traceback" not in err


def test_encoders_are_compared_in_one_run(
    finished: tuple[Path, str], photographs: Path, tmp_path: Path
) -> None:
    settings = [one for one in SMALL if one.startswith(("backbone.pretrained", "backbone.enc", "profile."))]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(finished[0] / "encoder.safetensors", tmp_path / name)
    files = ",".join(str(tmp_path / name / "encoder.safetensors") for name in ("a", "b"))
    command = [
        "-m",
        "paka.evaluate",
        *settings,
        "benchmark=folder",
        f"benchmark.root={photographs}",
        "eval=all",
        "profile.settings.knn.k=2",
        "profile.settings.attentive.epochs=1",
        "profile.settings.finetune.steps=2",
        "profile.settings.finetune.warmup_steps=1",
        "profile.settings.finetune.batch=2",
        "profile.settings.linear_windows.steps=2",
        "profile.settings.linear_windows.warmup_steps=1",
        "profile.settings.linear_windows.batch=2",
        "profile.settings.knn_segmentation.neighbours=[1,3]",
        "profile.settings.logistic_segmentation.iterations=5",
    ]
    process = start(
        [*command, f"compare=[{files}]", f"cache={tmp_path / 'kept'}", f"hydra.run.dir={tmp_path}"]
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    scored = rows(tmp_path / "results.csv")
    assert {row["method"] for row in scored} == {"a", "b"}
    assert "in_context_depth" not in {row["protocol"] for row in scored}
    assert "folder has no depth" in " ".join(out.split())
    first, second = ([row["after"] for row in scored if row["method"] == name] for name in ("a", "b"))
    assert first == second
    kept = json.loads((tmp_path / "results.json").read_text())
    assert [row["protocol"] for row in kept["scores"]] == [row["protocol"] for row in scored]
    # What the folder has no depth, points or videos for, and what the encoder has no text tower for.
    unfit = {"in_context_depth", "linear_depth", "zero_shot", "correspondence", "label_propagation"}
    assert unfit <= {*kept["skipped"]}
    drift = [row for row in rows(tmp_path / "harm.csv") if row["name"] == "patch cosine drift"]
    assert [row["candidate"] for row in drift] == ["a", "b"]
    assert all(float(row["change"]) > 0 for row in drift)
    counts = np.load(tmp_path / "counts.npz")
    iou = mean_iou(torch.from_numpy(counts["in_context.a"])).mean()
    assert f"{100 * float(iou):.2f}" == first[0]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"1-a", "2-b"}
    assert f"{first[0]}" in (tmp_path / "report.html").read_text()
    assert "report.html" in out
    assert len(list((tmp_path / "kept").glob("*/facts.json"))) == 6, "two splits and warps of two weights"


def test_snapshots_are_kept_and_the_best_by_an_estimate_is_exported(
    tmp_path: Path, photographs: Path
) -> None:
    train(tmp_path, photographs, "snapshots=2", "choose=dse", "eval=none")
    kept = sorted((tmp_path / "snapshots").iterdir())
    assert [path.name for path in kept] == [f"step_00000{step}.safetensors" for step in (0, 2, 4)]
    estimates = {row["checkpoint"]: float(row["dse"]) for row in rows(tmp_path / "choice.csv")}
    assert list(estimates) == [path.stem for path in kept]
    best = max(estimates, key=lambda name: estimates[name])
    exported, chosen = (
        load_file(tmp_path / "encoder.safetensors"),
        load_file(tmp_path / "snapshots" / f"{best}.safetensors"),
    )
    assert all(torch.equal(exported[name], value) for name, value in chosen.items())
    assert (
        f"{best.replace('_', ' ')} of 4, chosen without labels by dse" in (tmp_path / "report.md").read_text()
    )


def test_a_killed_evaluation_goes_on_and_gives_the_same_result(tmp_path: Path, photographs: Path) -> None:
    process = start(evaluation(photographs, tmp_path / "killed", tmp_path / "cache"))
    started = time.monotonic()
    while len(list((tmp_path / "cache").glob("outcomes/*.npz"))) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < started + 120
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "results.csv").exists()
    printed = []
    for name, cache in (("resumed", "cache"), ("undisturbed", "other")):
        out, err = start(evaluation(photographs, tmp_path / name, tmp_path / cache)).communicate(timeout=240)
        assert (tmp_path / name / "results.csv").exists(), err
        printed.append(out)
    assert 2 <= printed[0].count("kept from before") < 6
    assert "kept from before" not in printed[1]
    assert_same_scores(tmp_path / "resumed", tmp_path / "undisturbed")


def test_control_c_ends_an_evaluation_with_a_sentence(tmp_path: Path, photographs: Path) -> None:
    process = start(evaluation(photographs, tmp_path / "stopped", tmp_path / "cache"))
    started = time.monotonic()
    while not list((tmp_path / "cache").glob("*/facts.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < started + 120
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "stopped before all was scored; the same command goes on from what is finished\n"


@pytest.mark.slow
def test_two_processes_that_share_an_evaluation_score_as_one(tmp_path: Path, photographs: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    for name, launched in (("one", []), ("two", launcher)):
        command = [*launched, *evaluation(photographs, tmp_path / name, tmp_path / f"{name}-cache")]
        process = start(command)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert_same_scores(tmp_path / "one", tmp_path / "two")


def evaluation(root: Path, folder: Path, cache: Path) -> list[str]:
    settings = [one for one in SMALL if one.startswith(("backbone.pretrained", "backbone.enc", "profile."))]
    return [
        *("-m", "paka.evaluate", *settings, "benchmark=folder", f"benchmark.root={root}"),
        *("eval=[in_context,linear,overclustering]", "profile.seeds=2"),
        *(f"hydra.run.dir={folder}", f"cache={cache}"),
    ]


def assert_same_scores(one: Path, other: Path) -> None:
    assert (one / "results.csv").read_text() == (other / "results.csv").read_text()
    with np.load(one / "counts.npz") as first, np.load(other / "counts.npz") as second:
        assert first.files == second.files
        assert all(np.array_equal(first[name], second[name]) for name in second.files)
