"""Warped copies: where points go, against complex numbers in float64 and against OpenCV's own pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols.synthetic import PROFILE

from paka.benchmark import Benchmark
from paka.encoded import Encoded
from paka.features import DenseFeatures
from paka.protocols import Entry
from paka.protocols.correspondence import PointMatching, correspondence
from paka.protocols.in_context import in_context
from paka.sources import Source
from paka.warps import GREY, GRID, LEAST_MOVE, SCALE, SHIFT, TILT, TURN, WarpPairs, draw_warp, moved, warped

ENTRY = Entry(correspondence, "images", "warped", trains=False)


class Blank(Source):
    """Unlabelled images of one colour and one size; it counts how often they are read."""

    name, split = "blank", "all"

    def __init__(self, height: int, width: int, count: int = 40) -> None:
        self.shape, self.count, self.read = (height, width, 3), count, 0

    def __len__(self) -> int:
        return self.count

    def item(self, index: int) -> str:
        return f"blank {index}"

    def image(self, index: int) -> np.ndarray:
        self.read += 1
        return np.full(self.shape, index, dtype=np.uint8)


def drawn(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The homography, and the same numbers from the same stream: turn, log scale, shift (2), tilt (2)."""
    matrix = draw_warp(height, width, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    turn, power = np.radians(rng.uniform(-TURN, TURN)), rng.uniform(-1, 1)
    along = rng.uniform(*SHIFT) * rng.choice((-1, 1))
    across = rng.uniform(-SHIFT[1], SHIFT[1]) / 2
    shift = (along, across) if width >= height else (across, along)
    return matrix, np.array([turn, power, *shift, *rng.uniform(-TILT, TILT, 2)])


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 96), (100, 100), (30, 600)])
def test_points_go_where_complex_numbers_take_them(height: int, width: int) -> None:
    for seed in range(20):
        matrix, (turn, power, dx, dy, ax, ay) = drawn(height, width, seed)
        points = np.random.default_rng(seed).random((50, 2)) * (width, height)
        centred = points - (width / 2, height / 2)
        nearer = 1 + centred @ (ax, ay) / (max(height, width) / 2)
        assert nearer.min() > 0.5
        turned = (centred @ (1, 1j)) / nearer * SCALE**power * np.exp(1j * turn)
        expected = np.stack([turned.real + width * (0.5 + dx), turned.imag + height * (0.5 + dy)], axis=1)
        np.testing.assert_allclose(moved(points, matrix), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved(expected, np.linalg.inv(matrix)), points, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (160, 90)])
def test_an_image_of_coordinates_is_warped_as_the_points_are(height: int, width: int) -> None:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    coordinates, grey = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32), 0
    for seed in range(8):
        matrix = draw_warp(height, width, np.random.default_rng(seed))
        copy = warped(coordinates, matrix)  # type: ignore[arg-type]
        assert copy.shape == coordinates.shape
        points = np.random.default_rng(seed).uniform(4, (width - 4, height - 4), (200, 2))
        targets = moved(points, matrix)
        inside = ((targets > 1) & (targets < (width - 1, height - 1))).all(axis=1)
        assert inside.sum() > 20
        place = (targets[inside] - 0.5).astype(np.float32)[:, None]
        seen = cv2.remap(copy, place, None, cv2.INTER_LINEAR)[:, 0]  # type: ignore[call-overload]
        assert np.abs(seen[:, :2] - points[inside]).max() < 0.1
        outside = moved(np.stack([x, y], axis=-1).reshape(-1, 2), np.linalg.inv(matrix))
        beyond = ((outside < -1) | (outside > (width + 1, height + 1))).any(axis=1).reshape(height, width)
        grey += int(beyond.sum())
        assert (copy[beyond] == GREY).all()
    assert grey > height * width / 10


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 96), (20, 700), (700, 20), (8, 8)])
def test_points_are_shown_by_the_copy_elsewhere(height: int, width: int) -> None:
    warps = WarpPairs(Blank(height, width), seed=3)
    for index, pair in enumerate(warps.pairs):
        assert (pair.first, pair.second, pair.extent) == (2 * index, 2 * index + 1, max(height, width))
        assert 1 <= len(pair.points) == len(pair.targets) <= GRID**2
        assert [width / 2, height / 2] in pair.points.tolist(), "the middle is always there"
        for side in (pair.points, pair.targets):
            assert side.dtype == np.float32
            assert (side >= 0).all()
            assert (side <= (width, height)).all()
        far = np.linalg.norm(pair.targets - pair.points, axis=1)
        assert far.min() >= LEAST_MOVE * pair.extent * (1 - 1e-5)
        exact = moved(pair.points.astype(np.float64), warps.warp(index))
        np.testing.assert_allclose(pair.targets, exact, atol=1e-3)


