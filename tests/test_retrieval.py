from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from paka.retrieval import Patch, contrast, nearest_patches, patch_of, rarest_patches, sorted_kernel


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(labels: list[list[int]], classes: int = 4) -> torch.Tensor:
    """Class shares of patches that show one class each; -1 is void."""
    found = torch.zeros(len(labels), len(labels[0]), classes)
    for image, row in enumerate(labels):
        for place, label in enumerate(row):
            if label >= 0:
                found[image, place, label] = 1
    return found


@pytest.mark.parametrize("images", [5, 40])
def test_neighbours_are_those_of_a_full_search(images):
    queries, tokens = draw(3, 6), draw(images, 4, 5, 6, seed=1)
    found = nearest_patches(queries, tokens, 4)
    keys = F.normalize(tokens.double().flatten(0, 2), dim=1).numpy()
    cosines = (F.normalize(queries.double(), dim=1).numpy() @ keys.T).reshape(3, images, 20)
    for query, row in enumerate(found.numpy()):
        best = cosines[query].max(axis=1)
        np.testing.assert_array_equal(row[:, 0], np.argsort(-best)[:4])
        np.testing.assert_array_equal(row[:, 1], cosines[query][row[:, 0]].argmax(axis=1))


def test_patches_that_do_not_count_are_not_found():
    tokens = draw(6, 4, 5, 6, seed=1)
    image, row, column = 2, 1, 3
    query = tokens[image, row, column][None]
    assert nearest_patches(query, tokens, 1).tolist() == [[[image, row * 5 + column]]]
    valid = torch.ones(6, 4, 5, dtype=torch.bool)
    valid[image, row, column] = False
    assert nearest_patches(query, tokens, 1, valid=valid)[0, 0].tolist() != [image, row * 5 + column]
    assert torch.equal(nearest_patches(query, tokens.half(), 1), nearest_patches(query, tokens, 1))


def test_there_must_be_enough_images():
    with pytest.raises(ValueError, match="from 1 to the number of images, 2, got 3: lower k"):
        nearest_patches(draw(1, 6), draw(2, 4, 5, 6), 3)


def test_each_image_gives_a_patch_of_its_rarest_class_that_was_not_taken():
    frequency = torch.tensor([100.0, 50.0, 10.0, 1.0])
    found = rarest_patches(
        shares([[0, 3, 3, 0], [3, 1, 0, 1], [3, 3, 3, 3], [-1, -1, -1, -1]]), frequency, seed=0
    )
    assert [(patch.image, patch.label) for patch in found] == [(0, 3), (1, 1), (2, 3)]
    assert found[0].place in (1, 2)
    assert found[1].place in (1, 3)


def test_mixed_patches_are_passed_over():
    mixed = shares([[0, 1]])
    mixed[0, 1] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    (found,) = rarest_patches(mixed, torch.tensor([9.0, 1.0, 1.0, 1.0]), seed=0)
    assert found == Patch(0, 0, 0)


def test_which_patch_of_the_class_is_drawn_by_the_seed():
    many = shares([[0] * 50])
    places = {seed: rarest_patches(many, torch.ones(4), seed=seed)[0].place for seed in range(8)}
    again = {seed: rarest_patches(many, torch.ones(4), seed=seed)[0].place for seed in range(8)}
    assert places == again
    assert len({*places.values()}) > 4


def test_a_patch_is_what_most_of_it_shows():
    assert patch_of(torch.tensor([0.2, 0.5, 0.3]), 7, 3) == Patch(7, 3, 1)
    assert patch_of(torch.zeros(3), 7, 3) == Patch(7, 3, None)


def test_kernels_are_sorted_cosines():
    tokens, labels = draw(30, 6), torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(1))
    unit = tokens.double().numpy() / np.linalg.norm(tokens.double().numpy(), axis=1, keepdims=True)
    order = np.argsort(labels.numpy(), kind="stable")
    np.testing.assert_allclose(
        sorted_kernel(tokens, labels).numpy(), (unit @ unit.T)[np.ix_(order, order)], atol=1e-6
    )


def test_contrast_is_a_mean_over_pairs():
    kernel, labels = draw(12, 12).double(), torch.tensor([0] * 5 + [1] * 7)
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    within, between = (
        np.mean([float(kernel[i, j]) for i, j in pairs if (labels[i] == labels[j]) == same])
        for same in (True, False)
    )
    assert contrast(kernel, labels) == pytest.approx((within, between))
    assert np.isnan(contrast(kernel, torch.zeros(12))[1])
