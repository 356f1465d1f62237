"""Zero-shot classification: what its score says, what it depends on, and the command line."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.configurations import composed
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols.contrastive import NAMES, TEMPLATES, features_of, image_tower, space_of, write
from tests.protocols.synthetic import PROFILE
from torch import Tensor
from torch.nn import functional as F

from paka import assembly, weights
from paka.applicable import applicable
from paka.features import DenseFeatures, extract
from paka.frames import Frame
from paka.outcome_store import OutcomeStore
from paka.protocols import Entry, Profile
from paka.protocols.joint_space import JointSpace
from paka.protocols.zero_shot import ZeroShot, ready, zero_shot

SCENES = ["benchmark.source.test=24", "benchmark.source.train=8", "benchmark.source.size=32"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: write(root / family, family) for family in ("clip", "siglip")}


def settings(model: Path | str | None, file: Path | str | None = None) -> Profile:
    chosen = ZeroShot(
        None if model is None else str(model), None if file is None else str(file), list(TEMPLATES)
    )
    return replace(PROFILE, settings={"zero_shot": chosen})


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_scores_are_cosines_of_images_and_names(folders: dict[str, Path], family: str) -> None:
    space, (found, _) = space_of(folders[family]), features_of(folders[family], family)
    images = space.images(found.globals, found.tokens.flatten(1, 2)).double().numpy()
    expected = images @ space.texts(("a", "b", "c"), TEMPLATES).double().numpy().T
    outcome = zero_shot(None, found, settings(folders[family]), seed=0)
    np.testing.assert_allclose(outcome.counts[..., 0].numpy(), expected, atol=1e-6)
    assert torch.equal(outcome.counts[..., 1] > 0, found.tags)
    assert outcome.stated == {"note": f"text tower {family}; 2 x prompted", "upsampling": "none"}


def test_patches_beyond_the_image_count_for_nothing(folders: dict[str, Path]) -> None:
    found, _ = features_of(folders["siglip"], "siglip")
    valid = torch.zeros(6, 4, 4, dtype=torch.bool)
    valid[:, :3] = True
    padded = replace(found, tokens=torch.where(valid[..., None], found.tokens, 50.0), valid=valid)
    cut = replace(found, tokens=found.tokens[:, :3])
    both = [zero_shot(None, one, settings(folders["siglip"]), seed=0).counts for one in (padded, cut)]
    torch.testing.assert_close(*both, atol=1e-5, rtol=0)


def at(places: Tensor, space: JointSpace, **labels: Any) -> DenseFeatures:
    """Features of images that are at the given places (n, E) of a native model's joint space."""
    tokens = places @ torch.linalg.pinv(space.model.visual.proj.detach())
    return DenseFeatures(
        torch.zeros(len(places), 1, 1, 32), torch.zeros(0), 0, globals=tokens, names=NAMES, **labels
    )


