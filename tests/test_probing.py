"""Scores in one call: of any function, of arrays, and the same as those of the encoder they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder

from paka.patch_features import PatchFeatures
from paka.presets import preset
from paka.probing import score
from paka.sources.arrays import Arrays

SMALL = {"grid": [4, 4], "k": 5, "memory": 200, "bootstrap": 20, "train_images": 10, "test_images": 6}
PROFILE = preset("profile", "compact", **SMALL, linear_epochs=1, clusters=6, kmeans_iterations=2)
IMAGES = [NoiseImages().image(index) for index in range(12)]
MASKS = [NoiseImages().mask(index) for index in range(12)]


def features(seed: int = 0) -> PatchFeatures:
    vit = tiny_encoder(seed).model.eval()

    def function(images: torch.Tensor) -> torch.Tensor:
        return vit.forward_features(images)[:, vit.num_prefix_tokens :]

    mean, std = vit.pretrained_cfg["mean"], vit.pretrained_cfg["std"]
    return PatchFeatures(function, patch_size=8, mean=mean, std=std, size=32)


def test_a_function_scores_as_its_encoder_does() -> None:
    protocols = ["in_context", "linear", "overclustering"]
    found = score(features(), NoiseImages(), NoiseImages(), using=protocols, profile=PROFILE)
    expected = score(tiny_encoder(), NoiseImages(), NoiseImages(), using=protocols, profile=PROFILE)
    assert found == expected
    assert [row.protocol for row in found] == protocols
    assert all(row.ci_low <= row.before <= row.ci_high for row in found)


def test_arrays_score_as_their_source_does() -> None:
    arrays = IMAGES, MASKS
    found = score(features(), arrays, arrays, profile=PROFILE)
    expected = score(features(), NoiseImages(), NoiseImages(), profile=PROFILE)
    assert found == [replace(row, benchmark="arrays", split="test") for row in expected]


def test_two_encoders_are_compared_image_by_image() -> None:
    arrays = IMAGES, MASKS
    (row,) = score(features(1), arrays, arrays, profile=PROFILE, against=features())
    ((before,), (after,)) = (score(features(seed), arrays, arrays, profile=PROFILE) for seed in (0, 1))
    assert (row.before, row.after) == (before.before, after.before)
    assert row.ci_low <= row.delta <= row.ci_high
    (none,) = score(features(), arrays, arrays, profile=PROFILE, against=features())
    assert (none.delta, none.ci_low, none.ci_high) == (0, 0, 0)


def test_what_does_not_fit_is_named() -> None:
    arrays = IMAGES, MASKS
    with pytest.warns(
        UserWarning, match=r"finetune_.* is not run: it builds on the encoder's blocks"
    ) as caught:
        score(features(), arrays, arrays, using=["in_context", "finetune"], profile=PROFILE)
    assert [str(one.message).split()[0] for one in caught] == ["finetune_linear", "finetune_segmenter"]
    with pytest.raises(ValueError, match="arrays has no depth"):
        score(features(), arrays, arrays, using="linear_depth", profile=PROFILE)
    with pytest.raises(ValueError, match=r"expected an option of eval, one of all, .* got 'in_contxt'"):
        score(features(), arrays, arrays, using="in_contxt", profile=PROFILE)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ([], None, "at least one image of arrays train"),
        ([np.zeros((3, 8, 8), np.uint8)], None, r"expected images \(H, W, 3\) uint8, got \(3, 8, 8\) uint8"),
        (IMAGES[:2], MASKS[:1], "expected a mask for each of 2 images of arrays, got 1"),
        (IMAGES[:1], [MASKS[0][:9]], r"expected a mask \(48, 40\) uint8 for arrays train 0, got \(9, 40\)"),
        (IMAGES[:1], [np.full((48, 40), 7, np.uint8)], "class ids below 2, .* got 7"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images: list, masks: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(images, masks, classes=2)


def test_arrays_without_masks_have_no_classes() -> None:
    plain = Arrays(IMAGES)
    assert plain.classes == ()
    with pytest.raises(LookupError, match="arrays train 0 has no mask"):
        plain.mask(0)
    assert Arrays(IMAGES, MASKS).classes == ("class 0", "class 1")
