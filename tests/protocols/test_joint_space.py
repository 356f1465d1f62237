"""The joint space against open_clip's own towers, and what has no place in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from tests.protocols.contrastive import (
    ARCH,
    FAMILIES,
    NAMES,
    TEMPLATES,
    features_of,
    image_tower,
    reference,
    space_of,
    write,
)
from torch import nn
from torch.nn import functional as F

from paka.encoder import create_encoder
from paka.protocols.joint_space import JointSpace, open_joint_space


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: write(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def spaces(folders: dict[str, Path]) -> dict[str, JointSpace]:
    return {family: space_of(folder) for family, folder in folders.items()}


def opened(model: Path | str, file: Path | str | None = None) -> JointSpace:
    return open_joint_space(str(model), None if file is None else str(file), torch.device("cpu"))


def prompted(model: Any, names: tuple[str, ...]) -> np.ndarray:
    """Text embeddings in float64: the mean of the unit embeddings of each name's prompts, of length 1."""
    tokenize = open_clip.SimpleTokenizer(context_length=16)
    rows = []
    for name in names:
        prompts = [template.replace("{}", name.replace("_", " ")) for template in TEMPLATES]
        with torch.no_grad():
            embedded = model.encode_text(tokenize(prompts)).double().numpy()
        rows.append((embedded / np.linalg.norm(embedded, axis=1, keepdims=True)).mean(axis=0))
    return np.stack(rows) / np.linalg.norm(np.stack(rows), axis=1, keepdims=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_names_are_where_open_clip_puts_them(
    folders: dict[str, Path], spaces: dict[str, JointSpace], family: str
) -> None:
    model, space, (found, pixels) = (
        reference(folders[family]),
        spaces[family],
        features_of(folders[family], family),
    )
    with torch.no_grad():
        expected = F.normalize(model.encode_image(pixels), dim=1)
    images = space.images(found.globals, found.tokens.flatten(1, 2))
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
    assert (images[0] @ images[1:].T).max() < 1 - 1e-3, "the images differ"
    texts = space.texts(NAMES, TEMPLATES)
    np.testing.assert_allclose(texts.numpy(), prompted(model, NAMES), atol=1e-5)
    assert (texts[0] @ texts[1:].T).max() < 1 - 1e-3, "the names differ"


def test_half_precision_is_read(folders: dict[str, Path], spaces: dict[str, JointSpace]) -> None:
    found, _ = features_of(folders["siglip"], "siglip")
    whole, half = (
        spaces["siglip"].images(kind(found.globals), kind(found.tokens.flatten(1, 2)))
        for kind in (torch.Tensor.float, torch.Tensor.half)
    )
    torch.testing.assert_close(whole, half, atol=1e-2, rtol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_patches_that_do_not_count_are_not_attended_to(
    folders: dict[str, Path], spaces: dict[str, JointSpace], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, (found, _) = spaces["siglip"], features_of(folders["siglip"], "siglip")
    monkeypatch.setattr(space.model.visual.trunk.attn_pool, "fused_attn", fused)
    patches, valid = found.tokens.flatten(1, 2), torch.ones(6, 16, dtype=torch.bool)
    valid[:, 9:] = False
    loud = torch.where(valid[..., None], patches, 50.0)
    own = space.images(found.globals, patches[:, :9])
    torch.testing.assert_close(space.images(found.globals, loud, valid), own, atol=1e-5, rtol=0)
    assert not torch.allclose(space.images(found.globals, loud), own, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_own_encoder_has_its_place_and_others_are_told_why_not(
    folders: dict[str, Path], spaces: dict[str, JointSpace], family: str
) -> None:
    encoder = image_tower(folders[family], family)
    nn.init.normal_(encoder.model.norm.weight)  # post-trained weights are what is scored
    before = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    assert spaces[family].mismatch(encoder) is None
    assert all(torch.equal(value, before[key]) for key, value in encoder.model.state_dict().items())
    for other in {*FAMILIES} - {family}:
        reason = spaces[other].mismatch(encoder)
        assert reason is not None
        assert reason.startswith(f"the image tower of {other} does not fit this backbone: ")


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        ("vit_small_patch14_dinov2", {"patch_size": 14, "img_size": 56}, r"patch 8 for 14"),
        ("vit_small_patch14_dinov2", {}, r"missing blocks\.0\.ls1\.gamma"),
        ("vit_small_patch14_reg4_dinov2", {}, "prefix tokens 1 for 5"),
        ("vit_base_patch16_siglip_224", {}, "prefix tokens 1 for 0"),
        ("vit_base_patch16_224", {}, r"unknown norm_pre\.bias"),
        ("vit_base_patch16_clip_224", {"embed_dim": 64}, "width 32 for 64"),
        ("vit_base_patch16_clip_224", {"depth": 3}, "blocks 2 for 3"),
        ("vit_base_patch16_clip_224", {"num_heads": 4}, "heads 2 for 4"),
        ("vit_base_patch16_clip_quickgelu_224", {}, r"activation GELU\(.*\) for QuickGELU\(\)"),
    ],
)
def test_an_encoder_of_another_build_is_told_by_what_differs(
    spaces: dict[str, JointSpace], model: str, changes: dict[str, Any], reason: str
) -> None:
    encoder = create_encoder(model, arch={**ARCH, **changes}, pretrained=False)
    found = str(spaces["clip"].mismatch(encoder))
    assert found.startswith("the image tower of clip does not fit this backbone: ")
    assert re.search(reason, found), found


def test_a_backbone_of_another_size_of_image_fits(spaces: dict[str, JointSpace]) -> None:
    encoder = create_encoder("vit_base_patch16_clip_224", arch={**ARCH, "img_size": 64}, pretrained=False)
    assert spaces["clip"].mismatch(encoder) is None


@pytest.mark.parametrize(("layers", "fits"), [([-1], True), ([0], False), ([0, 1], False)])
def test_tokens_of_other_blocks_are_not_what_the_text_tower_knows(
    spaces: dict[str, JointSpace], layers: list[int], fits: bool
) -> None:
    encoder = create_encoder("vit_base_patch16_clip_224", arch=ARCH, pretrained=False, layers=layers)
    reason = spaces["clip"].mismatch(encoder)
    assert (reason is None) == fits
    assert fits or "set backbone.layers=null" in str(reason)


def test_a_tower_that_pools_in_another_way_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "mean", "clip", pool_type="avg")
    reason = space_of(folder).mismatch(image_tower(folder, "clip"))
    assert "neither by a class token nor by attention" in str(reason)


def test_what_cannot_be_opened_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    file = folders["clip"] / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match=r"got 'ViT-B-61-quickgelu'; close: .*ViT-B-16-quickgelu"):
        opened("ViT-B-61-quickgelu", file)
    with pytest.raises(ValueError, match=r"got '/no/where'; close: see open_clip"):
        opened("/no/where")
    with pytest.raises(FileNotFoundError, match=r"of open_clip's ViT-B-32, found no file /nowhere"):
        opened("ViT-B-32", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"found no file None: correct .*zero_shot\.weights"):
        opened("ViT-B-32")
    with pytest.raises(FileNotFoundError, match=r"expected open_clip_config\.json in .*, found none"):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"expected no weights beside the folder"):
        opened(folders["clip"], file)


