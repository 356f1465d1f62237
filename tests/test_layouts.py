"""Key layouts: tables both ways, tokens as the publishers' own models compute them, and files that do not fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from paka import key_tables as tables
from paka import layouts, weights
from paka.key_tables import LAYOUTS, Layout
from paka.layouts import from_timm, recognise, to_timm

ARCH: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 32, "patch_size": 8}
MODELS = {
    "dinov2": ("vit_small_patch14_dinov2", {}),
    "dinov2_reg": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov2_giant": ("vit_giant_patch14_reg4_dinov2", {"mlp_ratio": 16 / 3}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "dinov3_bias": ("vit_small_patch16_dinov3_qkvb", {}),
    "dinov3_gated": ("vit_small_plus_patch16_dinov3_qkvb", {}),
    "vit": ("vit_base_patch16_224", {}),
    "clip": ("vit_base_patch16_clip_quickgelu_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
}
SPOKEN = {
    "dinov2": [tables.DINOV2_HUB, tables.HF_DINOV2],
    "dinov2_reg": [tables.DINOV2_HUB, tables.HF_DINOV2],
    "dinov2_giant": [tables.DINOV2_HUB, tables.HF_DINOV2],
    "dinov3": [tables.DINOV3_HUB, tables.HF_DINOV3],
    "dinov3_bias": [tables.DINOV3_HUB, tables.HF_DINOV3],
    "dinov3_gated": [tables.DINOV3_HUB, tables.HF_DINOV3],
    "vit": [tables.HF_VIT],
    "clip": [tables.HF_CLIP],
    "siglip": [tables.HF_SIGLIP],
}
PAIRS = [(name, layout) for name, spoken in SPOKEN.items() for layout in [*spoken, tables.TIMM]]


def network(name: str, *, seed: int = 0, **changes: object) -> nn.Module:
    """A small timm transformer whose weights are all random, biases and scales included."""
    model, more = MODELS[name]
    made = timm.create_model(
        model, num_classes=0, global_pool="", dynamic_img_size=True, **{**ARCH, **more, **changes}
    ).eval()
    return randomised(made, seed)


def randomised(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def pixels(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "layout"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_there_and_back_is_the_same(name: str, layout: Layout) -> None:
    model = network(name)
    state = model.state_dict()
    there = from_timm(state, layout, model)
    back = to_timm(there, layout, model)
    assert {*back} == {*state}
    for key, value in state.items():
        torch.testing.assert_close(back[key], value, rtol=0, atol=0)
    again = from_timm(back, layout, model)
    assert {*again} == {*there}
    assert all(torch.equal(again[key], there[key]) for key in there)
    told = recognise(there)
    assert told is layout or (told is tables.TIMM and there.keys() == state.keys())


@pytest.mark.parametrize(("name", "layout"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_a_file_in_any_layout_gives_the_same_tokens(name: str, layout: Layout, tmp_path: Path) -> None:
    model, other = network(name), network(name, seed=1)
    state = {key: value.contiguous() for key, value in from_timm(model.state_dict(), layout, model).items()}
    safetensors.torch.save_file(state, tmp_path / "file.safetensors")
    weights.load_file(other, tmp_path / "file.safetensors")
    torch.testing.assert_close(
        other.forward_features(pixels()), model.forward_features(pixels()), rtol=0, atol=1e-6
    )


BLOCK = [
    "norm1.weight",
    "norm1.bias",
    "attn.qkv.weight",
    "attn.qkv.bias",
    "attn.proj.weight",
    "attn.proj.bias",
]
BLOCK += ["ls1.gamma", "norm2.weight", "norm2.bias", "ls2.gamma"]
MLP = ["mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"]
PACKED = ["mlp.w12.weight", "mlp.w12.bias", "mlp.w3.weight", "mlp.w3.bias"]
GATED = [f"mlp.w{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")]
OUTER = ["cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"]


def keys(outer: list[str], block: list[str]) -> set[str]:
    return {*outer, *(f"blocks.{i}.{key}" for i in range(2) for key in block)}


@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        ("dinov2", tables.DINOV2_HUB, keys([*OUTER, "pos_embed"], BLOCK + MLP)),
        ("dinov2_reg", tables.DINOV2_HUB, keys([*OUTER, "pos_embed", "register_tokens"], BLOCK + MLP)),
        ("dinov2_giant", tables.DINOV2_HUB, keys([*OUTER, "pos_embed", "register_tokens"], BLOCK + PACKED)),
        ("dinov3", tables.DINOV3_HUB, keys([*OUTER, "storage_tokens"], [*BLOCK, *MLP, "attn.qkv.bias_mask"])),
        ("dinov3_bias", tables.DINOV3_HUB, keys([*OUTER, "storage_tokens"], [*BLOCK, *MLP, "attn.qkv.bias_mask"])),
        ("dinov3_gated", tables.DINOV3_HUB, keys([*OUTER, "storage_tokens"], [*BLOCK, *GATED, "attn.qkv.bias_mask"])),
    ],
)  # fmt: skip
def test_hub_keys_are_those_of_the_publishers(name: str, layout: Layout, expected: set[str]) -> None:
    model = network(name)
    written = from_timm(model.state_dict(), layout, model)
    assert {*written} == expected
    if layout is tables.DINOV2_HUB:
        assert written["pos_embed"].shape == (1, 17, 48)
    else:
        assert written["blocks.1.attn.qkv.bias"].shape == (144,)
        assert written["blocks.1.attn.qkv.bias_mask"].tolist() == [1.0] * 48 + [0.0] * 48 + [1.0] * 48


def test_what_only_training_needs_is_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = network("dinov3_bias")
    state = from_timm(model.state_dict(), tables.DINOV3_HUB, model)
    state |= {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.zeros(6)}
    torch.save(state, tmp_path / "hub.pth")
    with caplog.at_level(logging.INFO):
        weights.load_file(network("dinov3_bias", seed=1), tmp_path / "hub.pth")
    assert (
        "left out blocks.0.attn.qkv.bias_mask, blocks.1.attn.qkv.bias_mask, mask_token, rope_embed.periods"
        in caplog.text
    )


def test_biases_that_are_not_zero_are_never_dropped(tmp_path: Path) -> None:
    model = network("dinov3_bias")
    torch.save(from_timm(model.state_dict(), tables.DINOV3_HUB, model), tmp_path / "hub.pth")
    with pytest.raises(ValueError, match=r"unknown blocks\.0\.attn\.q_bias"):
        weights.load_file(network("dinov3"), tmp_path / "hub.pth")


def test_the_class_position_is_added_to_the_token() -> None:
    model = network("dinov2_reg")
    hub = from_timm(model.state_dict(), tables.DINOV2_HUB, model)
    shift = torch.randn(1, 1, 48)
    hub["pos_embed"] = torch.cat([shift, hub["pos_embed"][:, 1:]], dim=1)
    back = to_timm(hub, tables.DINOV2_HUB, model)
    torch.testing.assert_close(back["cls_token"], model.cls_token + shift)
    torch.testing.assert_close(back["pos_embed"], model.pos_embed)


def test_blocks_in_chunks_are_numbered_through(tmp_path: Path) -> None:
    model = network("dinov2_reg")
    state = from_timm(model.state_dict(), tables.DINOV2_HUB, model)
    chunked = {
        key.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): value
        for key, value in state.items()
    }
    torch.save(
        {"teacher": {f"backbone.{key}": value for key, value in chunked.items()}}, tmp_path / "train.pth"
    )
    other = network("dinov2_reg", seed=1)
    weights.load_file(other, tmp_path / "train.pth")
    torch.testing.assert_close(other.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize("branch", ["teacher", "student"])
def test_one_encoder_of_a_training_checkpoint_is_taken(tmp_path: Path, branch: weights.Branch) -> None:
    sides = {"teacher": network("vit"), "student": network("vit", seed=1)}
    lightning = {
        f"{side}.encoder.model.{key}": value
        for side, model in sides.items()
        for key, value in model.state_dict().items()
    }
    lightning["student.head.0.weight"] = torch.zeros(3, 3)
    torch.save({"state_dict": lightning, "global_step": 7, "loops": {"epoch": 1}}, tmp_path / "last.ckpt")
    neco = {
        "student": {f"module.backbone.{key}": value for key, value in sides["student"].state_dict().items()}
    }
    neco["teacher"] = {f"backbone.{key}": value for key, value in sides["teacher"].state_dict().items()}
    torch.save(neco, tmp_path / "neco.ckpt")
    for file in ("last.ckpt", "neco.ckpt"):
        other = network("vit", seed=2)
        weights.load_file(other, tmp_path / file, branch=branch)
        assert torch.equal(other.norm.weight, sides[branch].norm.weight)


def test_two_encoders_without_names_are_refused(tmp_path: Path) -> None:
    state = network("vit").state_dict()
    torch.save(
        {f"{side}.{key}": value for side in "ab" for key, value in state.items()}, tmp_path / "two.pth"
    )
    with pytest.raises(ValueError, match=r"expected one encoder in .*two\.pth, found a\., b\."):
        weights.load_file(network("vit"), tmp_path / "two.pth")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"depth": 3}, "blocks 2 for 3"),
        ({"embed_dim": 96}, "width 48 for 96"),
        ({"patch_size": 16}, "patch 8 for 16"),
        ({"reg_tokens": 2}, "registers 0 for 2"),
    ],
)
def test_another_architecture_is_told_by_what_differs(
    tmp_path: Path, changes: dict[str, int], reason: str
) -> None:
    torch.save(network("vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(
        ValueError, match=rf"vit\.pth does not fit this backbone: {reason}.*choose the backbone"
    ):
        weights.load_file(network("vit", **changes), tmp_path / "vit.pth")


def test_dinov2_is_told_from_dinov3(tmp_path: Path) -> None:
    model = network("dinov2_reg")
    torch.save(from_timm(model.state_dict(), tables.DINOV2_HUB, model), tmp_path / "dinov2.pth")
    with pytest.raises(
        ValueError,
        match=r"dinov2\.pth does not fit this backbone: positions learnt for rotary; missing blocks\.0\.gamma_1",
    ):
        weights.load_file(network("dinov3"), tmp_path / "dinov2.pth")


def test_positions_of_another_grid_are_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(network("vit", img_size=64).state_dict(), tmp_path / "large.pth")
    other = network("vit", seed=1)
    with caplog.at_level(logging.INFO):
        weights.load_file(other, tmp_path / "large.pth")
    assert "positions resampled from 8 x 8 to 4 x 4" in caplog.text
    assert other.pos_embed.shape == (1, 17, 48)


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    torch.save(network("vit"), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds more than weights, and loading it could run code"):
        weights.load_file(network("vit"), tmp_path / "model.pth")


def hugging_face(name: str) -> tuple[nn.Module, nn.Module]:
    """A transformers model with random weights, and the timm network of its architecture."""
    transformers = pytest.importorskip("transformers", reason="install the extra dev")
    common = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    mlp = {"intermediate_size": 192}
    made = {
        "dinov2": ("Dinov2", {}),
        "dinov2_reg": ("Dinov2WithRegisters", {}),
        "dinov2_giant": ("Dinov2WithRegisters", {"use_swiglu_ffn": True}),
        "dinov3_bias": ("DINOv3ViT", {**mlp, "num_register_tokens": 4}),
        "dinov3_gated": (
            "DINOv3ViT",
            {**mlp, "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
        ),
        "vit": ("ViT", {**mlp, "layer_norm_eps": 1e-6}),
        "clip": ("CLIPVision", mlp),
        "siglip": ("SiglipVision", {**mlp, "hidden_act": "gelu"}),
    }
    family, more = made[name]
    config = getattr(transformers, f"{family}Config")(**common, **more)
    model = randomised(getattr(transformers, f"{family}Model")(config), 5).eval()
    return model, network(name, **({"mlp_ratio": 4} if name.startswith("dinov3") else {}))


@pytest.mark.parametrize(
    "name", ["dinov2", "dinov2_reg", "dinov2_giant", "dinov3_bias", "dinov3_gated", "vit", "clip", "siglip"]
)
@pytest.mark.filterwarnings("ignore")
def test_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, ours = hugging_face(name)
    model.save_pretrained(tmp_path)
    weights.load_file(ours, tmp_path)
    with torch.no_grad():
        theirs = model(pixel_values=pixels()).last_hidden_state
        if name == "clip":
            theirs = getattr(model, "vision_model", model).post_layernorm(theirs)
        torch.testing.assert_close(ours.forward_features(pixels()), theirs, rtol=1e-4, atol=2e-5)
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    layout = recognise(stored)
    assert layout is not None
    written = from_timm(ours.state_dict(), layout, ours)
    training_only = {key for key in stored if layouts.is_unused(key, layout)}
    assert {*written} == {*stored} - training_only


def test_a_checkpoint_in_parts_is_put_together(tmp_path: Path) -> None:
    model = network("vit")
    state = from_timm(model.state_dict(), tables.HF_VIT, model)
    parts = {
        f"model-{i}.safetensors": {key: state[key].contiguous() for key in sorted(state)[i::2]}
        for i in range(2)
    }
    for file, part in parts.items():
        safetensors.torch.save_file(part, tmp_path / file)
    index = {"weight_map": {key: file for file, part in parts.items() for key in part}}
    (tmp_path / weights.INDEX).write_text(json.dumps(index))
    other = network("vit", seed=1)
    weights.load_file(other, tmp_path)
    assert torch.equal(other.pos_embed, model.pos_embed)


def test_names_that_timm_converts_are_left_to_it(tmp_path: Path) -> None:
    model = network("vit")
    torch.save(
        {f"visual.trunk.{key}": value for key, value in model.state_dict().items()}, tmp_path / "open_clip.pt"
    )
    other = network("vit", seed=1)
    weights.load_file(other, tmp_path / "open_clip.pt")
    assert torch.equal(other.pos_embed, model.pos_embed)


def openai_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that OpenAI gave them, with a text tower beside."""
    block = {
        "attn.qkv.weight": "attn.in_proj_weight",
        "attn.qkv.bias": "attn.in_proj_bias",
        "attn.proj": "attn.out_proj",
    }
    block |= {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "blocks.": "transformer.resblocks.",
    }
    outer = {
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "norm.": "ln_post.",
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
    }
    renamed = {}
    for key, value in state.items():
        for ours, theirs in (block if key.startswith("blocks.") else outer).items():
            key = key.replace(ours, theirs)  # noqa: PLW2901
        renamed[f"visual.{key}"] = value.squeeze()
    return {**renamed, "visual.proj": torch.zeros(48, 8), "token_embedding.weight": torch.zeros(9, 8)}


