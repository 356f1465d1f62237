"""Stored ids become the class ids that the field scores, in the names and colours of the owners."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from paka.miniatures import ade20k, cityscapes, coco_stuff, nyu, pascal_context, voc
from paka.sources import VOID, Source
from paka.sources.ade20k import ADE20K
from paka.sources.cityscapes import Cityscapes
from paka.sources.coco_stuff import COARSE, CocoStuff
from paka.sources.decode import read_depth
from paka.sources.labelled import LabelledImages, name_list
from paka.sources.nyu import NYU
from paka.sources.panoptic import STUFF_IDS, convert
from paka.sources.pascal_context import PascalContext
from paka.sources.voc import VOC, read_sbd_mask

Case = tuple[int, str | None, int]


def stored_as(source: LabelledImages, stored: int) -> int:
    """Class id of an image whose mask is filled with a stored id."""
    path = source.label_path(0)
    Image.fromarray(np.full((96, 128), stored, dtype=np.uint8)).save(path)
    (found,) = np.unique(source.mask(0))
    return int(found)


def check(source: LabelledImages, cases: list[Case]) -> None:
    for stored, name, number in cases:
        assert stored_as(source, stored) == number, (stored, name)
        assert name is None or source.classes[number] == name


def test_voc(tmp_path: Path) -> None:
    voc.write(tmp_path, images=5)
    source = VOC("val", root=tmp_path)
    check(source, [(0, "background", 0), (15, "person", 15), (20, "tvmonitor", 20), (255, None, VOID)])
    assert source.palette[[0, 1, 15, 20]].tolist() == [[0, 0, 0], [128, 0, 0], [192, 128, 128], [0, 64, 128]]


def test_ade20k(tmp_path: Path) -> None:
    ade20k.write(tmp_path, images=5)
    source = ADE20K("validation", root=tmp_path)
    check(
        source, [(1, "wall", 0), (13, "person", 12), (66, "toilet", 65), (150, "flag", 149), (0, None, VOID)]
    )
    assert source.palette[[0, 12, 149]].tolist() == [[120, 120, 120], [150, 5, 61], [92, 0, 255]]
    other = ADE20K("validation", root=tmp_path, classes=151)
    check(other, [(0, "other", 0), (1, "wall", 1), (150, "flag", 150), (255, None, VOID)])
    assert other.palette[[0, 1]].tolist() == [[0, 0, 0], [120, 120, 120]]


def test_cityscapes(tmp_path: Path) -> None:
    cityscapes.write(tmp_path, images=5)
    source = Cityscapes("val", root=tmp_path)
    check(
        source, [(7, "road", 0), (17, "pole", 5), (24, "person", 11), (31, "train", 16), (33, "bicycle", 18)]
    )
    check(source, [(stored, None, VOID) for stored in (0, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)])
    assert source.palette[[0, 18]].tolist() == [[128, 64, 128], [119, 11, 32]]
    fine = Cityscapes("val", root=tmp_path, classes=27)
    check(
        fine, [(7, "road", 0), (9, "parking", 2), (29, "caravan", 22), (33, "bicycle", 26), (6, None, VOID)]
    )
    with pytest.raises(ValueError, match="has id 34"):
        stored_as(fine, 34)


def test_cityscapes_with_train_ids_only(tmp_path: Path) -> None:
    cityscapes.write(tmp_path, images=5)
    for path in list(tmp_path.rglob("*_labelIds.png")):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(
        FileNotFoundError, match=r"labelTrainIds\.png only: expected .*unpack the owners' gtFine"
    ):
        Cityscapes("val", root=tmp_path)


def test_pascal_context(tmp_path: Path) -> None:
    pascal_context.write(tmp_path, images=5)
    source = PascalContext("val", root=tmp_path)
    check(source, [(1, "aeroplane", 0), (15, "person", 14), (59, "wood", 58), (0, None, VOID)])
    background = PascalContext("val", root=tmp_path, classes=60)
    check(background, [(0, "background", 0), (1, "aeroplane", 1), (59, "wood", 59)])
    assert background.palette[1].tolist() == source.palette[0].tolist() == [128, 0, 0]


def test_coco(tmp_path: Path) -> None:
    coco_stuff.write(tmp_path, images=5)
    both = CocoStuff("val", root=tmp_path)
    check(
        both, [(0, "person", 9), (2, "vehicle", 11), (156, "sky", 23), (168, "plant", 22), (181, "solid", 24)]
    )
    stuff = CocoStuff("val", root=tmp_path, classes=15)
    check(
        stuff, [(156, "sky", 11), (101, "ceiling", 0), (0, None, VOID), (90, None, VOID), (255, None, VOID)]
    )
    things = CocoStuff("val", root=tmp_path, classes=12)
    check(things, [(0, "person", 9), (90, "indoor", 4), (91, None, VOID), (181, None, VOID)])
    assert both.classes == things.classes + stuff.classes
    with pytest.raises(ValueError, match="has id 182"):
        stored_as(things, 182)


def test_coarse_classes_part_the_fine_ones() -> None:
    members = sorted(stored for group in COARSE.values() for stored in group)
    assert members == list(range(182))
    assert all(max(COARSE[thing]) < 91 for thing in list(COARSE)[:12])


@pytest.mark.parametrize(
    "place", ["stuffthingmaps", "annotations/stuffthingmaps", "stuffthingmaps_trainval2017"]
)
def test_coco_layouts(tmp_path: Path, place: str) -> None:
    coco_stuff.write(tmp_path, images=5)
    expected = CocoStuff("val", root=tmp_path).mask(0)
    (tmp_path / "annotations").rename(tmp_path / "maps")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "maps").rename(tmp_path / place)
    (tmp_path / "images/val2017").rename(tmp_path / "val2017")
    np.testing.assert_array_equal(CocoStuff("val", root=tmp_path).mask(0), expected)


@pytest.mark.parametrize("place", ["sbd", "sbd/benchmark_RELEASE", None])
def test_trainaug_from_sbd_equals_the_list(tmp_path: Path, place: str | None) -> None:
    root, elsewhere = tmp_path / "voc", tmp_path / "further"
    voc.write(root)
    listed = VOC("trainaug", root=root)
    tree, dataset = listed.root, (elsewhere if place is None else root / place) / "dataset"
    (dataset / "cls").mkdir(parents=True)
    names = [listed.path(i).stem for i in range(len(listed))]
    masks = [listed.mask(i) for i in range(len(listed))]
    scored = (tree / "ImageSets/Segmentation/val.txt").read_text().split()
    for index, name in enumerate(names):
        savemat(dataset / f"cls/{name}.mat", {"GTcls": {"Segmentation": masks[index]}})
    (dataset / "train.txt").write_text("\n".join([*names[4:], scored[0]]))
    (dataset / "val.txt").write_text("\n".join([*names[:5], *scored[1:]]))
    (tree / "ImageSets/Segmentation/trainaug.txt").unlink()
    shutil.rmtree(tree / "SegmentationClassAug")
    built = VOC("trainaug", root=root, sbd_root=elsewhere if place is None else None)
    assert [built.path(i).stem for i in range(len(built))] == names
    assert [built.label_path(i).suffix for i in range(len(built))] == [".png"] * 8 + [".mat"] * 8
    for index in range(len(built)):
        np.testing.assert_array_equal(built.mask(index), masks[index])


def test_trainaug_takes_masks_of_voc_where_there_are_no_others(tmp_path: Path) -> None:
    voc.write(tmp_path)
    before = VOC("trainaug", root=tmp_path)
    before.label_path(0).unlink()
    after = VOC("trainaug", root=tmp_path)
    assert [after.label_path(i).parent.name for i in (0, 1)] == ["SegmentationClass", "SegmentationClassAug"]


def test_trainaug_of_nothing(tmp_path: Path) -> None:
    voc.write(tmp_path, images=5)
    next(tmp_path.rglob("trainaug.txt")).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no trainaug: expected the list .*trainaug\.txt, or SBD in .*sbd;"
    ):
        VOC("trainaug", root=tmp_path)


@pytest.mark.parametrize("content", [{}, {"GTcls": 3.0}, None])
def test_damaged_mask_of_sbd_is_named(tmp_path: Path, content: dict[str, float] | None) -> None:
    path = tmp_path / "2008_000002.mat"
    if content is None:
        path.write_bytes(b"not MATLAB")
    else:
        savemat(path, content)
    with pytest.raises(ValueError, match=r"cannot read mask .*2008_000002\.mat, expected SBD's \.mat"):
        read_sbd_mask(path)


def test_lists_with_paths_are_read(tmp_path: Path) -> None:
    voc.write(tmp_path)
    expected = VOC("trainaug", root=tmp_path)
    path = next(tmp_path.rglob("trainaug.txt"))
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in path.read_text().split()]
    path.write_text("\n".join([*lines, ""]))
    np.testing.assert_array_equal(VOC("trainaug", root=tmp_path).images, expected.images)


@pytest.mark.parametrize("layout", ["official_splits", "."])
def test_nyu(tmp_path: Path, layout: str) -> None:
    nyu.write(tmp_path / "a", images=6)
    source = NYU("test", root=tmp_path / "a" / ("official_splits" if layout == "." else "."))
    depth = source.depth(0)
    assert (depth.dtype, depth.shape, depth[:, :4].max()) == (np.float32, (96, 128), 0)
    assert set(np.unique(depth).tolist()) <= set(range(10))
    with pytest.raises(LookupError, match="has no mask"):
        source.mask(0)


def test_depth_is_metres_of_16_bit_millimetres(tmp_path: Path) -> None:
    millimetres = np.array([[0, 1, 999], [1000, 9999, 65535]], dtype=np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_depth(tmp_path / "a.png"), millimetres / 1000, rtol=1e-7)
    Image.fromarray(millimetres.astype(np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"cannot decode depth map .*b\.png.*one 16-bit channel"):
        read_depth(tmp_path / "b.png")


def test_depth_of_another_size(tmp_path: Path) -> None:
    nyu.write(tmp_path, images=6)
    source = NYU("test", root=tmp_path)
    Image.fromarray(np.zeros((96, 100), dtype=np.uint16)).save(source.label_path(0))
    with pytest.raises(ValueError, match=r"has 96 rows and 100 columns: expected 96 and 128"):
        source.depth(0)


def panoptic(root: Path, segments: NDArray[np.int64], info: list[dict[str, int]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([segments % 256, segments // 256 % 256, segments // 256**2], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(root / "000000000009.png")
    categories = [{"id": number} for number in (1, 119, 187, 300)]
    annotation = {"file_name": "000000000009.png", "segments_info": info}
    (root / "panoptic.json").write_text(json.dumps({"annotations": [annotation], "categories": categories}))
    return root / "panoptic.json"


def test_panoptic_maps_become_class_ids(tmp_path: Path) -> None:
    ids = {1: 5, 119: 256 * 7 + 3, 187: 256**2 * 200 + 256 + 9}
    segments = np.array([[ids[1], ids[119], ids[187], 0, 77]]).repeat(2, axis=0)
    info = [{"id": segment, "category_id": category} for category, segment in ids.items()]
    assert convert(panoptic(tmp_path, segments, info), tmp_path, tmp_path / "out") == 1
    written = np.array(Image.open(tmp_path / "out/000000000009.png"))
    assert written.tolist() == [[0, 118, 156, 255, 255]] * 2


def test_panoptic_categories_keep_their_coarse_class() -> None:
    coarse = {stored: name for name, members in COARSE.items() for stored in members}
    merged = name_list(
        "plant, structural, ceiling, sky, furniture-stuff, furniture-stuff, floor, ground, solid, plant, ground, "
        "raw-material, food-stuff, building, solid, wall, textile"
    )
    assert [coarse[int(STUFF_IDS[category])] for category in range(184, 201)] == list(merged)


@pytest.mark.parametrize("category", [2, 300])
def test_unknown_panoptic_category(tmp_path: Path, category: int) -> None:
    path = panoptic(tmp_path, np.ones((2, 2), dtype=np.int64), [{"id": 1, "category_id": category}])
    with pytest.raises(ValueError, match=f"000000000009.png the category {category}: expected one of its 3"):
        convert(path, tmp_path, tmp_path / "out")


def test_panoptic_json_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*panoptic\.json"):
        convert(tmp_path / "panoptic.json", tmp_path, tmp_path / "out")
    (tmp_path / "instances.json").write_text(json.dumps({"annotations": [{"bbox": []}], "categories": []}))
    with pytest.raises(ValueError, match=r"instances\.json has no segments"):
        convert(tmp_path / "instances.json", tmp_path, tmp_path / "out")


def test_sources_are_interchangeable(tmp_path: Path) -> None:
    nyu.write(tmp_path, images=5)
    source: Source = NYU("train", root=tmp_path)
    assert (source.classes, source.tags(0).shape) == ((), (0,))
