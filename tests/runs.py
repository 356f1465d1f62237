"""Folders as runs leave them, made without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tests.configurations import composed

from paka import weights
from paka.config import build
from paka.digests import write_digests
from paka.encoder import Encoder
from paka.evidence import weights_facts
from paka.scores import Score, write_results

SCORES = [
    Score("scenes", "in_context", "compact", "mIoU", "test", 0, 16.36, 21.53, 5.17, 4.50, 5.89, 25600, 30),
    Score("scenes", "linear", "compact", "mIoU", "test", 0, 22.20, 21.61, -0.59, -1.19, 0.05, None, None),
]


def random_encoder(cfg: DictConfig, seed: int = 0) -> Encoder:
    """The encoder of a configuration with all weights random, biases and scales included."""
    encoder: Encoder = build(cfg.backbone.encoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


def write_run(folder: Path, *overrides: str, scores: list[Score] | None = None) -> Encoder:
    """Leave what a finished run leaves, and return its encoder."""
    cfg = composed(
        f"output_dir={folder}",
        "run_name=a run/of_mine",
        "method=paka",
        "tags=[]",
        "backbone.pretrained=false",
        *overrides,
    )
    folder.mkdir(parents=True)
    encoder = random_encoder(cfg)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    facts = weights_facts(cfg, encoder) | {"images": "scenes, 16 of them, no mask read"}
    weights.save(encoder.model, folder / "encoder.safetensors", **facts)
    write_digests(folder, ["encoder.safetensors"])
    provenance: dict[str, Any] = {
        "command": "python -m paka.train seed=0",
        "git": "0123abc",
        "python": "3.12.1",
        "packages": {"torch": "2.14.1", "timm": "1.0.31"},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "status.json").write_text('{"state": "finished", "started": "2026-11-25T18:45:51Z"}')
    (folder / ".hydra").mkdir()
    record = {
        "runtime": {"choices": {"objective": "paka", "kernel": "linear", "sweep": None}},
        "overrides": {"task": ["seed=0", "run_name=a run/of_mine"]},
    }
    OmegaConf.save({"hydra": record}, folder / ".hydra" / "hydra.yaml")
    if scores:
        write_results(folder / "results.csv", scores)
    return encoder
