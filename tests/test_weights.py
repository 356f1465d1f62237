"""Files that hold weights, or do not: heads kept inside, branches, biases that count, and sentences for what is no checkpoint."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from paka import key_tables as tables
from paka import weights
from paka.digests import write_digests
from paka.key_tables import Layout
from paka.layouts import from_timm

ARCH: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 32, "patch_size": 8}
VIT = "vit_base_patch16_224"
REGISTERS = "vit_small_patch14_reg4_dinov2"
ROTARY = "vit_small_patch16_dinov3_qkvb"
PROJECTION = {
    f"projection_head.{i}.{part}": torch.zeros(2, 2) for i in (0, 2, 4) for part in ("weight", "bias")
}


def network(model: str = VIT, *, seed: int = 0) -> nn.Module:
    """A small timm transformer whose weights are all random."""
    made = timm.create_model(model, num_classes=0, global_pool="", **ARCH)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def neco(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """Weights as NeCo's encoder class has them: the projection inside, and a mask token."""
    return {**from_timm(model.state_dict(), layout, model), **PROJECTION, "mask_token": torch.zeros(1, 48)}


@pytest.mark.parametrize(("model", "layout"), [(VIT, tables.TIMM), (REGISTERS, tables.DINOV2_HUB)])
def test_a_projection_inside_the_encoder_is_left_out_by_name(
    model: str, layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, other = network(model), network(model, seed=1)
    torch.save(neco(source, layout), tmp_path / "neco.ckpt")
    with caplog.at_level(logging.INFO):
        weights.load_file(other, tmp_path / "neco.ckpt")
    assert "left out mask_token, projection_head.0.bias" in caplog.text
    assert torch.equal(other.pos_embed, source.pos_embed)


@pytest.mark.parametrize("branch", ["teacher", "student"])
def test_the_student_may_be_called_model(tmp_path: Path, branch: weights.Branch) -> None:
    sides = {"teacher": network(REGISTERS), "student": network(REGISTERS, seed=1)}
    state = {
        f"{name}.{key}": value
        for name, side in (("teacher", "teacher"), ("model", "student"))
        for key, value in neco(sides[side], tables.DINOV2_HUB).items()
    }
    torch.save({"state_dict": state, "epoch": 24}, tmp_path / "neco.ckpt")
    other = network(REGISTERS, seed=2)
    weights.load_file(other, tmp_path / "neco.ckpt", branch=branch)
    assert torch.equal(other.norm.weight, sides[branch].norm.weight)


def test_the_other_branch_is_never_taken_unsaid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = network().state_dict()
    for side in ("teacher", "student"):
        torch.save({f"{side}.encoder.model.{key}": value for key, value in state.items()}, tmp_path / side)
    with pytest.raises(
        ValueError, match=r"expected one encoder in .*, found teacher\.encoder\.model\., .* the student's"
    ):
        weights.load_file(network(seed=1), tmp_path / "teacher", branch="student")
    weights.load_file(network(seed=1), tmp_path / "student")
    assert "there is no teacher, took student.encoder.model." in caplog.text


@pytest.mark.parametrize(("mask", "refused"), [(0.0, False), (1.0, True), (None, True)])
def test_a_bias_of_the_key_counts_where_no_mask_takes_it_away(
    mask: float | None, refused: bool, tmp_path: Path
) -> None:
    source = network(ROTARY)
    state = from_timm(source.state_dict(), tables.DINOV3_HUB, source)
    for key in [key for key in state if key.endswith("qkv.bias")]:
        state[key] = torch.cat([state[key][:48], torch.ones(48), state[key][96:]])
        state[f"{key}_mask"][48:96] = 0.0 if mask is None else mask
        if mask is None:
            del state[f"{key}_mask"]
    torch.save(state, tmp_path / "hub.pth")
    if not refused:
        weights.load_file(network(ROTARY, seed=1), tmp_path / "hub.pth")
        return
    with pytest.raises(ValueError, match=r"unknown blocks\.0\.attn\.k_bias, blocks\.1\.attn\.k_bias"):
        weights.load_file(network(ROTARY, seed=1), tmp_path / "hub.pth")


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b""]
)
def test_what_was_not_downloaded_is_told_from_what_runs_code(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"expected a readable checkpoint in .*file\.pth, got(: an empty| another kind of) file",
    ):
        weights.load_file(network(), tmp_path / "file.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {0: torch.zeros(3)}])
def test_tensors_without_names_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"expected weights by name in .*file\.pth, got (Tensor|list|dict)"):
        weights.load_file(network(), tmp_path / "file.pth")


def test_a_file_of_something_else_is_told_in_words(tmp_path: Path) -> None:
    torch.save({"conv1.kernel": torch.zeros(3)}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="none of its names is known; missing blocks"):
        weights.load_file(network(), tmp_path / "file.pth")


@pytest.mark.parametrize("content", ["not JSON", "{}", "[]"])
def test_an_index_that_lists_nothing_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / weights.INDEX).write_text(content)
    with pytest.raises(
        ValueError, match=r"expected a list of checkpoint parts in .*model\.safetensors\.index\.json"
    ):
        weights.load_file(network(), tmp_path)


@pytest.mark.parametrize("heads", [2, 4])
def test_a_folder_of_the_older_kind_is_read_and_its_heads_are_compared(heads: int, tmp_path: Path) -> None:
    source, other = network(), network(seed=1)
    torch.save(from_timm(source.state_dict(), tables.HF_VIT, source), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"num_attention_heads": heads}}))
    if heads == 2:
        weights.load_file(other, tmp_path)
        assert torch.equal(other.pos_embed, source.pos_embed)
        return
    with pytest.raises(ValueError, match=r"expected 2 attention heads, .*config\.json has 4"):
        weights.load_file(other, tmp_path)


def test_a_file_that_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    write_digests(tmp_path, [path.name])
    assert [*weights.read(path)] == ["a"]
    changed = bytearray(path.read_bytes())
    changed[-500] ^= 1
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="the file is damaged or was changed"):
        weights.read(path)
