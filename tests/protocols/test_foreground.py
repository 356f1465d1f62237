"""Foreground: attention's masks, precision and thresholds against float64 references; what it comes to on planted objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, prod
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.protocols import objects
from tests.protocols.synthetic import PROFILE
from torch import Tensor

from paka.outcome_store import OutcomeStore
from paka.protocols.foreground import (
    JACCARD,
    Foreground,
    attention_masks,
    cluster_precision,
    foreground_extraction,
    jaccard_counts,
    labelled_threshold,
    otsu,
)
from paka.sources import VOID

SMALL = Foreground(clusters=objects.CLASSES * objects.PARTS)
SMOOTH = replace(PROFILE, pca=50, kmeans_restarts=4, settings={"foreground": SMALL})


def with_settings(**changes: object) -> object:
    return replace(SMOOTH, settings={"foreground": replace(SMALL, **changes)})


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def score(outcome) -> float:
    return JACCARD.once(outcome.counts)


def blurred(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """The image under a Gaussian of that reach, mirrored about its outermost tokens, in float64."""
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(image.astype(np.float64), radius, mode="reflect")
    rows, columns = image.shape
    return np.array(
        [
            [
                (np.outer(kernel, kernel) * padded[y : y + len(kernel), x : x + len(kernel)]).sum()
                for x in range(columns)
            ]
            for y in range(rows)
        ]
    )


def heaviest(image: np.ndarray, mass: float) -> np.ndarray:
    """The fewest tokens that together have that share of the whole, one added after the other."""
    mask, left = np.zeros(image.shape, bool), mass * image.sum()
    for place in np.argsort(-image.ravel()):
        if left <= 0:
            break
        mask.ravel()[place], left = True, left - image.ravel()[place]
    return mask


def without_small_parts(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Parts by flooding from each token, corners included."""
    kept = np.zeros_like(mask)
    for start in map(tuple, np.argwhere(mask)):
        part, fresh = {start}, [start]
        while fresh:
            y, x = fresh.pop()
            around = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} - part
            inside = {
                (v, u) for v, u in around if 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and mask[v, u]
            }
            part, fresh = part | inside, [*fresh, *inside]
        kept[start] = len(part) >= smallest
    return kept


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.65, 0.9])
def test_masks_are_blurred_cut_at_the_mass_and_cleared_of_small_parts(mass: float) -> None:
    attention = drawn(6, 9, 11) ** 4
    settings = Foreground(attention_mass=mass)
    found = attention_masks(attention, torch.ones(6, 9, 11, dtype=torch.bool), settings)
    for image, mask in zip(attention.numpy(), found.numpy(), strict=True):
        wanted = without_small_parts(heaviest(blurred(image, 0.6, 3), mass), 3)
        np.testing.assert_array_equal(mask, wanted)


def sharp(**changes: object) -> Foreground:
    return Foreground(**{"blur_sigma": 0.0, "attention_mass": 0.99, **changes})


def test_parts_touch_at_corners_but_not_across_images() -> None:
    attention = torch.full((2, 5, 5), 1e-6)
    attention[0, [0, 1, 2], [0, 1, 2]] = 1.0  # three along a diagonal
    attention[0, [4, 4], [0, 1]] = 1.0  # a pair
    attention[1, [4, 4], [0, 1]] = 1.0  # a pair at the same place, in the next image
    own = torch.ones(2, 5, 5, dtype=torch.bool)
    masks = attention_masks(attention, own, sharp())
    assert masks[0].nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert not masks[1].any()
    assert attention_masks(attention, own, sharp(smallest=2))[1].sum() == 2


def test_what_is_beyond_an_image_takes_no_part() -> None:
    attention = torch.ones(1, 4, 4)
    attention[0, :, 2:] = 100.0
    own = torch.ones(1, 4, 4, dtype=torch.bool)
    own[0, :, 2:] = False
    assert torch.equal(attention_masks(attention, own, sharp()), own)


def test_masks_do_not_depend_on_the_scale_of_attention() -> None:
    attention, own = drawn(3, 8, 8), torch.ones(3, 8, 8, dtype=torch.bool)
    first, second = (attention_masks(scale * attention, own, SMALL) for scale in (1.0, 1024.0))
    assert torch.equal(first, second)


def test_attention_to_nothing_has_an_empty_mask() -> None:
    assert not attention_masks(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), SMALL).any()


def test_precision_is_a_mean_over_the_images_that_show_a_cluster() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-1, 6, (5, 4, 4), generator=generator)
    maps[2:][maps[2:] == 3] = 0
    masks = torch.rand(5, 4, 4, generator=generator) < 0.4
    found = cluster_precision(maps, masks, 7)
    for cluster in range(6):
        shares = [
            m[one == cluster].double().mean()
            for one, m in zip(maps, masks, strict=True)
            if (one == cluster).any()
        ]
        assert float(found[cluster]) == pytest.approx(float(sum(shares) / len(shares)), abs=1e-15)
    assert found[6] == 0, "which is in no image"


