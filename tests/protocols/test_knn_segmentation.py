"""k-NN segmentation against brute force in float64, from standardisation to the choice of k and distance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from tests.protocols.synthetic import CLASSES, PROFILE, features

from paka.features import DenseFeatures
from paka.protocols import Outcome, Profile
from paka.protocols.classification import held_out
from paka.protocols.knn_segmentation import KnnSegmentation, knn_segmentation
from paka.protocols.patches import enlarged, label_maps, label_maps_at, majority, patch_classes
from paka.sources import VOID

CHOICES = KnnSegmentation(neighbours=(1, 4, 9))


def profile(settings: KnnSegmentation = CHOICES, **changes: object) -> Profile:
    return dataclasses.replace(PROFILE, settings={"knn_segmentation": settings}, **changes)


def blurred(images: int, *, seed: int = 0, void: float = 0.3) -> DenseFeatures:
    """Tokens that tell the classes apart in part, in units of their own, and labels by pixel with blocks of void."""
    plain = features("oracle", images=images, seed=seed)
    generator = torch.Generator().manual_seed(seed + 70)
    noise = torch.randn(plain.tokens.shape, generator=generator)
    pixels = torch.randint(0, CLASSES, plain.labels.shape, generator=generator, dtype=torch.uint8)
    labels = torch.where(torch.rand(pixels.shape, generator=generator) < 0.3, pixels, plain.labels)
    holes = torch.rand(images, 12, 12, generator=generator) < void
    labels[holes.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)] = VOID
    tokens = (plain.tokens + 0.5 * noise) * torch.logspace(-1, 1, 12) + 2
    return dataclasses.replace(plain, tokens=tokens, labels=labels)


def mode(labels: np.ndarray, *, void: bool) -> np.ndarray:
    """The most frequent of the last axis: void first, where it counts, then the smaller id."""
    order = [VOID, *range(CLASSES)] if void else [*range(CLASSES), VOID]
    counts = np.stack([(labels == name).sum(axis=-1) for name in order], axis=-1)
    if not void:
        counts[..., -1] = np.where(counts[..., :-1].any(axis=-1), 0, 1)
    return np.array(order, dtype=np.uint8)[counts.argmax(axis=-1)]


def patches(labels: np.ndarray) -> np.ndarray:
    """Labels (n, 24, 24) as (n, 36, 16)."""
    return labels.reshape(-1, 6, 4, 6, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 36, 16)


def macro_jaccard(truth: np.ndarray, found: np.ndarray) -> float:
    """As published: ids that are ignored are left out of the truth, but not of what is predicted."""
    kept = truth != VOID
    return float(jaccard_score(truth[kept], found[kept], average="macro"))


class BruteForce:
    """The protocol in numpy, with all distances in float64."""

    def __init__(self, train: DenseFeatures, *, void: bool) -> None:
        self.fit, self.held = (side.numpy() for side in held_out(len(train), 0))
        self.tokens = train.tokens.double().numpy().reshape(len(train), 36, -1)
        known = self.tokens[self.fit].reshape(-1, self.tokens.shape[2])
        self.mean, self.deviation = known.mean(axis=0), known.std(axis=0)
        self.maps, self.void = patches(train.labels.numpy()), void
        self.names = mode(self.maps, void=void)

    def segment(
        self, tokens: np.ndarray, images: np.ndarray, k: int, distance: str, side: int = 4
    ) -> np.ndarray:
        keys, queries = (
            (part.reshape(-1, part.shape[-1]) - self.mean) / self.deviation
            for part in (self.tokens[images], tokens)
        )
        kept = self.names[images].flatten() != VOID
        keys, maps = keys[kept], self.maps[images].reshape(-1, 16)[kept]
        if not self.void:
            maps = np.where(maps == VOID, self.names[images].flatten()[kept][:, None], maps)
        if distance == "cosine":
            keys, queries = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (keys, queries))
        far = np.linalg.norm(queries[:, None] - keys[None], axis=2)
        votes = maps[np.argsort(far, axis=1)[:, :k]].transpose(0, 2, 1)
        found = mode(votes, void=self.void).reshape(-1, 6, 6, side, side)
        return found.transpose(0, 1, 3, 2, 4).reshape(-1, 24, 24)

    def choose(self, train: DenseFeatures, neighbours: Sequence[int]) -> tuple[int, str]:
        truth = train.labels.numpy()[self.held]
        grid = [(k, distance) for k in neighbours for distance in ("cosine", "L2")]
        scores = [macro_jaccard(truth, self.segment(self.tokens[self.held], self.fit, *one)) for one in grid]
        return grid[int(np.argmax(scores))]


@pytest.mark.parametrize("void", [False, True])
def test_it_equals_brute_force_in_float64(void: bool) -> None:
    train, query = blurred(20), blurred(6, seed=1)
    found = knn_segmentation(train, query, profile(patch_void="vote" if void else "skip"), seed=0)
    brute = BruteForce(train, void=void)
    k, distance = brute.choose(train, CHOICES.neighbours)
    assert (found.stated["k"], found.stated["note"]) == (k, f"{distance}, by pixel")
    assert found.stated["memory"] == int((brute.names != VOID).sum())
    expected = brute.segment(query.tokens.double().numpy().reshape(6, 36, -1), np.arange(20), k, distance)
    assert np.array_equal(np.stack([found.pictures[n].numpy() for n in range(6)]), expected)
    assert found.score == pytest.approx(macro_jaccard(query.labels.numpy(), expected))
    assert bool((expected == VOID).any()) == void


@pytest.mark.parametrize("distance", ["cosine", "L2"])
@pytest.mark.parametrize("k", [1, 7])
def test_each_distance_and_k_can_be_had_alone(distance: str, k: int) -> None:
    train, query = blurred(20), blurred(6, seed=1)
    found = knn_segmentation(train, query, profile(KnnSegmentation((k,), (distance,))), seed=0)
    brute = BruteForce(train, void=False)
    expected = brute.segment(query.tokens.double().numpy().reshape(6, 36, -1), np.arange(20), k, distance)
    assert np.array_equal(np.stack([found.pictures[n].numpy() for n in range(6)]), expected)


def test_a_predicted_void_is_one_more_class_of_the_mean() -> None:
    train, query = blurred(20, void=0.6), blurred(6, seed=1, void=0.1)
    found = knn_segmentation(train, query, profile(patch_void="vote"), seed=0)
    assert found.counts.shape == (6, CLASSES + 1, CLASSES + 1)
    assert found.counts[:, :, CLASSES].sum() > 0
    assert not found.counts[:, CLASSES].any(), "no pixel is void in truth"
    skipped = knn_segmentation(train, query, profile(), seed=0)
    assert skipped.counts.shape == (6, CLASSES, CLASSES)
    assert found.score < skipped.score


def test_settings_are_chosen_without_the_query() -> None:
    train, query = blurred(20), blurred(6, seed=1)
    swapped = dataclasses.replace(query, labels=(query.labels + 1).clamp_max(CLASSES - 1))

    def run(side: DenseFeatures) -> Outcome:
        return knn_segmentation(train, side, profile(), seed=0)

    first, second = run(query), run(swapped)
    assert first.stated == second.stated
    assert all(torch.equal(first.pictures[n], second.pictures[n]) for n in first.pictures)


def test_labels_of_another_size_are_met_by_nearest_neighbour() -> None:
    train, query = blurred(20), blurred(6, seed=1)
    coarse = dataclasses.replace(query, labels=query.labels[:, ::2, ::2])
    found, whole = (knn_segmentation(train, side, profile(), seed=0) for side in (coarse, query))
    assert found.pictures[0].shape == (12, 12)
    assert (found.pictures[0] == whole.pictures[0][1::2, 1::2]).all()


def test_patches_beyond_an_image_neither_vote_nor_count() -> None:
    train, query = blurred(20, void=0.0), blurred(6, seed=1, void=0.0)
    own = torch.ones(20, 6, 6, dtype=torch.bool)
    own[:, :, 4:] = False
    labels = train.labels.masked_fill(~own.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2), VOID)
    sides = [
        dataclasses.replace(
            train, tokens=torch.where(own[..., None], train.tokens, value), labels=labels, valid=own
        )
        for value in (0.0, 1e3)
    ]
    found = [knn_segmentation(side, query, profile(patch_void="vote"), seed=0) for side in sides]
    assert torch.equal(found[0].counts, found[1].counts)
    assert found[0].stated["memory"] == 20 * 24


def test_the_majority_is_the_smallest_of_equals() -> None:
    labels = torch.randint(0, 4, (500, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(majority(labels, void=False), labels.mode(dim=1).values)
    assert torch.equal(majority(labels.T.contiguous(), dim=0, void=False), labels.mode(dim=1).values)
    some = torch.tensor([[3, VOID, VOID, 2], [VOID] * 4, [1, VOID, VOID, 1]], dtype=torch.uint8)
    assert majority(some, void=False).tolist() == [2, VOID, 1]
    assert majority(some, void=True).tolist() == [VOID, VOID, VOID]


def test_maps_of_patches_are_the_labels_cut_up() -> None:
    side = blurred(5)
    whole = label_maps(side, torch.tensor([3, 1]))
    assert np.array_equal(whole.numpy(), patches(side.labels.numpy()[[3, 1]]))
    places = torch.tensor([[3 * 36 + 7, 36 + 35]])
    assert torch.equal(label_maps_at(side, places)[0], torch.stack([whole[0, 7], whole[1, 35]]))
    assert torch.equal(enlarged(whole, side), side.labels[[3, 1]])
    for void in (False, True):
        expected = mode(patches(side.labels.numpy()), void=void)
        assert np.array_equal(patch_classes(side, void=void).numpy(), expected)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got"):
        KnnSegmentation(neighbours=(0, 3))
    with pytest.raises(ValueError, match="out of cosine, L2, got"):
        KnnSegmentation(distances=("L1",))
    with pytest.raises(ValueError, match="lower k"):
        knn_segmentation(blurred(2), blurred(2), profile(KnnSegmentation((40,))), seed=0)
    blank = blurred(4, void=1.1)
    with pytest.raises(ValueError, match="patches with a class to learn from, got none"):
        knn_segmentation(blank, blank, profile(), seed=0)
