"""Exact search of the nearest keys by inner product, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCKS = {"cpu": (1024, 4096), "cuda": (8192, 65_536)}
"""Queries and keys per block of scores: what a cache holds, and what keeps a GPU busy."""

GROUP = 32
"""Keys whose best score stands for them all until their scores are looked at one by one; a divisor of all blocks."""

FEW = 32
"""Groups per query, on average, up to which the keys that enter are looked up one by one."""

CANDIDATES = 4
"""Candidates that bfloat16 search proposes, in multiples of k."""

ROUNDING = 2.0**-6
"""Bound on the error of a bfloat16 inner product of vectors of norm 1.

Rounding to nearest changes a number by 2^-8 of it at most. That of both sides changes the sum by 2 * 2^-8 + 2^-16 of the
sum of the products' sizes, which is at most 1 (Cauchy-Schwarz), and that of the result by another 2^-8. What is left to
2^-6 is far more than sums in float32 add.
"""


class Neighbours(NamedTuple):
    """The k nearest keys of Q queries, the nearest first.

    Attributes:
        scores: Inner products, (Q, k) float32.
        indices: Places of the keys, (Q, k) int64.
    """

    scores: Tensor
    indices: Tensor


def nearest(
    queries: Tensor, keys: Tensor, k: int, *, offsets: Tensor | None = None, bfloat16: bool = False
) -> Neighbours:
    """Return the k keys of the largest inner product with each query; of equal ones, any.

    Keys are read once, in blocks, whatever the number of queries; they may be mapped from a file, of half precision or
    on another device than the queries. What is held beside queries and keys is at most `working_bytes`.

    Euclidean neighbours are found by offsets of `-|x|^2 / 2`: for a query q, `|q - x|^2 = |q|^2 - 2 (q x - |x|^2 / 2)`
    falls as the score `q x - |x|^2 / 2` rises, because |q|^2 is the same for all keys x. See `euclidean_offsets`.

    Args:
        queries: (Q, D) float; the search runs where they are.
        keys: (M, D) float32, float16 or bfloat16.
        k: Neighbours, at most M.
        offsets: Added to the inner product with each key, (M,) float32; None for nothing.
        bfloat16: Whether candidates are found in bfloat16, which is faster where the hardware has it. Their scores are
            then computed in float32, and queries whose neighbours are not certain are searched again in float32: the
            result is the same. Queries and keys have to be of norm 1, and there are no offsets.

    Raises:
        ValueError: k is not in [1, M], the channels of queries and keys differ, or the offsets do not fit.
    """
    _check(queries, keys, k)
    _check_offsets(offsets, keys, bfloat16=bfloat16)
    # Keys of half precision are widened block by block, not all at once.
    with torch.autocast(queries.device.type, enabled=False):
        if bfloat16:
            return _certified(queries, keys, k)
        return _search(queries, keys, k, torch.float32, offsets)


def euclidean_offsets(keys: Tensor, rows: int = 65_536) -> Tensor:
    """Return the offsets by which `nearest` finds Euclidean neighbours: -|x|^2 / 2 of each key x, (M,) float32."""
    return torch.cat([-0.5 * part.float().square().sum(dim=1) for part in keys.split(rows)])


def working_bytes(queries: int, k: int, dim: int, *, device: str = "cpu") -> int:
    """Return how many bytes `nearest` takes at most beside queries and keys, without `bfloat16`.

    The neighbours while they are sorted; one block of keys in float32; one block of scores with the best of its groups;
    and the scores that are looked at one by one. It does not grow with the number of keys.

    Args:
        queries: Number of queries Q.
        k: Neighbours.
        dim: Channels D.
        device: Type of the device that the queries are on.
    """
    block, columns = BLOCKS.get(device, BLOCKS["cuda"])
    rows = min(queries, block)
    looked_at = min(GROUP * max(k, FEW), columns) + k
    return 40 * queries * k + 4 * columns * dim + 5 * rows * columns + rows * (16 * looked_at + 48 * k)


def _check(queries: Tensor, keys: Tensor, k: int) -> None:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        message = (
            f"expected queries (Q, D) and keys (M, D), got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
        raise ValueError(message)
    if not 1 <= k <= len(keys):
        raise ValueError(f"expected k from 1 to the number of keys, {len(keys)}, got {k}: lower k")


def _check_offsets(offsets: Tensor | None, keys: Tensor, *, bfloat16: bool) -> None:
    if offsets is None:
        return
    if bfloat16:
        raise ValueError(
            "expected no offsets with bfloat16, whose certificate is for inner products: leave one out"
        )
    if offsets.shape != keys.shape[:1]:
        message = f"expected one offset for each of {len(keys)} keys, got {tuple(offsets.shape)}: see euclidean_offsets"
        raise ValueError(message)


def _search(
    queries: Tensor, keys: Tensor, k: int, dtype: torch.dtype, offsets: Tensor | None = None
) -> Neighbours:
    """Search with inner products of `dtype`."""
    queries = queries.to(dtype)
    found = Neighbours(
        queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32),
        torch.full((len(queries), k), -1, device=queries.device),
    )
    rows, columns = BLOCKS.get(queries.device.type, BLOCKS["cuda"])
    # Written over block after block: fresh memory for each costs as much as a tenth of the product.
    buffer = queries.new_empty(min(len(queries), rows) * columns)
    for start in range(0, len(keys), columns):
        block = keys[start : start + columns].to(queries.device, dtype)
        added = None if offsets is None else offsets[start : start + columns].to(queries.device)
        width = len(block) + -len(block) % GROUP
        for first in range(0, len(queries), rows):
            part = queries[first : first + rows]
            scores = buffer[: len(part) * width].view(len(part), width)
            if added is None:
                torch.mm(part, block.T, out=scores[:, : len(block)])
            else:
                torch.addmm(added, part, block.T, out=scores[:, : len(block)])
            scores[:, len(block) :] = -torch.inf
            chosen = slice(first, first + rows)
            _improve(Neighbours(found.scores[chosen], found.indices[chosen]), scores.float(), start)
    best, order = found.scores.sort(dim=1, descending=True)
    return Neighbours(best, found.indices.gather(1, order))


def _improve(found: Neighbours, scores: Tensor, start: int) -> None:
    """Replace neighbours in place by better ones among the keys from `start` on, given their scores (q, m).

    A key that enters is in a group whose best does, and once some keys are seen those are few. Neighbours stay
    unsorted.
    """
    groups = scores.view(len(scores), -1, GROUP)
    best = groups.amax(dim=2)
    worst = found.scores.amin(dim=1, keepdim=True)
    rows, columns = (best > worst).nonzero(as_tuple=True)
    entering = _entering(groups, (rows, columns), worst) if len(rows) <= FEW * len(scores) else None
    values, runs = entering or _of_best_groups(groups, best, found.scores.shape[1])
    if values.shape[1]:
        _replace(found, values, runs + start)


def _entering(groups: Tensor, chosen: tuple[Tensor, Tensor], worst: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return scores and places, (q, c), of what is above `worst`, (q, 1), in the chosen groups; None if c is large."""
    rows, columns = chosen
    blocks = groups[rows, columns]
    of, place = (blocks > worst[rows]).nonzero(as_tuple=True)
    row = rows[of]
    counts = torch.bincount(row, minlength=len(groups))
    width = int(counts.max()) if len(row) else 0
    if width > FEW * GROUP:
        return None
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    values = groups.new_full((len(groups), width), -torch.inf)
    places = torch.zeros_like(values, dtype=torch.int64)
    values[row, column] = blocks[of, place]
    places[row, column] = columns[of] * GROUP + place
    return values, places


