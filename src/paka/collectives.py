"""Sums and rows over all processes, through which gradients find their way back; one process needs neither."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce


def many_processes() -> bool:
    """Return whether other processes train along."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def group_of_processes(folder: str | None) -> Iterator[bool]:
    """Join the processes that torchrun started, if there are several; yields whether there are.

    They meet for plain objects only, which takes no GPU.

    Args:
        folder: What they share files in.

    Raises:
        ValueError: There are several, and no folder.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield False
        return
    if folder is None:
        raise ValueError("expected a folder that all processes share, got cache=null: set cache to one")
    distributed.init_process_group("gloo")
    try:
        yield True
    finally:
        distributed.destroy_process_group()


def own_share(count: int) -> range:
    """Return which of `count` items are this process's: an equal number for each, one after another."""
    if not many_processes():
        return range(count)
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    return range(rank * count // processes, (rank + 1) * count // processes)


def is_first() -> bool:
    """Return whether this process speaks for all."""
    return not many_processes() or distributed.get_rank() == 0


def wait_for_all() -> None:
    """Go on once all processes have come here."""
    if many_processes():
        distributed.barrier()


def gathered(value: Any) -> list[Any]:
    """Return what each process has, in their order, the same on all of them; plain types and tensors on the CPU."""
    if not many_processes():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def sum_over_processes(local: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor that each has, the same on all of them."""
    return cast(Tensor, all_reduce(local)) if many_processes() else local


def largest_over_processes(local: Tensor) -> Tensor:
    """Return the elementwise maximum over all processes, without gradient."""
    largest = local.detach().clone()
    if many_processes():
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest


def rows_of_all_processes(local: Tensor) -> Tensor:
    """Return the rows of all processes one below the other, the same on all of them.

    Processes with fewer rows are filled up with zeros, for which they wait for each other once.

    Args:
        local: This process's rows, (P, ...) of any dtype; P may differ between processes.

    Returns:
        (processes * largest P, ...).
    """
    if not many_processes():
        return local
    most = int(largest_over_processes(torch.tensor(len(local), device=local.device)))
    filler = local.new_zeros(most - len(local), *local.shape[1:])
    return cast(Tensor, _Rows.apply(torch.cat([local, filler])))


class _Rows(torch.autograd.Function):
    """All-gather whose backward sums what every process wants of these rows."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:  # noqa: ARG004 - the signature of autograd
        parts = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - the signature of autograd
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]
