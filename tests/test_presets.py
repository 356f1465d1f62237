"""Every preset of the group backbone: what its family is known for, at a depth and width that fit any machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import timm
import torch
from tests.configurations import OPTIONS, choosing, composed

from paka import weights
from paka.config import build
from paka.encoder import Encoder, timm_options

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5,) * 3, (0.5,) * 3
SATELLITE = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
NONE = (0.0,) * 3, (1.0,) * 3


class Family(NamedTuple):
    """Patch size by preset or for all, prefix tokens, mean and std, licence."""

    patch: int | dict[str, int]
    prefix: int
    pixels: tuple[tuple[float, ...], tuple[float, ...]]
    licence: str


FAMILIES = {
    "tiny": Family(8, 1, HALF, "apache-2.0"),
    "timm": Family(16, 1, IMAGENET, "apache-2.0"),
    "vit": Family(14, 5, IMAGENET, "apache-2.0"),
    "dinov2": Family(14, 1, IMAGENET, "apache-2.0"),
    "dinov3": Family(16, 5, IMAGENET, "dinov3-license"),
    "dinov3_l_sat": Family(16, 5, SATELLITE, "dinov3-license"),
    "dinov3_7b_sat": Family(16, 5, SATELLITE, "dinov3-license"),
    "eupe": Family(16, 5, IMAGENET, "fair-noncommercial-research-license"),
    "lingbot": Family(16, 5, IMAGENET, "apache-2.0"),
    "tipsv2": Family(14, 2, NONE, "apache-2.0"),
    "dino": Family({"dino_s8": 8, "dino_b8": 8, "dino_s16": 16, "dino_b16": 16}, 1, IMAGENET, "apache-2.0"),
    "mae": Family({"mae_b": 16, "mae_l": 16, "mae_h": 14}, 1, IMAGENET, "cc-by-nc-4.0"),
    "clip": Family({"clip_b": 16, "clip_b_laion2b": 16, "clip_b_dfn": 16}, 1, CLIP, ""),
    "clip_l_laion2b": Family(14, 1, HALF, "apache-2.0"),
    "siglip2": Family({"siglip2_so400m14": 14}, 0, HALF, "apache-2.0"),
    "eva02": Family(14, 1, CLIP, "mit"),
    "pe_spatial": Family({"pe_spatial_l": 14}, 1, HALF, "apache-2.0"),
    "pe_spatial_g": Family(14, 0, HALF, "apache-2.0"),
    "ijepa": Family({"ijepa_h14": 14}, 0, IMAGENET, "cc-by-nc-4.0"),
    "radio": Family(16, 8, CLIP, "nvidia-open-model-license"),
    "radiov4": Family(16, 10, CLIP, "nvidia-open-model-license"),
}
OTHER_PATCH = {"clip": 14, "siglip2": 16, "pe_spatial": 16, "ijepa": 16}
PRESETS = [option for group, option in OPTIONS if group == "backbone"]


def family_of(preset: str) -> str:
    return max((name for name in FAMILIES if preset.startswith(name)), key=len)


def reduced(preset: str, *overrides: str) -> Encoder:
    shape = "{depth: 2, embed_dim: 96, num_heads: 4}"
    if preset == "tiny":
        shape = "{patch_size: 8, depth: 2, embed_dim: 96, num_heads: 4}"
    cfg = composed(
        *choosing("backbone", preset),
        *overrides,
        f"backbone.encoder.arch={shape}",
        "backbone.pretrained=false",
    )
    torch.manual_seed(0)
    encoder: Encoder = build(cfg.backbone.encoder)
    return encoder.eval()


@pytest.fixture(scope="module", params=PRESETS)  # so that the tests of a preset follow each other
def preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_preset_is_what_its_family_is_known_for(preset: str) -> None:
    family, encoder = FAMILIES[family_of(preset)], reduced(preset)
    patch = family.patch
    if isinstance(patch, dict):
        patch = patch.get(preset, OTHER_PATCH.get(family_of(preset), 0))
    assert encoder.patch_size == patch
    torch.testing.assert_close(encoder.mean.flatten() / 255, torch.tensor(family.pixels[0]))
    torch.testing.assert_close(encoder.std.flatten() / 255, torch.tensor(family.pixels[1]))
    assert encoder.licence == family.licence or (not family.licence and encoder.licence != "unknown")
    images = torch.randint(0, 256, (2, 3, 3 * patch, 5 * patch), dtype=torch.uint8)
    with torch.no_grad():
        tokens = encoder(images)
        assert tokens.patches.shape == (2, 3, 5, 96)
        assert tokens.prefix.shape == (2, family.prefix, 96)
        pixels = (images.float() - encoder.mean) / encoder.std
        expected = encoder.model.forward_intermediates(
            pixels, indices=1, norm=True, intermediates_only=True, output_fmt="NCHW"
        )[0]
    assert torch.equal(tokens.patches, expected.permute(0, 2, 3, 1))
    assert tokens.patches.isfinite().all()


def test_position_embeddings_as_their_authors_resample_them(preset: str) -> None:
    cfg = composed(*choosing("backbone", preset))
    if cfg.backbone.resampling.author is None:
        return
    timms, theirs = reduced(preset), reduced(preset, "backbone.pos_embed=author")
    side = timms.patch_size
    rows, columns = timms.model.patch_embed.grid_size
    native = torch.randint(0, 256, (1, 3, rows * side, columns * side), dtype=torch.uint8)
    other = native[..., : 3 * side, : 5 * side]
    with torch.no_grad():
        assert torch.equal(timms(native).patches, theirs(native).patches)
        assert not torch.allclose(timms(other).patches, theirs(other).patches, atol=1e-4)


def test_there_and_back_through_plain_timm(preset: str, tmp_path: Path) -> None:
    encoder, arch = reduced(preset), {"depth": 2, "embed_dim": 96, "num_heads": 4}
    arch |= {"patch_size": 8, "img_size": 128} if preset == "tiny" else {}
    weights.save(encoder.model, tmp_path / "encoder.safetensors")
    name = composed(*choosing("backbone", preset)).backbone.encoder.model
    plain = timm.create_model(name, **timm_options(arch)).eval()
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "encoder.safetensors"))
    images = torch.randint(0, 256, (1, 3, 3 * encoder.patch_size, 2 * encoder.patch_size), dtype=torch.uint8)
    with torch.no_grad():
        tokens = encoder(images)
        expected = plain.forward_features((images.float() - encoder.mean) / encoder.std)
        found = torch.cat([tokens.prefix, tokens.patches.flatten(1, 2)], dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        for value in plain.parameters():
            value.mul_(1.5)
        safetensors.torch.save_file(plain.state_dict(), tmp_path / "plain.safetensors")
        weights.load_file(encoder.model, tmp_path / "plain.safetensors")
        again = plain.forward_features((images.float() - encoder.mean) / encoder.std)
        torch.testing.assert_close(
            encoder(images).patches.flatten(1, 2), again[:, len(tokens.prefix[0]) :], rtol=0, atol=1e-6
        )
