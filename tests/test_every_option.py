"""Every file in conf/ is composed, built and stepped once; of the backbones, one of each family: test_presets.py builds all."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tests.configurations import OPTIONS, choosing, composed
from torch import distributed

from paka import assembly
from paka.config import build
from paka.outcome_store import packed, unpacked

ARCH = "{embed_dim: 32, depth: 3, num_heads: 2, img_size: 56}"
SMALL = [
    "backbone.pretrained=false",
    "backbone.global_grid=4",
    "backbone.local_grid=2",
    "backbone.batch_size=4",
    "objective.grid=2",
    "optim.weight_decay.start=0",
    "optim.weight_decay.end=0",
    "head.hidden=16",
    "head.out=8",
    "image_head.prototypes=16",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.accumulate=1",
    "trainer.devices=1",
    "trainer.workers=0",
    "eval.every=null",
    "profile.grid=[4,4]",
    "profile.memory=64",
    "profile.k=5",
    "profile.clusters=6",
    "profile.pca=8",
    "profile.kmeans_iterations=2",
    "profile.kmeans_restarts=1",
    "profile.train_images=4",
    "profile.val_images=2",
    "profile.test_images=4",
    "profile.linear_epochs=1",
    "profile.linear_batch=2",
    "profile.bootstrap=10",
    "profile.settings.knn.k=3",
    "profile.settings.attentive.epochs=1",
    "profile.settings.foreground.clusters=4",
    "profile.settings.communities.clusters=2",
    "profile.settings.linear_depth.steps=2",
    "profile.settings.linear_depth.warmup_steps=1",
    "profile.settings.label_propagation.radius=2",
    "profile.settings.finetune.steps=2",
    "profile.settings.finetune.warmup_steps=1",
    "profile.settings.finetune.batch=2",
    "profile.settings.linear_windows.steps=2",
    "profile.settings.linear_windows.warmup_steps=1",
    "profile.settings.linear_windows.batch=2",
    "profile.settings.logistic_segmentation.iterations=5",
]
FAMILIES = {
    "tiny",
    "timm",
    "vits",
    "dinov2_s",
    "dinov3_s",
    "eupe_t",
    "lingbot_s",
    "tipsv2_b",
    "dino_s8",
    "mae_b",
    "clip_b",
}
FAMILIES |= {"siglip2_b", "eva02_t", "pe_spatial_t", "ijepa_h14", "radio_b", "radiov4_h"}
STEPPED = [(group, option) for group, option in OPTIONS if group != "backbone" or option in FAMILIES]
SCENES = {"train": 8, "val": 2, "test": 2, "size": 32}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of every data set that has one, in a folder of its name."""
    root = tmp_path_factory.mktemp("trees")
    for name in (option for group, option in OPTIONS if group == "data"):
        data = composed(*choosing("data", name)).data
        if "miniature" in data:
            build(data.miniature)(root / name, images=10)
    return root


@pytest.mark.parametrize(("group", "option"), STEPPED)
def test_every_option_is_built_and_stepped(
    group: str, option: str, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAKA_CACHE", str(trees / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    overrides = [
        *choosing(group, option, str(trees)),
        *SMALL,
        *(["profile.grid=[16,16]"] if option == "overclustering_more" else []),  # 500 tokens at least
        f"output_dir={tmp_path}",
        "run_name=test",
        "method=test",
        "tags=[test]",
    ]
    cfg = composed(*overrides)
    arch = ARCH if cfg.backbone.name != "tiny" else f"{{patch_size: 8, {ARCH[1:]}"
    chosen = [
        node for node in ("data", "benchmark") if not OmegaConf.is_interpolation(cfg, node) and cfg[node]
    ]
    scenes = [
        f"{node}.source.{key}={value}"
        for node in chosen
        if "size" in cfg[node].source
        for key, value in SCENES.items()
    ]
    cfg = composed(*overrides, f"backbone.encoder.arch={arch}", *scenes)
    encoder = assembly.build_encoder(cfg)
    source = assembly.build_source(cfg)
    module = assembly.build_module(cfg, encoder, source)
    trainer = assembly.build_trainer(cfg, tmp_path, [])
    start = {name: value.clone() for name, value in module.state_dict().items() if torch.is_tensor(value)}
    with warnings.catch_warnings(), assembly.logging(cfg, trainer.loggers):
        for expected in (".*does not have many workers", "Experiment logs directory .* exists"):
            warnings.filterwarnings("ignore", expected)
        trainer.fit(module, assembly.build_data(cfg, encoder, source))
    if distributed.is_initialized():
        distributed.destroy_process_group()
    assert trainer.global_step == 1
    moved = [
        name
        for name, value in module.state_dict().items()
        if torch.is_tensor(value) and not torch.equal(value, start[name])
    ]
    assert any(name.startswith("student.encoder") for name in moved)
    assert all(value.isfinite().all() for value in module.state_dict().values() if torch.is_tensor(value))
    benchmark = assembly.build_benchmark(cfg, "test", encoder)
    if benchmark is not None and group in ("benchmark", "eval", "profile", "data"):
        outcomes = benchmark.run(encoder)
        assert all(found.counts.sum() > 0 for found in outcomes.values())
        for outcome in (one for found in outcomes.values() for one in found.outcomes):
            again = unpacked(packed(outcome), benchmark.profile)  # as files and other processes take it
            assert torch.equal(again.counts, outcome.counts)
            assert [one.name for one in again.metrics] == [one.name for one in outcome.metrics]
            assert again.stated == outcome.stated
            assert all(torch.equal(again.pictures[n], shown) for n, shown in outcome.pictures.items())