def test_openai_and_ijepa_names_are_left_to_timm(tmp_path: Path) -> None:
    model, other = network("clip"), network("clip", seed=1)
    torch.save(openai_clip(dict(model.state_dict())), tmp_path / "clip.pt")
    weights.load_file(other, tmp_path / "clip.pt")
    torch.testing.assert_close(other.forward_features(pixels()), model.forward_features(pixels()))
    with pytest.raises(
        ValueError, match=r"clip\.pt does not fit this backbone: blocks 2 for 3; missing blocks\.2"
    ):
        weights.load_file(network("clip", depth=3), tmp_path / "clip.pt")
    model, other = network("siglip"), network("siglip", seed=1)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save(
        {"encoder": state, "predictor": {"module.x": torch.zeros(1)}, "epoch": 3}, tmp_path / "ijepa.pth"
    )
    weights.load_file(other, tmp_path / "ijepa.pth")
    assert torch.equal(other.pos_embed, model.pos_embed)


def test_learnt_rotary_frequencies_are_weights(tmp_path: Path) -> None:
    sides = [
        timm.create_model(
            "vit_small_patch16_rope_mixed_224", num_classes=0, depth=2, embed_dim=48, num_heads=2
        )
        for _ in range(2)
    ]
    randomised(sides[0], 0)
    weights.save(sides[0], tmp_path / "rope.safetensors")
    weights.load_file(sides[1], tmp_path / "rope.safetensors")
    assert torch.equal(sides[1].rope.freqs, sides[0].rope.freqs)


def test_every_table_has_each_key_once_per_kind_of_mlp() -> None:
    for layout in LAYOUTS:
        for kind in ("plain", "packed", "gated"):
            rows = [row for row in layout.rows if row.mlp in (None, kind)]
            ours, theirs = [row.ours for row in rows], [key for row in rows for key in row.theirs]
            assert len({*ours}) == len(ours)
            assert len({*theirs}) == len(theirs)
