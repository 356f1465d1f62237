"""Tiny random models of open_clip, written into folders as open_clip's are published, and encoders that are their towers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tests.doubles import NoiseImages
from timm.models import VisionTransformer, register_model
from torch import Tensor

from paka.encoder import Encoder, create_encoder
from paka.features import DenseFeatures, extract
from paka.frames import Frame
from paka.protocols.joint_space import JointSpace, open_joint_space

TEMPLATES = ("a photo of a {}.", "the {}")
NAMES = ("traffic_light", "cat", "dog", "tree", "sky")

ARCH: dict[str, Any] = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
NATIVE = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "width": 16, "heads": 2, "layers": 2}
BACKBONES = {
    "clip": "vit_base_patch16_clip_224",
    "quickgelu": "vit_base_patch16_clip_quickgelu_224",
    "siglip": "vit_base_patch16_siglip_224",
    "trunk": "vit_base_patch16_224",
}
"""timm's models of the families: CLIP with both activations, SigLIP, and a class token of a timm trunk."""

FAMILIES = tuple(BACKBONES)


@register_model
def tiny_siglip_trunk(*, num_classes: int = 0, **_: Any) -> VisionTransformer:
    return VisionTransformer(**ARCH, num_classes=num_classes, class_token=False, global_pool="map")


@register_model
def tiny_class_trunk(*, num_classes: int = 0, **_: Any) -> VisionTransformer:
    return VisionTransformer(**ARCH, num_classes=num_classes)


def config(family: str, **vision: Any) -> dict[str, Any]:
    trunks = {
        "siglip": {"timm_model_name": "tiny_siglip_trunk", "timm_pool": "map", "timm_proj": "none"},
        "trunk": {"timm_model_name": "tiny_class_trunk", "timm_pool": "token", "timm_proj": None},
    }
    embed = 32 if family == "siglip" else 24
    tower = {**trunks.get(family, NATIVE), "image_size": 32, **vision}
    own = {"custom_text": True, "init_logit_bias": -10} if family in trunks else {}
    return {
        "embed_dim": embed,
        "vision_cfg": tower,
        "text_cfg": TEXT,
        "quick_gelu": family == "quickgelu",
        **own,
    }


def write(
    folder: Path, family: str, *, seed: int = 0, text: dict[str, Any] | None = None, **vision: Any
) -> Path:
    """Write a random model of a family, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    described = config(family, **vision)
    described["text_cfg"] = {**described["text_cfg"], **(text or {})}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": described, "preprocess_cfg": {}}))
    options = {key: value for key, value in described.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if "custom_text" in described else open_clip.CLIP
    model = kind(**options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def reference(folder: Path) -> Any:
    """open_clip's own model, whose `encode_image` and `encode_text` are what is compared with."""
    return open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()


def image_tower(folder: Path, family: str, **changes: Any) -> Encoder:
    """The image tower as an encoder, read from the same file."""
    return create_encoder(
        BACKBONES[family],
        arch={**ARCH, **changes},
        weights_file=folder / "open_clip_model.safetensors",
    )


def space_of(folder: Path) -> JointSpace:
    return open_joint_space(str(folder), None, torch.device("cpu"))


def features_of(folder: Path, family: str) -> tuple[DenseFeatures, Tensor]:
    """Features of six square images, and the pixels that their encoder sees."""
    encoder, source, frame = image_tower(folder, family), NoiseImages(), Frame(4, 4, 8, "stretch")
    found = extract(encoder, source, frame=frame, indices=range(6))
    pixels = np.stack([frame.image(source.image(n)) for n in range(6)])
    return found, (torch.from_numpy(pixels).permute(0, 3, 1, 2) - encoder.mean) / encoder.std
