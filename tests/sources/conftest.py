"""Writers of miniature image trees, so that every source is tested on files of its real layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

WriteImage = Callable[..., Path]
WriteMask = Callable[..., Path]
WriteFolder = Callable[..., Path]


def _write_image(path: Path, *, width: int = 12, height: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _write_mask(path: Path, ids: NDArray[np.uint8] | int, *, width: int = 12, height: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(ids, dtype=np.uint8), (height, width)).copy()).save(path)
    return path


@pytest.fixture
def write_image() -> WriteImage:
    """Return `write(path, width=12, height=8, seed=0) -> path`, noise in the format of the path's ending."""
    return _write_image


@pytest.fixture
def write_mask() -> WriteMask:
    """Return `write(path, ids, width=12, height=8) -> path`; `ids` is an array or fills the mask."""
    return _write_mask


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Return `write(splits, masks=True) -> root`; `splits` gives the number of images of each split.

    Image i of a split is `i.png` and its mask is filled with id i.
    """

    def write(splits: dict[str, int], *, masks: bool = True) -> Path:
        for split, count in splits.items():
            for index in range(count):
                _write_image(tmp_path / "images" / split / f"{index}.png", seed=index)
                if masks:
                    _write_mask(tmp_path / "masks" / split / f"{index}.png", index)
        return tmp_path

    return write
