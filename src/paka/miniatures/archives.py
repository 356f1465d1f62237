"""Tars of pictures, for miniatures of data sets that are published as such."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    """Return an image as a file's content."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def tar(members: Mapping[str, bytes]) -> bytes:
    """Return a tar of members by name."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def save_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a tar of members by name, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(members))
