"""Communities of clusters: co-occurrence against loops over tokens, planted communities, and the optional package."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from paka.communities import co_occurrence, infomap, links, louvain


def random_maps(*shape: int, clusters: int, seed: int = 0, outside: float = 0.1) -> Tensor:
    """Blobs of 2 x 2 tokens, some of which belong to nothing."""
    generator = torch.Generator().manual_seed(seed)
    n, h, w = shape
    coarse = torch.randint(0, clusters, (n, -(-h // 2), -(-w // 2)), generator=generator)
    coarse[torch.rand(coarse.shape, generator=generator) < outside] = -1
    return coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :h, :w]


def reference(maps: Tensor, clusters: int, distances: tuple[int, ...]) -> np.ndarray:
    """Token by token, direction by direction, in float64."""
    shares, images = np.zeros((clusters, clusters)), np.zeros(clusters)
    for image in maps.numpy():
        counts = np.zeros((clusters, clusters))
        h, w = image.shape
        for y, x in np.ndindex(h, w):
            for distance in distances:
                for k in range(8):
                    v = y + round(distance * math.sin(k * math.pi / 4))
                    u = x + round(distance * math.cos(k * math.pi / 4))
                    if 0 <= v < h and 0 <= u < w and min(image[y, x], image[v, u]) >= 0:
                        counts[image[y, x], image[v, u]] += image[y, x] != image[v, u]
        for i in np.flatnonzero(counts.sum(axis=1)):
            shares[i] += counts[i] / counts[i].sum()
            images[i] += 1
    return shares / np.maximum(images, 1)[:, None]


@pytest.mark.parametrize("distances", [(1,), (2,), (1, 2), (1, 3)])
@pytest.mark.parametrize("shape", [(5, 6, 9), (3, 1, 7), (2, 2, 2)])
def test_co_occurrence_is_what_loops_count(shape: tuple[int, int, int], distances: tuple[int, ...]) -> None:
    maps = random_maps(*shape, clusters=7)
    found = co_occurrence(maps, 7, distances)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), reference(maps, 7, distances), rtol=0, atol=1e-15)


def test_there_may_be_more_clusters_than_a_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paka.communities.CELLS", 2 * 400**2)  # two images at a time, of five
    maps = random_maps(5, 20, 20, clusters=400)
    np.testing.assert_allclose(
        co_occurrence(maps, 400).numpy(), reference(maps, 400, (1, 2)), rtol=0, atol=1e-15
    )


def test_rows_are_probabilities_and_clusters_that_are_nowhere_have_none() -> None:
    rows = co_occurrence(random_maps(4, 8, 8, clusters=5), 6)
    torch.testing.assert_close(rows.sum(dim=1), torch.tensor([1.0] * 5 + [0.0], dtype=torch.float64))
    assert (rows.diagonal() == 0).all()


def test_every_image_counts_as_much_as_any_other() -> None:
    wide = torch.zeros(8, 8, dtype=torch.int64)
    wide[:, 4:] = 1  # a border of 8 tokens
    small = torch.zeros(8, 8, dtype=torch.int64)
    small[0, 0] = 2  # a corner
    assert co_occurrence(torch.stack([wide, small]), 3)[0].tolist() == [0.0, 0.5, 0.5]


def test_turned_and_mirrored_images_have_the_same_neighbours() -> None:
    """A direction that is missing, or that is there twice, would show."""
    maps = random_maps(6, 9, 9, clusters=6)
    for same in (maps.rot90(1, (1, 2)), maps.flip(1), maps.flip(2), maps.transpose(1, 2)):
        torch.testing.assert_close(co_occurrence(same, 6), co_occurrence(maps, 6))


def test_numbers_beyond_the_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="numbers of clusters below 3, got 3"):
        co_occurrence(torch.tensor([[[0, 3]]]), 3)


def test_clusters_are_linked_if_each_is_likely_beside_the_other() -> None:
    probabilities = torch.tensor([[0.0, 0.9, 0.1], [0.2, 0.0, 0.8], [0.5, 0.5, 0.0]], dtype=torch.float64)
    assert links(probabilities, 0.2).tolist() == [[0.0, 0.2, 0.0], [0.2, 0.0, 0.5], [0.0, 0.5, 0.0]]


def cliques(count: int, size: int, *, between: float, alone: int = 0) -> Tensor:
    """A ring of groups whose members are all linked, and clusters without links."""
    whole = count * size + alone
    weights = torch.zeros(whole, whole, dtype=torch.float64)
    for group in range(count):
        members = slice(group * size, (group + 1) * size)
        weights[members, members] = 1.0
        one, other = group * size, (group + 1) % count * size
        weights[one, other] = weights[other, one] = between
    return weights.fill_diagonal_(0.0)


@pytest.mark.parametrize("seed", range(3))
def test_louvain_finds_planted_communities(seed: int) -> None:
    order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
    weights = cliques(6, 5, between=0.1, alone=2)[order][:, order]
    found = louvain(weights, seed=seed, modules=6)
    planted = torch.cat([torch.arange(6).repeat_interleave(5), torch.tensor([6, 7])])[order]
    pairs = {(int(a), int(b)) for a, b in zip(planted, found, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 8
    assert torch.equal(found, louvain(weights, seed=seed, modules=6))


@pytest.mark.parametrize("modules", [2, 4, 5, 12])
def test_louvain_finds_as_many_communities_as_are_preferred(modules: int) -> None:
    """Twelve groups in a ring merge to fewer; clusters without links are not among those that are counted."""
    found = louvain(cliques(12, 4, between=0.5, alone=9), seed=0, modules=modules)
    assert int(found.max()) + 1 - 9 == modules
    assert (found[:48].view(12, 4) == found[:48].view(12, 4)[:, :1]).all()
    assert len(found[48:].unique()) == 9


def test_without_links_every_cluster_is_alone() -> None:
    weights = torch.zeros(4, 4, dtype=torch.float64)
    assert louvain(weights, seed=0, modules=2).tolist() == [0, 1, 2, 3]


def test_infomap_is_asked_for_two_levels_from_a_seed_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(edges: list[tuple[int, int, float]], options: dict[str, object]) -> SimpleNamespace:
        calls.append((edges, options))
        return SimpleNamespace(modules=lambda: [(2, 1), (3, 1), (0, 2)])

    package = ModuleType("infomap")
    package.run = run
    monkeypatch.setitem(sys.modules, "infomap", package)
    weights = torch.zeros(5, 5, dtype=torch.float64)
    weights[2, 3] = weights[3, 2] = 0.5
    weights[0, 2] = weights[2, 0] = 0.25
    found = infomap(weights, seed=0, modules=7, markov_time=1.2)
    assert found.tolist() == [0, 1, 2, 2, 3], "numbered by first members, with clusters 1 and 4 alone"
    ((edges, options),) = calls
    assert edges == [(0, 2, 0.25), (2, 3, 0.5)]
    assert options == {"two_level": True, "markov_time": 1.2, "preferred_number_of_modules": 7, "seed": 1}
    assert infomap(0 * weights, seed=0, modules=7, markov_time=1.2).tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 1, "which refuses a network without links"