@pytest.mark.parametrize("content", ["another", "damaged", "text"])
def test_weights_of_another_model_are_refused(folders: dict[str, Path], tmp_path: Path, content: str) -> None:
    folder = write(tmp_path / "model", "clip")
    file = folder / "open_clip_model.safetensors"
    if content == "another":
        file.write_bytes((folders["siglip"] / file.name).read_bytes())
    elif content == "damaged":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        file.rename(file.with_suffix(".bin")).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(
        ValueError, match=r"expected weights of open_clip's .*model in .*choose the model that they were"
    ):
        space_of(folder)


def test_without_open_clip_the_way_to_get_it_is_told(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"text towers of open_clip: .*extra zeroshot"):
        opened(folders["clip"])


def test_a_tokenizer_lies_in_the_folder_or_is_said_to_be_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write(tmp_path / "siglip", "siglip", text={"hf_tokenizer_name": "nobody/nothing"})
    with pytest.raises(FileNotFoundError, match=r"expected the tokenizer of .*siglip in its folder"):
        space_of(folder)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "cat": 2, "dog": 3}, special["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    space = space_of(folder)
    assert space.tokenizer(["cat dog"])[0, :3].tolist() == [2, 3, 0]
    texts = space.texts(("cat", "dog"), TEMPLATES)
    assert float(texts[0] @ texts[1]) < 1 - 1e-6