def test_images_at_their_names_score_1_and_shuffled_names_collapse(folders: dict[str, Path]) -> None:
    space, profile = space_of(folders["clip"]), settings(folders["clip"])
    texts, labels = space.texts(NAMES, TEMPLATES), torch.arange(40) % 5
    oracle = at(texts[labels], space, tags=F.one_hot(labels, 5).bool())
    assert zero_shot(None, oracle, profile, seed=0).score == 1.0
    shuffled = replace(oracle, names=(*NAMES[1:], NAMES[0]))
    assert zero_shot(None, shuffled, profile, seed=0).score == 0.0

    tags = torch.rand(60, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    tags |= F.one_hot(torch.arange(60) % 5, 5).bool()
    duals = torch.linalg.pinv(texts).T  # each has a cosine above 0 with its own name and 0 with the others
    several = at(tags.float() @ duals, space, tags=tags)
    assert zero_shot(None, several, profile, seed=0).score == 1.0
    chance = float(tags.float().mean())
    assert zero_shot(None, replace(several, names=shuffled.names), profile, seed=0).score < chance + 0.2


def test_images_anywhere_in_the_joint_space_are_at_chance(folders: dict[str, Path]) -> None:
    space, labels = space_of(folders["clip"]), torch.arange(400) % 5
    places = torch.randn(400, 24, generator=torch.Generator().manual_seed(0))
    noise = at(places, space, tags=F.one_hot(labels, 5).bool())
    assert zero_shot(None, noise, settings(folders["clip"]), seed=0).score == pytest.approx(0.2, abs=0.05)


def test_classes_that_masks_show_are_named_too(folders: dict[str, Path]) -> None:
    space = space_of(folders["clip"])
    masks = (torch.arange(10) % 5).to(torch.uint8)[:, None, None].expand(10, 4, 4)
    features = replace(at(space.texts(NAMES, TEMPLATES).repeat(2, 1), space), labels=masks, num_classes=5)
    outcome = zero_shot(None, features, settings(folders["clip"]), seed=0)
    assert (outcome.metrics[0].name, outcome.score) == ("top-1", 1.0)


def test_sources_tell_what_classes_are_called() -> None:
    class Masked(NoiseImages):
        tag_names = ()

        def tags(self, index: int) -> np.ndarray:
            return super().tags(index)[:0]

    read = {"frame": Frame(2, 2, 8, "stretch"), "indices": range(2)}
    assert extract(tiny_encoder(), NoiseImages(), **read).names == ("a", "b", "c")
    assert extract(tiny_encoder(), Masked(), **read).names == ("left", "right")


def test_outcomes_are_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    found, _ = features_of(folders["clip"], "clip")
    profile, store = settings(folders["clip"]), OutcomeStore(tmp_path)
    outcome = zero_shot(None, found, profile, seed=0)
    store.put({"a": 1}, outcome)
    kept = store.get({"a": 1}, profile)
    assert kept is not None
    assert torch.equal(kept.counts, outcome.counts)
    assert (kept.metrics, kept.stated) == (outcome.metrics, outcome.stated)


def test_files_that_settings_name_are_part_of_what_outcomes_depend_on(folders: dict[str, Path]) -> None:
    folder = folders["clip"]
    assert settings(folder).files == [
        folder / "open_clip_config.json",
        folder / "open_clip_model.safetensors",
    ]
    assert settings("ViT-B-16", folder / "open_clip_model.safetensors").files == [
        folder / "open_clip_model.safetensors"
    ]
    assert settings("ViT-B-16", "nowhere").files == []


def test_another_file_of_the_same_name_is_asked_anew(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny-clip", "clip")
    cfg = composed(
        "eval=zero_shot",
        *SCENES,
        f"benchmark.source.cache={tmp_path / 'scenes'}",
        f"profile.settings.zero_shot.model={folder}",
        name="evaluate",
    )
    encoder, asked = image_tower(folder, "clip"), []
    for date in (1, 1, 2):
        os.utime(folder / "open_clip_model.safetensors", (date, date))
        benchmark = assembly.build_benchmark(cfg, "test", encoder)
        assert benchmark is not None
        asked.append(benchmark.asked)
    assert asked[0] == asked[1] != asked[2]


def entry() -> Entry:
    return Entry(zero_shot, "tags", trains=False, ready=ready)


def test_without_a_model_the_protocol_is_listed_with_the_reason(folders: dict[str, Path]) -> None:
    sides = NoiseImages(), NoiseImages(), image_tower(folders["clip"], "clip")
    fitting, skipped = applicable({"zero_shot": entry()}, *sides, settings(None), changed=False)
    assert fitting == {}
    assert skipped["zero_shot"].startswith("set profile.settings.zero_shot.model and .weights to")
    fitting, skipped = applicable({"zero_shot": entry()}, *sides, settings(folders["clip"]), changed=False)
    assert (list(fitting), skipped) == (["zero_shot"], {})


def test_tokens_of_another_width_or_without_names_are_refused(folders: dict[str, Path]) -> None:
    found, _ = features_of(folders["clip"], "clip")
    with pytest.raises(ValueError, match="expected tokens of 32 channels, as clip makes, got 31"):
        zero_shot(None, replace(found, globals=found.globals[:, 1:]), settings(folders["clip"]), seed=0)
    with pytest.raises(ValueError, match="expected names of the 3 classes, got 0"):
        zero_shot(None, replace(found, names=()), settings(folders["clip"]), seed=0)


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",), ("{name}",), ("{} {0}",)])
def test_prompts_that_name_nothing_are_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected templates with \{\} once"):
        ZeroShot(templates=templates)


EVALUATE_AFTER_ALL_IMPORTS = """
import importlib, pkgutil, sys
import paka.evaluation
from paka import evaluate, protocols
for module in pkgutil.iter_modules(protocols.__path__):
    importlib.import_module(f"paka.protocols.{module.name}")
assert "open_clip" not in sys.modules, "open_clip is imported by what does not need it"
evaluate.main()
"""


@pytest.mark.slow
def test_the_command_line_scores_an_encoder_before_and_after(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny-clip", "quickgelu")
    after = image_tower(folder, "quickgelu")
    with torch.no_grad():
        for parameter in after.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    weights.save(after.model, tmp_path / "after.safetensors")
    arch = "{patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2, img_size: 32}"
    command = [
        "backbone=clip_b",
        f"backbone.encoder.arch={arch}",
        f"backbone.weights={folder / 'open_clip_model.safetensors'}",
        *SCENES,
        f"benchmark.source.cache={tmp_path / 'scenes'}",
        "profile.grid=[4,4]",
        "profile.bootstrap=20",
        "eval=zero_shot",
        f"profile.settings.zero_shot.model={folder}",
        f"compare=[{tmp_path / 'after.safetensors'}]",
        f"cache={tmp_path / 'kept'}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    process = subprocess.run(
        [sys.executable, "-c", EVALUATE_AFTER_ALL_IMPORTS, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    with (tmp_path / "run" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["protocol"], row["metric"]) == ("zero_shot", "mAP")
    assert row["note"] == "text tower tiny-clip; 1 x prompted"
    assert float(row["before"]) != float(row["after"])
    assert float(row["ci_low"]) <= float(row["delta"]) <= float(row["ci_high"])
