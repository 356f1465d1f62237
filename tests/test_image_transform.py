"""Pictures of any kind become what an encoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paka.image_transform import ImageTransform
from paka.resizing import resize

TRANSFORM = ImageTransform(patch=14, size=56)
PICTURE = np.random.default_rng(0).integers(0, 256, (100, 205, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, (56, 112)),
        (28, (28, 56)),
        (30, (28, 56)),
        ((14, 42), (14, 42)),
        ([14, 42], (14, 42)),
        (1, (14, 14)),
    ],
)
def test_sides_are_whole_patches(size: object, expected: tuple[int, int]) -> None:
    made = TRANSFORM(PICTURE, size=size)  # type: ignore[arg-type]
    assert made.shape == (1, 3, *expected)
    assert np.array_equal(made[0].permute(1, 2, 0).numpy(), resize(PICTURE, expected))


def test_files_pictures_and_arrays_are_the_same(tmp_path: Path) -> None:
    picture = Image.fromarray(PICTURE)
    picture.save(tmp_path / "picture.png")
    expected = TRANSFORM(PICTURE)
    for given in (tmp_path / "picture.png", str(tmp_path / "picture.png"), picture):
        assert TRANSFORM(given).equal(expected)


def test_pictures_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    picture = Image.fromarray(PICTURE)
    picture.getexif()[274] = 6
    picture.save(tmp_path / "turned.png", exif=picture.getexif())
    assert TRANSFORM(tmp_path / "turned.png").shape == (1, 3, 112, 56)
    assert TRANSFORM(Image.open(tmp_path / "turned.png")).shape == (1, 3, 112, 56)


def test_grey_pictures_get_three_channels() -> None:
    grey = PICTURE[..., 0]
    assert TRANSFORM(grey).equal(TRANSFORM(np.stack([grey] * 3, axis=2)))
    assert TRANSFORM(Image.fromarray(grey)).equal(TRANSFORM(grey))


@pytest.mark.parametrize("picture", [PICTURE / 255.0, PICTURE[None], PICTURE[..., :2], [], PICTURE[:0]])
def test_what_is_no_picture_is_refused(picture: object) -> None:
    with pytest.raises(ValueError, match=r"expected a path, a PIL image or an array \(H, W, 3\) of uint8"):
        TRANSFORM(picture)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_become_8_whichever_way_they_come(suffix: str, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (28, 28), dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep).save(path)
    with Image.open(path) as picture:
        assert TRANSFORM(picture).equal(TRANSFORM(path))
    assert TRANSFORM(path).equal(TRANSFORM((deep >> 8).astype(np.uint8)))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_unknown_scale_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"got one of mode {mode}: scale it to uint8"):
        TRANSFORM(Image.new(mode, (28, 28)))


@pytest.mark.parametrize("size", [(15, 14), (0, 14), (14,), [14, 14, 14]])
def test_sizes_between_patches_are_refused(size: Sequence[int]) -> None:
    with pytest.raises(ValueError, match=r"expected a height and width in multiples of the patch, 14"):
        TRANSFORM(PICTURE, size=size)


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(ValueError, match=r"text\.jpg"):
        TRANSFORM(tmp_path / "text.jpg")
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        TRANSFORM(tmp_path / "absent.jpg")
