"""Decoding gives the exact pixels, and a file that cannot be decoded is named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from paka.sources.decode import IMAGE_SUFFIXES, image_size, read_image, read_mask


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_lossless_image_is_exact_rgb(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_image_is_rgb(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((16, 24, 3), (220, 60, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.shape == (16, 24, 3)
    np.testing.assert_allclose(image.astype(int), pixels, atol=8)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(np.full((16, 16, 3), 204, dtype=np.uint8)).convert(mode).save(path)
    np.testing.assert_allclose(read_image(path).astype(int), 204, atol=8)


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (8, 12, 3)
    assert image_size(tmp_path / "a.jpg") == (8, 12)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated_image_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"broken{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=rf"cannot decode image .*broken\{suffix}.* truncated"):
        read_image(path)


def test_a_text_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match=r"cannot decode image .*a\.jpg"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"cannot decode image .*a\.jpg.*no known image format"):
        image_size(tmp_path / "a.jpg")


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_missing_file_is_named(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(FileNotFoundError, match=r"cannot open .*gone\.png, expected to be a readable file"):
        read(tmp_path / "gone.png")


def test_gray_mask_is_exact(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ids).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_mask_gives_indices(tmp_path: Path, bits: int) -> None:
    ids = (np.arange(64) % 2**bits).astype(np.uint8).reshape(8, 8)
    mask = Image.fromarray(ids, mode="P")
    mask.putpalette(np.random.default_rng(0).permutation(256).repeat(3).astype(np.uint8).tobytes())
    mask.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("RGB", "RGB with 8 bits"),
        ("RGBA", "RGBA with 8 bits"),
        ("LA", "grayscale-alpha with 8 bits"),
        ("I;16", "grayscale with 16 bits"),
        ("1", "grayscale with 1 bits"),
    ],
)
def test_mask_of_another_kind_is_refused(tmp_path: Path, mode: str, found: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=rf"mask .*a\.png is stored as {found}.*one 8-bit channel.*was expected"
    ):
        read_mask(tmp_path / "a.png")


def test_mask_must_be_png(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(ValueError, match=r"cannot decode mask .*a\.png.*not a PNG"):
        read_mask(tmp_path / "a.png")


def test_truncated_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot decode mask .*a\.png.*truncated"):
        read_mask(path)
