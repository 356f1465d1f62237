"""Differentiable sorting against the 0-1 principle, torch.sort and a plain loop over comparators."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from paka.sorting import ROWS, merge_exchange, soft_permutation

SIZES = [1, 2, 3, 7, 16, 49]


def comparators(n: int) -> list[list[tuple[int, int]]]:
    return [
        [(i, i + distance) for i in range(n - distance) if i & bit == residue]
        for bit, residue, distance in merge_exchange(n)
    ]


def by_loop(values: np.ndarray, steepness: float) -> np.ndarray:
    """The relaxed network on one row, one comparator after the other, in float64."""
    values = values.astype(np.float64).copy()
    matrix = np.eye(len(values))
    for i, j in itertools.chain(*comparators(len(values))):
        keep = math.atan(steepness * (values[j] - values[i])) / math.pi + 0.5
        mix = np.array([[keep, 1 - keep], [1 - keep, keep]])
        values[[i, j]] = mix @ values[[i, j]]
        matrix[[i, j]] = mix @ matrix[[i, j]]
    return matrix


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("n", range(1, 11))
def test_the_network_sorts_every_vector_of_zeros_and_ones(n: int) -> None:
    """Then it sorts everything (Knuth, theorem 5.3.4Z)."""
    vectors = np.array(list(itertools.product([0, 1], repeat=n)))
    for i, j in itertools.chain(*comparators(n)):
        vectors[:, [i, j]] = np.sort(vectors[:, [i, j]], axis=1)
    assert (np.diff(vectors, axis=1) >= 0).all()


@pytest.mark.parametrize("n", SIZES)
def test_comparators_of_a_layer_share_no_position(n: int) -> None:
    layers = comparators(n)
    for layer in layers:
        positions = list(itertools.chain(*layer))
        assert len(positions) == len(set(positions))
    depth = math.ceil(math.log2(n))
    assert len(layers) == depth * (depth + 1) // 2


@pytest.mark.parametrize("n", SIZES)
def test_steep_comparators_sort_like_torch(n: int) -> None:
    values = torch.stack([draw(n).argsort().float(), draw(2, n)[1].argsort().float()])
    expected = torch.nn.functional.one_hot(values.argsort(dim=-1), n).float()
    torch.testing.assert_close(soft_permutation(values, 1e6), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", SIZES)
def test_rows_and_columns_sum_to_one(n: int) -> None:
    permutation = soft_permutation(draw(4, 5, n), 10.0)
    assert permutation.shape == (4, 5, n, n)
    assert (permutation >= 0).all()
    torch.testing.assert_close(permutation.sum(dim=-1), torch.ones(4, 5, n), atol=1e-5, rtol=0)
    torch.testing.assert_close(permutation.sum(dim=-2), torch.ones(4, 5, n), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("steepness", [1.0, 100.0])
def test_it_is_the_loop_over_comparators(n: int, steepness: float) -> None:
    values = draw(3, n).double()
    expected = torch.from_numpy(np.stack([by_loop(row, steepness) for row in values.numpy()]))
    torch.testing.assert_close(soft_permutation(values, steepness), expected, atol=1e-12, rtol=1e-9)
    single = soft_permutation(values.float(), steepness)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_gradients(n: int) -> None:
    values = draw(2, n).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_permutation(x, 5.0), values)


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    values = draw(2 * ROWS + 3, 5).requires_grad_()
    weight = draw(5, 5)
    (gradient,) = torch.autograd.grad((soft_permutation(values, 10.0) * weight).sum(), values)
    for row in (0, ROWS, 2 * ROWS + 2):
        alone = values[row].detach().requires_grad_()
        permutation = soft_permutation(alone, 10.0)
        torch.testing.assert_close(permutation, soft_permutation(values, 10.0)[row])
        torch.testing.assert_close(gradient[row], torch.autograd.grad((permutation * weight).sum(), alone)[0])
    assert soft_permutation(values[:0], 10.0).shape == (0, 5, 5)


def test_layers_are_not_kept_for_the_backward_pass() -> None:
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        permutation = soft_permutation(draw(100, 16).requires_grad_(), 10.0)
    assert sum(kept) < permutation.numel()


def test_autocast_changes_nothing() -> None:
    values = draw(3, 7)
    expected = soft_permutation(values, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(soft_permutation(values, 100.0), expected)
        assert soft_permutation(values.bfloat16(), 100.0).dtype == torch.float32
