"""Decoding of image and label files: pixels out, or an error that names the file."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from paka.sources import VOID

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Endings of the files taken for images, in lower case; matched in any case."""

LONGEST_SIDE = 8192
"""Longer images are decoded at a reduced size, as far as their format has any."""

MOST_PIXELS = 178_956_970
"""Pillow's limit above which it takes a file for a decompression bomb."""

WITHOUT_8_BIT = ("F", "I")
"""Pillow's modes of values that no scale to 8 bits is known of."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 274
_PNG_COLOURS = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale-alpha", 6: "RGBA"}
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Header(NamedTuple):
    """What a file says of its image before it is decoded."""

    width: int
    height: int
    mode: str


def decode_image(data: bytes, item: str, *, oriented: bool = False) -> NDArray[np.uint8]:
    """Decode an image as RGB, (H, W, 3) uint8; transparency is dropped, 16 bits become 8.

    A JPEG with a side above 8,192 pixels is decoded at a half, a quarter or an eighth of its size, and what is still
    larger is shrunk to it.

    Args:
        data: Content of the file.
        item: What the image is called in messages.
        oriented: Whether it is turned as its EXIF orientation says; masks carry none and are drawn over the stored
            pixels, so images with masks are not.

    Raises:
        ValueError: It is empty, truncated, corrupt, no image, has values that are no 8 or 16 bits, or is so large that it
            may be a decompression bomb.
    """
    header = _header(data)
    if header is not None and header.mode in WITHOUT_8_BIT and not data.startswith(_PNG_SIGNATURE):
        reason = f"its values are of Pillow's mode {header.mode}, 8 or 16 unsigned bits were expected"
        raise ValueError(_unreadable("image", item, reason))
    if not oriented and data[:4] in _TIFF_ORDERS:
        data = _upright(data)
    scale = _scale(data, header, item)
    if not _is_whole(data):
        raise ValueError(_unreadable("image", item, "it is truncated" if data else "it is empty"))
    # OpenCV multiplies the colours of a TIFF by its alpha.
    if header is not None and (header.mode == "CMYK" or (data[:4] in _TIFF_ORDERS and "A" in header.mode)):
        return _shrink(_by_pillow(data, item, oriented=oriented))
    flags = _REDUCED[scale] if oriented else _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if pixels is None:
        return _shrink(_by_pillow(data, item, oriented=oriented))
    return _shrink(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), dtype=np.uint8))


def _upright(data: bytes) -> bytes:
    """Return a TIFF whose first image has the orientation 1, as OpenCV and Pillow turn every other one."""
    order = _TIFF_ORDERS[data[:4]]
    changed = bytearray(data)
    with suppress(struct.error):  # a truncated file is told by its decoder
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, entry)[0] == _ORIENTATION:
                struct.pack_into(f"{order}H", changed, entry + 8, 1)
    return bytes(changed)


def read_image(path: str | os.PathLike[str], *, oriented: bool = False) -> NDArray[np.uint8]:
    """Decode an image file, see `decode_image`.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: It cannot be decoded.
    """
    return decode_image(_read_bytes(path), os.fspath(path), oriented=oriented)


def _header(data: bytes) -> Header | None:
    """Return what the header says, or None if Pillow does not know it."""
    try:
        # The plugin itself has no limit: a JPEG of any size can be decoded at an eighth.
        open_it = JpegImageFile if data.startswith(b"\xff\xd8") else Image.open
        with _quietly(), open_it(io.BytesIO(data)) as image:
            return Header(image.width, image.height, image.mode)
    except Image.DecompressionBombError:
        return Header(MOST_PIXELS, MOST_PIXELS, "")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Pillow's warnings from the terminal; what matters of them becomes an error that names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _scale(data: bytes, header: Header | None, item: str) -> int:
    """Return by how much the decoder can divide the sides so that the image fits.

    Raises:
        ValueError: There would still be too many pixels to hold.
    """
    if header is None:
        return 1
    longest = max(header.width, header.height)
    jpeg = data.startswith(b"\xff\xd8") and header.mode != "CMYK"
    scale = next((s for s in (1, 2, 4) if longest <= s * LONGEST_SIDE), 8) if jpeg else 1
    if header.width * header.height > MOST_PIXELS * scale**2:
        reason = f"it claims more than {MOST_PIXELS:,} pixels, which may be a decompression bomb"
        raise ValueError(_unreadable("image", item, reason))
    return scale


def _is_whole(data: bytes) -> bool:
    """Return whether a file goes on to its end; decoders fill what is missing with grey.

    What comes behind the end is ignored, as cameras and editors append to their files.
    """
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _start_of_scan(data)) >= 0
    if data.startswith(_PNG_SIGNATURE):
        return data.rfind(b"IEND") >= 0
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little")
    if data.startswith(b"BM"):
        return len(data) >= int.from_bytes(data[2:6], "little")
    return len(data) > 0


def _start_of_scan(data: bytes) -> int:
    """Return where a JPEG's pixels begin: behind its segments, one of which may hold a whole thumbnail."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        padding = data[place + 1] == 0xFF
        place += 1 if padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def _by_pillow(data: bytes, item: str, *, oriented: bool) -> NDArray[np.uint8]:
    """Decode what OpenCV does not know, or knows otherwise."""
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as image:
            shown = ImageOps.exif_transpose(image) if oriented else image
            return np.array(shown.convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is empty, truncated, corrupt or not an image"
        raise ValueError(_unreadable("image", item, reason)) from error


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return pixels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode a mask, (H, W) uint8: the exact stored values, for a palette PNG the palette's indices.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is not a PNG of one 8-bit channel, or it is truncated or corrupt.
    """
    data = _read_bytes(path)
    _require_single_channel(data, path)
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as mask:
            return np.array(mask, dtype=np.uint8)
    except _UNDECODABLE as error:
        raise ValueError(_unreadable("mask", path, str(error))) from error


def read_depth(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Decode a depth map of 16-bit millimetres as metres, (H, W) float32 with 0 where depth is not known.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is not a PNG of one 16-bit channel, or it is truncated or corrupt.
    """
    data = _read_bytes(path)
    if not data.startswith(_PNG_SIGNATURE) or data[24:26] != b"\x10\x00":
        raise ValueError(
            _unreadable("depth map", path, "it is not a PNG of one 16-bit channel, in millimetres")
        )
    try:
        with _quietly(), Image.open(io.BytesIO(data)) as depth:
            return np.array(depth, dtype=np.uint16).astype(np.float32) / np.float32(1000)
    except _UNDECODABLE as error:
        raise ValueError(_unreadable("depth map", path, str(error))) from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read height and width in pixels, as stored, from the header of an image, without decoding it.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is not an image, or so large that it may be a decompression bomb.
    """
    try:
        with _quietly(), Image.open(path) as image:
            # Pillow gives the sides of a TIFF as they are once it is turned.
            turned = image.format == "TIFF" and image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Image.DecompressionBombError as error:
        reason = f"it claims more than {2 * MOST_PIXELS:,} pixels, which may be a decompression bomb"
        raise ValueError(_unreadable("image", path, reason)) from error
    except UnidentifiedImageError as error:
        raise ValueError(_unreadable("image", path, "its header is that of no known image format")) from error
    except OSError as error:
        raise FileNotFoundError(_unopened(path, error)) from error


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileNotFoundError(_unopened(path, error)) from error


def _require_single_channel(data: bytes, path: str | os.PathLike[str]) -> None:
    # Bit depth and colour type are read from the header: Pillow silently rescales grays under 8 bits.
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 26:
        raise ValueError(_unreadable("mask", path, "it is not a PNG file"))
    depth, colour = data[24], data[25]
    if colour == 3 or (colour == 0 and depth == 8):
        return
    raise ValueError(
        f"mask {path} is stored as {_PNG_COLOURS.get(colour, 'unknown')} with {depth} bits per channel, "
        f"but one 8-bit channel of class ids ({VOID} = void) was expected; save it as grayscale or palette"
    )


def _unreadable(kind: str, path: str | os.PathLike[str], reason: str) -> str:
    return f"cannot decode {kind} {path}, expected to be a whole file: {reason}; replace or remove it"


def _unopened(path: str | os.PathLike[str], error: OSError) -> str:
    reason = error.strerror or error
    return f"cannot open {path}, expected to be a readable file: {reason}; restore it or its folder"