def test_a_view_is_a_function_of_seed_and_index() -> None:
    first, again, other = (WarpPairs(NoiseImages(), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again.image(9), first.image(9))
    assert (first.image(9) != other.image(9)).any()
    np.testing.assert_array_equal(first.image(8), NoiseImages().image(4))
    assert (first.item(8), first.item(9)) == ("noise 4", "noise 4 (warped)")
    assert (len(first), first.classes, first.has_depth, first.tag_names) == (48, (), False, ())
    assert len({first.variant, other.variant, NoiseImages().variant}) == 3
    np.testing.assert_array_equal(first.pairs[4].targets, again.pairs[4].targets)
    assert (first.warp(4) != first.warp(5)).any()


def test_images_that_were_read_are_not_read_again_for_their_sizes() -> None:
    source = Blank(20, 30, count=3)
    warps = WarpPairs(source, seed=0)
    for index in range(6):
        warps.image(index)
    read = source.read
    assert len(warps.pairs) == 3
    assert source.read == read


def places(warps: WarpPairs, grid: int, side: int) -> torch.Tensor:
    """Tokens that are the place in the first image that each shows: points on two circles."""
    steps = (np.arange(grid) + 0.5) / grid * side
    centres = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    found = []
    for index in range(len(warps)):
        back = np.linalg.inv(warps.warp(index // 2))
        shares = (moved(centres, back) if index % 2 else centres) / side
        angles = torch.from_numpy(shares).float().view(grid, grid, 2)
        found.append(torch.cat([angles.cos(), angles.sin()], dim=-1))
    return torch.stack(found)


def features(tokens: torch.Tensor, warps: WarpPairs, side: int) -> DenseFeatures:
    sizes = torch.tensor([[side, side]] * len(tokens), dtype=torch.int32)
    return DenseFeatures(tokens, torch.zeros(len(tokens), 0, 0), 0, sizes=sizes, pairs=warps.pairs)


def test_coordinates_reach_the_ceiling_of_the_grid_and_noise_and_position_do_not() -> None:
    """Half a token on each side is 0.044 of 16 tokens: within 0.1 and 0.05, and by chance within 0.01 of 0.0625 x 0.0625."""
    side, grid = 96, 16
    warps = WarpPairs(Blank(side, side), seed=0)
    oracle = features(places(warps, grid, side), warps, side)
    near, nearer, nearest = (
        metric.once(correspondence(None, oracle, PROFILE, seed=0).counts)
        for metric in correspondence(None, oracle, PROFILE, seed=0).metrics
    )
    assert (near, nearer) == (1, 1)
    assert nearest == pytest.approx(np.pi * 0.01**2 * grid**2, abs=0.02)
    soft = replace(PROFILE, settings={"it": PointMatching(window=2, temperature=1e-3)})
    finer = correspondence(None, oracle, soft, seed=0)
    assert finer.metrics[2].once(finer.counts) > 0.7
    noise = torch.randn(oracle.tokens.shape, generator=torch.Generator().manual_seed(0))
    assert correspondence(None, features(noise, warps, side), PROFILE, seed=0).score < 0.05
    position = oracle.tokens[:1].expand_as(oracle.tokens)
    assert correspondence(None, features(position, warps, side), PROFILE, seed=0).score == 0


def test_a_benchmark_warps_what_it_scores_and_needs_nothing_else() -> None:
    profile = replace(PROFILE, grid=[6, 5], bootstrap=20)
    source = NoiseImages()
    benchmark = Benchmark(None, source, profile, {"it": ENTRY}, seed=4, query_images=3)
    warps = benchmark.images("warped")
    assert (len(warps), warps.variant[1]) == (6, 4)
    encoded = Encoded(benchmark, tiny_encoder())
    train, query = encoded.pair(ENTRY)
    assert train is None
    assert [*encoded.sets] == ["warped"]
    assert (query.tokens.shape[:3], query.num_classes, len(query.pairs)) == ((6, 6, 5), 0, 3)
    assert encoded.facts(warps) != encoded.facts(replace(benchmark, seed=5).images("warped"))
    result = benchmark.run(tiny_encoder())["it"]
    assert result.counts.shape == (3, 1, 1, 4)
    rows = benchmark.compare({"it": result}, {"it": result}, method="same")
    assert [row.metric for row in rows] == ["PCK@0.10", "PCK@0.05", "PCK@0.01"]
    assert {(row.delta, row.ci_low, row.ci_high, row.unit) for row in rows} == {(0.0, 0.0, 0.0, "%")}


def test_steps_are_those_that_are_taken() -> None:
    entries = {"it": ENTRY, "memory": Entry(in_context, "masks", "memory")}
    benchmark = Benchmark(NoiseImages(), NoiseImages(), PROFILE, entries, seed=0)
    assert benchmark.steps(1) == ["encode query", "encode train", "encode warped", "it", "memory"]
    assert replace(benchmark, protocols={"it": ENTRY}).steps(2) == 2 * ["encode warped", "it"]
    augmented = replace(benchmark, profile=replace(PROFILE, memory_augment=True, seeds=2))
    assert augmented.steps(1) == [
        "encode memory",
        "encode query",
        "encode warped",
        "it",
        "it",
        "memory",
        "memory",
    ]
