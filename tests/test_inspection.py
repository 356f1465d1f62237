"""What the inspection finds, against counts that are known by construction."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.trees import SPLITS, write_folder

from paka.colours import overlay
from paka.contact_sheet import draw, evenly
from paka.findings import SplitFindings, summary
from paka.inspection import DATA, drawn, inspect, sentence
from paka.sources import Source
from paka.sources.coco import Coco
from paka.sources.folder import Folder

ROLES = {role: role for role in SPLITS}


def found(root: Path, splits: dict[str, str | None] | None = None, **options: object) -> list[SplitFindings]:
    options = {"workers": 1, "home": "https://owners.example"} | options
    return inspect(partial(Folder, root=root, classes=["a", "b", "c"]), splits or ROLES, **options)  # type: ignore[arg-type]


def problems(root: Path, **options: object) -> list[tuple[str, str, str]]:
    return [tuple(one) for split in found(root, **options) for one in split.problems]  # type: ignore[misc]


class Synthetic(Source):
    """Images made here, with depth on demand."""

    name = "synthetic"

    def __init__(self, split: str, count: int = 40, *, depth: NDArray[np.float32] | None = None) -> None:
        self.split, self.count, self.values, self.has_depth = split, count, depth, depth is not None

    def __len__(self) -> int:
        return self.count

    def item(self, index: int) -> str:
        return f"image {index}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.full((2, 3, 3), index, dtype=np.uint8)

    def depth(self, index: int) -> NDArray[np.float32]:
        del index
        assert self.values is not None
        return self.values


class Resizing(Synthetic):
    def image(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(super().image(index), (400, 400)), dtype=np.uint8)


class Deadly(Synthetic):
    def image(self, index: int) -> NDArray[np.uint8]:
        if index == 30:
            os._exit(3)
        return super().image(index)


class Buggy(Synthetic):
    def image(self, index: int) -> NDArray[np.uint8]:
        raise KeyError(f"pixels of {index}")


def test_a_sound_tree_is_counted(tmp_path: Path):
    report = summary(found(write_folder(tmp_path)))
    assert report["sound"]
    assert report["problems"] == report["warnings"] == []
    train, _, test = report["splits"]
    assert (train["images"], train["read"], train["roles"]) == (12, 12, ["train"])
    assert train["sizes"] == {"smallest": [12, 8], "median": [12, 8], "largest": [12, 8]}
    assert train["endings"] == {"png": 12}
    assert train["void"] == pytest.approx(100 / 8)
    assert [row["share"] for row in test["classes"]] == pytest.approx([100 / 3] * 3)
    assert [(row["class"], row["pixels"], row["images"]) for row in test["classes"]] == [
        (name, 4 * 4 * 7, 4) for name in "abc"
    ]


def test_processes_find_what_one_finds(tmp_path: Path):
    root = write_folder(tmp_path, {"train": 40, "val": 2, "test": 9})
    (root / "images/train/7.png").write_bytes(b"")
    assert summary(found(root, workers=3)) == summary(found(root, workers=1))


@pytest.mark.timeout(60)
def test_processes_start_after_opencv_had_threads():
    cv2.setNumThreads(2)
    for _ in range(3):
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1500, 1500))
        for workers in (1, 2):
            (split,) = inspect(Resizing, {"data": "train"}, workers=workers)
            assert not split.problems
            assert split.read == 40
    assert cv2.getNumThreads() == 2


def test_progress_is_told_after_each_image(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    found(write_folder(tmp_path), {"val": "val"}, progress=lambda *step: told.append(step))
    assert told == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


def test_a_split_of_two_roles_is_read_once(tmp_path: Path):
    (split,) = found(write_folder(tmp_path), {"train": None, "val": "test", "test": "test"})
    assert (split.roles, split.read) == (("val", "test"), 4)


def test_a_sample_is_even():
    assert drawn(10, 4) == [0, 3, 6, 9]
    assert drawn(3, 4) == drawn(3, None) == [0, 1, 2]
    assert drawn(10, 1) == [0]
    assert drawn(0, 5) == []


def _truncate(root: Path) -> None:
    path = root / "images/train/1.png"
    path.write_bytes(path.read_bytes()[:150])


def _empty(root: Path) -> None:
    (root / "images/train/1.png").write_bytes(b"")


def _text(root: Path) -> None:
    (root / "images/train/1.png").write_text("<html>")


def _resize_mask(root: Path) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(root / "masks/train/1.png")


def _unknown_id(root: Path) -> None:
    Image.fromarray(np.full((8, 12), 7, np.uint8)).save(root / "masks/train/1.png")


def _colour_mask(root: Path) -> None:
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(root / "masks/train/1.png")


def _truncate_mask(root: Path) -> None:
    path = root / "masks/train/1.png"
    path.write_bytes(path.read_bytes()[:50])


def _name_that_is_not_utf8(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind / "train/1.png").rename(os.fsdecode(os.fsencode(root / kind / "train") + b"/b\xe9.png"))
    Path(os.fsdecode(os.fsencode(root / "images/train") + b"/b\xe9.png")).write_bytes(b"broken")


BROKEN: dict[Callable[[Path], None], tuple[str, str]] = {
    _truncate: ("images/train/1.png", "cannot decode image"),
    _empty: ("images/train/1.png", "it is empty"),
    _text: ("images/train/1.png", "cannot decode image"),
    _resize_mask: ("images/train/1.png", "is 6x4 pixels (width x height)"),
    _unknown_id: ("images/train/1.png", "has class id 7"),
    _colour_mask: ("images/train/1.png", "is stored as RGB with 8 bits"),
    _truncate_mask: ("images/train/1.png", "cannot decode mask"),
    _name_that_is_not_utf8: ("images/train/b\\xe9.png", "cannot decode image"),
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_file_is_named_and_the_rest_is_read(
    breaks: Callable[[Path], None], workers: int, tmp_path: Path
):
    breaks(write_folder(tmp_path))
    item, text = BROKEN[breaks]
    splits = found(tmp_path, workers=workers)
    ((split, where, why),) = [one for each in splits for one in each.problems]
    assert (split, where) == ("train", str(tmp_path / item))
    assert text in why
    assert "\n" not in why
    assert why.isprintable()
    assert splits[0].read == 12
    why.encode()


def test_broken_masks_are_named_one_by_one_where_classes_are_counted(tmp_path: Path):
    root = write_folder(tmp_path)
    for index in (2, 5):
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(root / f"masks/train/{index}.png")
    splits = inspect(partial(Folder, root=root), ROLES, workers=1)
    assert [Path(one.item).name for split in splits for one in split.problems] == ["2.png", "5.png"]
    assert splits[0].classes == ("0", "1", "2")


def test_an_empty_split_a_missing_one_and_a_wrong_one(tmp_path: Path):
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "images/val")
    for path in (tmp_path / "images/test").iterdir():
        path.unlink()
    train, val, test = problems(tmp_path, splits={"train": "trian", "val": "val", "test": "test"})
    assert train[:2] == ("trian", "")
    assert "split must be one of train, val, test, but 'trian' came" in train[2]
    assert "has no images/val/: found test, train" in val[2]
    assert "holds no images" in test[2]
    for sentences in (val[2], test[2]):
        assert sentences.endswith("its owners publish it at https://owners.example")


def test_a_wrong_root(tmp_path: Path):
    assert [one[2].split(":")[0] for one in problems(tmp_path / "no")] == [
        f"data root {tmp_path / 'no'} does not exist"
    ] * 3


def test_a_loop_of_links_is_no_traceback(tmp_path: Path):
    write_folder(tmp_path)
    (tmp_path / "images/train/loop").symlink_to("../train")
    train, *_ = found(tmp_path)
    assert train.read == 12 or "Too many levels of symbolic links" in train.problems[0].sentence


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path):
    write_folder(tmp_path)
    (tmp_path / "images/train/1.png").unlink()
    (tmp_path / "images/train/1.png").symlink_to("nowhere.png")
    ((split, item, why),) = problems(tmp_path)
    assert split == "train"
    assert "1.png" in item + why


def test_what_the_system_refuses_is_one_short_sentence():
    def refuse(split: str) -> Source:
        raise OSError(40, "Too many levels of symbolic links", b"/loop" * 90)

    (split,) = inspect(refuse, {"data": "train"}, workers=1)
    assert split.problems[0].sentence == (
        f"cannot read {'/loop' * 24}...: Too many levels of symbolic links; remove or restore it"
    )


def test_a_benchmark_needs_labels_and_data_do_not(tmp_path: Path):
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    ((_, _, why),) = problems(tmp_path, splits={"test": "test"})
    assert "have no masks" in why
    assert problems(tmp_path, splits={"data": "test"}) == []


def test_images_in_training_and_test_are_a_leak(tmp_path: Path):
    root = write_folder(tmp_path)
    Image.open(root / "images/test/2.png").save(root / "images/train/3.png", compress_level=0)
    (warning,) = summary(found(root))["warnings"]
    assert warning.startswith("leak: images of folder test that are in folder train too, pixel by pixel: 1,")
    assert f"{root}/images/test/2.png is {root}/images/train/3.png" in warning


def test_copies_within_a_split_are_told(tmp_path: Path):
    root = write_folder(tmp_path)
    shutil.copy(root / "images/train/3.png", root / "images/train/5.png")
    (warning,) = summary(found(root))["warnings"]
    assert "folder train that copy others in it, pixel by pixel: 1," in warning
    assert warning.endswith(f"{root}/images/train/5.png does {root}/images/train/3.png")


def test_training_images_may_be_post_trained_on(tmp_path: Path):
    root = write_folder(tmp_path)
    one, other = found(root, {"data": "train"}), found(root, {"train": "train"})
    assert summary([*one, *other])["warnings"] == []


def test_classes_that_never_occur_are_told_unless_it_is_a_sample(tmp_path: Path):
    root = write_folder(tmp_path, {"train": 3}, classes=2)
    assert summary(found(root, {"train": "train"}))["warnings"] == [
        "1 of 3 classes never occur in folder train: c"
    ]
    assert summary(found(root, {"train": "train"}, sample=2))["warnings"] == []


def test_a_count_other_than_the_published_one_is_told_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "train2017").mkdir()
    Image.new("RGB", (4, 5)).save(tmp_path / "train2017/a.jpg")
    with caplog.at_level(logging.WARNING):
        (split,) = inspect(partial(Coco, root=tmp_path), {"data": "train"}, workers=1)
    assert [warning.endswith("holds 1 images, but 118287 were published") for warning in split.warnings] == [
        True
    ]
    assert not caplog.records
    assert logging.getLogger("paka").propagate
    assert not split.problems


def test_depth_is_measured():
    depth = np.array([[0, 1, 2], [3, 4, 10]], dtype=np.float32)
    (split,) = inspect(partial(Synthetic, depth=depth), {"test": "test"}, workers=1)
    assert summary([split])["splits"][0]["depth"] == pytest.approx(
        {"nearest": 1, "median": 3, "farthest": 10, "unknown": 100 / 6}
    )


@pytest.mark.parametrize(
    ("depth", "text"),
    [
        (np.zeros((2, 3)), "0 only"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.full((2, 3), -1.0), "below 0"),
        (np.ones((3, 3)), "the depth map is 3x3 pixels (width x height), but its image is 3x2"),
    ],
)
def test_depth_that_cannot_be_used(depth: NDArray[np.float64], text: str):
    (split,) = inspect(
        partial(Synthetic, count=1, depth=depth.astype(np.float32)), {"test": "test"}, workers=1
    )
    ((_, item, why),) = split.problems
    assert item == "image 0"
    assert text in why


def test_a_process_that_dies_is_a_problem_not_a_traceback():
    (split,) = inspect(Deadly, {"data": "train"}, workers=2)
    ((_, item, why),) = split.problems
    assert "was killed" in why
    assert split.read <= int(item.removeprefix("image ")) <= 30


def test_a_bug_keeps_its_type():
    (split,) = inspect(partial(Buggy, count=1), {"data": "train"}, workers=1)
    assert split.problems[0].sentence == "KeyError: 'pixels of 0'"


def test_sentences_are_one_line_of_text():
    assert sentence(ValueError("a\n  b")) == "ValueError: a b"
    assert sentence(OSError(13, "Permission denied", b"/x/\xe9")) == (
        "cannot read /x/\\xe9: Permission denied; remove or restore it"
    )


def test_pictures_are_shared_out():
    assert evenly(24, [100, 100]) == [12, 12]
    assert evenly(24, [100, 4]) == [20, 4]
    assert evenly(24, [3, 5]) == [3, 5]
    assert evenly(2, [9, 9, 9]) == [1, 1, 0]
    assert evenly(24, []) == []


def test_overlay_is_the_palette_over_grey():
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    palette = np.array([[0, 0, 0], [200, 100, 0]], dtype=np.uint8)
    drawn_over = overlay(image, np.array([[1, 255]], dtype=np.uint8), palette)
    np.testing.assert_array_equal(drawn_over[0, 0], [170, 100, 30])
    np.testing.assert_array_equal(drawn_over[0, 1], [185, 185, 185])


def test_the_sheet_shows_what_cannot_be_read_and_depth(tmp_path: Path):
    root = write_folder(tmp_path / "tree")
    _empty(root)
    depth = np.linspace(0, 5, 6, dtype=np.float32).reshape(2, 3)
    splits = [*found(root), *inspect(partial(Synthetic, count=3, depth=depth), {"test": "x"}, workers=1)]
    assert draw(tmp_path / "sheet.png", splits, 24) == tmp_path / "sheet.png"
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 24)}
        assert sheet.width == 2000
    assert {(176, 32, 32), (222, 222, 222)} <= colours
    assert draw(tmp_path / "none.png", found(tmp_path / "nowhere"), 12) is None


def archived(path: Path, name: str, data: bytes) -> list[str]:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, data)
    (split,) = inspect(partial(Folder, root=path), {DATA: "train"}, workers=1)
    return [problem.sentence for problem in split.problems]


def test_what_may_be_an_attack_is_told(tmp_path: Path) -> None:
    (text,) = archived(tmp_path / "slip.zip", "../outside.png", b"1")
    assert "names a file outside of itself, '../outside.png'" in text
    bomb = bytearray((write_folder(tmp_path / "tree") / "images/train/0.png").read_bytes())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (text,) = archived(tmp_path / "bomb.zip", "a.png", bytes(bomb))
    assert "bomb.zip/a.png" in text
    assert "may be a decompression bomb" in text


def test_a_very_wide_image_is_no_problem(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    Image.new("RGB", (40_000, 16)).save(tmp_path / "images/train/a.jpg")
    Image.new("L", (40_000, 16)).save(tmp_path / "masks/train/a.png")
    assert problems(tmp_path, splits={"train": "train"}) == []
