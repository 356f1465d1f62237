"""Position embeddings on other grids: against the authors' own formulas, and through a whole encoder."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from paka.encoder import create_encoder
from paka.positions import Resampling

OLD, NEW = (4, 4), (3, 7)
DINO = {"mode": "bicubic", "antialias": False, "offset": 0.1}
MAE = {"mode": "bicubic", "antialias": False}
JAX = {"mode": "bilinear", "antialias": False, "align_corners": True}


@pytest.fixture
def learnt() -> Tensor:
    return torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))


def test_timms_own_is_the_default(learnt: Tensor) -> None:
    expected = resample_abs_pos_embed(learnt, new_size=list(NEW), old_size=list(OLD), num_prefix_tokens=0)
    torch.testing.assert_close(Resampling()(learnt, OLD, NEW), expected)


def test_an_equal_grid_is_left_alone(learnt: Tensor) -> None:
    assert Resampling(**DINO)(learnt, OLD, OLD) is learnt


def test_big_vision_zooms_with_equal_corners(learnt: Tensor) -> None:
    grid = learnt.view(4, 4, 8).numpy()
    zoomed = ndimage.zoom(grid, (NEW[0] / OLD[0], NEW[1] / OLD[1], 1), order=1)
    found = Resampling(**JAX)(learnt, OLD, NEW)
    np.testing.assert_allclose(found.view(*NEW, 8).numpy(), zoomed, atol=1e-5)


def test_dino_samples_where_its_offset_scale_says() -> None:
    # A linear ramp gives back the sampling positions inside the grid (bilinear: torch's cubic is not exact on ramps).
    ramp = torch.arange(16.0).view(1, 16, 1, 1).expand(1, 16, 16, 1).reshape(1, 256, 1)
    found = Resampling(**{**DINO, "mode": "bilinear"})(ramp, (16, 16), (12, 16)).view(12, 16)[:, 0]
    expected = (torch.arange(12) + 0.5) * 16 / 12.1 - 0.5
    torch.testing.assert_close(found[2:-2], expected[2:-2], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "model", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "deit3_small_patch16_224"]
)
def test_a_whole_encoder_computes_with_the_authors_positions(model: str) -> None:
    arch = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    torch.manual_seed(0)
    encoder = create_encoder(model, pretrained=False, arch=arch, resampling=MAE).eval()
    plain = create_encoder(model, pretrained=False, arch=arch).eval()
    plain.load_state_dict(encoder.state_dict())
    side, network = encoder.patch_size, plain.model
    images = torch.randint(0, 256, (1, 3, 3 * side, 5 * side), dtype=torch.uint8)
    prefix = 0 if network.no_embed_class else 1
    grid = network.pos_embed[:, prefix:].unflatten(1, network.patch_embed.grid_size).permute(0, 3, 1, 2)
    theirs = F.interpolate(grid, size=(3, 5), mode="bicubic").flatten(2).transpose(1, 2)
    network.pos_embed = nn.Parameter(torch.cat([network.pos_embed[:, :prefix], theirs], dim=1))
    network.patch_embed.grid_size = (3, 5)
    torch.testing.assert_close(encoder(images).patches, plain(images).patches, atol=1e-5, rtol=1e-4)


def test_a_copy_follows_its_own_positions() -> None:
    encoder = create_encoder(
        "vit_tiny_patch16_224",
        pretrained=False,
        arch={"depth": 1, "embed_dim": 32, "num_heads": 2},
        resampling=MAE,
    ).eval()
    images = torch.randint(0, 256, (1, 3, 48, 80), dtype=torch.uint8)
    before, teacher = encoder(images).patches, copy.deepcopy(encoder)
    with torch.no_grad():
        teacher.model.pos_embed.mul_(3)
    assert torch.equal(encoder(images).patches, before)
    fresh = copy.deepcopy(encoder)
    fresh.load_state_dict(teacher.state_dict())
    assert torch.equal(teacher(images).patches, fresh(images).patches)
    teacher(images).patches.sum().backward()
    assert encoder.model.pos_embed.grad is None


def test_rotary_encoders_have_nothing_to_resample() -> None:
    with pytest.raises(ValueError, match=r"vit_small_patch16_dinov3 has none: set backbone.pos_embed=timm"):
        create_encoder("vit_small_patch16_dinov3", pretrained=False, arch={"depth": 1}, resampling=MAE)
