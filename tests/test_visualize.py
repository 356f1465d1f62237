from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from paka.visualize import Change, curves_figure, features_figure, scores_figure, segmentation_figure, smooth

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
TRUTH = RNG.integers(0, 3, (2, 32, 48), dtype=np.uint8)
CLASSES = ("sky", "road", "tree")


def picture(path: Path) -> np.ndarray:
    assert path.stat().st_size > 5_000
    return imread(path)[..., :3]


def test_features_beside_images(tmp_path):
    features = RNG.normal(size=(2, 4, 6, 8))
    features_figure(tmp_path / "figures" / "features.png", IMAGES, features, features)
    pixels = picture(tmp_path / "figures" / "features.png")
    assert 800 < pixels.shape[1] < 1000
    assert pixels.shape[0] > 2 * 288 * 32 / 48
    np.testing.assert_array_equal(pixels[0], 1)
    # Equal features are equal pictures, one tile and one gap apart.
    np.testing.assert_array_equal(pixels[100, 306:594], pixels[100, 600:888])


def test_features_must_be_of_the_images(tmp_path):
    features = RNG.normal(size=(3, 4, 6, 8))
    with pytest.raises(ValueError, match="before holds 3 maps for 2 images"):
        features_figure(tmp_path / "f.png", IMAGES, features, features)


def test_segmentation_shows_each_class_in_its_colour(tmp_path):
    flat = np.stack([np.full((32, 48), fill, dtype=np.uint8) for fill in (0, 255)])
    segmentation_figure(
        tmp_path / "s.png",
        IMAGES,
        truth=flat,
        before=TRUTH,
        after=TRUTH,
        classes=CLASSES,
        iou=[[1, 2], [3, 4]],
    )
    pixels = (picture(tmp_path / "s.png") * 255).round().astype(int)
    assert pixels[140, 450].tolist() == [0x00, 0x72, 0xB2]
    assert pixels[140 + 192 + 30, 450].tolist() == [222, 222, 222]


def test_legend_grows_with_the_classes(tmp_path):
    many = np.arange(32, dtype=np.uint8).reshape(1, 4, 8)
    for name, ids in (("few", many % 2), ("many", many)):
        segmentation_figure(
            tmp_path / f"{name}.png", np.zeros((1, 4, 8, 3), np.uint8), truth=ids, before=ids, after=ids,
            classes=[f"a long name {i}" for i in range(32)],
        )  # fmt: skip
    heights = {name: imread(tmp_path / f"{name}.png").shape[0] for name in ("few", "many")}
    assert heights["many"] > heights["few"] + 100


def test_class_without_a_name(tmp_path):
    with pytest.raises(ValueError, match="class id 2 has no name: there are names for 2 classes"):
        segmentation_figure(
            tmp_path / "s.png", IMAGES, truth=TRUTH, before=TRUTH, after=TRUTH, classes=CLASSES[:2]
        )


@pytest.mark.parametrize("length", [1, 2, 300])
def test_curves(tmp_path, length):
    steps = np.arange(length)
    values = np.exp(-steps / 50)
    values[:1] = np.nan if length > 1 else 1
    validation = {"in-context": ([0, length], [40.0, 45.0])}
    curves_figure(tmp_path / "c.png", steps, {"Loss": values, "CKA": 1 - values}, validation=validation)
    assert picture(tmp_path / "c.png").shape[:2] == (405, 1485)


def test_curves_need_matching_series(tmp_path):
    with pytest.raises(ValueError, match="series Loss has 2 values for 3 steps"):
        curves_figure(tmp_path / "c.png", [1, 2, 3], {"Loss": [1.0, 2.0]})
    with pytest.raises(ValueError, match="at least one series"):
        curves_figure(tmp_path / "c.png", [1, 2, 3], {})


def test_smoothing_keeps_constants_and_short_series():
    np.testing.assert_allclose(smooth(np.full(50, 3.0), width=4), 3.0)
    np.testing.assert_array_equal(smooth(np.array([1.0, 5.0, 2.0]), width=0.1), [1, 5, 2])
    assert smooth(np.zeros(0), width=0).shape == (0,)


def test_smoothing_is_a_normalised_gaussian():
    values = RNG.normal(size=30)
    offsets = np.arange(30) - 11
    weights = np.where(np.abs(offsets) <= 6, np.exp(-(offsets**2) / 8), 0)
    np.testing.assert_allclose(smooth(values, width=2)[11], weights @ values / weights.sum())


def test_scores(tmp_path):
    rows = [
        Change("in-context", 40.0, 45.0, 4.0, 6.0, "+5.00 [+4.00, +6.00]"),
        Change("linear", 50.0, 50.0, float("nan"), float("nan"), "0.00"),
    ]
    scores_figure(tmp_path / "s.png", rows, caption="scenes test")
    assert picture(tmp_path / "s.png").shape[1] == 1080
    with pytest.raises(ValueError, match="at least one score"):
        scores_figure(tmp_path / "s.png", [])


def test_the_same_input_gives_the_same_file_and_leaves_settings_alone(tmp_path):
    settings = dict(mpl.rcParams)
    for name in ("a.png", "b.png"):
        curves_figure(tmp_path / name, [1, 2, 3], {"Loss": [3.0, 2.0, 1.0]})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert dict(mpl.rcParams) == settings
