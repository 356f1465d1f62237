"""The encoder and its weights: tokens where they belong, files that fit or a sentence why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from tests.doubles import tiny_encoder

from paka import weights
from paka.encoder import Encoder, create_encoder
from paka.features import pooled

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


def test_a_register_is_no_class_token() -> None:
    encoder = create_encoder(
        "vit_medium_patch16_reg4_gap_256",
        arch={"depth": 1, "embed_dim": 48, "num_heads": 2, "img_size": 32},
        pretrained=False,
    )
    tokens = encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), attention=True)
    assert tokens.prefix.shape == (1, 4, 48)
    assert not encoder.has_class_token
    assert tokens.attention.numel() == 0
    assert torch.equal(pooled(tokens, encoder), tokens.patches.mean(dim=(1, 2)))


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
    with pytest.raises(
        ValueError, match=r"other.safetensors does not fit this backbone: blocks 2 for 3; missing blocks.2"
    ):
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
        ValueError, match=r"expected one of timm's plain vision transformers, .* got 'resnet18'"
    ):
        create_encoder("resnet18", pretrained=False)


def test_missing_hub_weights_give_three_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"backbone.weights=FILE.*HF_HOME.*backbone.pretrained=false"):
        create_encoder("vit_small_patch14_reg4_dinov2.lvd142m")


@pytest.mark.parametrize(
    "model", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224"]
)
def test_layers_are_timms_normalised_intermediates_joined(model: str) -> None:
    options = {"pretrained": False, "arch": {"depth": 4, "embed_dim": 32, "num_heads": 2}}
    torch.manual_seed(0)
    encoder = create_encoder(model, layers=[1, -2], **options).eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    tokens = encoder(images)
    pixels = (images.float() - encoder.mean) / encoder.std
    expected = encoder.model.forward_intermediates(pixels, indices=[1, 2], norm=True, intermediates_only=True)
    torch.testing.assert_close(tokens.patches, torch.cat(expected, dim=1).permute(0, 2, 3, 1))
    assert encoder.dim == 64
    assert tokens.prefix.shape == (2, encoder.model.num_prefix_tokens, 64)
    assert [any(p.requires_grad for p in block.parameters()) for block in encoder.model.blocks] == [
        True
    ] * 3 + [False]


def test_the_last_layer_is_the_default() -> None:
    encoder, images = tiny_encoder().eval(), torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    last = Encoder(encoder.model, mean=(0.5,) * 3, std=(0.5,) * 3, layers=[-1])
    torch.testing.assert_close(last(images).patches, encoder(images).patches)


@pytest.mark.parametrize("layers", [[], [4], [-5], [2, 1], [1, 1], [3, -1]])
def test_layers_that_do_not_exist_are_refused(layers: list[int]) -> None:
    arch = {"depth": 4, "embed_dim": 16, "num_heads": 2}
    with pytest.raises(ValueError, match=r"expected blocks from -4 to 3 in ascending order, got \["):
        create_encoder("vit_tiny_patch16_224", pretrained=False, arch=arch, layers=layers)


def test_batches_of_mixed_sizes_go_through_in_one_pass_per_size() -> None:
    encoder = tiny_encoder().eval()
    sizes = [(2, 32, 32), (1, 16, 24), (3, 32, 32), (1, 24, 16)]
    batches = [torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8) for count, *size in sizes]
    passes = []
    encoder.model.patch_embed.register_forward_hook(
        lambda module, inputs, output: passes.append(len(inputs[0]))
    )
    together = encoder(batches)
    assert passes == [5, 1, 1]
    for batch, tokens in zip(batches, together, strict=True):
        alone = encoder(batch)
        torch.testing.assert_close(tokens.patches, alone.patches)
        torch.testing.assert_close(tokens.prefix, alone.prefix)


@pytest.mark.parametrize("layers", [None, [0, 1]])
def test_checkpointing_changes_no_gradient(layers: list[int] | None) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = create_encoder("vit_tiny_patch16_224", pretrained=False, arch=ARCH, layers=layers)
        encoder.model.set_grad_checkpointing(checkpointing)
        images = torch.arange(2 * 3 * 16 * 24, dtype=torch.uint8).view(2, 3, 16, 24)
        encoder(images).patches.square().sum().backward()
        gradients.append([p.grad for p in encoder.model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 10
    torch.testing.assert_close(*gradients)


def test_arguments_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"expected arguments that vit_tiny_patch16_224 takes, got .*'depht': 2"
    ):
        create_encoder("vit_tiny_patch16_224", pretrained=False, arch={"depht": 2})


@pytest.mark.parametrize(
    "model", ["vit_base_r50_s16_384", "swin_tiny_patch4_window7_224", "naflexvit_base_patch16_gap"]
)
def test_encoders_without_patch_tokens_of_any_size_are_refused(model: str) -> None:
    with pytest.raises(
        ValueError, match=rf"expected one of timm's plain vision transformers, .* got '{model}'"
    ):
        create_encoder(model, pretrained=False)


def test_oblong_patches_are_refused() -> None:
    with pytest.raises(
        ValueError, match="expected square patches, got vit_tiny_patch16_224 with 8x16 pixels"
    ):
        create_encoder("vit_tiny_patch16_224", pretrained=False, arch={**ARCH, "patch_size": [8, 16]})