def _of_best_groups(groups: Tensor, best: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the scores of all keys in the k best groups of each query, (q, g * GROUP), and where groups begin, (q, g)."""
    chosen = best.topk(min(k, best.shape[1]), dim=1, sorted=False).indices
    values = groups[torch.arange(len(groups), device=chosen.device)[:, None], chosen]
    return values.flatten(1), chosen * GROUP


def _replace(found: Neighbours, values: Tensor, runs: Tensor) -> None:
    """Replace neighbours (q, k) in place by the best of themselves and candidates.

    Args:
        found: The neighbours.
        values: Scores of candidates, (q, c).
        runs: The key that each run of c / r candidates begins with, (q, r).
    """
    k = found.scores.shape[1]
    best, order = torch.cat([found.scores, values], dim=1).topk(k, dim=1, sorted=False)
    length = values.shape[1] // runs.shape[1]
    candidate = (order - k).clamp_min(0)
    places = runs.gather(1, candidate // length) + candidate % length
    found.scores.copy_(best)
    found.indices.copy_(torch.where(order < k, found.indices.gather(1, order.clamp_max(k - 1)), places))


def _certified(queries: Tensor, keys: Tensor, k: int) -> Neighbours:
    """Propose in bfloat16, score in float32, and search again where a key that was not proposed could be nearer."""
    count = min(CANDIDATES * k, len(keys))
    proposed = _search(queries, keys, count, torch.bfloat16)
    scores = _scores(queries.float(), keys, proposed.indices)
    best, order = scores.topk(k, dim=1)
    found = Neighbours(best, proposed.indices.gather(1, order))
    if count < len(keys):
        again = (proposed.scores[:, -1] + ROUNDING >= best[:, -1]).nonzero()[:, 0]
        if len(again):
            exact = _search(queries[again], keys, k, torch.float32)
            found.scores[again], found.indices[again] = exact
    return found


def _scores(queries: Tensor, keys: Tensor, indices: Tensor, rows: int = 256) -> Tensor:
    """Return the float32 inner products of queries (Q, D) with the keys at indices (Q, c), (Q, c)."""
    found = [
        torch.einsum("qd,qcd->qc", part, keys[places.to(keys.device)].to(part.device, torch.float32))
        for part, places in zip(queries.split(rows), indices.split(rows), strict=True)
    ]
    return torch.cat(found) if found else queries.new_zeros(indices.shape)
