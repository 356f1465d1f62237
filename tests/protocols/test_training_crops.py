"""Training crops: image and mask stay together, scales and the rule of one class hold, a crop has its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages

from paka.protocols.training_crops import CropDataset, Crops, collate, fitted_scale, varied
from paka.sources import VOID, Source


class Ramps(Source):
    """Images whose red channel is, and whose mask follows from, the column: 60 x 100 pixels."""

    name, split, classes = "ramps", "train", tuple("abcdef")

    def __len__(self) -> int:
        return 4

    def item(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> np.ndarray:  # noqa: ARG002 - the signature of a source
        image = np.zeros((60, 100, 3), dtype=np.uint8)
        image[:] = (2 * np.arange(100, dtype=np.uint8))[None, :, None]
        return image

    def mask(self, index: int) -> np.ndarray:  # noqa: ARG002 - the signature of a source
        return np.broadcast_to((np.arange(100) // 20).astype(np.uint8), (60, 100)).copy()


def dataset(source: Source | None = None, **changes: Any) -> CropDataset:
    options = {
        "source": source or Ramps(),
        "seed": 0,
        "size": 32,
        "short_side": 60,
        "scales": (0.5, 2.0),
        "flip": 0.5,
        "largest_share": 0.75,
        "fill": (9, 8, 7),
    }
    return CropDataset(**{**options, **changes})


def crops(source: CropDataset, count: int = 40) -> Crops:
    return collate([source[epoch, epoch % 4] for epoch in range(count)])


def test_shapes_and_types() -> None:
    found = crops(dataset())
    assert found.images.shape == (40, 3, 32, 32)
    assert found.labels.shape == (40, 32, 32)
    assert found.images.dtype == found.labels.dtype == torch.uint8


def test_the_mask_shows_what_the_image_shows() -> None:
    found = crops(dataset(short_side=120))
    from_pixels = found.images[:, 0].double() / 2.0 // 20
    near_a_border = (found.images[:, 0].double() / 2.0 + 2) % 20 < 4
    assert (from_pixels == found.labels)[~near_a_border].all()
    assert near_a_border.float().mean() < 0.5


def test_a_crop_is_a_function_of_seed_epoch_and_index() -> None:
    first, again = (dataset()[3, 1].images for _ in range(2))
    assert torch.equal(first, again)
    for other in (dataset()[4, 1], dataset()[3, 2], dataset(seed=1)[3, 1]):
        assert not torch.equal(other.images, first)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_scales_decide_how_much_a_crop_shows(scale: float) -> None:
    source = dataset(scales=(scale, scale), flip=0.0, size=24, largest_share=1.0)
    assert crops(source).labels.ne(VOID).all()
    red = crops(source).images[:, 0, 0].double() / 2.0  # the columns of the image that are seen
    assert float((red[:, 23] - red[:, 0]).mean()) == pytest.approx(23 / scale, rel=0.05)


def test_half_of_the_crops_are_mirrored() -> None:
    red = crops(dataset(scales=(1.0, 1.0)), 100).images[:, 0, 0].int()
    assert 30 < int((red[:, -1] < red[:, 0]).sum()) < 70
    plain = crops(dataset(scales=(1.0, 1.0), flip=0.0), 20).images[:, 0, 0].int()
    assert (plain[:, -1] > plain[:, 0]).all()


def test_small_images_are_filled_up_with_void() -> None:
    found = dataset(scales=(0.2, 0.2), flip=0.0, largest_share=1.0)[0, 0]  # 12 x 20 pixels
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[:12, :20] = True
    assert torch.equal(found.labels != VOID, inside)
    assert found.images[:, ~inside].unique(dim=1).tolist() == [[9], [8], [7]]


def test_a_crop_of_nearly_one_class_is_drawn_again() -> None:
    close = {
        "scales": (1.0, 1.0),
        "size": 22,
        "flip": 0.0,
    }  # between 22 of 22 and 11 of 22 columns of one class
    free, ruled = (
        torch.stack(
            [(labels == labels.mode().values[:, None]).float().mean() for labels in crops(one).labels]
        )
        for one in (dataset(largest_share=1.0, **close), dataset(**close))
    )
    assert (free > 0.75).float().mean() > 0.25
    assert (ruled > 0.75).float().mean() < 0.05


def test_void_does_not_count_as_a_class() -> None:
    labels = np.array([[0, 0, 0, 1, 255, 255, 255, 255]], dtype=np.uint8)
    assert not varied(labels, 0.75)
    assert varied(labels, 0.76)
    assert not varied(np.full((4, 4), VOID, dtype=np.uint8), 1.0)
    assert not varied(np.zeros((4, 4), dtype=np.uint8), 1.0)


def test_long_images_are_scaled_by_their_longer_side() -> None:
    assert fitted_scale((480, 640), 512) == 512 / 480
    assert fitted_scale((100, 1000), 512) == 2048 / 1000


def test_images_of_one_class_are_taken_after_some_draws() -> None:
    class Plain(NoiseImages):
        def mask(self, index: int) -> np.ndarray:  # noqa: ARG002 - the signature of a source
            return np.zeros((48, 40), dtype=np.uint8)

    assert dataset(Plain(), short_side=48)[0, 0].labels.ne(VOID).any()
