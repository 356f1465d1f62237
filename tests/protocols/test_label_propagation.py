"""Label propagation against loops in float64, and what has to hold for videos of all kinds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.doubles import tiny_encoder
from tests.protocols.synthetic import PROFILE
from torch import Tensor
from torch.nn import functional as F

from paka.benchmark import Benchmark
from paka.features import DenseFeatures
from paka.miniatures import davis
from paka.outcome_store import OutcomeStore
from paka.protocols import Entry, Outcome, Profile
from paka.protocols import label_propagation as module
from paka.protocols.label_propagation import (
    Labelled,
    LabelPropagation,
    label_propagation,
    propagate,
    propagated,
)
from paka.protocols.region_boundary import object_scores, video_counts
from paka.sources import VOID
from paka.sources.davis import DAVIS

PATCH = 4
Floats = NDArray[np.float64]


def profile(**settings: object) -> Profile:
    return replace(PROFILE, settings={"label_propagation": LabelPropagation(**settings)})  # type: ignore[arg-type]


def moving(frames: int = 7, *, objects: int = 2, grid: tuple[int, int] = (10, 12)) -> Tensor:
    """Numbers of objects at tokens, (frames, *grid): squares of 3 x 3 that move by a token a frame, to and fro."""
    maps = torch.zeros(frames, *grid, dtype=torch.int64)
    for frame in range(frames):
        for number in range(1, objects + 1):
            left = 1 + (frame if number % 2 else frames - 1 - frame)
            maps[frame, 1 + 4 * (number - 1) : 4 * number, left : left + 3] = number
    return maps


def video(tokens: Tensor, maps: Tensor, starts: tuple[int, ...] = (0,)) -> DenseFeatures:
    labels = maps.repeat_interleave(PATCH, dim=1).repeat_interleave(PATCH, dim=2).to(torch.uint8)
    stops = (*starts[1:], len(maps))
    return DenseFeatures(tokens, labels, 0, videos=tuple(map(range, starts, stops)))


def oracle(maps: Tensor, *, noise: float = 0.01) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.one_hot(maps, 8).float() + noise * torch.randn(*maps.shape, 8, generator=generator)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(outcome: Outcome) -> list[float]:
    return [metric.once(outcome.counts) for metric in outcome.metrics]


def reference_maps(tokens: Floats, first: Floats, settings: LabelPropagation) -> list[Floats]:
    """The soft maps of all frames, (h, w, C) each, by loops over tokens; ties aside."""
    rows, columns = tokens.shape[1:3]
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    maps = [first]
    for frame in range(1, len(tokens)):
        asked = [0, *range(max(1, frame - settings.last_frames), frame)]
        found = np.zeros_like(first)
        for i in range(rows):
            for j in range(columns):
                votes = [
                    (float(unit[frame, i, j] @ unit[other, k, m]), maps[other][k, m])
                    for other in asked
                    for k in range(rows)
                    for m in range(columns)
                    if reached(i - k, j - m, settings)
                ]
                votes = sorted(votes, key=lambda vote: -vote[0])[: settings.top_k]
                weights = [math.exp(cosine / settings.temperature) for cosine, _ in votes]
                total = sum(weight * labels for weight, (_, labels) in zip(weights, votes, strict=True))
                found[i, j] = total / sum(weights)
        maps.append(found)
    return maps


def reached(down: int, right: int, settings: LabelPropagation) -> bool:
    if settings.radius is None:
        return True
    if settings.neighbourhood == "square":
        return max(abs(down), abs(right)) <= settings.radius
    return down**2 + right**2 <= settings.radius**2


def reference_prediction(maps: Floats, *, rescale: bool) -> NDArray[np.int64]:
    """The best channel of each pixel after bilinear upsampling between the middles of tokens."""
    rows, columns, channels = maps.shape
    pixels = np.zeros((rows * PATCH, columns * PATCH, channels))
    for y in range(rows * PATCH):
        for x in range(columns * PATCH):
            v, u = (min(max((p + 0.5) / PATCH - 0.5, 0), n - 1) for p, n in ((y, rows), (x, columns)))
            k, m = int(v), int(u)
            below, right = min(k + 1, rows - 1), min(m + 1, columns - 1)
            upper = (1 - (u - m)) * maps[k, m] + (u - m) * maps[k, right]
            lower = (1 - (u - m)) * maps[below, m] + (u - m) * maps[below, right]
            pixels[y, x] = (1 - (v - k)) * upper + (v - k) * lower
    if rescale:
        low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
        pixels = np.where(high > low, (pixels - low) / np.where(high > low, high - low, 1), pixels)
    return pixels.argmax(axis=-1)


SETTINGS = [
    LabelPropagation(),
    LabelPropagation(radius=2),
    LabelPropagation(radius=2, neighbourhood="circle", temperature=0.2),
    LabelPropagation(radius=None, top_k=9, last_frames=2),
    LabelPropagation(radius=1, top_k=1, last_frames=0, rescale=False),
    LabelPropagation(radius=0, top_k=50, temperature=0.02),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("side", [1, 3, 64])
def test_maps_and_predictions_are_those_of_loops(
    settings: LabelPropagation, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.TILES, "cpu", side)
    maps = moving(5, grid=(9, 8))[:, 1:6, :7]
    tokens = oracle(maps, noise=0.7)
    query = video(tokens, maps)
    expected = reference_maps(tokens.double().numpy(), F.one_hot(maps[0], 3).double().numpy(), settings)
    context = [Labelled(F.normalize(tokens[0], dim=2), F.one_hot(maps[0], 3).float())]
    for frame, found in enumerate(propagated(query, query.videos[0], settings), start=1):
        soft = propagate(F.normalize(tokens[frame], dim=2), _asked(context, settings), settings)
        context.append(Labelled(F.normalize(tokens[frame], dim=2), soft))
        np.testing.assert_allclose(soft.numpy(), expected[frame], atol=2e-5)
        wanted = reference_prediction(expected[frame], rescale=settings.rescale)
        assert (found.numpy() == wanted).mean() > 0.999, "but for pixels between two objects"


def _asked(context: list[Labelled], settings: LabelPropagation) -> list[Labelled]:
    count = min(settings.last_frames, len(context) - 1)
    return [context[0], *context[len(context) - count :]]


def test_equally_near_tokens_all_count() -> None:
    maps = F.one_hot(moving(1)[0], 3).float()
    flat = torch.ones(*maps.shape[:2], 4) / 2
    found = propagate(flat, [Labelled(flat, maps)], LabelPropagation(radius=None))
    torch.testing.assert_close(found, maps.mean(dim=(0, 1)).expand_as(found))


def test_oracle_features_reach_the_ceiling() -> None:
    maps = torch.cat([moving(7), moving(5, objects=1)])
    outcome = label_propagation(None, video(oracle(maps), maps, (0, 7)), profile(), seed=0)
    # Bilinear upsampling rounds the corners of squares, by less than a pixel.
    assert min(scores(outcome)) > 0.93
    assert outcome.counts[:, 2].tolist() == [2, 1]


def test_noise_is_at_chance_and_shuffles_collapse() -> None:
    maps = moving(7)
    best = scores(label_propagation(None, video(oracle(maps), maps), profile(), seed=0))[1]
    random = label_propagation(None, video(noise(7, 10, 12, 8), maps), profile(radius=None), seed=0)
    assert scores(random)[1] < 0.15, "9 of 120 tokens are an object's"
    order = torch.tensor([0, 4, 6, 2, 5, 1, 3])
    shuffled = label_propagation(None, video(oracle(maps)[order], maps), profile(), seed=0)
    assert scores(shuffled)[1] < 0.5 * best
    swapped = maps.clone()
    swapped[0] = torch.tensor([0, 2, 1])[maps[0]]
    assert scores(label_propagation(None, video(oracle(maps), swapped), profile(), seed=0))[1] < 0.05


def test_only_the_neighbourhood_is_asked() -> None:
    """The object jumps farther than the radius: nobody in reach has seen it."""
    maps = moving(4, objects=1)
    maps[1:] = maps[1:].roll(6, dims=2)
    near, far = (
        label_propagation(None, video(oracle(maps), maps), profile(radius=radius), seed=0)
        for radius in (2, None)
    )
    assert scores(near)[1] < 0.05
    assert scores(far)[1] > 0.9


def test_nothing_depends_on_the_seed_or_on_the_order_of_videos() -> None:
    maps, tokens = torch.cat([moving(4), moving(5)]), noise(9, 10, 12, 8)
    one, other = (
        label_propagation(None, video(tokens, maps, (0, 4)), profile(), seed=seed) for seed in (0, 7)
    )
    assert torch.equal(one.counts, other.counts)
    order = torch.tensor([4, 5, 6, 7, 8, 0, 1, 2, 3])
    turned = label_propagation(None, video(tokens[order], maps[order], (0, 5)), profile(), seed=0)
    torch.testing.assert_close(turned.counts, one.counts.flip(0))


def test_first_and_last_frames_are_not_scored() -> None:
    maps = moving(6)
    query = video(oracle(maps), maps)
    wrong = query.labels.clone()
    wrong[5] = 3 - wrong[5].clamp_max(2)
    spoilt = replace(query, labels=wrong)
    plain = label_propagation(None, query, profile(), seed=0)
    assert torch.equal(label_propagation(None, spoilt, profile(), seed=0).counts, plain.counts)
    with_last = label_propagation(None, spoilt, profile(score_last=True), seed=0)
    assert with_last.counts[0, 0] < 0.9 * plain.counts[0, 0]
    two = video(oracle(maps[:2]), maps[:2])
    assert min(scores(label_propagation(None, two, profile(score_last=True), seed=0))) > 0.9


def test_frames_without_masks_are_propagated_through_and_not_scored() -> None:
    maps, settings = moving(9, grid=(10, 14)), LabelPropagation(radius=2, last_frames=1)
    query = video(oracle(maps, noise=0.5), maps)
    frames = [
        object_scores(found.numpy(), query.labels[frame].numpy(), [1, 2])
        for frame, found in enumerate(propagated(query, range(9), settings), start=1)
    ]
    labels = query.labels.clone()
    labels[[1, 2, 3, 5, 6]] = VOID
    some = label_propagation(None, replace(query, labels=labels), profile(radius=2, last_frames=1), seed=0)
    torch.testing.assert_close(some.counts[0], video_counts([frames[3], frames[6]], 2))
    assert not np.allclose(frames[3] + frames[6], frames[2] + frames[5])


def test_an_object_that_disappears_is_to_be_predicted_nowhere() -> None:
    maps = moving(7)
    gone = maps.clone()
    gone[3:][gone[3:] == 2] = 0
    found = label_propagation(None, video(oracle(gone, noise=0.0), gone), profile(), seed=0)
    assert min(scores(found)) > 0.93
    stays = label_propagation(None, video(oracle(maps), gone), profile(), seed=0)
    assert stays.counts[0, 0] < found.counts[0, 0] - 0.5


def test_objects_may_have_any_numbers() -> None:
    maps = moving(5)
    numbers = torch.tensor([0, 200, 7])[maps]
    found = label_propagation(None, video(oracle(maps), numbers), profile(), seed=0)
    plain = label_propagation(None, video(oracle(maps), maps), profile(), seed=0)
    torch.testing.assert_close(found.counts, plain.counts)
    assert found.pictures[4].unique().tolist() == [0, 7, 200]


def test_objects_that_come_later_are_not_followed() -> None:
    maps = moving(5)
    later = maps.clone()
    later[0][later[0] == 2] = 0
    outcome = label_propagation(None, video(oracle(maps), later), profile(), seed=0)
    assert outcome.counts[0, 2] == 1


def test_a_video_of_one_frame_counts_for_nothing() -> None:
    maps = torch.cat([moving(1), moving(5)])
    outcome = label_propagation(None, video(oracle(maps), maps, (0, 1)), profile(), seed=0)
    alone = label_propagation(None, video(oracle(maps)[1:], maps[1:]), profile(), seed=0)
    assert outcome.counts[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(outcome.counts[1:], alone.counts)


@pytest.mark.parametrize("frames", [1, 2])
def test_videos_without_a_frame_to_score_are_refused(frames: int) -> None:
    maps = moving(frames)
    with pytest.raises(
        ValueError, match="expected a video of at least 3 frames with a mask behind the first"
    ):
        label_propagation(None, video(oracle(maps), maps), profile(), seed=0)


def test_a_first_frame_without_an_object_is_refused() -> None:
    maps = moving(4)
    maps[0] = 0
    with pytest.raises(ValueError, match="expected an object in the first frame of each video"):
        label_propagation(None, video(oracle(maps), maps), profile(), seed=0)


def test_tokens_beside_the_image_neither_vote_nor_are_predicted() -> None:
    maps = moving(6)
    small = label_propagation(None, video(oracle(maps), maps), profile(), seed=0)
    whole = torch.full((6, 14, 15), 1)
    whole[:, :10, :12] = maps
    query = video(oracle(whole, noise=0.0), whole)
    tokens, labels = query.tokens.clone(), query.labels.clone()
    tokens[:, :10, :12] = oracle(maps)
    labels[:, 10 * PATCH :] = labels[:, :, 12 * PATCH :] = VOID
    valid = torch.zeros(6, 14, 15, dtype=torch.bool)
    valid[:, :10, :12] = True
    framed = replace(query, tokens=tokens, labels=labels, valid=valid)
    found = label_propagation(None, framed, profile(), seed=0)
    torch.testing.assert_close(found.counts, small.counts)
    picture = found.pictures[5]
    assert picture.shape == (14 * PATCH, 15 * PATCH)
    assert (picture[10 * PATCH :] == VOID).all()
    valid[3, 9] = False
    with pytest.raises(
        ValueError, match="frames of one size in a video, got different ones in images 0 to 5"
    ):
        label_propagation(None, framed, profile(), seed=0)


def test_void_in_the_first_frame_votes_for_nothing() -> None:
    maps = moving(5)
    void = maps.clone()
    void[0, 8:] = VOID
    query = video(oracle(maps), torch.where(void == VOID, 0, void))
    labels = query.labels.clone()
    labels[0, 8 * PATCH :] = VOID
    found = label_propagation(None, replace(query, labels=labels), profile(), seed=0)
    assert min(scores(found)) > 0.93
    assert found.counts[0, 2] == 2
    blind = LabelPropagation(radius=0, last_frames=0)
    nobody = Labelled(query.tokens[0], torch.zeros(10, 12, 3))
    assert torch.equal(propagate(query.tokens[1], [nobody], blind), torch.zeros(10, 12, 3))
    row = F.normalize(torch.tensor([[[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]]), dim=2)
    known = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # of the first, nothing
    nearest = propagate(row, [Labelled(row, known)], LabelPropagation(top_k=1))
    assert nearest.tolist() == [[[0, 1], [0, 1], [1, 0]]]


def test_masks_are_scored_at_their_own_size() -> None:
    maps = moving(5)
    query = video(oracle(maps), maps)
    large = maps.repeat_interleave(9, dim=1).repeat_interleave(7, dim=2).to(torch.uint8).numpy()
    read: list[int] = []

    def own_mask(index: int) -> NDArray[np.uint8]:
        read.append(index)
        return large[index]

    outcome = label_propagation(None, replace(query, own_mask=own_mask), profile(), seed=0)
    assert min(scores(outcome)) > 0.9
    assert {0, 1, 2, 3} == set(read), "nothing is asked of the last frame"
    assert outcome.stated["note"] == "1 + 7 frames, square of 12, own size"
    coarse = label_propagation(None, query, profile(), seed=0)
    assert coarse.stated["note"] == "1 + 7 frames, square of 12, 40x48 px"
    assert not torch.equal(coarse.counts, outcome.counts)


def test_an_outcome_is_kept(tmp_path: Path) -> None:
    maps = moving(5)
    made = label_propagation(None, video(oracle(maps), maps), profile(), seed=0)
    store = OutcomeStore(tmp_path)
    store.put({"a": 1}, made)
    kept = store.get({"a": 1}, PROFILE)
    assert kept is not None
    assert [metric.name for metric in kept.metrics] == ["J&F", "J", "F"]
    assert scores(kept) == scores(made)
    assert kept.stated == made.stated


def test_a_benchmark_reads_masks_at_their_own_size_and_cuts_videos_short(tmp_path: Path) -> None:
    davis.write(tmp_path, images=30)
    source = DAVIS("val", root=tmp_path)
    entries = {"it": Entry(label_propagation, "objects", trains=False)}
    short = replace(profile(radius=3), grid=[4, 6], bootstrap=20)
    benchmark = Benchmark(None, source, short, entries, seed=0, query_images=10)
    features = benchmark.features(tiny_encoder())
    assert features.videos == (range(6), range(6, 10))
    assert features.own_mask is not None
    np.testing.assert_array_equal(features.own_mask(7), source.mask(7))
    assert features.labels.shape == (10, 32, 48)
    results = benchmark.run(tiny_encoder())
    assert results["it"].counts.shape == (2, 1, 3)
    rows = benchmark.compare(results, None, method="")
    assert [(row.metric, row.unit, row.better, row.k) for row in rows] == [
        (name, "%", "higher", 5) for name in ("J&F", "J", "F")
    ]
    assert rows[0].note == "1 + 7 frames, square of 3, own size"
    for row in rows:
        assert row.ci_low <= row.before <= row.ci_high


def test_half_precision_tokens_are_followed_as_well() -> None:
    maps = moving(5)
    query = video(oracle(maps).half(), maps)
    assert min(scores(label_propagation(None, query, profile(), seed=0))) > 0.93


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"last_frames": -1}, "last_frames and radius of at least 0"),
        ({"radius": -1}, "last_frames and radius of at least 0"),
        ({"top_k": 0}, "top_k of at least 1"),
        ({"temperature": 0.0}, "expected a temperature above 0, got 0.0"),
        ({"temperature": float("nan")}, "expected a temperature above 0, got nan"),
        ({"neighbourhood": "hexagon"}, "expected a neighbourhood of square or circle, got 'hexagon'"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelPropagation(**setting)  # type: ignore[arg-type]
