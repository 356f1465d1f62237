"""transformers' format: its names, `config.json` and `preprocessor_config.json`, for the encoders that it has a class for."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3

from paka.formats import Export, Format, Written, check_difference
from paka.formats.anatomy import Anatomy, anatomy
from paka.formats.dinov2_hub import check_exact, mlp_ratio, save_state, unlike
from paka.key_tables import HF_DINOV2, HF_DINOV3, HF_VIT, Layout
from paka.layouts import difference, from_timm
from paka.loading import EXPORTED

LOADING = """
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained(".")  # or USER/NAME of the hub
model = AutoModel.from_pretrained("."{options}).eval()
inputs = processor(Image.open("image.jpg").convert("RGB"), return_tensors="pt")
with torch.inference_mode():
    tokens = model(**inputs).last_hidden_state
patch_tokens = tokens[:, {prefix}:]  # (1, N, D), row by row
class_token = tokens[:, 0]
"""


@dataclass(frozen=True)
class Kind:
    """A class of transformers.

    Attributes:
        name: Of the class.
        layout: Names of its weights.
        refusal: Returns why an encoder is not of it, or None.
        settings: Returns what its configuration says beside the numbers that all have.
        options: What `from_pretrained` takes beside the folder, by name.
        mask: Shape of a mask token of zeros, by the width; None without.
    """

    name: str
    layout: Layout
    refusal: Callable[[Export], str | None]
    settings: Callable[[Export, Anatomy], Mapping[str, Any]]
    options: Mapping[str, bool] = field(default_factory=dict)
    mask: Callable[[int], tuple[int, ...]] | None = None


def _dinov2_refusal(export: Export, *, registers: bool) -> str | None:
    if found := unlike(export, HF_DINOV2):
        return found
    return (
        None
        if bool(anatomy(export.encoder.model).registers) == registers
        else "it has registers, or has none"
    )


def _dinov2_settings(export: Export, body: Anatomy) -> dict[str, Any]:
    del export
    registers = {"num_register_tokens": body.registers} if body.registers else {}
    gated = body.mlp == "packed"
    return {"mlp_ratio": mlp_ratio(body), "use_swiglu_ffn": gated, **registers, "hidden_act": "gelu"}


def _dinov3_refusal(export: Export) -> str | None:
    model: Any = export.encoder.model
    rope = getattr(model, "rope", None)
    if not isinstance(rope, RotaryEmbeddingDinoV3):
        return "it is not of DINOv3's architecture: its positions are not rotary as there"
    if found := difference(HF_DINOV3, model, optional=["reg_token"]):
        return f"it is not of DINOv3's architecture: it {found}"
    usual = rope.normalize_coords == "separate" and rope.rotate_half and not rope.grid_offset
    if not usual or rope.temperature is None or rope.min_period is not None or rope.grid_indexing != "ij":
        return "its rotary positions have other settings than DINOv3's"
    return _kind_of_mlp(export, {"plain": "gelu", "gated": "silu"})


def _dinov3_settings(export: Export, body: Anatomy) -> dict[str, Any]:
    model: Any = export.encoder.model
    return {
        "intermediate_size": body.hidden,
        "use_gated_mlp": body.mlp == "gated",
        "num_register_tokens": body.registers,
        "rope_theta": model.rope.temperature,
        "hidden_act": body.activation,
    }


def _vit_refusal(export: Export) -> str | None:
    if found := difference(HF_VIT, export.encoder.model):
        return f"it is no plain ViT: it {found}"
    if export.encoder.model.no_embed_class:
        return "its class token has no position"
    return _kind_of_mlp(export, {"plain": "gelu gelu_pytorch_tanh quick_gelu"})


def _vit_settings(export: Export, body: Anatomy) -> dict[str, Any]:
    del export
    return {"intermediate_size": body.hidden, "qkv_bias": True, "hidden_act": body.activation}


def _kind_of_mlp(export: Export, known: Mapping[str, str]) -> str | None:
    """Return why the MLPs or prefix tokens are others than a class has."""
    body = anatomy(export.encoder.model)
    if body.activation not in known.get(body.mlp, "").split():
        return f"its MLPs are {body.mlp} with {body.activation}"
    return None if body.classes == 1 else f"it has {body.classes} class tokens"


KINDS = {
    "dinov2_with_registers": Kind(
        "Dinov2WithRegistersModel",
        HF_DINOV2,
        lambda export: _dinov2_refusal(export, registers=True),
        _dinov2_settings,
        mask=lambda width: (1, width),
    ),
    "dinov2": Kind(
        "Dinov2Model",
        HF_DINOV2,
        lambda export: _dinov2_refusal(export, registers=False),
        _dinov2_settings,
        mask=lambda width: (1, width),
    ),
    "dinov3_vit": Kind(
        "DINOv3ViTModel", HF_DINOV3, _dinov3_refusal, _dinov3_settings, mask=lambda width: (1, 1, width)
    ),
    "vit": Kind("ViTModel", HF_VIT, _vit_refusal, _vit_settings, options={"add_pooling_layer": False}),
}
"""transformers' classes by the type that its `config.json` names."""


