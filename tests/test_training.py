"""The program as its users start it: files, repeatability, resuming, interrupts, two processes, bad data."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from tests.programs import run, start

import paka
from paka.patch_features import PatchFeatures
from paka.presets import preset
from paka.probing import score
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


def training(folder: Path, root: Path, *overrides: str) -> list[str]:
    return ["-m", "paka.train", *SMALL, f"data.root={root}", f"hydra.run.dir={folder}", *overrides]


def train(folder: Path, root: Path, *overrides: str, launcher: Sequence[str] = (), own: bool = False) -> str:
    command = [*launcher, *training(folder, root, *overrides)]
    done = run(*command, cwd=root, own=own or bool(launcher))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def stepped(folder: Path) -> bool:
    """Whether a run has logged a step."""
    return (folder / "metrics.csv").exists() and len((folder / "metrics.csv").read_text().splitlines()) > 1


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in rows(folder / "metrics.csv") if row["loss"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> tuple[Path, str]:
    """A complete run, by a process of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder, photographs, own=True)


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
        "model_card.md",
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


def test_the_encoder_that_a_run_leaves_says_what_it_is(finished: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(finished[0] / "encoder.safetensors", tmp_path / "alone.safetensors")
    alone, own = (paka.load(path) for path in (tmp_path / "alone.safetensors", finished[0]))
    picture = own.transform(np.full((40, 90, 3), 7, dtype=np.uint8))
    with torch.inference_mode():
        assert torch.equal(alone(picture).patches, own(picture).patches)
    assert own(picture).patches.shape == (1, 4, 9, 16)


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
    train(tmp_path, photographs, "trainer.workers=2", "eval.every=2", "eval.subset=3", "visualize=2")
    scored = [row["step"] for row in rows(tmp_path / "metrics.csv") if row["val/in_context"]]
    assert scored == ["2", "4"], "scoring while training is logged once each time and changes nothing"
    assert (tmp_path / "results.csv").read_text() == (finished[0] / "results.csv").read_text()
    assert losses(tmp_path) == losses(finished[0])
    assert "training.gif" in (tmp_path / "report.md").read_text(), "nor do pictures while training"


def test_a_notebook_scores_an_encoder_as_the_run_did(finished: tuple[Path, str], photographs: Path) -> None:
    arch = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, global_pool="", dynamic_img_size=True, **arch
    )
    vit.load_state_dict(load_file(finished[0] / "encoder.safetensors"))
    mean, std = vit.pretrained_cfg["mean"], vit.pretrained_cfg["std"]
    tokens = PatchFeatures(
        lambda images: vit.eval().forward_features(images)[:, 1:], patch_size=8, mean=mean, std=std, size=32
    )
    small = {"grid": [4, 4], "memory": 100, "k": 5, "clusters": 6, "bootstrap": 20}
    profile = preset("profile", "compact", **small, linear_epochs=2, linear_batch=4)
    folder = preset("data", "folder", root=str(photographs))
    found = score(tokens, folder(split="train"), folder(split="test"), using="dense", profile=profile)
    expected = rows(finished[0] / "results.csv")
    assert {row.protocol: f"{row.before:.2f}" for row in found} == {
        row["protocol"]: row["after"] for row in expected
    }


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
    done = run(*command, *settings, f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {row["method"] for row in rows(tmp_path / "results.csv")} == {"compared"}
    columns = ("protocol", "before", "after") if features == "none" else ("protocol", "before")
    scored, expected = (
        [[row[column] for column in columns] for row in rows(folder / "results.csv")]
        for folder in (tmp_path, finished[0])
    )
    assert scored == expected


def test_control_c_leaves_a_checkpoint_and_says_how_to_go_on(photographs: Path, tmp_path: Path) -> None:
    command = training(tmp_path, photographs, "trainer.max_steps=100000", "eval=none")
    process = start(*command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not stepped(tmp_path) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"python -m paka.train resume={tmp_path}\n" in out
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
        (["trainer.accelerator=mps"], "expected what this machine can do, got trainer.accelerator=mps"),
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
    done = run(*training(tmp_path, photographs, *overrides), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


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
    done = run(*training(tmp_path / "run", root, "trainer.max_steps=10"), cwd=tmp_path)
    assert done.returncode == 1
    assert "of 40 images cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


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
    where = [f"cache={tmp_path / 'kept'}", f"hydra.run.dir={tmp_path}"]
    done = run(*command, f"compare=[{files}]", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = done.stdout
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
    process = start(*evaluation(photographs, tmp_path / "killed", tmp_path / "cache"), cwd=tmp_path)
    started = time.monotonic()
    while len(list((tmp_path / "cache").glob("outcomes/*.npz"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < started + 120
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "results.csv").exists()
    printed = []
    for name, cache in (("resumed", "cache"), ("undisturbed", "other")):
        done = run(*evaluation(photographs, tmp_path / name, tmp_path / cache), cwd=tmp_path)
        assert (tmp_path / name / "results.csv").exists(), done.stderr
        printed.append(done.stdout)
    assert 2 <= printed[0].count("kept from before") < 6
    assert "kept from before" not in printed[1]
    assert_same_scores(tmp_path / "resumed", tmp_path / "undisturbed")


def test_control_c_ends_an_evaluation_with_a_sentence(tmp_path: Path, photographs: Path) -> None:
    process = start(*evaluation(photographs, tmp_path / "stopped", tmp_path / "cache"), cwd=tmp_path)
    started = time.monotonic()
    while not list((tmp_path / "cache").glob("*/facts.json")):
        assert process.poll() is None
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
        done = run(*command, cwd=tmp_path, own=True)
        assert done.returncode == 0, done.stderr
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
