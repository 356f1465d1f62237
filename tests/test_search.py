"""Exact search against sorting everything in float64, its memory against its formula, its bfloat16 certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.memory import extra_bytes
from torch import Tensor
from torch.nn import functional as F

from paka import search
from paka.search import euclidean_offsets, nearest, working_bytes


def units(count: int, *, dim: int = 24, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def reference(queries: Tensor, keys: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.double().numpy() @ keys.double().numpy().T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search.BLOCKS, "cpu", (16, 64))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("keys", "k"), [(1, 1), (31, 31), (64, 5), (65, 5), (700, 1), (700, 30), (700, 200)])
def test_it_finds_what_sorting_everything_finds(keys: int, k: int, bfloat16: bool) -> None:
    queries, memory = units(50, seed=1), units(keys)
    scores, indices = reference(queries, memory, k)
    found = nearest(queries, memory, k, bfloat16=bfloat16)
    np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-6)
    assert (found.indices.numpy() == indices).all()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "one query"])
def test_no_order_of_the_keys_misleads_it(order: str) -> None:
    queries = units(40, seed=1)
    memory = units(900)
    along = memory @ queries[0]
    if order == "equal":
        memory = memory[:1].expand(900, -1)
    else:  # every block holds better keys than all before it, at least for one query
        memory = memory[along.argsort(descending=order == "falling")]
    if order == "one query":
        queries = queries[:1]
    found = nearest(queries, memory, 10)
    np.testing.assert_allclose(found.scores.numpy(), reference(queries, memory, 10)[0], atol=1e-6)
    assert all(len({*row.tolist()}) == 10 for row in found.indices)
    np.testing.assert_allclose(
        found.scores, torch.einsum("qd,qkd->qk", queries, memory[found.indices]), atol=1e-6
    )


@pytest.mark.usefixtures("small_blocks")
def test_keys_of_half_precision_are_found_as_they_are_stored() -> None:
    queries, memory = units(20, seed=1), units(300).half()
    found = nearest(queries, memory, 7)
    scores, indices = reference(queries, memory.float(), 7)
    np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-6)
    assert (found.indices.numpy() == indices).all()


@pytest.mark.usefixtures("small_blocks")
def test_bfloat16_alone_would_be_wrong_where_the_certificate_is_not() -> None:
    # Keys so near each other that bfloat16 cannot tell them apart.
    memory = F.normalize(units(1) + 1e-3 * units(600, seed=2), dim=1)
    queries = F.normalize(units(1) + 0.1 * units(30, seed=3), dim=1)
    scores, indices = reference(queries, memory, 5)
    rounded = search._search(queries, memory, 5, torch.bfloat16)
    assert (rounded.indices.numpy() != indices).any()
    found = nearest(queries, memory, 5, bfloat16=True)
    np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-6)


def test_the_bound_on_rounding_holds() -> None:
    queries, memory = units(200, dim=384, seed=1), units(500, dim=384)
    exact = queries.double() @ memory.double().T
    rounded = (queries.bfloat16().double() @ memory.bfloat16().double().T).float()
    assert float((exact - rounded).abs().max()) < search.ROUNDING


def test_the_certificate_holds_where_rounding_hides_the_nearest_key() -> None:
    # Just above half way between two bfloat16 numbers, nearly all channels lose the most they can, nothing cancels,
    # and the sum is rounded down once more.
    low, small = (1 + 2**-8) / 8, 0.04
    rest = (1 - 62 * low**2 - small**2) ** 0.5
    query = torch.tensor([[low] * 62 + [small, rest, 0.0]])
    nearer = torch.tensor([[low] * 62 + [small, 0.0, rest]])
    others = torch.tensor([[low] * 62 + [0.9 * small, 0.0, rest]]).expand(search.CANDIDATES + 4, -1)
    lost = (query.double() @ nearer.double().T).item() - (query.bfloat16() @ nearer.bfloat16().T).item()
    assert 2**-7 < lost < search.ROUNDING
    keys = torch.cat([others, nearer])
    assert search._search(query, keys, 1, torch.bfloat16).indices.item() != len(keys) - 1
    assert nearest(query, keys, 1, bfloat16=True).indices.item() == len(keys) - 1


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_offsets_make_it_euclidean(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, keys = (torch.randn(count, 24, generator=generator) * 3 + 1 for count in (50, 700))
    keys = (keys * torch.rand(700, 1, generator=generator)).to(dtype)
    distances = np.linalg.norm(queries.double().numpy()[:, None] - keys.double().numpy()[None], axis=2)
    found = nearest(queries, keys, 20, offsets=euclidean_offsets(keys, rows=64))
    assert (found.indices.numpy() == np.argsort(distances, axis=1)[:, :20]).all()
    assert (found.indices != nearest(queries, keys, 20).indices).any()


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one offset for each of 4 keys, got \(3,\)"):
        nearest(units(3), units(4), 2, offsets=torch.zeros(3))
    with pytest.raises(ValueError, match="no offsets with bfloat16"):
        nearest(units(3), units(4), 2, offsets=torch.zeros(4), bfloat16=True)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="k from 1 to the number of keys, 4, got 5"):
        nearest(units(3), units(4), 5)
    with pytest.raises(ValueError, match=r"expected queries \(Q, D\)"):
        nearest(units(3, dim=8), units(4, dim=9), 1)


SEARCHED = """
import torch
from paka.search import nearest
torch.set_num_threads(1)
queries, keys = torch.randn({queries}, 64), torch.empty({keys}, 64, dtype=torch.{dtype}).normal_()
nearest(queries[:8], keys[:4096].clone(), 4)  # what the first call takes for itself
"""


@pytest.mark.parametrize(
    ("queries", "keys", "k", "dtype"),
    [(8_000, 40_000, 30, "float32"), (2_000, 160_000, 200, "float32"), (1_000, 400_000, 10, "float16")],
)
def test_memory_is_bounded_by_the_formula(queries: int, keys: int, k: int, dtype: str) -> None:
    before = SEARCHED.format(queries=queries, keys=keys, dtype=dtype)
    taken = extra_bytes(before, f"found = nearest(queries, keys, {k})")
    # The allocator rounds up and keeps what is freed: a tenth and 16 MB.
    assert 0 < taken < 1.1 * working_bytes(queries, k, 64) + 16e6
