"""Every labelled data set opens from a miniature in its true tree, and says what is wrong with a broken one."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.configurations import composed

from paka.config import build
from paka.sources import VOID
from paka.sources.labelled import LabelledImages, id_table
from paka.sources.subset import labelled_splits, verify_labels

LABELLED = {"voc", "ade20k", "coco_stuff", "coco_things", "cityscapes", "pascal_context", "nyu"}
MASKED = sorted(LABELLED - {"nyu"})
PUBLISHED = {
    "voc": {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
    "ade20k": {"training": 20210, "validation": 2000},
    "coco_stuff": {"train": 118287, "val": 5000},
    "coco_things": {"train": 118287, "val": 5000},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
    "pascal_context": {"train": 4998, "val": 5105},
    "nyu": {"train": 795, "test": 654},
}
CLASSES = {
    "voc": 21,
    "ade20k": 150,
    "coco_stuff": 15,
    "coco_things": 12,
    "cityscapes": 19,
    "pascal_context": 59,
}
OTHERS = [("ade20k", 151), ("coco_stuff", 27), ("cityscapes", 27), ("pascal_context", 60)]

Open = Callable[..., LabelledImages]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniatures")
    for name in LABELLED:
        build(composed(f"data={name}", "data.root=x").data.miniature)(root / name, images=30)
    return root


@pytest.fixture
def tree(written: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the miniature of the data set of the test, to break."""
    name = request.node.callspec.params["name"]
    return Path(shutil.copytree(written / name, tmp_path / name))


def opened(name: str, root: Path, split: str, **options: object) -> LabelledImages:
    overrides = [f"data.{key}={value}" for key, value in options.items()]
    source = build(composed(f"data={name}", f"data.root={root}", *overrides).data.source)(split=split)
    assert isinstance(source, LabelledImages) or name == "nyu"
    return source


def first_mask(name: str, root: Path) -> tuple[LabelledImages, Path]:
    source = opened(name, root, next(iter(PUBLISHED[name])))
    return source, source.label_path(0)


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name in PUBLISHED for split in PUBLISHED[name]]
)
def test_every_split_opens(written: Path, name: str, split: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source = opened(name, written / name, split)
    assert (
        f"{name} {split} holds {len(source)} images, but {PUBLISHED[name][split]} were published"
        in caplog.text
    )
    assert (source.name, source.split, len(source.classes)) == (name, split, CLASSES.get(name, 0))
    assert source.palette.shape == (len(source.classes), 3)
    assert source.image(0).shape == (96, 128, 3)
    assert str(source.path(0)) == source.item(0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).image(0), source.image(0))


@pytest.mark.parametrize(("name", "classes"), [*CLASSES.items(), *OTHERS])
def test_ids_are_those_of_classes(written: Path, name: str, classes: int) -> None:
    options = {} if name == "voc" else {"classes": classes}
    source = opened(name, written / name, composed(f"data={name}", "data.root=x").data.split, **options)
    found = {number for index in range(len(source)) for number in np.unique(source.mask(index)).tolist()}
    assert len(source.classes) == classes == len(set(source.classes))
    assert found - {VOID} <= set(range(classes))
    assert len(found) > 0.9 * classes  # some of many small shapes are covered by others
    verify_labels(source)


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_splits_of_the_configuration(written: Path, name: str) -> None:
    data = composed(f"data={name}", f"data.root={written / name}").data
    memory, scored = labelled_splits(build(data.source), data.splits, "test", seed=0)
    assert len(memory) > len(scored) > 0
    assert not {memory.item(i) for i in range(len(memory))} & {scored.item(i) for i in range(len(scored))}
    assert data.home.startswith("http")


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_missing_label_file_is_named(tree: Path, name: str) -> None:
    split = next(iter(PUBLISHED[name]))
    path = opened(name, tree, split).label_path(0)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"1 of .* label files are missing: expected {path.name} in "
    ):
        opened(name, tree, split)


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_wrong_root_is_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder with"):
        opened(name, tmp_path / "gone", next(iter(PUBLISHED[name])))
    with pytest.raises(FileNotFoundError, match="found nothing in"):
        opened(name, tmp_path, next(iter(PUBLISHED[name])))


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_unknown_split_is_refused(written: Path, name: str) -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        opened(name, written / name, "extra")


@pytest.mark.parametrize(("name", "classes"), OTHERS)
def test_unknown_number_of_classes_is_refused(written: Path, name: str, classes: int) -> None:
    with pytest.raises(ValueError, match=rf"classes of {name} must be .*{classes}.*, but 7 came"):
        opened(name, written / name, next(iter(PUBLISHED[name])), classes=7)


@pytest.mark.parametrize("name", MASKED)
def test_mask_of_another_size(tree: Path, name: str) -> None:
    source, path = first_mask(name, tree)
    Image.new("L", (100, 96)).save(path)
    with pytest.raises(ValueError, match=rf"mask .*{path.name} is 100x96 .* is 128x96"):
        source.mask(0)


@pytest.mark.parametrize("name", MASKED)
def test_unknown_id_is_named(tree: Path, name: str) -> None:
    source, path = first_mask(name, tree)
    stored = np.array(Image.open(path))
    stored[3, 5] = 200
    Image.fromarray(stored).save(path)
    with pytest.raises(
        ValueError, match=rf"{path.name} has id 200 \(row 3, column 5\), .*no class.* 0 to \d+, 255;"
    ):
        source.mask(0)


@pytest.mark.parametrize("name", MASKED)
def test_colours_in_place_of_ids_are_refused(tree: Path, name: str) -> None:
    source, path = first_mask(name, tree)
    Image.new("RGB", (128, 96)).save(path)
    with pytest.raises(ValueError, match=rf"{path.name} is stored as RGB .* one 8-bit channel of class ids"):
        source.mask(0)


@pytest.mark.parametrize(("name", "split"), [("voc", "train"), ("voc", "val"), ("pascal_context", "val")])
def test_missing_list_is_named(tree: Path, name: str, split: str) -> None:
    next(tree.rglob(f"ImageSets/*/{split}.txt")).unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no list .*{split}\.txt"):
        opened(name, tree, split)


@pytest.mark.parametrize("name", ["voc", "pascal_context"])
def test_listed_image_without_file(tree: Path, name: str) -> None:
    source = opened(name, tree, "val")
    source.path(0).unlink()
    with pytest.raises(FileNotFoundError, match=rf"images are missing: expected {source.path(0).name} in "):
        opened(name, tree, "val")


def test_table() -> None:
    table = id_table({3: 0, 7: 1}, void=(0,))
    assert table[[3, 7, 0, 255, 1, 254]].tolist() == [0, 1, 255, 255, 254, 254]
