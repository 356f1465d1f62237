"""Pairs of images with keypoints, from a folder of one's own and from SPair-71k's tree, and what is refused of them."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.doubles import tiny_encoder
from tests.protocols.synthetic import PROFILE

from paka.benchmark import Benchmark
from paka.feature_store import labels_digest
from paka.findings import summary
from paka.inspection import inspect
from paka.miniatures import keypoints, spair
from paka.outcome_store import OutcomeStore
from paka.protocols import Entry
from paka.protocols.correspondence import correspondence
from paka.sources.keypoints import KeypointFolder
from paka.sources.spair import SPair
from paka.sources.subset import Subset, is_labelled, labelled_splits

RED = (214, 39, 40)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("write", "opened", "splits"),
    [
        (spair.write, SPair, ("trn", "val", "test")),
        (keypoints.write, KeypointFolder, ("train", "val", "test")),
    ],
)
def test_points_show_the_same_in_both_images(
    tmp_path: Path, write: Callable, opened: Callable, splits: tuple[str, ...]
) -> None:
    """The middle of a disc has one colour in both, and lies in the middle of its pixel."""
    write(tmp_path, images=20)
    for split, count in zip(splits, (12, 4, 4), strict=True):
        source = opened(split, root=tmp_path)
        assert (len(source), source.split, source.classes) == (count, split, ())
        assert is_labelled(source)
        assert len(source.pairs) == {12: 60, 4: 4}[count]
        for pair in source.pairs:
            assert len(pair.points) == len(pair.targets) >= 3
            assert pair.points.dtype == pair.targets.dtype == np.float32
            assert (pair.points % 1 == 0.5).all()
            colours = [
                source.image(number)[*side.astype(int).T[::-1]].astype(int)
                for number, side in ((pair.first, pair.points), (pair.second, pair.targets))
            ]
            assert np.abs(colours[0] - colours[1]).max() < 60, "JPEG changes colours a little"
        copy = pickle.loads(pickle.dumps(source))
        assert labels_digest(copy) == labels_digest(source)


def test_the_first_so_many_images_of_spair_are_of_all_categories(tmp_path: Path) -> None:
    spair.write(tmp_path, images=60)
    source = SPair("test", root=tmp_path)
    categories = [source.path(index).parent.name for index in range(len(source))]
    assert categories[:8] == 2 * ["aeroplane", "aeroplane", "cat", "cat"]
    few = Subset(source, np.arange(4))
    assert {(pair.first, pair.second) for pair in few.pairs} == {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert {pair.category for pair in few.pairs} == {"aeroplane", "cat"}


def test_spair_is_found_below_its_root_and_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spair.write(tmp_path)
    with caplog.at_level(logging.WARNING):
        inner = SPair("test", root=tmp_path / "SPair-71k")
    assert "spair test holds 4 pairs, but 12234 were published" in caplog.text
    assert labels_digest(inner) == labels_digest(SPair("test", root=tmp_path))
    train, query = labelled_splits(
        partial(SPair, root=tmp_path), {"train": None, "val": "val", "test": "test"}, "val", seed=0
    )
    assert (train, query.split) == (None, "val")
    with pytest.raises(ValueError, match="split must be one of trn, val, test"):
        SPair("train", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="has no PairAnnotation/ or SPair-71k/PairAnnotation/"):
        SPair("test", root=tmp_path / "SPair-71k/JPEGImages")
    for file in (tmp_path / "SPair-71k/PairAnnotation/val").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"PairAnnotation/val has no pairs: expected JSON files"):
        SPair("val", root=tmp_path)


def test_files_of_spair_are_checked(tmp_path: Path) -> None:
    spair.write(tmp_path)
    folder = tmp_path / "SPair-71k/PairAnnotation/test"
    first = min(folder.iterdir())
    content = json.loads(first.read_text())
    assert SPair("test", root=tmp_path).pairs[0].extent == max(
        content["trg_bndbox"][2] - content["trg_bndbox"][0],
        content["trg_bndbox"][3] - content["trg_bndbox"][1],
    )
    wrong = [
        ({"trg_kps": None}, r"json: expected trg_kps, got none; add it"),
        ({"src_kps": [[500, 3]]}, r"json: expected points of aeroplane/.*\(500, 3\) as point 0"),
        ({"trg_bndbox": [9, 9, 9, 20]}, r"json: expected a box \[left, top, right, bottom\]"),
    ]
    for change, message in wrong:
        changed = {key: value for key, value in {**content, **change}.items() if value is not None}
        first.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"{first.name.partition(':')[0]}.*{message}"):
            _ = SPair("test", root=tmp_path).pairs
    first.write_text('{"src_kps": [')
    with pytest.raises(
        ValueError, match=r"cannot read .*:aeroplane\.json, expected JSON: .*correct or restore"
    ):
        _ = SPair("test", root=tmp_path).pairs
    first.rename(folder / "pair.json")
    with pytest.raises(ValueError, match=r"called NUMBER-SOURCE-TARGET:CATEGORY\.json, got pair\.json"):
        SPair("test", root=tmp_path)
    (folder / "pair.json").rename(folder / "0-2008_000016-2008_9:cat.json")
    with pytest.raises(
        FileNotFoundError, match=r"0-2008_000016-2008_9:cat\.json: expected its image cat/2008"
    ):
        SPair("test", root=tmp_path)


def written(root: Path, entries: Any) -> KeypointFolder:
    """A folder of two images, 12 x 8 and 6 x 10 pixels, with these pairs."""
    for name, size in (("a.png", (12, 8)), ("deep/b.png", (6, 10))):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, RED).save(path)
    (root / "pairs").mkdir(exist_ok=True)
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (root / "pairs/test.json").write_text(text)
    return KeypointFolder("test", root=root)


GOOD = {
    "source": "a.png",
    "target": "deep/b.png",
    "source_points": [[0, 0], [11, 7], [2.25, 3]],
    "target_points": [[5, 9], [0, 0], [6, 10]],
}


def test_a_folder_of_pairs(tmp_path: Path) -> None:
    boxed = {**GOOD, "source": "deep/b.png", "source_points": [[1, 1]], "target_points": [[2, 2]]}
    boxed |= {"target_box": [1, 2, 4, 9.5], "category": "thing"}
    source = written(tmp_path, [GOOD, boxed])
    assert [source.item(index) for index in range(2)] == [
        str(tmp_path / "images" / name) for name in ("a.png", "deep/b.png")
    ]
    plain, other = source.pairs
    assert plain[:2] == (0, 1)
    assert plain.points.tolist() == [[0.5, 0.5], [11.5, 7.5], [2.75, 3.5]]
    assert plain.targets.tolist() == [[5.5, 9.5], [0.5, 0.5], [6.5, 10.5]]
    assert (plain.extent, plain.category) == (10.0, ""), "the longer side of the image, which has no box"
    assert (other.first, other.second, other.extent, other.category) == (1, 1, 7.5, "thing")
    digest = labels_digest(source)
    moved = {**GOOD, "target_points": [[5, 9], [0, 1], [6, 10]]}
    assert labels_digest(written(tmp_path, [moved, boxed])) != digest


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[", ValueError, r"cannot read .*test\.json, expected JSON: .*; correct or restore it"),
        ([], ValueError, r"test\.json: expected a list of at least one pair, got an empty list; add pairs"),
        ({"pairs": 1}, ValueError, r"test\.json: expected a list of at least one pair, got a dict"),
        ([GOOD, 7], ValueError, r"test\.json, entry 1: expected source, got none; add it"),
        ([GOOD, {**GOOD, "target": 3}], ValueError, r"entry 1: expected a name as target, got 3"),
        (
            [GOOD, {**GOOD, "target": "c.png"}],
            FileNotFoundError,
            r"test\.json, entry 1: expected its image c\.png in .*images, got none there",
        ),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, content: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        written(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_points": []}, r"points of a\.png as a list of at least one \[x, y\], got \[\]"),
        ({"source_points": [[1, 2, 3]]}, r"points of a\.png as a list of at least one \[x, y\]"),
        ({"target_points": [["x", 1]]}, r"points of deep/b\.png as a list of at least one"),
        ({"target_points": [[1, None]]}, r"points of deep/b\.png as a list of at least one"),
        ({"target_points": [[1, 1]]}, r"expected as many points in both images, got 3 and 1"),
        (
            {"source_points": [[1, 1], [12.5, 2]]},
            r"points of a\.png inside its 12x8 pixels \(width x height\), got \(12\.5, 2\) as point 1",
        ),
        ({"source_points": [[1, -0.1]]}, r"got \(1, -0\.1\) as point 0; correct or remove it"),
        ({"target_points": [[1, 11], [0, 0]]}, r"deep/b\.png inside its 6x10 pixels"),
        ({"target_box": [1, 2, 3]}, r"expected a box \[left, top, right, bottom\] .* got \[1, 2, 3\]"),
        ({"target_box": [3, 2, 3, 5]}, r"with right above left and bottom above top"),
        ({"target_box": "all"}, r"expected a box"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    source = written(tmp_path, [GOOD, {**GOOD, **change}])
    with pytest.raises(ValueError, match=rf"test\.json, entry 1: .*{message}"):
        _ = source.pairs


def test_a_split_without_a_file(tmp_path: Path) -> None:
    written(tmp_path, [GOOD])
    with pytest.raises(
        FileNotFoundError, match=r"cannot open .*pairs/val\.json, expected the pairs of a split"
    ):
        KeypointFolder("val", root=tmp_path)
    with pytest.raises(ValueError, match="split must be one of train, val, test"):
        KeypointFolder("trn", root=tmp_path)
    for gone in ("pairs", "images"):
        (tmp_path / gone).rename(tmp_path / f"no {gone}")
        with pytest.raises(FileNotFoundError, match=f"has no {gone}/"):
            KeypointFolder("test", root=tmp_path)


def test_images_too_large_to_be_read_as_they_are(tmp_path: Path) -> None:
    source = written(tmp_path, [GOOD])
    Image.new("L", (8200, 2)).save(tmp_path / "images/a.png")
    with pytest.raises(ValueError, match=r"a\.png, an image of up to 8192 pixels, got 8200x2: shrink both"):
        _ = source.pairs


def test_an_outcome_is_not_taken_for_that_of_other_points(tmp_path: Path) -> None:
    written(tmp_path, [GOOD])
    entries = {"it": Entry(correspondence, "keypoints", trains=False)}
    kept, files = OutcomeStore(tmp_path / "outcomes"), []
    for change in ({}, {"target_points": [[5, 9], [0, 0], [5, 10]]}, {}):
        (tmp_path / "pairs/test.json").write_text(json.dumps([{**GOOD, **change}]))
        source = KeypointFolder("test", root=tmp_path)
        benchmark = Benchmark(None, source, replace(PROFILE, grid=[2, 2]), entries, seed=0, kept=kept)
        assert benchmark.run(tiny_encoder())["it"].counts.shape == (1, 1, 1, 4)
        files.append(len([*kept.folder.iterdir()]))
    assert files == [1, 2, 2]


def test_the_doctor_counts_pairs_and_names_bad_ones(tmp_path: Path) -> None:
    keypoints.write(tmp_path)
    opened, splits = partial(KeypointFolder, root=tmp_path), {"val": "val", "test": "test"}
    found = summary(inspect(opened, splits, workers=1))
    assert found["sound"]
    assert [split["pairs"]["pairs"] for split in found["splits"]] == [4, 4]
    assert found["splits"][0]["pairs"]["categories"] == 2
    path = tmp_path / "pairs/test.json"
    entries = json.loads(path.read_text())
    entries[2]["target_points"][0] = [1000, 1]
    path.write_text(json.dumps(entries))
    found = summary(inspect(opened, splits, workers=1))
    (problem,) = found["problems"]
    assert problem["split"] == "test"
    assert "test.json, entry 2: expected points of" in problem["sentence"]
    assert found["splits"][1]["pairs"] == {}
