"""The matched points behind a kernel: random subsets of them, and the shuffle that tells what chance gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from paka.draws import Draws
from paka.kernels import Kernel, feature_map
from paka.objectives import Correspondences
from paka.precision import in_float32


class Points(NamedTuple):
    """Tokens of G groups of N matched points; a group has one kernel per side.

    Attributes:
        student: (G, N, D).
        teacher: (G, N, D), without gradient.
        shuffled: The teacher's tokens with those of valid points of each pair exchanged at random, (G, N, D).
        valid: Points that count, (G, N) bool.
    """

    student: Tensor
    teacher: Tensor
    shuffled: Tensor
    valid: Tensor

    @classmethod
    def of(cls, batch: Correspondences, draws: Draws) -> Points:
        """Return the points of every pair as a group of its own."""
        teacher, valid = batch.aligned_teacher.detach(), batch.valid
        return cls(batch.aligned_student, teacher, _take(teacher, _shuffle(valid, draws)), valid)

    def subset(self, most: int | None, draws: Draws) -> Points:
        """Return at most `most` random points of each group, valid ones first."""
        if most is None or most >= self.valid.shape[1]:
            return self
        chosen = torch.where(self.valid, _uniform(self.valid, draws), -1.0).topk(most, dim=1).indices
        return Points(*(_take(side, chosen) for side in self))

    def kernels(self, kernel: Kernel) -> tuple[Tensor, ...]:
        """Return the kernels of student, teacher and shuffled teacher, (G, N, N) each."""
        return of_all_sides(kernel, self.student, self.teacher, self.shuffled, valid=self.valid)

    def features(self, kernel: Kernel) -> tuple[Tensor, ...] | None:
        """Return features (G, N, M) of the same three, or None where the kernels are smaller or have none."""
        features = feature_map(kernel)
        if features is None:
            return None
        found = of_all_sides(features, self.student, self.teacher, self.shuffled, valid=self.valid)
        return found if found[0].shape[2] < found[0].shape[1] else None


@in_float32
def of_all_sides(
    function: Kernel, student: Tensor, teacher: Tensor, *others: Tensor, valid: Tensor
) -> tuple[Tensor, ...]:
    """Return a kernel, or its features, of all sides from a single call; only the student's has a gradient.

    Args:
        function: called as a kernel, with the teacher as the reference of all.
        student: (G, N, D).
        teacher: (G, N, D).
        others: further sides, (G, N, D) each.
        valid: Points that count, (G, N) bool.
    """
    sides = student, teacher, *others
    stacked = function(torch.cat(sides), teacher.repeat(len(sides), 1, 1), valid.repeat(len(sides), 1))
    first, *rest = stacked.chunk(len(sides))
    return first, *(side.detach() for side in rest)


def _uniform(valid: Tensor, draws: Draws) -> Tensor:
    return torch.rand(valid.shape, generator=draws.next(valid.device), device=valid.device)


def _shuffle(valid: Tensor, draws: Draws) -> Tensor:
    """Return indices (P, N) that permute the valid points of each row among themselves."""
    keys = torch.where(valid, _uniform(valid, draws), 2.0)
    places = valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(places).scatter_(1, places, keys.argsort(dim=1, stable=True))


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return `values[g, index[g, n]]` of values (G, N, ...)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]