def between(values: np.ndarray, weights: np.ndarray, threshold: float) -> float:
    """Variance between the groups below and from a threshold on."""
    upper = values >= threshold
    mean = np.average(values, weights=weights)
    groups = (part for part in (upper, ~upper) if weights[part].sum() > 0)
    return sum(
        weights[part].sum() / weights.sum() * (np.average(values[part], weights=weights[part]) - mean) ** 2
        for part in groups
    )


@pytest.mark.parametrize("seed", range(6))
def test_otsu_has_the_largest_variance_between_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.random(30).round(1 + seed % 2), rng.integers(0, 50, 30)
    found = otsu(torch.from_numpy(values), torch.from_numpy(weights))
    assert found in values[weights > 0]
    best = max(between(values, weights, value) for value in np.unique(values[weights > 0]))
    assert between(values, weights, found) == pytest.approx(best, rel=1e-12)


def test_otsu_parts_two_heaps_and_finds_none_in_one() -> None:
    heaps = torch.tensor([0.1, 0.8, 0.15, 0.9, 0.12], dtype=torch.float64)
    assert otsu(heaps, torch.ones(5)) == 0.8
    assert otsu(heaps, torch.tensor([1, 0, 1, 1, 1])) == 0.9, "what weighs nothing is not there"
    assert otsu(torch.full((4,), 0.3, dtype=torch.float64), torch.ones(4)) == inf
    assert otsu(torch.zeros(2, dtype=torch.float64), torch.zeros(2)) == inf


def cuts_by_labels(
    maps: Tensor, precision: Tensor, labels: Tensor, range_: range
) -> Iterator[tuple[float, float]]:
    """The mean Jaccard index and the precision of each cut, pixel by pixel."""
    scale = labels.shape[1] // maps.shape[1]
    order = precision.argsort().tolist()
    for start in range_:
        chosen = torch.tensor(order[start:])
        found = torch.isin(maps, chosen).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        indices = []
        for guess, truth in zip(found, labels, strict=True):
            known, true = truth != VOID, (truth != VOID) & (truth != 0)
            union = float(((guess & known) | true).sum())
            indices.append(float((guess & true).sum()) / union if union else 0.0)
        yield sum(indices) / len(indices), float(precision[order[start]])


