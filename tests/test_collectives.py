"""Two processes give the loss and the gradients of one, whatever the scope of the kernels."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.doubles import CHANNELS, POINTS, correspondences, draw
from tests.programs import run_ranks
from torch import distributed, nn

from paka.collectives import many_processes, rows_of_all_processes
from paka.kernels import cosine, linear, rbf
from paka.objectives import Correspondences
from paka.objectives.image_level import ImageLevel
from paka.objectives.paka import PaKA
from paka.objectives.paka_batch import BatchPaKA

IMAGE = torch.tensor([0, 0, 0, 1, 2, 3, 3])
"""Image of each pair: the first process has images 0 and 1 with four pairs, the second has three pairs."""
PARTS = (slice(0, 4), slice(4, 7))
OBJECTIVES: dict[str, Any] = {
    "pair": functools.partial(PaKA, linear),
    "pair, unbiased rbf": functools.partial(PaKA, functools.partial(rbf, bandwidth=0.7), unbiased=True),
    "pair, deconfounded": functools.partial(PaKA, linear, deconfound=True),
    "pair, deconfounded by scale": functools.partial(PaKA, cosine, deconfound=True, scale_bins=3),
    "pair, pooled": functools.partial(PaKA, linear, pooled=True, unbiased=True),
    "pair, pooled and deconfounded": functools.partial(PaKA, linear, pooled=True, deconfound=True),
    "ranks, features": functools.partial(BatchPaKA, linear, unbiased=True),
    "ranks, kernel": functools.partial(BatchPaKA, rbf),
}


def whole() -> Correspondences:
    valid = torch.rand(7, POINTS, generator=torch.Generator().manual_seed(5)) < 0.8
    scale = torch.tensor([1.0, 0.4, 0.3, 0.9, 0.45, 0.6, 0.35])
    shared = draw(1, POINTS, CHANNELS, seed=3)  # what all images have in common
    return correspondences(
        7,
        images=4,
        image=IMAGE,
        valid=valid,
        scale=scale,
        aligned_student=draw(7, POINTS, CHANNELS, seed=1) + shared,
        aligned_teacher=draw(7, POINTS, CHANNELS, seed=2) + shared,
    )


def part(rank: int) -> Correspondences:
    full, own = whole(), PARTS[rank]
    return correspondences(
        images=2,
        image=full.image[own] - 2 * rank,
        valid=full.valid[own],
        scale=full.scale[own],
        aligned_student=full.aligned_student[own],
        aligned_teacher=full.aligned_teacher[own],
    )


def projected(batch: Correspondences, weight: nn.Parameter) -> Correspondences:
    """Pass the student's tokens through a layer that all processes share."""
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return Correspondences(**(fields | {"aligned_student": batch.aligned_student @ weight}))


def loss_and_gradient(objective: nn.Module, batch: Correspondences) -> tuple[torch.Tensor, torch.Tensor]:
    weight = nn.Parameter(torch.eye(CHANNELS) + 0.1 * draw(CHANNELS, CHANNELS, seed=9))
    loss, _ = objective(projected(batch, weight))
    return loss.detach(), torch.autograd.grad(loss, weight)[0]


def work(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {name: loss_and_gradient(make(), part(rank)) for name, make in OBJECTIVES.items()}
    found["batch"] = loss_and_gradient(BatchPaKA(linear, across_ranks=False), part(rank))
    rows = rows_of_all_processes(torch.arange(2 * (rank + 1)).view(-1, 2))
    image = ImageLevel(prototypes=5)
    image(
        correspondences(
            0, image_student=draw(2, 3, 5, seed=rank), image_teacher=draw(2, 2, 5, seed=10 + rank)
        )
    )
    torch.save({"found": found, "rows": rows, "centre": image.centre}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("two")
    run_ranks(work, folder, 2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_average_to_one(two: list[Any], name: str) -> None:
    """As in distributed data parallel, gradients of the processes are averaged."""
    expected = loss_and_gradient(OBJECTIVES[name](), whole())
    for got, want in zip(zip(*(side["found"][name] for side in two), strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(got).mean(dim=0), want, atol=1e-5, rtol=1e-4)
    assert expected[1].abs().max() > 1e-3


def test_a_kernel_per_process_is_as_in_micro_batches(two: list[Any]) -> None:
    expected = [loss_and_gradient(BatchPaKA(linear, across_ranks=False), part(rank)) for rank in (0, 1)]
    for side, want in zip(two, expected, strict=True):
        for got, value in zip(side["found"]["batch"], want, strict=True):
            torch.testing.assert_close(got, value, atol=1e-6, rtol=1e-5)
    assert (loss_and_gradient(BatchPaKA(linear), whole())[0] - expected[0][0]).abs() > 1e-3


def test_rows_are_padded_to_the_longest(two: list[Any]) -> None:
    for side in two:
        assert side["rows"].tolist() == [[0, 1], [0, 0], [0, 1], [2, 3]]
    rows = torch.arange(4)
    assert rows_of_all_processes(rows) is rows
    assert not many_processes()


def test_all_processes_share_a_centre(two: list[Any]) -> None:
    mean = torch.cat([draw(2, 2, 5, seed=10), draw(2, 2, 5, seed=11)]).mean(dim=(0, 1))
    for side in two:
        torch.testing.assert_close(side["centre"], 0.1 * mean)
