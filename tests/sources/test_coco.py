"""COCO is found in both of its usual layouts, and a wrong root is explained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from paka.sources.coco import Coco

Write = Callable[..., Path]


@pytest.mark.parametrize("layout", ["", "images"])
def test_both_layouts(tmp_path: Path, write_image: Write, layout: str) -> None:
    for split, ids in (("train2017", (25, 9, 30)), ("val2017", (139,))):
        for image in ids:
            write_image(tmp_path / layout / split / f"{image:012d}.jpg", seed=image)
    train = Coco("train", root=tmp_path)
    assert [train.files.path(i).name for i in range(3)] == [
        "000000000009.jpg",
        "000000000025.jpg",
        "000000000030.jpg",
    ]
    assert train.image(0).shape == (8, 12, 3)
    assert (train.name, train.split, train.classes, train.tag_names) == ("coco", "train", (), ())
    assert train.tags(0).shape == (0,)
    assert len(Coco("val", root=tmp_path)) == 1


def test_other_year(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "train2014/COCO_train2014_000000000009.jpg")
    assert len(Coco("train", root=tmp_path, year=2014)) == 1


def test_incomplete_split_is_logged(
    tmp_path: Path, write_image: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "train2017/000000000009.jpg")
    with caplog.at_level(logging.WARNING):
        Coco("train", root=tmp_path)
    assert "train2017 holds 1 images, but 118287 were published" in caplog.text


def test_unlabelled(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "val2017/000000000139.jpg")
    with pytest.raises(LookupError, match=r"000000000139\.jpg has no mask, because coco val is unlabelled"):
        Coco("val", root=tmp_path).mask(0)


def test_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, val, unlabeled, but 'test' came"):
        Coco("test", root=tmp_path)


def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"gone does not exist: expected .* train2017/ or images/train2017/"
    ):
        Coco("train", root=tmp_path / "gone")
    (tmp_path / "annotations").mkdir()
    message = r"has no train2017/ or images/train2017/: found annotations in"
    with pytest.raises(FileNotFoundError, match=message):
        Coco("train", root=tmp_path)


def test_empty_split(tmp_path: Path) -> None:
    (tmp_path / "train2017").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train2017 holds no images: expected files of the kinds"):
        Coco("train", root=tmp_path)
