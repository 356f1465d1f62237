"""k-means on planted clusters, its fixed points, and the reduction before it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from tests.memory import extra_bytes
from torch import Tensor

from paka import clustering
from paka.clustering import kmeans, reduce


def scattered(count: int, dimensions: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def inertia(tokens: Tensor, assigned: Tensor) -> float:
    """Sum of squared distances to the cluster means, in float64."""
    parts = [tokens[assigned == c].double() for c in assigned.unique()]
    return sum(float((part - part.mean(dim=0)).square().sum()) for part in parts)


@pytest.mark.parametrize("seed", range(8))
def test_kmeans_finds_planted_clusters_from_one_start(seed: int) -> None:
    planted = torch.arange(600) % 6
    tokens = 100.0 * torch.eye(6)[planted] + 0.1 * scattered(600, 6)
    found = kmeans(tokens, 6, iterations=5, restarts=1, seed=seed)
    pairs = {(int(a), int(b)) for a, b in zip(planted, found, strict=True)}
    assert len(pairs) == 6


def test_kmeans_ends_at_a_fixed_point() -> None:
    tokens = scattered(500)
    assigned = kmeans(tokens, 9, iterations=500, restarts=1, seed=0)
    means = torch.stack([tokens[assigned == c].double().mean(dim=0) for c in range(9)])
    assert torch.equal(torch.cdist(tokens.double(), means).argmin(dim=1), assigned)


def test_spherical_kmeans_ends_where_every_token_has_the_nearest_angle() -> None:
    tokens = torch.nn.functional.normalize(scattered(500) + 1.0, dim=1)
    assigned = kmeans(tokens, 9, iterations=500, restarts=1, seed=0, spherical=True)
    means = torch.stack([tokens[assigned == c].double().mean(dim=0) for c in range(9)])
    angles = tokens.double() @ torch.nn.functional.normalize(means, dim=1).T
    assert torch.equal(angles.argmax(dim=1), assigned)
    assert not torch.equal(assigned, kmeans(tokens, 9, iterations=500, restarts=1, seed=0))


def test_inertia_falls_with_iterations_and_with_restarts() -> None:
    tokens = scattered(400)
    longer = [inertia(tokens, kmeans(tokens, 12, iterations=n, restarts=1, seed=0)) for n in range(1, 12)]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(longer))
    more = [inertia(tokens, kmeans(tokens, 12, iterations=100, restarts=n, seed=0)) for n in (1, 2, 4, 8)]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(more))
    assert longer[-1] < longer[0]
    assert more[-1] < more[0]


def test_a_cluster_that_runs_empty_moves_to_the_farthest_token(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.cat([scattered(60, 2), torch.tensor([[50.0, 0.0], [0.0, -60.0]])])
    far = torch.tensor([[1e3, 1e3], [2e3, 2e3]])  # nearest to no token
    start = torch.cat([tokens[:1], far])
    monkeypatch.setattr("paka.clustering._plus_plus", lambda *_: start)
    assigned = kmeans(tokens, 3, iterations=100, restarts=1, seed=0)
    assert assigned.bincount(minlength=3).tolist() == [60, 1, 1]


def test_fewer_tokens_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 700 tokens to cluster, got 600: lower profile\.clusters"):
        kmeans(scattered(600), 700, iterations=1, restarts=1, seed=0)


def test_reduction_keeps_standardised_distances_when_nothing_is_dropped() -> None:
    tokens = scattered(50, 6) * torch.tensor([1.0, 10.0, 0.1, 5.0, 2.0, 1.0])
    standard = (tokens - tokens.mean(0)) / tokens.std(0)
    reduced = reduce(tokens, 6)
    torch.testing.assert_close(reduced @ reduced.T, standard @ standard.T, atol=1e-4, rtol=1e-4)


def test_reduction_keeps_the_widest_axes_and_fixes_their_signs() -> None:
    tokens = scattered(200, 6) @ scattered(6, 6, seed=1)
    standard = ((tokens - tokens.mean(0)) / tokens.std(0)).double()
    _, widths, axes = torch.linalg.svd(standard, full_matrices=False)
    reduced = reduce(tokens, 3).double()
    torch.testing.assert_close(reduced.norm(dim=0), widths[:3], rtol=1e-4, atol=1e-4)
    found = (standard.T @ reduced) / widths[:3] ** 2
    torch.testing.assert_close(found.abs(), axes[:3].T.abs(), rtol=1e-3, atol=1e-4)
    assert (found.gather(0, found.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_reduction_sees_all_of_many_tokens() -> None:
    one, other = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    lengths = scattered(300_000, 1)
    tokens = torch.cat([lengths[:270_000] * one, lengths[270_000:] * other])
    wide, narrow = reduce(tokens, 2).var(dim=0).tolist()
    assert wide == pytest.approx(1.8, abs=0.02), "a correlation of 0.9 - 0.1, as 90 % of the tokens have it"
    assert narrow == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_moments_of_parts_are_those_of_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = (scattered(300, 6) * torch.tensor([1.0, 10.0, 0.1, 5.0, 2.0, 0.0]) + 50.0).half()
    own = scattered(300, 1, seed=2)[:, 0] > -0.5
    monkeypatch.setattr(clustering, "CHUNK", chunk)
    mean, deviation = clustering.moments(tokens, own)
    expected = tokens[own].double().numpy()
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation, expected.std(axis=0, ddof=1), rtol=1e-4, atol=1e-6)


def test_reduction_equals_scikit_learns_of_standardised_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = scattered(500, 12) @ scattered(12, 12, seed=1) + 3.0
    monkeypatch.setattr(clustering, "CHUNK", 128)
    expected = PCA(5).fit_transform(StandardScaler().fit_transform(tokens.double().numpy()))
    found = reduce(tokens, 5).numpy()
    # scikit-learn divides by the deviation of the population, and leaves the signs of axes open.
    expected *= np.sqrt(499 / 500) * np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("apart", "planted", "clusters"), [(4.0, 10, 10), (1.5, 60, 40), (0.0, 1, 25)])
def test_the_objective_is_within_a_hundredth_of_scikit_learns(
    apart: float, planted: int, clusters: int, seed: int
) -> None:
    centres = apart * scattered(planted, 12, seed=seed + 50)
    tokens = scattered(3000, 12, seed=seed) + centres[torch.arange(3000) % planted]
    found = inertia(tokens, kmeans(tokens, clusters, iterations=100, restarts=5, seed=seed))
    reference = KMeans(clusters, n_init=5, max_iter=100, random_state=seed).fit(tokens.double().numpy())
    assert found < 1.01 * reference.inertia_


def test_centres_are_drawn_among_several_for_the_least_distance() -> None:
    tokens = scattered(3000, 8) + 3 * scattered(25, 8, seed=9)[torch.arange(3000) % 25]
    left = {
        trials: sum(_left(tokens, trials, seed) for seed in range(5)) for trials in (1, 2 + int(math.log(25)))
    }
    assert left[5] < 0.9 * left[1]


def _left(tokens: Tensor, trials: int, seed: int) -> float:
    """Squared distance to the centres that are drawn first, with so many trials each."""
    generator = torch.Generator().manual_seed(seed)
    centres = clustering._plus_plus(tokens, 25, generator, trials)
    return float(torch.cdist(tokens, centres).min(dim=1).values.square().sum())


READ = """
import sys, torch
from paka.clustering import kmeans, reduce
torch.set_num_threads(1)
tokens = torch.from_file(sys.argv[1], shared=True, size={count} * 128, dtype=torch.float16).view({count}, 128)
kmeans(reduce(tokens[:4096], 16), 20, iterations=1, restarts=1, seed=0)  # what the first call takes for itself
"""


def test_memory_is_bounded_by_what_is_kept_of_each_token(tmp_path: Path) -> None:
    count = 400_000
    path = tmp_path / "tokens"
    np.memmap(path, dtype=np.float16, mode="w+", shape=(count, 128))[:] = 0.5  # pages that are all there
    clustered = "kmeans(reduce(tokens, 16), 20, iterations=3, restarts=1, seed=0)"
    taken = extra_bytes(READ.format(count=count), clustered, str(path))
    mapped, kept = 2 * 128 * count, (4 * 16 + 56) * count
    # Its reduced channels twice while parts are joined; distances, places and names; and parts of a fixed size.
    working = 4 * 16 * count + 65_536 * 128 * (4 + 4 + 8)
    assert mapped < taken < mapped + kept + working


def test_channels_that_do_not_vary_stay_finite() -> None:
    tokens = scattered(50, 4)
    tokens[:, 1] = 3.0
    assert reduce(tokens, 4).isfinite().all()
    assert torch.equal(reduce(torch.zeros(50, 4), 2), torch.zeros(50, 2))