@pytest.mark.parametrize("seed", range(4))
def test_the_labelled_threshold_is_that_of_the_best_cut(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(-1, 20, (20, 4, 4), generator=generator)
    precision = torch.rand(20, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (20, 8, 8), generator=generator).to(torch.uint8)
    shown = maps.repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[(shown % 3 == 0) & (torch.rand(labels.shape, generator=generator) < 0.9)] = VOID
    _, best = max(cuts_by_labels(maps, precision, labels, range(11, 15)))
    found = labelled_threshold(maps, precision, labels, (0.55, 0.75))
    assert found == pytest.approx(min(np.arange(0, 1, 0.05), key=lambda value: abs(value - best)))


def test_the_index_of_an_image_is_that_of_its_labelled_pixels() -> None:
    labels = torch.tensor(
        [[[0, 1, 2, VOID]], [[0, 0, 0, 0]], [[0, 0, 0, 0]], [[3, 3, 0, 0]]], dtype=torch.uint8
    )
    found = torch.tensor([[[1, 1, 0, 1]], [[0, 0, 0, 0]], [[0, 1, 0, 0]], [[1, 1, 0, 0]]]) > 0
    counts = jaccard_counts(found, labels)
    assert counts.tolist() == [[1 / 3, 1, 2], [0, 0, 0], [0, 1, 0], [1, 1, 2]]
    assert JACCARD.once(counts) == pytest.approx((1 / 3 + 0 + 1) / 3), "the second image has nothing to find"
    assert torch.equal(JACCARD.truth(counts), JACCARD.truth(jaccard_counts(~found, labels)))


def test_planted_objects_are_found_and_noise_is_not() -> None:
    assert score(foreground_extraction(None, objects.features("oracle"), SMOOTH, seed=0)) > 0.95
    noise = objects.features("noise")
    share = (noise.labels > 0).float().mean()
    assert score(foreground_extraction(None, noise, SMOOTH, seed=0)) < share + 0.05, (
        "what all or a random half have"
    )


def test_labels_of_other_images_collapse() -> None:
    planted, found = objects.features("oracle"), []
    for seed in range(3):
        order = torch.randperm(len(planted.labels), generator=torch.Generator().manual_seed(seed))
        shuffled = replace(planted, labels=planted.labels[order])
        found.append(score(foreground_extraction(None, shuffled, SMOOTH, seed=seed)))
    assert sum(found) / len(found) < (planted.labels > 0).float().mean() + 0.1


def test_tokens_are_clustered_by_their_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def clustered(tokens: Tensor, clusters: int, **options: object) -> Tensor:
        asked.append((tokens.norm(dim=1), options["spherical"]))
        return torch.arange(len(tokens)) % clusters

    monkeypatch.setattr("paka.protocols.foreground.kmeans", clustered)
    foreground_extraction(None, objects.features("noise", images=2), SMOOTH, seed=0)
    ((norms, spherical),) = asked
    torch.testing.assert_close(norms, torch.ones(2 * objects.GRID**2))
    assert spherical is True


def test_attention_elsewhere_finds_the_background() -> None:
    found = objects.features("oracle")
    away = replace(found, attention=found.attention.max() - found.attention)
    assert score(foreground_extraction(None, away, SMOOTH, seed=0)) < 0.05


def test_a_seed_reproduces_the_foreground() -> None:
    noise = objects.features("noise", images=12)
    first, second, other = (
        foreground_extraction(None, noise, SMOOTH, seed=seed).counts for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_threshold_may_be_chosen_by_labels_of_training_images() -> None:
    train, query = objects.features("oracle", seed=1), objects.features("oracle")
    published = with_settings(labelled_threshold=True, cuts=(0.1, 0.9))
    found = foreground_extraction(train, query, published, seed=0)
    assert score(found) > 0.9
    assert found.stated["note"] == "foreground threshold chosen by labels"
    swapped = replace(train, labels=(train.labels == 0).to(torch.uint8))
    assert score(foreground_extraction(swapped, query, published, seed=0)) < 0.5, "they do decide"
    with pytest.raises(ValueError, match="expected labelled training images for foreground"):
        foreground_extraction(None, query, published, seed=0)


def test_where_nothing_stands_out_there_is_no_foreground() -> None:
    found = objects.features("oracle", images=6)
    flat = replace(found, tokens=torch.full_like(found.tokens, 0.1))
    assert score(foreground_extraction(None, flat, SMOOTH, seed=0)) == 0.0


def test_tokens_beyond_an_image_change_nothing() -> None:
    inner = objects.features("oracle", images=12)
    counts = foreground_extraction(None, inner, SMOOTH, seed=0).counts
    valid = torch.zeros(12, 15, 15, dtype=torch.bool)
    valid[:, :12, :12] = True
    tokens = torch.full((12, 15, 15, inner.tokens.shape[3]), 7.0)
    tokens[valid] = inner.tokens.flatten(0, 2)
    attention = torch.nn.functional.pad(inner.attention[:, None], (0, 3, 0, 3), mode="reflect")[:, 0]
    labels = torch.full((12, 60, 60), VOID, dtype=torch.uint8)
    labels[:, :48, :48] = inner.labels
    padded = replace(inner, tokens=tokens, attention=attention, labels=labels, valid=valid)
    assert torch.equal(foreground_extraction(None, padded, SMOOTH, seed=0).counts, counts)


def test_what_cannot_be_extracted_is_refused() -> None:
    found = objects.features("oracle", images=2)
    with pytest.raises(ValueError, match="expected the attention of a class token, got none"):
        foreground_extraction(None, replace(found, attention=torch.zeros(2, 0, 0)), SMOOTH, seed=0)
    with pytest.raises(
        ValueError, match=f"at least {prod((2, 12, 12)) + 1} tokens .* got {prod((2, 12, 12))}: lower"
    ):
        foreground_extraction(None, found, with_settings(clusters=2 * 12 * 12 + 1), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_mass": 1.0}, "expected attention_mass in"),
        ({"blur_sigma": -0.1}, "no negative blur"),
        ({"smallest": 0}, "expected parts of 1 token and 2 clusters at least"),
        ({"clusters": 1}, "expected parts of 1 token and 2 clusters at least"),
        ({"cuts": (0.75, 0.55)}, "expected cuts from a share to a larger one"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Foreground(**changes)


def test_an_outcome_survives_being_kept(tmp_path: Path) -> None:
    found = foreground_extraction(None, objects.features("oracle", images=6), SMOOTH, seed=0)
    store = OutcomeStore(tmp_path)
    store.put({"it": 1}, found)
    again = store.get({"it": 1}, SMOOTH)
    assert again is not None
    assert (score(again), again.metrics) == (score(found), (JACCARD,))
    assert again.stated == {"k": SMALL.clusters, "note": "", "upsampling": "nearest"}
