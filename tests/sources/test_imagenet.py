"""ImageNet gives its class folders as tags, and flat validation images without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paka.sources.imagenet import ImageNet

Write = Callable[..., Path]
WNIDS = ("n01440764", "n01443537", "n02105855")


def _write_classes(folder: Path, write_image: Write) -> None:
    for wnid in reversed(WNIDS):
        for number in (2, 1):
            image = write_image(folder / wnid / f"{wnid}_{number}.jpg")
            image.rename(image.with_suffix(".JPEG"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_folders_become_tags(tmp_path: Path, write_image: Write, split: str) -> None:
    _write_classes(tmp_path / split, write_image)
    source = ImageNet(split, root=tmp_path)
    assert [source.files.path(i).name for i in range(2)] == ["n01440764_1.JPEG", "n01440764_2.JPEG"]
    assert source.tag_names == WNIDS
    np.testing.assert_array_equal(
        [source.tags(i) for i in range(6)], np.repeat(np.eye(3, dtype=bool), 2, axis=0)
    )
    assert source.image(5).shape == (8, 12, 3)
    assert (source.name, source.split, source.classes) == ("imagenet", split, ())


def test_flat_images_have_no_tags(tmp_path: Path, write_image: Write) -> None:
    for number in (1, 2):
        write_image(tmp_path / f"val/ILSVRC2012_val_{number:08d}.jpeg")
    source = ImageNet("val", root=tmp_path)
    assert len(source) == 2
    assert source.tag_names == ()
    assert source.tags(1).shape == (0,)
    with pytest.raises(LookupError, match="because imagenet val is unlabelled"):
        source.mask(0)


def test_png_pixels_behind_a_jpeg_name_are_read(tmp_path: Path, write_image: Write) -> None:
    path = write_image(tmp_path / "train/n02105855/a.png")
    path.rename(path.with_name("n02105855_2933.JPEG"))
    assert ImageNet("train", root=tmp_path).image(0).shape == (8, 12, 3)


def test_mixed_layout_is_refused(tmp_path: Path, write_image: Write) -> None:
    _write_classes(tmp_path / "train", write_image)
    write_image(tmp_path / "train/stray.jpg")
    with pytest.raises(
        ValueError, match=r"1 of 7 images lie directly in .*train, the others in class folders"
    ):
        ImageNet("train", root=tmp_path)


def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"data root .*gone does not exist: expected a folder with train/"
    ):
        ImageNet("train", root=tmp_path / "gone")
    (tmp_path / "ILSVRC").mkdir()
    with pytest.raises(FileNotFoundError, match="has no train/: found ILSVRC in"):
        ImageNet("train", root=tmp_path)
    (tmp_path / "train/n01440764").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"holds no images: expected files of the kinds"):
        ImageNet("train", root=tmp_path)
