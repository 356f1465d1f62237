"""In-context segmentation against plain float64 loops, and its invariances."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.protocols.synthetic import CLASSES, PROFILE, features, predicted
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols.in_context import Memory, build_memory, in_context, label_shares, share_of_images, vote


def mixed(images: int) -> DenseFeatures:
    """Noise whose patches of 4 x 4 pixels mix four classes and void; some show void alone."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 4, (images, 24, 24), generator=generator).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.9] = 255
    return DenseFeatures(torch.randn(images, 6, 6, 12, generator=generator), labels, CLASSES)


def memory_of(train: DenseFeatures, size: int, seed: int) -> Memory:
    profile = dataclasses.replace(PROFILE, memory=size, k=1)
    return build_memory(train, torch.arange(len(train)), profile, seed=seed)


def test_in_context_equals_a_plain_float64_reference() -> None:
    train, query = features("noise", images=5), features("noise", images=3, seed=1)
    keys = train.tokens.double().reshape(-1, 12).numpy()
    values = label_shares(train, torch.arange(len(train))).double().reshape(-1, CLASSES).numpy()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    votes = []
    for token in query.tokens.double().reshape(-1, 12).numpy():
        cosine = keys @ (token / np.linalg.norm(token))
        nearest = np.argsort(-cosine)[:10]
        weights = np.exp(cosine[nearest] / 0.02)
        votes.append(weights @ values[nearest] / weights.sum())
    reference = torch.tensor(np.array(votes)).view(3, 6, 6, CLASSES).permute(0, 3, 1, 2)
    expected = F.interpolate(reference, size=(24, 24), mode="bilinear").argmax(dim=1)
    found = predicted(in_context(train, query, PROFILE, seed=0))
    assert (found == expected).float().mean() > 0.999


def test_void_may_be_a_class_of_the_memory_that_is_never_right() -> None:
    train, query = features("oracle"), features("oracle", seed=1)
    unlabelled = dataclasses.replace(train, labels=train.labels.masked_fill(train.labels == 2, 255))
    counts = {
        void: in_context(
            unlabelled, query, dataclasses.replace(PROFILE, memory_void=void), seed=0
        ).counts.sum(dim=0)
        for void in ("skip", "class", "first")
    }
    assert [len(counts[void]) for void in ("skip", "class", "first")] == [CLASSES, CLASSES + 1, CLASSES]
    share = {void: table[2] / table[2].sum() for void, table in counts.items()}
    assert share["class"][CLASSES] > 0.95, "what was unlabelled is predicted to be so"
    assert share["first"][0] > 0.95
    assert share["skip"][2] == 0, "without a place in the memory it is taken for another class"
    assert counts["class"][CLASSES].sum() == 0, "no pixel is scored as void"


def test_label_shares_are_those_of_the_labelled_pixels() -> None:
    train = mixed(3)
    shares = label_shares(train, torch.arange(len(train))).view(3, 6, 6, CLASSES)
    for image, row, column in np.ndindex(3, 6, 6):
        block = train.labels[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].numpy()
        known = block[block != 255]
        expected = [(known == c).sum() / max(len(known), 1) for c in range(CLASSES)]
        np.testing.assert_allclose(shares[image, row, column], expected, rtol=1e-6)


def test_the_memory_keeps_the_patches_that_the_rule_ranks_lowest() -> None:
    train = mixed(40)
    memory = memory_of(train, 40 * 9, 3)
    shares, tokens = (
        label_shares(train, torch.arange(len(train))).numpy(),
        train.tokens.view(40, 36, 12).double().numpy(),
    )
    draws = torch.rand(40, 36, generator=torch.Generator().manual_seed(3)).numpy()
    keys = []
    for image in range(40):
        frequency = [(shares[image, :, c] > 0).sum() for c in range(CLASSES)]
        rank = {}
        for patch in range(36):
            shown = [c for c in range(CLASSES) if shares[image, patch, c] > 0]
            if shown:
                rank[patch] = sum(frequency[c] for c in shown) * draws[image, patch]
        keys += [tokens[image, patch] for patch in sorted(sorted(rank, key=rank.__getitem__)[:9])]
    expected = np.stack(keys)
    np.testing.assert_allclose(
        memory.keys, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
    )
    np.testing.assert_allclose(memory.values.sum(dim=1), np.ones(len(expected)), rtol=1e-6)


