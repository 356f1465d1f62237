from __future__ import annotations

import json
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder

from paka.feature_store import Extent, FeatureCache, images_digest, labels_digest, weights_digest
from paka.features import DenseFeatures, extract
from paka.frames import Frame
from paka.sources.folder import Folder
from paka.sources.subset import Subset
from paka.workspace import Workspace

FRAME = Frame(3, 4, 8, "stretch")
FACTS = {"weights": "w", "images": "i"}


def filled(cache: FeatureCache, source: NoiseImages, indices: Sequence[int] = range(5)) -> DenseFeatures:
    storage = cache.open(FACTS, Extent(len(indices), 3, 4, 16, attends=True))
    return extract(
        tiny_encoder(), source, frame=FRAME, indices=indices, workspace=Workspace(batch=2), storage=storage
    )


class Dying(NoiseImages):
    """Images of which only so many can be read."""

    def __init__(self, left: int) -> None:
        self.left = left

    def image(self, index: int) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().image(index)


def test_features_are_the_same_from_the_cache_and_no_image_is_read_again(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "float32", 10**9)
    plain = extract(
        tiny_encoder(), NoiseImages(), frame=FRAME, indices=range(5), workspace=Workspace(batch=2)
    )
    first, second = filled(cache, NoiseImages()), filled(cache, Dying(0))
    for found in (first, second):
        assert torch.equal(found.tokens, plain.tokens)
        assert torch.equal(found.globals, plain.globals)
        assert torch.equal(found.tags, plain.tags)


def test_a_killed_extraction_goes_on_where_it_was(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "float32", 10**9)
    with pytest.raises(KeyboardInterrupt):
        filled(cache, Dying(3))
    found = filled(cache, Dying(3))  # two of five were kept
    whole = extract(
        tiny_encoder(), NoiseImages(), frame=FRAME, indices=range(5), workspace=Workspace(batch=2)
    )
    assert torch.equal(found.tokens, whole.tokens)


def test_half_precision_keeps_three_digits(tmp_path) -> None:
    found = filled(FeatureCache(tmp_path, "float16", 10**9), NoiseImages())
    whole = extract(tiny_encoder(), NoiseImages(), frame=FRAME, indices=range(5))
    assert found.tokens.dtype == torch.float16
    torch.testing.assert_close(found.tokens.float(), whole.tokens, rtol=1e-3, atol=1e-3)


def test_features_of_other_weights_are_refused(tmp_path) -> None:
    cache = FeatureCache(tmp_path, "float32", 10**9)
    filled(cache, NoiseImages())
    (path,) = tmp_path.glob("*/facts.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "others"}))
    with pytest.raises(ValueError, match=r"of these weights and images .* that differ in weights: remove"):
        filled(cache, NoiseImages())


def test_what_was_used_longest_ago_goes_first(tmp_path) -> None:
    room = 5 * 3 * 4 * 16 * 4
    cache = FeatureCache(tmp_path, "float32", 2 * room + 4000)
    for name in ("a", "b", "c"):
        cache.open({"weights": name}, Extent(5, 3, 4, 16, attends=False))
    kept = {json.loads(path.read_text())["weights"] for path in tmp_path.glob("*/facts.json")}
    assert "c" in kept
    assert len(kept) < 3


def test_digests_tell_weights_and_images_apart(tmp_path) -> None:
    assert weights_digest(tiny_encoder(0)) == weights_digest(tiny_encoder(0))
    assert weights_digest(tiny_encoder(0)) != weights_digest(tiny_encoder(1))
    quirk = tiny_encoder(0).normalised_by(blue_std=0.255)
    assert weights_digest(tiny_encoder(0)) != weights_digest(quirk)
    assert images_digest(NoiseImages(), 5) == images_digest(NoiseImages(), 5)
    assert images_digest(NoiseImages(), 5) != images_digest(NoiseImages(), 6)


def test_tokens_that_are_no_numbers_name_the_image() -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.model.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="expected finite tokens, got NaN or infinity for noise 3"):
        extract(encoder, NoiseImages(), frame=FRAME, indices=[3, 4])


def test_a_corrected_mask_has_other_outcomes_but_the_same_features(tmp_path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / "train").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/train/0.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks/train/0.png"), np.zeros((8, 8), np.uint8))
    before = Folder("train", root=tmp_path)
    digests = images_digest(before, 1), labels_digest(before)
    assert labels_digest(Subset(before, np.arange(1))) == digests[1]
    mask = np.zeros((8, 8), np.uint8)
    mask[3:, 2:] = 1
    cv2.imwrite(str(tmp_path / "masks/train/0.png"), mask)
    after = Folder("train", root=tmp_path, classes=["0"])
    assert images_digest(after, 1) == digests[0]
    assert labels_digest(after) != digests[1]
