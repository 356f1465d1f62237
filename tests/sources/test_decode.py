"""Decoding gives the exact pixels, and a file that cannot be decoded is named."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from paka.sources.decode import IMAGE_SUFFIXES, MOST_PIXELS, decode_image, image_size, read_image, read_mask


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
    with pytest.raises(ValueError, match=rf"cannot decode image .*broken\{suffix}.* (truncated|empty)"):
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


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def smooth(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Colours that vary slowly, so that lossy formats are close."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    pixels = np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *((kind, mode, {}) for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP") for mode in ("RGB", "L") if (kind, mode) != ("WEBP", "L")),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {}),
        ("PNG", "1", {}),
        ("PNG", "P", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGBA", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGBA", {}),
    ],
)  # fmt: skip
def test_every_kind_is_what_pillow_makes_of_it(kind: str, mode: str, options: dict[str, object]) -> None:
    data = encoded(smooth(mode), kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"), dtype=int)
    found = decode_image(data, "it")
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= (4 if kind in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight_over_their_whole_range(kind: str, channels: int) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = np.repeat(ramp[..., None], 3, axis=2) if channels == 3 else ramp
    found = decode_image(cv2.imencode(kind, pixels)[1].tobytes(), "it")
    assert np.abs(found[..., 0].astype(int) - ramp // 256).max() <= 1


def test_values_that_are_no_bits_are_refused() -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)), "TIFF")
    with pytest.raises(ValueError, match="8 or 16 unsigned bits were expected"):
        decode_image(data, "it")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_upright_when_asked_to(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(smooth(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        stored, upright = (
            np.asarray(image.convert("RGB"), int),
            np.asarray(ImageOps.exif_transpose(image).convert("RGB"), int),
        )
    assert np.abs(decode_image(data, "it") - stored).max() <= 4
    turned = decode_image(data, "it", oriented=True)
    assert turned.shape == upright.shape
    assert np.abs(turned - upright).max() <= 4


def test_a_very_wide_photograph_is_decoded_at_a_reduced_size() -> None:
    data = encoded(smooth(size=(40_000, 64)), "JPEG")
    found = decode_image(data, "it")
    assert found.shape == (8 if found.shape[0] == 8 else 13, found.shape[1], 3)
    assert 5_000 <= found.shape[1] <= 8_192
    assert decode_image(encoded(smooth(size=(10_000, 20)), "PNG"), "it").shape == (16, 8_192, 3)


def test_a_header_that_claims_too_much_is_refused() -> None:
    data = bytearray(encoded(smooth(), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="may be a decompression bomb"):
        decode_image(bytes(data), "it")
    data = bytearray(encoded(smooth(), "JPEG"))
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (65_500).to_bytes(2, "big") * 2
    assert MOST_PIXELS * 64 > 65_500**2  # it could be read at an eighth, so it is tried
    with pytest.raises(ValueError, match="cannot decode image it"):
        decode_image(bytes(data[:-2]), "it")


def test_a_thumbnail_inside_does_not_hide_that_the_rest_is_missing() -> None:
    exif = b"Exif\x00\x00" + encoded(smooth(size=(16, 16)), "JPEG")
    data = encoded(smooth(), "JPEG", exif=exif)
    decode_image(data, "it")
    decode_image(data + b"what an editor appended", "it")
    with pytest.raises(ValueError, match="it is truncated"):
        decode_image(data[: len(data) - 40], "it")
