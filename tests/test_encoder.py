"""The encoder and its weights: tokens where they belong, files that fit or a sentence why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from tests.doubles import tiny_encoder

from paka import weights
from paka.encoder import create_encoder

ARCH = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}


def test_tokens_are_timms_own_after_normalisation() -> None:
    encoder = tiny_encoder().eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    tokens = encoder(images)
    assert tokens.patches.shape == (2, 4, 6, 16)
    assert tokens.prefix.shape == (2, 1, 16)
    config = encoder.model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = encoder.model.forward_features((images / 255.0 - mean) / std)
    torch.testing.assert_close(tokens.patches.flatten(1, 2), expected[:, 1:], atol=1e-5, rtol=1e-4)


def test_registers_are_prefix_tokens() -> None:
    encoder = create_encoder("vit_base_patch14_reg4_dinov2.lvd142m", pretrained=False, arch={"depth": 1})
    tokens = encoder(torch.zeros(1, 3, 28, 42, dtype=torch.uint8))
    assert tokens.patches.shape == (1, 2, 3, 768)
    assert tokens.prefix.shape == (1, 5, 768)


def test_saved_weights_load_back_into_timm_in_three_lines(tmp_path: Path) -> None:
    encoder = tiny_encoder(seed=3)
    weights.save(encoder.model, tmp_path / "encoder.safetensors")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, **ARCH)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "encoder.safetensors"))
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.forward_features(pixels), encoder.model.forward_features(pixels))


def test_torch_files_and_wrapped_states_load_too(tmp_path: Path) -> None:
    encoder = tiny_encoder(seed=4)
    torch.save({"model": encoder.model.state_dict()}, tmp_path / "wrapped.pth")
    loaded = create_encoder("vit_tiny_patch16_224", arch=ARCH, weights_file=tmp_path / "wrapped.pth")
    torch.testing.assert_close(loaded.model.pos_embed, encoder.model.pos_embed)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected encoder weights in .*absent.pth"):
        create_encoder("vit_tiny_patch16_224", arch=ARCH, weights_file=tmp_path / "absent.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"expected a readable checkpoint in .*broken.safetensors"):
        create_encoder("vit_tiny_patch16_224", arch=ARCH, weights_file=tmp_path / "broken.safetensors")
    weights.save(tiny_encoder().model, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors does not fit this backbone: missing blocks.2"):
        create_encoder(
            "vit_tiny_patch16_224", arch={**ARCH, "depth": 3}, weights_file=tmp_path / "other.safetensors"
        )


def test_changed_packaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.save(tiny_encoder().model, tmp_path / "mine.safetensors")
    digest = weights.sha256(tmp_path / "mine.safetensors")
    (tmp_path / "mine.sha256").write_text(f"{digest}  mine.safetensors\n")
    monkeypatch.setattr(weights, "ASSETS", tmp_path)
    create_encoder("vit_tiny_patch16_224", arch=ARCH, packaged="mine")
    weights.save(tiny_encoder(seed=9).model, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"expected .*mine.safetensors with SHA-256 .* the file was changed"):
        create_encoder("vit_tiny_patch16_224", arch=ARCH, packaged="mine")


def test_the_packaged_encoder_is_small_and_whole() -> None:
    arch = {"patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3, "img_size": 128}
    encoder = create_encoder("vit_tiny_patch16_224", arch=arch, packaged="tiny")
    assert sum(parameter.numel() for parameter in encoder.model.parameters()) <= 2.5e6
    assert Path(str(weights.ASSETS / "tiny.safetensors")).stat().st_size <= 6e6
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    tokens = encoder(torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)).patches
    assert tokens.shape == (2, 16, 16, 192)
    assert tokens.isfinite().all()


def test_unknown_models_and_other_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a timm model name, got 'vit_bse_patch16'"):
        create_encoder("vit_bse_patch16", pretrained=False)
    with pytest.raises(
        ValueError, match=r"expected one of timm's plain vision transformers .* got 'resnet18'"
    ):
        create_encoder("resnet18", pretrained=False)


def test_missing_hub_weights_give_three_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"backbone.weights=FILE.*HF_HOME.*backbone.pretrained=false"):
        create_encoder("vit_small_patch14_reg4_dinov2.lvd142m")
