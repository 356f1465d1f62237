"""timm's own format: safetensors under its names and a config.json from which `create_model` builds the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from paka import weights
from paka.encoder import timm_options
from paka.formats import Export, Format, Written, check_difference
from paka.loading import EXPORTED

LOADING = """
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # or hf-hub:USER/NAME
options = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**options, is_training=False)
pixels = transform(Image.open("image.jpg").convert("RGB"))[None]
with torch.inference_mode():
    {forward}
"""
LAST = """tokens = model.forward_features(pixels)
patch_tokens = tokens[:, model.num_prefix_tokens :]  # (1, N, D), row by row
class_token = tokens[:, 0] if model.cls_token is not None else None"""
RESAMPLING = "At other sizes timm resamples position embeddings its own way; the run did so by {}, which `paka.load` does too."
SEVERAL = """layers = model.forward_intermediates(
    pixels, indices={layers}, norm=True, output_fmt="NLC", intermediates_only=True
)
patch_tokens = torch.cat(layers, dim=-1)  # (1, N, D), row by row"""


def write(export: Export, folder: Path) -> Written:
    """Write weights and `config.json`, load them with timm alone, and compare."""
    weights.save(export.encoder.model, folder / EXPORTED, **export.metadata)
    (folder / "config.json").write_text(json.dumps(config(export), indent=2) + "\n", encoding="utf-8")
    layers, authors = export.spec.layers, export.spec.resampling
    size = export.position_size if authors else (export.image_size, export.image_size)
    images = export.picture(size)
    found = _patches(folder, export.pixels(images), layers)
    difference = check_difference(found, export.patches(images), "timm.create_model")
    forward = LAST if layers is None else SEVERAL.format(layers=layers)
    return Written(
        "timm",
        LOADING.format(forward=forward.replace("\n", "\n    ")).strip(),
        f"Loaded with timm {timm.__version__} alone, patch tokens of a random picture of {size[0]} x {size[1]} pixels differ from paka's by at "
        f"most {difference:.2g}.",
        [RESAMPLING.format(authors)] if authors else [],
    )


@torch.inference_mode()
def _patches(folder: Path, pixels: Tensor, layers: list[int] | None) -> Tensor:
    """Return the patch tokens that timm alone makes of normalised pixels."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    if layers is None:
        tokens: Tensor = model.forward_features(pixels)[:, model.num_prefix_tokens :]
        return tokens
    several = model.forward_intermediates(
        pixels, indices=layers, norm=True, output_fmt="NLC", intermediates_only=True
    )
    return torch.cat(several, dim=-1)


def config(export: Export) -> dict[str, Any]:
    """Return what timm's `config.json` says of a model, as `timm.models.save_for_hf` has it."""
    published = export.encoder.published
    sides = export.position_size
    return {
        "architecture": export.spec.timm_model.partition(".")[0],
        "num_classes": 0,
        "num_features": int(export.encoder.model.num_features),
        "global_pool": "",
        "model_args": {**timm_options(export.spec.arch), **_size_of(export)},
        "pretrained_cfg": {
            "tag": "paka",
            "custom_load": False,
            "input_size": [3, *sides],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": export.spec.mean,
            "std": export.spec.std,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": published["first_conv"],
            "classifier": published["classifier"],
        },
    }


def _size_of(export: Export) -> dict[str, Any]:
    """Return timm's argument for the grid of learnt positions, which the weights have to fit."""
    return {} if export.encoder.model.pos_embed is None else {"img_size": list(export.position_size)}


def refusal(export: Export) -> str | None:
    """Return None: every encoder is one of timm's."""
    del export
    return None


FORMAT = Format("timm's format", refusal, write)