def refusal(export: Export) -> str | None:
    """Return why transformers has no class for an encoder, or None."""
    if export.spec.layers is not None:
        return f"its tokens join blocks {export.spec.layers}, and transformers normalises those of the last alone"
    reasons = {kind.name: kind.refusal(export) for kind in KINDS.values()}
    if None in reasons.values():
        return None
    return "; ".join(f"no {name}, {reason}" for name, reason in reasons.items())


def write(export: Export, folder: Path) -> Written:
    """Write weights and configurations, read them back, and compare; with transformers too if it is installed."""
    model_type, kind = next((name, kind) for name, kind in KINDS.items() if kind.refusal(export) is None)
    network = export.encoder.model
    body = anatomy(network)
    state = from_timm(network.state_dict(), kind.layout, network)
    if kind.mask is not None:
        state["embeddings.mask_token"] = torch.zeros(kind.mask(body.width))
    save_state(state, folder / EXPORTED, export)
    for name, content in {
        "config.json": config(export, model_type, kind),
        "preprocessor_config.json": preprocessor(export),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    check_exact(export, folder)
    options = "".join(f", {name}={value}" for name, value in kind.options.items())
    loading = LOADING.format(options=options, prefix=body.classes + body.registers)
    return Written("transformers", loading.strip(), _checked(export, folder, kind), _notes(export, kind))


def config(export: Export, model_type: str, kind: Kind) -> dict[str, Any]:
    """Return what `config.json` says."""
    body = anatomy(export.encoder.model)
    height, width = export.position_size
    return {
        "architectures": [kind.name],
        "model_type": model_type,
        "hidden_size": body.width,
        "num_hidden_layers": body.depth,
        "num_attention_heads": body.heads,
        "layer_norm_eps": body.eps,
        "image_size": height if height == width else [height, width],
        "patch_size": export.encoder.patch_size,
        "num_channels": 3,
        "dtype": "float32",
        **kind.settings(export, body),
    }


def preprocessor(export: Export) -> dict[str, Any]:
    """Return what `preprocessor_config.json` says."""
    height, width = _input_size(export)
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": export.spec.mean,
        "image_std": export.spec.std,
    }


def _input_size(export: Export) -> tuple[int, int]:
    """Return the size that pictures are brought to: that of the positions, or of the training where they are rotary."""
    rotary = export.encoder.model.pos_embed is None
    return (export.image_size, export.image_size) if rotary else export.position_size


def _checked(export: Export, folder: Path, kind: Kind) -> str:
    """Compare with transformers' own tokens if it is installed, and say how it was checked."""
    exact = "Read back into timm's names, every weight is the same bit for bit."
    if importlib.util.find_spec("transformers") is None:
        return f"{exact} Not run in transformers, which was not installed."
    import transformers

    with _quiet():
        model = transformers.AutoModel.from_pretrained(folder, **kind.options).eval()
    size, body = _input_size(export), anatomy(export.encoder.model)
    images = export.picture(size)
    with torch.inference_mode():
        tokens = model(pixel_values=export.pixels(images)).last_hidden_state
    found = tokens[:, body.classes + body.registers :]
    difference = check_difference(found, export.patches(images), f"transformers' {kind.name}")
    return (
        f"{exact} Patch tokens of transformers {transformers.__version__} ({kind.name}) for a random picture of {size[0]} x {size[1]} "
        f"pixels differ from paka's by at most {difference:.2g}."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bar off the terminal."""
    from transformers import utils

    logging: Any = utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _notes(export: Export, kind: Kind) -> list[str]:
    """Return what else to know."""
    notes = []
    if export.encoder.model.pos_embed is not None:
        height, width = export.position_size
        ask = " and takes them with `interpolate_pos_encoding=True` only" if kind.name == "ViTModel" else ""
        notes.append(
            f"At other sizes than {height} x {width} pixels transformers resamples position embeddings its own way{ask}."
        )
    if kind.options:
        notes.append(
            "Without `add_pooling_layer=False` transformers adds a random layer behind the class token, which changes no token."
        )
    return notes


FORMAT = Format("transformers' format", refusal, write)