def test_the_memory_prefers_rare_classes_and_skips_void() -> None:
    labels = torch.zeros(1, 24, 24, dtype=torch.uint8)
    labels[:, :4, :4] = 1
    labels[:, -4:] = 255
    train = DenseFeatures(torch.randn(1, 6, 6, 12), labels, 2)
    kept = [memory_of(train, 5, seed).values[:, 1].sum() for seed in range(40)]
    assert sum(float(share) for share in kept) > 30, "the one rare patch is nearly always kept"
    assert len(memory_of(train, 36, 0).keys) == 30
    torch.testing.assert_close(label_shares(train, torch.arange(len(train)))[0, -1], torch.zeros(2))


def test_votes_do_not_depend_on_how_many_are_cast_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(300, 16, generator=generator), dim=1)
    memory = Memory(keys, torch.rand(300, 3, generator=generator))
    tokens = F.normalize(torch.randn(70, 16, generator=generator), dim=1)
    whole = vote(tokens, memory, k=9, temperature=0.1)
    torch.testing.assert_close(vote(tokens, memory, k=9, temperature=0.1, rows=13), whole)


def test_nothing_depends_on_how_many_images_are_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    train, query = mixed(20), features("noise", images=7, seed=1)
    memory = dataclasses.replace(PROFILE, memory=200)
    whole = in_context(train, query, memory, seed=0)
    monkeypatch.setattr("paka.protocols.in_context.IMAGES", 3)
    part = in_context(train, query, memory, seed=0)
    assert torch.equal(part.counts, whole.counts)
    assert torch.equal(predicted(part), predicted(whole))


@pytest.mark.parametrize("scale", [1e-4, 1000.0])
def test_in_context_ignores_the_scale_of_tokens(scale: float) -> None:
    train, query = features("noise"), features("noise", images=4, seed=1)
    scaled = [dataclasses.replace(side, tokens=scale * side.tokens) for side in (train, query)]
    plain, found = in_context(train, query, PROFILE, seed=0), in_context(*scaled, PROFILE, seed=0)
    assert torch.equal(predicted(plain), predicted(found))


@pytest.mark.parametrize(("fraction", "count"), [(1 / 8, 8), (1 / 64, 1), (1 / 128, 1)])
def test_a_share_of_the_images_enters_with_both_of_its_passes(fraction: float, count: int) -> None:
    chosen = [share_of_images(128, fraction, passes=2, seed=seed) for seed in range(4)]
    for images in chosen:
        first, second = images[:count], images[count:]
        assert len({*first.tolist()} & {*range(64)}) == count
        assert torch.equal(second, first + 64)
    assert torch.equal(chosen[0], share_of_images(128, fraction, passes=2, seed=0))
    assert not all(torch.equal(images, chosen[0]) for images in chosen)


def test_the_memory_holds_patches_of_a_share_of_the_images() -> None:
    train, query = features("noise", images=64), features("noise", images=2, seed=1)
    assert in_context(train, query, PROFILE, seed=0, fraction=1 / 8).stated["memory"] == 8 * 36


def test_a_memory_too_small_is_refused() -> None:
    train, query = features("noise", images=2), features("noise", images=2, seed=1)
    assert in_context(train, query, dataclasses.replace(PROFILE, k=72), seed=0).counts.sum() == 2 * 24 * 24
    with pytest.raises(ValueError, match="expected a memory of at least k=73 patches, got 72"):
        in_context(train, query, dataclasses.replace(PROFILE, k=73), seed=0)
    with pytest.raises(ValueError, match=r"each of the 2 training images, got profile\.memory=1: raise it"):
        memory_of(train, 1, 0)
