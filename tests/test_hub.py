"""Published weights through a hub cache that the tests fill: pooling left out, every key accounted for."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import GatedRepoError
from torch import Tensor

from paka import weights
from paka.encoder import create_encoder

ARCH = {"depth": 2, "embed_dim": 96, "num_heads": 4}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def publish(hub: Path, model: str, **changes: Tensor) -> torch.nn.Module:
    """Put random weights of a model, as timm publishes them, into the cache."""
    torch.manual_seed(0)
    network = timm.create_model(model, **ARCH)
    repository = hub / ("models--" + network.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    file = (
        repository / "snapshots" / "0a" / network.pretrained_cfg.get("hf_hub_filename", "model.safetensors")
    )
    file.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a")
    safetensors.torch.save_file({**network.state_dict(), **changes}, file)
    return network.eval()


@pytest.mark.parametrize(
    "model",
    [
        "vit_base_patch16_siglip_512.v2_webli",  # attention pooling
        "eva02_tiny_patch14_224.mim_in22k",  # a norm behind the mean
        "vit_small_patch16_dinov3.lvd1689m",
        "deit3_small_patch16_224.fb_in1k",  # a classifier
        "vit_base_patch14_reg4_dinov2.lvd142m",
    ],
)
def test_weights_of_the_hub_cache_are_loaded_whole(hub: Path, model: str) -> None:
    published = publish(hub, model)
    encoder = create_encoder(model, arch=ARCH).eval()
    images = torch.randint(0, 256, (1, 3, *encoder.native_size), dtype=torch.uint8)
    pixels = (images.float() - encoder.mean) / encoder.std
    with torch.no_grad():
        tokens = encoder(images).patches.flatten(1, 2)
        expected = published.forward_features(pixels)[:, published.num_prefix_tokens :]
        if isinstance(published.norm, torch.nn.Identity):
            expected = published.fc_norm(expected)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)


def test_a_key_too_many_is_named(hub: Path) -> None:
    publish(hub, "vit_base_patch14_reg4_dinov2.lvd142m", **{"blocks.0.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"blocks\.0\.extra"):
        create_encoder("vit_base_patch14_reg4_dinov2.lvd142m", arch=ARCH)


def test_nothing_cached_and_no_network(hub: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE is set.*backbone\.weights=FILE"):
        create_encoder("vit_base_patch14_reg4_dinov2.lvd142m", arch=ARCH)


def test_a_broken_cache_says_what_to_delete(hub: Path) -> None:
    publish(hub, "vit_base_patch14_reg4_dinov2.lvd142m")
    next(hub.rglob("model.safetensors")).write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"cannot be read: delete timm/.* from the hub cache"):
        create_encoder("vit_base_patch14_reg4_dinov2.lvd142m", arch=ARCH)


def test_gated_weights_say_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> None:
        response = httpx.Response(403, request=httpx.Request("GET", "https://hub.example"))
        raise GatedRepoError("403 Client Error", response=response)

    monkeypatch.setattr(weights, "load_state_dict_from_hf", gated)
    message = r"the weights of vit_small_patch16_dinov3\.lvd1689m are gated: accept their licence .* `hf auth login`, or give a file"
    with pytest.raises(FileNotFoundError, match=message):
        create_encoder("vit_small_patch16_dinov3.lvd1689m", arch=ARCH)


def test_unknown_tags_and_models_without_weights_are_named(hub: Path) -> None:
    with pytest.raises(
        ValueError, match=r"expected a tag of timm's vit_small_patch16_dinov3, got .*choose one of .*lvd1689m"
    ):
        create_encoder("vit_small_patch16_dinov3.lvd", arch=ARCH)
    network = create_encoder("vit_tiny_patch16_224", pretrained=False, arch=ARCH).model
    network.pretrained_cfg["hf_hub_id"] = None
    with pytest.raises(ValueError, match=r"there are no published weights of my_own"):
        weights.load_published(network, "my_own")
