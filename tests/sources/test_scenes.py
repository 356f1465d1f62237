"""Scenes: the procedural world is reproducible, balanced, and told apart by texture and not by colour."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from paka.sources import scenes
from paka.sources.painting import topmost
from paka.sources.palettes import oklch_to_srgb
from paka.sources.scenes import Portraits, Scenes
from paka.sources.shapes import KINDS, silhouette
from paka.sources.textures import FAMILIES, SIDE, tile
from paka.sources.world import CLASSES, STUFF, render

IMAGES = 300
BLOCK = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "available_cores", lambda: 2)
        return Scenes("train", train=IMAGES, cache=tmp_path_factory.mktemp("world"))


def small(split: str, cache: Path, **counts: int) -> Scenes:
    return Scenes(split, size=16, cache=cache, **counts)


def test_an_image_depends_on_seed_split_and_index_only(tmp_path: Path) -> None:
    short, long = small("train", tmp_path / "a", train=3), small("train", tmp_path / "b", train=7)
    other_seed, other_split = (
        small("train", tmp_path / "a", seed=1, train=3),
        small("val", tmp_path / "a", val=3),
    )
    for index in range(3):
        np.testing.assert_array_equal(short.image(index), long.image(index))
        np.testing.assert_array_equal(short.mask(index), long.mask(index))
        assert (short.image(index) != other_seed.image(index)).mean() > 0.5
        assert (short.image(index) != other_split.image(index)).mean() > 0.5


def test_another_process_renders_the_same_pixels(world: Scenes) -> None:
    code = (
        "import sys; from paka.sources.world import render; image, mask = render(0, 0, 5, 128);"
        "sys.stdout.buffer.write(image.tobytes() + mask.tobytes())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert there == world.image(5).tobytes() + world.mask(5).tobytes()


def test_shards_rendered_in_parallel_hold_the_images_of_their_indices(world: Scenes) -> None:
    for index in (0, scenes.SHARD - 1, scenes.SHARD, IMAGES - 1):
        image, mask = render(0, 0, index, 128)
        np.testing.assert_array_equal(world.image(index), image)
        np.testing.assert_array_equal(world.mask(index), mask)


def test_a_script_without_a_main_guard_renders_in_parallel(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from paka.sources import scenes\nscenes.SHARD = 2\nscenes.available_cores = lambda: 2\n"
        f"source = scenes.Scenes('val', val=4, size=8, cache={str(tmp_path)!r})\nprint(source.image(1).shape)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "(8, 8, 3)\n"


def test_a_failing_worker_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"rendering scenes into .* failed"):
        scenes._render_elsewhere(tmp_path / "absent", (0, 0, 8), [(0, 1)])


def test_rendered_images_are_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first = small("test", tmp_path, test=3)
    assert "rendering 3 test images" in caplog.text
    monkeypatch.setattr(scenes, "render", lambda *_: pytest.fail("rendered again"))
    again = small("test", tmp_path, test=3)
    np.testing.assert_array_equal(first.image(2), again.image(2))


def test_a_full_shard_serves_a_shorter_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "SHARD", 4)
    small("test", tmp_path, test=4)
    monkeypatch.setattr(scenes, "render", lambda *_: pytest.fail("rendered again"))
    assert len(small("test", tmp_path, test=2)) == 2


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_damaged_shard_is_rendered_again(tmp_path: Path, kind: str) -> None:
    whole = small("val", tmp_path, val=3)
    image, mask = whole.image(1).copy(), whole.mask(1).copy()
    (path,) = tmp_path.rglob(f"*.{kind}.npy")
    path.write_bytes(path.read_bytes()[:-10])
    again = small("val", tmp_path, val=3)
    np.testing.assert_array_equal(again.image(1), image)
    np.testing.assert_array_equal(again.mask(1), mask)
    assert not list(tmp_path.rglob("*.part"))


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PAKA_CACHE", raising=False)
    assert scenes.default_cache() == tmp_path / "xdg" / "paka"
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "own"))
    Scenes("val", val=1, size=16)
    assert list((tmp_path / "own").rglob("*.npy"))


def test_a_pickled_source_carries_no_pixels(world: Scenes) -> None:
    world.image(0)
    sent = pickle.dumps(world)
    assert len(sent) < 10_000
    received = pickle.loads(sent)
    np.testing.assert_array_equal(received.image(3), world.image(3))


def test_images_and_masks_have_the_promised_types(world: Scenes) -> None:
    assert world.image(0).shape == (128, 128, 3)
    assert world.mask(0).shape == (128, 128)
    assert world.image(0).dtype == world.mask(0).dtype == np.uint8
    assert (world.name, world.split, len(world)) == ("scenes", "train", IMAGES)
    assert world.classes == world.tag_names == CLASSES
    assert max(world.mask(index).max() for index in range(IMAGES)) == len(CLASSES) - 1


def test_tags_are_the_classes_of_at_least_one_percent(world: Scenes) -> None:
    for index in range(20):
        shares = [(world.mask(index) == number).mean() for number in range(len(CLASSES))]
        np.testing.assert_array_equal(world.tags(index), np.array(shares) >= 0.01)


def test_classes_are_balanced(world: Scenes) -> None:
    shares = np.mean(
        [np.bincount(world.mask(i).ravel(), minlength=12) / 128**2 for i in range(IMAGES)], axis=0
    )
    assert shares.max() < 0.16
    assert 0.22 < shares[len(STUFF) :].sum() < 0.38
    assert shares[len(STUFF) :].min() > 0.02


def test_every_stuff_class_occurs_above_and_below(world: Scenes) -> None:
    masks = np.stack([world.mask(index) for index in range(IMAGES)])
    for rows in (masks[:, :20], masks[:, -20:]):
        shares = np.bincount(rows.ravel(), minlength=12)[: len(STUFF)] / rows.size
        assert shares.min() > 0.03


def block_means(fields: NDArray[np.generic]) -> NDArray[np.float64]:
    """Mean over each block of (128, 128, features): (16, 16, features)."""
    return fields.reshape(16, BLOCK, 16, BLOCK, -1).mean((1, 3), dtype=np.float64)


def texture_statistics(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Statistics of the contrast-normalised grey levels around each block, (16, 16, 64), blind to colour.

    Histograms of local binary patterns (Ojala et al. 2002; 8 neighbours, uniform, rotation-invariant) at four
    scales, and energies of Gabor pairs at four wavelengths in eight directions, reduced to the magnitudes of
    their Fourier coefficients over the directions, which do not change when a texture turns. Both are pooled over
    the blocks around, by a Gaussian of one block.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey -= blur(grey, 6)
    grey /= np.sqrt(blur(grey**2, 8)) + 2
    patterns = np.concatenate([binary_patterns(blur(grey, r / 2.5), r) for r in (1.5, 2.5, 4, 6)], axis=2)
    lengths = (3.0, 4.5, 6.5, 9.5)
    energies = np.stack([gabor_energy(grey, length, turn) for length in lengths for turn in range(8)], axis=2)
    pooled = cv2.GaussianBlur(block_means(energies), (5, 5), 1.0).reshape(16, 16, len(lengths), 8)
    spectra = np.abs(np.fft.rfft(np.log(pooled + 1e-3), axis=3)).reshape(16, 16, -1)
    histograms = [cv2.GaussianBlur(part, (5, 5), 1.0) for part in np.split(block_means(patterns), 4, axis=2)]
    return np.concatenate([np.sqrt(np.concatenate(histograms, axis=2)), spectra], axis=2)


def blur(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def binary_patterns(grey: NDArray[np.float32], radius: float) -> NDArray[np.bool_]:
    """One-hot pattern of each pixel, (128, 128, 11): neighbours above it if they are in one run, else two kinds."""
    angles = np.arange(8) * np.pi / 4
    shifts = [np.array([[1, 0, radius * np.cos(a)], [0, 1, radius * np.sin(a)]]) for a in angles]
    around = [cv2.warpAffine(grey, s, (128, 128), borderMode=cv2.BORDER_REFLECT) for s in shifts]
    above = np.stack(around) > grey
    changes = (above != np.roll(above, 1, 0)).sum(0)
    pattern = np.where(changes <= 2, above.sum(0), 9 + (changes > 4))
    return pattern[..., None] == np.arange(11)


def gabor_energy(grey: NDArray[np.float32], length: float, turn: int) -> NDArray[np.float32]:
    side, angle = 2 * int(0.9 * length) + 3, turn * np.pi / 8
    pair = [
        cv2.getGaborKernel((side, side), 0.45 * length, angle, length, 0.8, phase) for phase in (0, np.pi / 2)
    ]
    even, odd = (cv2.filter2D(grey, cv2.CV_32F, (kernel - kernel.mean()) / length**2) for kernel in pair)
    return even**2 + odd**2


def pure_blocks(source: Scenes) -> tuple[NDArray[np.intp], ...]:
    """Image, row, column and class of an equal number of blocks per class that show nothing else."""
    masks = np.stack([source.mask(index) for index in range(len(source))])
    blocks = (
        masks.reshape(len(source), 16, BLOCK, 16, BLOCK)
        .transpose(0, 1, 3, 2, 4)
        .reshape(len(source), 16, 16, -1)
    )
    pure = (blocks == blocks[..., :1]).all(-1)
    labels, rng = blocks[..., 0].astype(np.intp), np.random.default_rng(0)
    places = [np.argwhere(pure & (labels == number)) for number in range(len(CLASSES))]
    count = min(500, *map(len, places))
    chosen = np.concatenate([rng.permutation(found)[:count] for found in places])
    return (*chosen.T, labels[tuple(chosen.T)])


def accuracy(features: NDArray[np.float64], labels: NDArray[np.intp], images: NDArray[np.intp]) -> float:
    """Held-out accuracy of a logistic regression; test blocks come from images without training blocks."""
    train = images < 0.7 * IMAGES
    scaler = StandardScaler().fit(features[train])
    probe = LogisticRegression(max_iter=300).fit(scaler.transform(features[train]), labels[train])
    return float(probe.score(scaler.transform(features[~train]), labels[~train]))


def test_texture_tells_the_class_and_colour_does_not(world: Scenes) -> None:
    image, row, column, labels = pure_blocks(world)
    means = np.stack([block_means(world.image(index)) for index in range(IMAGES)])[image, row, column]
    texture = np.stack([texture_statistics(world.image(index)) for index in range(IMAGES)])[
        image, row, column
    ]
    by_colour, by_texture = accuracy(means, labels, image), accuracy(texture, labels, image)
    assert by_colour < 0.25, f"mean colour of a block predicts its class with {by_colour:.1%}"
    assert by_texture > 0.55, f"texture statistics predict the class with {by_texture:.1%} only"


@pytest.mark.parametrize("name", FAMILIES)
def test_tiles_wrap_around_and_are_standardised(name: str) -> None:
    tones = tile(name, np.random.default_rng(0)).astype(float)
    assert tones.shape == (SIDE, SIDE)
    assert abs(tones.mean() - 128) < 6
    assert abs(tones.std() - 56) < 10
    for axis in (0, 1):
        steps = np.abs(tones - np.roll(tones, 1, axis)).mean(1 - axis)
        assert steps[0] < 1.5 * np.quantile(steps, 0.98)


@pytest.mark.parametrize("kind", KINDS)
def test_silhouettes_stand_at_the_origin_with_area_one(kind: str) -> None:
    for seed in range(20):
        parts = silhouette(kind, np.random.default_rng(seed))
        points = np.concatenate([part.outline for part in parts])
        assert points[:, 1].max() == pytest.approx(0, abs=1e-5)
        raster = np.zeros((600, 600), np.uint8)
        for part in parts:
            cv2.fillPoly(raster, [np.rint(part.outline * 80 + [300, 400]).astype(np.int32)], 1)
        assert raster.sum() / 80**2 == pytest.approx(1, abs=0.2)


def test_a_pixel_belongs_to_the_object_that_covers_most_of_it() -> None:
    quarters = np.array([[3, 3, 0, 0, 1, 2], [0, 0, 0, 3, 2, 2]], np.uint8)
    np.testing.assert_array_equal(topmost(quarters), [[3, 0, 2]])


def test_colours_without_chroma_are_grey() -> None:
    greys = oklch_to_srgb(np.array([[0.0, 0.0, 0.3], [0.5, 0.0, 0.7], [1.0, 0.0, 0.1]]))
    np.testing.assert_allclose(greys, greys[:, :1].repeat(3, 1), atol=1e-3)
    np.testing.assert_allclose(greys[[0, 2], 0], [0, 1], atol=1e-3)


def test_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train, val, test, not 'valid'"):
        Scenes("valid", cache=tmp_path)


@pytest.mark.parametrize("name", ["size", "train", "val", "test"])
def test_sizes_and_counts_must_be_positive(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} of scenes must be at least 1, not 0"):
        Scenes("train", cache=tmp_path, **{name: 0})


def test_seed_must_not_be_negative(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed of scenes must be at least 0, not -1"):
        Scenes("train", seed=-1, cache=tmp_path)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_out_of_range_is_refused(tmp_path: Path, index: int) -> None:
    source = small("val", tmp_path, val=2)
    with pytest.raises(IndexError, match=f"scenes has 2 val images, so no index {index}"):
        source.image(index)


def test_portraits_have_one_tag_each_and_no_masks(tmp_path: Path) -> None:
    portraits = Portraits("train", train=24, cache=tmp_path)
    tags = np.array([portraits.tags(index) for index in range(24)])
    assert (tags.sum(axis=1) == 1).all()
    assert tags.any(axis=0).sum() > 6
    assert portraits.classes == ()
    with pytest.raises(LookupError, match="image 3 has no mask: use scenes"):
        portraits.mask(3)


def test_portraits_share_no_image_with_scenes(tmp_path: Path) -> None:
    portraits = Portraits("train", train=2, cache=tmp_path)
    for split in ("train", "val", "test"):
        scenes = Scenes(split, train=2, val=2, test=2, cache=tmp_path)
        assert not np.array_equal(portraits.image(0), scenes.image(0))
