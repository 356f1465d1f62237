"""Correspondence against brute force in float64, closed forms of its means, and what must not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.protocols.synthetic import PROFILE
from torch import nn

from paka.encoder import Tokens
from paka.features import DenseFeatures, extract
from paka.frames import Frame
from paka.outcome_store import OutcomeStore
from paka.protocols import correspondence as module
from paka.protocols.correspondence import (
    ALPHAS,
    PointMatching,
    best_places,
    correct,
    correspondence,
    found,
    same_second,
    tokens_at,
)
from paka.sources import KeypointPair, Source
from paka.statistics import bootstrap, paired_bootstrap

GRID = (7, 9)
SIZES = [(60, 91), (120, 40), (33, 33), (200, 260)]


def scene(*, aspect: str = "keep", pairs: int = 14, seed: int = 0, dim: int = 5) -> DenseFeatures:
    """Random tokens of images of several shapes, and random points in random pairs of them."""
    rng = np.random.default_rng(seed)
    frame = Frame(*GRID, 4, aspect)
    fits = [frame.fit(*size) for size in SIZES]
    valid = torch.zeros(len(SIZES), *GRID, dtype=torch.bool)
    for image, (rows, columns) in enumerate(fits):
        valid[image, :rows, :columns] = True
    tokens = torch.from_numpy(rng.normal(size=(len(SIZES), *GRID, dim))).float()
    tokens[~valid] = 1000.0  # what fills the frame must never be found, nor read
    found_pairs = []
    for number in range(pairs):
        first, second = rng.integers(len(SIZES), size=2).tolist()
        count = 1 + number % 5
        points, targets = (
            (rng.random((count, 2)) * SIZES[image][::-1]).astype(np.float32) for image in (first, second)
        )
        found_pairs.append(
            KeypointPair(first, second, points, targets, float(rng.uniform(30, 300)), "abc"[number % 3])
        )
    sizes = torch.tensor(SIZES, dtype=torch.int32)
    return DenseFeatures(
        tokens,
        torch.zeros(4, 0, 0),
        0,
        valid=None if valid.all() else valid,
        sizes=sizes,
        pairs=(*found_pairs,),
    )


def token_at(tokens: np.ndarray, u: float, v: float, sampling: str) -> np.ndarray:
    rows, columns = tokens.shape[:2]
    if sampling == "nearest":
        return tokens[min(int(v), rows - 1), min(int(u), columns - 1)]
    u, v = min(max(u, 0.5), columns - 0.5), min(max(v, 0.5), rows - 0.5)
    across = np.maximum(0, 1 - np.abs(u - np.arange(columns) - 0.5))
    down = np.maximum(0, 1 - np.abs(v - np.arange(rows) - 0.5))
    return np.einsum("rcd,c,r->d", tokens, across, down)


def best_place(cosines: np.ndarray, settings: PointMatching) -> np.ndarray:
    row, column = np.unravel_index(cosines.argmax(), cosines.shape)
    total, mean = 0.0, np.zeros(2)
    for (r, c), cosine in np.ndenumerate(cosines):
        if max(abs(r - row), abs(c - column)) <= settings.window:
            weight = np.exp((cosine - cosines.max()) / settings.temperature)
            total, mean = total + weight, mean + weight * np.array([c + 0.5, r + 0.5])
    return mean / total


def reference(
    features: DenseFeatures, pair: KeypointPair, settings: PointMatching, aspect: str
) -> np.ndarray:
    """Where the points of a pair are found, in pixels: token by token, in float64."""
    sides = pair.first, pair.second
    fits = [Frame(*GRID, 4, aspect).fit(*SIZES[image]) for image in sides]
    first, second = (
        features.tokens[image, :rows, :columns].double().numpy()
        for image, (rows, columns) in zip(sides, fits, strict=True)
    )
    height, width = SIZES[pair.first]
    places = []
    for x, y in pair.points.astype(np.float64):
        token = token_at(first, x / width * fits[0][1], y / height * fits[0][0], settings.sampling)
        cosines = second @ token / np.linalg.norm(second, axis=2) / np.linalg.norm(token)
        places.append(best_place(cosines, settings))
    return np.array(places) / fits[1][::-1] * SIZES[pair.second][::-1]


WAYS = [
    PointMatching(),
    PointMatching(sampling="nearest"),
    PointMatching(window=1, temperature=0.3),
    PointMatching(sampling="nearest", window=3, temperature=0.1),
]


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
@pytest.mark.parametrize("settings", WAYS, ids=lambda way: way.note)
def test_places_and_pck_are_those_of_brute_force(settings: PointMatching, aspect: str) -> None:
    features = scene(aspect=aspect)
    assert (features.valid is None) == (aspect == "stretch")
    hits, points = np.zeros(len(ALPHAS)), 0
    for number, pair in enumerate(features.pairs):
        expected = reference(features, pair, settings, aspect)
        (places,) = found(features, [number], settings)
        np.testing.assert_allclose(places, expected, atol=1e-3)
        errors = np.linalg.norm(expected - pair.targets, axis=1)
        hits += [(errors <= alpha * pair.extent).sum() for alpha in ALPHAS]
        points += len(pair.points)
    outcome = correspondence(None, features, replace(PROFILE, settings={"any": settings}), seed=0)
    assert [metric.once(outcome.counts) for metric in outcome.metrics] == pytest.approx(hits / points)
    assert [metric.name for metric in outcome.metrics] == ["PCK@0.10", "PCK@0.05", "PCK@0.01"]
    assert outcome.stated == {"note": settings.note, "upsampling": "none"}


def test_a_point_is_correct_up_to_the_limit_and_not_beyond() -> None:
    target = np.array([[32.0, 16.0]], dtype=np.float32)
    pair = KeypointPair(0, 1, target, target, 64.0)
    for place, alpha in enumerate(ALPHAS, start=1):
        for angle in (0.0, np.pi / 2, np.pi, 3 * np.pi / 2):
            way = torch.tensor([[round(np.cos(angle)), round(np.sin(angle))]], dtype=torch.float64)
            at = torch.from_numpy(target).double()
            assert correct(at + alpha * 64.0 * (1 - 1e-12) * way, pair)[place] == 1
            assert correct(at + alpha * 64.0 * (1 + 1e-9) * way, pair)[place] == 0
    exact = torch.tensor([[32.0 + 3.0, 16.0 - 4.0]], dtype=torch.float64)
    assert correct(exact, pair._replace(extent=50.0)).tolist() == [1, 1, 0, 0], "5 pixels of 50 are 0.1"
    assert correct(exact, pair._replace(extent=100.0)).tolist() == [1, 1, 1, 0], "and of 100 0.05"


def test_means_over_points_pairs_and_categories() -> None:
    """Two pairs of a, of 1 in 4 and 1 in 1, and one of b, of 0 in 5: 2/10, 5/12, and (2/5 + 0) / 2."""
    hits = torch.tensor([[4.0, 1, 0, 0], [1, 1, 1, 0], [5, 0, 0, 0]], dtype=torch.float64)
    expected = {"points": 2 / 10, "pairs": (1 / 4 + 1 + 0) / 3, "categories": (2 / 5 + 0) / 2}
    for mean, value in expected.items():
        counts = module.counted_by(mean, hits, ["a", "a", "b"])
        metric = module.PCK[mean][0]
        assert metric.once(counts) == pytest.approx(value)
        once = torch.ones(1, 3, dtype=torch.float64)
        assert metric.resampled(counts, once).tolist() == pytest.approx([value])
        twice = torch.tensor([[2.0, 0, 0]], dtype=torch.float64)
        assert metric.resampled(counts, twice).tolist() == pytest.approx([1 / 4]), "b does not occur"


def test_every_mean_has_its_interval_and_its_names() -> None:
    features = scene()
    for mean in module.MEANS:
        profile = replace(PROFILE, settings={"it": PointMatching(mean=mean)})
        outcome = correspondence(None, features, profile, seed=0)
        assert outcome.counts.shape == (14, 3 if mean == "categories" else 1, 1 + len(ALPHAS))
        for metric in outcome.metrics:
            low, high = bootstrap(outcome.counts, resamples=50, seed=0, metric=metric)
            assert 0 <= low <= metric.once(outcome.counts) <= high <= 1
            same = paired_bootstrap(outcome.counts, outcome.counts, resamples=50, seed=0, metric=metric)
            assert same == (0, 0)
    names = {metric.name for metrics in module.PCK.values() for metric in metrics}
    assert len(names) == 9
    assert "PCK@0.05 per pair" in names


@pytest.mark.parametrize("settings", WAYS, ids=lambda way: way.note)
def test_scale_and_rotation_of_the_tokens_do_not_matter(settings: PointMatching) -> None:
    features, profile = scene(dim=6), replace(PROFILE, settings={"it": settings})
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).Q
    base = correspondence(None, features, profile, seed=0).counts
    for tokens in (1e-3 * features.tokens, 1e4 * features.tokens, features.tokens @ turned):
        assert torch.equal(
            correspondence(None, replace(features, tokens=tokens), profile, seed=5).counts, base
        )
    half = replace(features, tokens=features.tokens.half().float())
    stored = replace(features, tokens=features.tokens.half())
    assert torch.equal(
        correspondence(None, stored, profile, seed=0).counts,
        correspondence(None, half, profile, seed=0).counts,
    )


def test_neither_the_order_of_the_pairs_nor_blocks_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = scene(pairs=40)
    base = correspondence(None, features, PROFILE, seed=0).counts
    backwards = replace(features, pairs=features.pairs[::-1])
    assert torch.equal(correspondence(None, backwards, PROFILE, seed=0).counts.flip(0), base)
    monkeypatch.setattr(module, "PAIRS", 3)
    monkeypatch.setattr(module, "POINTS", 2)
    blocks = same_second(features.pairs)
    assert max(map(len, blocks)) == 3
    assert sorted(number for block in blocks for number in block) == list(range(40))
    assert all(len({features.pairs[number].second for number in block}) == 1 for block in blocks)
    assert torch.equal(correspondence(None, features, PROFILE, seed=0).counts, base)


def test_tokens_are_read_between_centres() -> None:
    tokens = torch.tensor([[0.0, 1.0, 4.0], [10.0, 11.0, 14.0]])[..., None]
    places = torch.tensor([[0.5, 0.5], [2.0, 1.0], [0.0, 0.0], [3.0, 2.0], [1.75, 1.5]], dtype=torch.float64)
    assert tokens_at(tokens, places, "bilinear")[:, 0].tolist() == [0.0, 7.5, 0.0, 14.0, 11.75]
    assert tokens_at(tokens, places, "nearest")[:, 0].tolist() == [0.0, 14.0, 0.0, 14.0, 11.0]


def test_the_soft_arg_max_lies_between_equals_and_becomes_the_arg_max() -> None:
    keys = nn.functional.normalize(torch.tensor([[[1.0, 0], [0, 1], [1, 0.1], [1, 0.1]]]), dim=2)
    wanted = torch.tensor([[1.0, 0.1]])
    near = best_places(wanted, keys, PointMatching(window=1, temperature=0.01))
    assert near[0].tolist() == pytest.approx([3.0, 0.5], abs=1e-4), "the first cell lies outside the window"
    cold = best_places(torch.tensor([[1.0, 0.02]]), keys, PointMatching(window=3, temperature=1e-6))
    assert cold[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


class Ramp(Source):
    """Images of several sizes that show where they are: red rises to the right, green downwards."""

    name, split = "ramp", "test"

    def __len__(self) -> int:
        return len(SIZES)

    def item(self, index: int) -> str:
        return f"ramp {index}"

    def image(self, index: int) -> np.ndarray:
        height, width = SIZES[index]
        y, x = np.mgrid[0:height, 0:width] + 0.5
        shown = np.stack([255 * x / width, 255 * y / height, 0 * x], axis=-1)
        return shown.round().astype(np.uint8)

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        shares = np.random.default_rng(0).uniform(0.1, 0.9, (50, 2)).astype(np.float32)
        return tuple(
            KeypointPair(i, j, shares * SIZES[i][::-1], shares * SIZES[j][::-1], float(max(SIZES[j])))
            for i in range(len(SIZES))
            for j in range(len(SIZES))
            if i != j
        )


class Places(nn.Module):
    """An encoder of the mean colour of 4 x 4 pixels, as points of a circle each."""

    dim, has_class_token, patch_size, device = 4, False, 4, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: list[torch.Tensor], *, attention: bool) -> list[Tokens]:
        del attention
        found = []
        for image in images:
            mean = nn.functional.avg_pool2d(image.float() / 255, 4).permute(0, 2, 3, 1)
            circles = [side for axis in (0, 1) for side in (mean[..., axis].cos(), mean[..., axis].sin())]
            found.append(Tokens(torch.stack(circles, dim=-1), torch.zeros(1, 0, 4), torch.zeros(1, 0, 0)))
        return found


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
def test_pixels_and_tokens_agree_through_the_whole_extraction(aspect: str) -> None:
    """Every point is found in the token that it lies in, but for rounding of colours, in images of all shapes."""
    frame = Frame(24, 30, 4, aspect)
    features = extract(Places(), Ramp(), frame=frame, indices=range(4))  # type: ignore[arg-type]
    assert (features.valid is None) == (aspect == "stretch")
    for number, pair in enumerate(features.pairs):
        rows, columns = frame.fit(*SIZES[pair.second])
        token = np.array(SIZES[pair.second][::-1]) / (columns, rows)
        (places,) = found(features, [number], PointMatching())
        errors = np.abs(places.numpy() - pair.targets) / token
        assert errors.max() < 0.75
        assert errors.mean() < 0.3


def test_noise_is_at_chance_and_the_same_tokens_are_found() -> None:
    """Chance is the share of tokens within the limit: with points and tokens all over, about alpha squared pi."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[80, 80]] * 40, dtype=torch.int32)
    centres = np.arange(22.5, 60, 5)
    points = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    pairs = tuple(
        KeypointPair(2 * i, 2 * i + 1, points.astype(np.float32), points.astype(np.float32), 80.0)
        for i in range(20)
    )
    tokens = torch.randn(40, 16, 16, 8, generator=generator)
    noise = DenseFeatures(tokens, torch.zeros(40, 0, 0), 0, sizes=sizes, pairs=pairs)
    outcome = correspondence(None, noise, PROFILE, seed=0)
    assert outcome.score == pytest.approx(np.pi * 0.1**2, abs=0.015)
    same = replace(noise, tokens=tokens[::2].repeat_interleave(2, dim=0))
    assert correspondence(None, same, PROFILE, seed=0).score > 0.99
    shuffled = tuple(pair._replace(targets=np.roll(pair.targets, 37, axis=0)) for pair in pairs)
    assert correspondence(None, replace(same, pairs=shuffled), PROFILE, seed=0).score < 0.1


def test_outcomes_survive_being_kept(tmp_path) -> None:
    store = OutcomeStore(tmp_path)
    for mean in module.MEANS:
        outcome = correspondence(
            None, scene(), replace(PROFILE, settings={"it": PointMatching(mean=mean)}), seed=0
        )
        store.put({"mean": mean}, outcome)
        kept = store.get({"mean": mean}, PROFILE)
        assert kept is not None
        assert torch.equal(kept.counts, outcome.counts)
        assert (kept.metrics, kept.stated) == (outcome.metrics, outcome.stated)


def test_bad_input_is_refused() -> None:
    with pytest.raises(
        ValueError, match="expected mean to be one of points, pairs, categories, got 'images'"
    ):
        PointMatching(mean="images")
    with pytest.raises(ValueError, match="expected sampling to be one of bilinear, nearest"):
        PointMatching(sampling="cubic")
    for wrong in ({"window": -1}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="a window of at least 0 tokens and a temperature above 0"):
            PointMatching(**wrong)
    with pytest.raises(
        ValueError, match="expected a pair among the 4 scored images, got none: raise profile"
    ):
        correspondence(None, replace(scene(), pairs=()), PROFILE, seed=0)
