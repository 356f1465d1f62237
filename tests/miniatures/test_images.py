"""Miniatures of unlabelled data sets open in their sources, with the counts that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paka.miniatures import coco, folder, imagenet, shards
from paka.sources import Source
from paka.sources.coco import Coco
from paka.sources.folder import Folder
from paka.sources.imagenet import ImageNet
from paka.sources.shards import Shards
from paka.sources.subset import verify_labels


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "cache"))


def read_all(source: Source) -> int:
    for index in range(len(source)):
        assert source.image(index).ndim == 3
    return len(source)


def test_folder(tmp_path: Path) -> None:
    folder.write(tmp_path / "f")
    counts = {}
    for split in ("train", "val", "test"):
        source = Folder(split, root=tmp_path / "f")
        verify_labels(source)
        counts[split] = read_all(source)
    assert counts == {"train": 12, "val": 4, "test": 4}
    assert len(Folder("train", root=tmp_path / "f").classes) == 5


def test_coco(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco.write(tmp_path / "c")
    counts = {split: read_all(Coco(split, root=tmp_path / "c")) for split in ("train", "val", "unlabeled")}
    assert counts == {"train": 12, "val": 4, "unlabeled": 4}
    assert "but 123403 were published" in caplog.text


def test_imagenet_as_published(tmp_path: Path) -> None:
    imagenet.write(tmp_path / "i")
    train, val = (ImageNet(split, root=tmp_path / "i") for split in ("train", "val"))
    assert (read_all(train), read_all(val)) == (16, 4)
    assert train.tag_names == imagenet.WNIDS
    assert val.tag_names == ()
    assert train.item(0).endswith("ILSVRC2012_img_train.tar/n01440764/n01440764_0.JPEG")
    assert [int(np.argmax(train.tags(i))) for i in range(16)] == [0] * 6 + [1] * 5 + [2] * 5


def test_classes_of_imagenet(tmp_path: Path) -> None:
    imagenet.write(tmp_path / "i")
    chosen = ImageNet("train", root=tmp_path / "i", classes=["n03445777", "n01440764"])
    assert (read_all(chosen), chosen.tag_names) == (11, ("n01440764", "n03445777"))
    (tmp_path / "list.txt").write_text("n02119789 red fox\n\n")
    listed = ImageNet("train", root=tmp_path / "i", classes=str(tmp_path / "list.txt"))
    assert (len(listed), listed.tag_names) == (5, ("n02119789",))
    with pytest.raises(ValueError, match=r"1 of 2 classes have no images in .*, n99999999 the first"):
        ImageNet("train", root=tmp_path / "i", classes=["n03445777", "n99999999"])
    with pytest.raises(FileNotFoundError, match=r"expected a text file of classes at .*absent\.txt"):
        ImageNet("train", root=tmp_path / "i", classes=str(tmp_path / "absent.txt"))


def test_shards(tmp_path: Path) -> None:
    shards.write(tmp_path / "s")
    source = Shards("train", root=tmp_path / "s")
    assert read_all(source) == 20
    assert len(Shards("train", root=tmp_path / "s" / "train", pattern="*-000001.tar")) == 8
    with pytest.raises(FileNotFoundError, match=r"holds no shards: expected tars named \*\.zip"):
        Shards("train", root=tmp_path / "s", pattern="*.zip")
