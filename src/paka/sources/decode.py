"""Decoding of image and mask files: exact pixels out, or an error that names the file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paka.sources import VOID

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of the files taken for images, in lower case; matched in any case."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale-alpha", 6: "RGBA"}
# EXIF orientation is ignored, because masks carry none and are drawn over the stored pixels.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode an image file as RGB, (H, W, 3) uint8, ignoring its EXIF orientation.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is truncated, corrupt or not an image.
    """
    data = np.frombuffer(_read_bytes(path), dtype=np.uint8)
    pixels = cv2.imdecode(data, _READ_FLAGS) if data.size else None
    if pixels is None:
        raise ValueError(_unreadable("image", path, "it is empty, truncated, corrupt or not an image"))
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), dtype=np.uint8)


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode a mask, (H, W) uint8: the exact stored values, for a palette PNG the palette's indices.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is not a PNG of one 8-bit channel, or it is truncated or corrupt.
    """
    data = _read_bytes(path)
    _require_single_channel(data, path)
    try:
        with Image.open(io.BytesIO(data)) as mask:
            return np.array(mask, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(_unreadable("mask", path, str(error))) from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read height and width in pixels from the header of an image, without decoding it.

    Raises:
        FileNotFoundError: The file cannot be opened.
        ValueError: The file is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
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
        with Image.open(io.BytesIO(data)) as depth:
            return np.array(depth, dtype=np.uint16).astype(np.float32) / np.float32(1000)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(_unreadable("depth map", path, str(error))) from error
