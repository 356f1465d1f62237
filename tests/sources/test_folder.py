"""Folders of images: what is listed and paired, and how every mismatch is reported."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paka.sources.decode import read_mask
from paka.sources.folder import Folder
from paka.sources.listing import list_files
from paka.sources.subset import verify_labels

Write = Callable[..., Path]
CAMVID = Path(os.environ.get("PAKA_CAMVID", Path(__file__).parents[2] / "../shared/data/camvid"))
CAMVID_CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]


def test_every_image_format_below_the_split_is_listed_in_order(tmp_path: Path, write_image: Write) -> None:
    names = ["b/z.JPG", "a.webp", "b/a/deep.jpeg", "B.bmp", "a10.png", "a2.Png", "ä.png"]
    for name in names:
        write_image(tmp_path / "images/train" / name)
    (tmp_path / "images/train/notes.txt").write_text("no image")
    (tmp_path / "images/train/._a.png").write_bytes(b"hidden companion of a.png")
    write_image(tmp_path / "images/train/.cache/a.png")
    source = Folder("train", root=tmp_path)
    listed = [
        source.files.path(i).relative_to(tmp_path / "images/train").as_posix() for i in range(len(source))
    ]
    assert listed == ["B.bmp", "a.webp", "a10.png", "a2.Png", "b/a/deep.jpeg", "b/z.JPG", "ä.png"]
    assert all(source.image(i).shape == (8, 12, 3) for i in range(len(source)))


def test_order_does_not_depend_on_creation(tmp_path: Path) -> None:
    for root, names in ((tmp_path / "a", "xcbz"), (tmp_path / "b", "zbcx")):
        root.mkdir()
        for name in names:
            (root / f"{name}.png").touch()
    np.testing.assert_array_equal(
        list_files(tmp_path / "a", (".png",)), list_files(tmp_path / "b", (".png",))
    )
    assert list_files(tmp_path / "a", (".jpg",)).shape == (0,)


def test_linked_folders_are_followed(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "elsewhere/a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/sub").symlink_to(write_image(tmp_path / "third/b.png").parent)
    assert len(Folder("train", root=tmp_path)) == 2


def test_images_and_masks_belong_together(write_folder: Write) -> None:
    source = Folder("train", root=write_folder({"train": 3}), classes=["x", "y", "z"])
    for index in range(3):
        expected = np.random.default_rng(index).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        np.testing.assert_array_equal(source.image(index), expected)
        np.testing.assert_array_equal(source.mask(index), np.full((8, 12), index, dtype=np.uint8))
    assert (source.name, source.split, source.classes) == ("folder", "train", ("x", "y", "z"))
    assert source.tag_names == ()
    assert source.tags(0).shape == (0,)
    verify_labels(source)


def test_masks_pair_by_relative_stem(tmp_path: Path, write_image: Write, write_mask: Write) -> None:
    # Dots, dashes and the case of the ending change the order of files, which must not mix the pairs.
    for index, stem in enumerate(["a", "a-b", "s/a", "s.t"]):
        write_image(tmp_path / f"images/val/{stem}.jpg")
        write_mask(tmp_path / f"masks/val/{stem}.{'PNG' if index == 0 else 'png'}", index)
    source = Folder("val", root=tmp_path)
    found = {
        source.files.path(i).name + source.files.path(i).parent.name: int(source.mask(i)[0, 0])
        for i in range(4)
    }
    assert found == {"a.jpgval": 0, "a-b.jpgval": 1, "a.jpgs": 2, "s.t.jpgval": 3}


def test_inferred_classes_agree_between_splits(
    tmp_path: Path, write_folder: Write, write_mask: Write
) -> None:
    root = write_folder({"train": 2, "val": 5})
    write_mask(tmp_path / "masks/train/0.png", 255)
    assert Folder("train", root=root).classes == Folder("val", root=root).classes == ("0", "1", "2", "3", "4")
    assert Folder("train", root=root).mask(0).max() == 255


def test_masks_are_not_opened_for_images(tmp_path: Path, write_folder: Write) -> None:
    root = write_folder({"train": 2})
    for mask in (tmp_path / "masks/train").iterdir():
        mask.write_bytes(b"")
    source = Folder("train", root=root)
    assert source.image(1).shape == (8, 12, 3)
    with pytest.raises(ValueError, match=r"cannot decode mask .*0\.png"):
        source.classes  # noqa: B018


def test_unlabelled_folder(write_folder: Write) -> None:
    source = Folder("train", root=write_folder({"train": 2}, masks=False), classes=["x"])
    assert source.classes == ()
    with pytest.raises(
        LookupError, match=r"train images of folder have no masks: expected them in .*masks/train"
    ):
        source.mask(0)


def test_a_pickled_source_is_the_same(write_folder: Write) -> None:
    source = Folder("train", root=write_folder({"train": 3}))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.files.names, source.files.names)
    np.testing.assert_array_equal(copy.mask(2), source.mask(2))


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, val, test, but 'trian' came"):
        Folder("trian", root=tmp_path)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data root .*gone does not exist: expected .*images/train/"):
        Folder("train", root=tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"expected a folder, a \.zip or a \.tar of images, got .*file:"):
        Folder("train", root=tmp_path / "file")


def test_missing_split(write_folder: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 1, "val": 1})
    with pytest.raises(FileNotFoundError, match=r"has no images/test/: found train, val in .*images;"):
        Folder("test", root=root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r".*empty holds no images: expected files of the kinds"):
        Folder("train", root=tmp_path / "empty")


def test_empty_split(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"images/train holds no images: expected .*\.jpg.*\.webp"):
        Folder("train", root=tmp_path)


def test_images_without_masks(write_folder: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 6})
    for index in (1, 2, 4, 5):
        (tmp_path / f"masks/train/{index}.png").unlink()
    message = (
        r"4 of 6 images have no mask in .*masks/train \(1\.png, 2\.png, 4\.png, \.\.\.\): expected 1\.png"
    )
    with pytest.raises(ValueError, match=message):
        Folder("train", root=root)


def test_masks_without_images(write_folder: Write, write_mask: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 2})
    write_mask(tmp_path / "masks/train/extra.png", 0)
    with pytest.raises(ValueError, match=r"1 of 3 masks in .*masks/train belong to no image \(extra\.png\)"):
        Folder("train", root=root)


def test_mask_of_another_size(write_folder: Write, write_mask: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 3})
    write_mask(tmp_path / "masks/train/1.png", 0, width=8, height=12)
    message = r"mask .*masks/train/1\.png is 8x12 pixels .* image .*images/train/1\.png is 12x8"
    with pytest.raises(ValueError, match=message):
        verify_labels(Folder("train", root=root))


def test_class_id_without_class(write_folder: Write, write_mask: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 2})
    ids = np.full((8, 12), 255, dtype=np.uint8)
    ids[3, 7] = 2
    write_mask(tmp_path / "masks/train/1.png", ids)
    source = Folder("train", root=root, classes=["x", "y"])
    assert source.mask(0).max() == 0
    with pytest.raises(
        ValueError, match=r"1\.png has class id 2 \(row 3, column 7\), but the 2 classes .* 0 to 1"
    ):
        verify_labels(source)


def test_mask_of_colours(write_folder: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 2})
    Image.new("RGB", (12, 8)).save(tmp_path / "masks/train/1.png")
    with pytest.raises(ValueError, match=r"mask .*masks/train/1\.png is stored as RGB .* one 8-bit channel"):
        verify_labels(Folder("train", root=root, classes=["x", "y"]))


def test_masks_of_void_only(write_folder: Write, write_mask: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 1})
    write_mask(tmp_path / "masks/train/0.png", 255)
    with pytest.raises(ValueError, match=r"the 1 masks in .*masks hold no class: .* found 255 \(void\) only"):
        verify_labels(Folder("train", root=root))
    with pytest.raises(
        ValueError, match="labelled pixel in the 1 train images of folder, got void masks only"
    ):
        verify_labels(Folder("train", root=root, classes=["x"]))


def test_unreadable_image_is_named(write_folder: Write, tmp_path: Path) -> None:
    root = write_folder({"train": 2})
    path = tmp_path / "images/train/1.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot decode image .*images/train/1\.png"):
        Folder("train", root=root).image(1)


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"CamVid is not in {CAMVID}; set PAKA_CAMVID to its folder")
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid(split: str, count: int) -> None:
    source = Folder(split, root=CAMVID, name="camvid", classes=CAMVID_CLASSES)
    assert len(source) == count
    assert source.image(0).shape == (360, 480, 3)
    verify_labels(source)
    largest = max(int(mask[mask != 255].max()) for mask in map(source.mask, range(0, count, 10)))
    assert largest == len(source.classes) - 1
    assert read_mask(CAMVID / f"masks/{split}/{source.files.path(0).stem}.png").shape == (360, 480)


def test_any_folder_of_images_is_one_to_train_on(tmp_path: Path, write_image: Write) -> None:
    for name in ("2021/a.jpg", "2022/summer/b.png", "c.tif"):
        write_image(tmp_path / name)
    source = Folder("train", root=tmp_path)
    assert [name.decode() for name in source.files.names] == ["2021/a.jpg", "2022/summer/b.png", "c.tif"]
    assert source.classes == ()
    with pytest.raises(FileNotFoundError, match=r"has no images/test/: found 2021, 2022, c\.tif"):
        Folder("test", root=tmp_path)


def test_photographs_are_turned_upright_unless_they_have_masks(tmp_path: Path, write_mask: Write) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for root in (tmp_path / "plain", tmp_path / "labelled/images/train"):
        root.mkdir(parents=True)
        Image.new("RGB", (12, 8)).save(root / "a.jpg", exif=exif)
    write_mask(tmp_path / "labelled/masks/train/a.png", 0)
    assert Folder("train", root=tmp_path / "plain").image(0).shape == (12, 8, 3)
    labelled = Folder("train", root=tmp_path / "labelled")
    assert labelled.image(0).shape[:2] == labelled.mask(0).shape == (8, 12)
