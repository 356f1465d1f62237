"""Kernel alignment over a whole batch: how the tokens of different images relate counts, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paka.alignment import cka, feature_cka
from paka.collectives import rows_of_all_processes
from paka.draws import Draws
from paka.kernels import Kernel, linear
from paka.objectives import Correspondences
from paka.objectives.paka import check_points
from paka.objectives.points import Points


class BatchPaKA(nn.Module):
    """The objective `1 - CKA` with a single kernel over the aligned tokens of all pairs.

    What in-context segmentation asks for, which tokens of *other* images a token resembles, enters only here. With n
    tokens the kernel has n^2 entries, unless it has features (linear, cosine, rbf_fourier): then M x M suffice.

    Args:
        kernel: Similarity of tokens; a bandwidth is measured over the whole batch.
        unbiased: Use the unbiased HSIC, by which independent tokens score 0.
        across_ranks: Take the tokens of all processes, so that several see the loss of one; otherwise each
            process has a kernel of its own.
        max_points: A fresh random subset of so many points per process enters the kernel; None for all.
        min_points: A pair with fewer valid points does not count; at least 2, or 4 if unbiased.
        seed: Seed of the subset and of the shuffle behind `cka_floor`.

    Raises:
        ValueError: A value is out of range.

    Source: paka; CKA as in Kornblith et al. 2019, whose examples are the tokens of all images.
    """

    def __init__(
        self,
        kernel: Kernel = linear,
        *,
        unbiased: bool = False,
        across_ranks: bool = True,
        max_points: int | None = None,
        min_points: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_points(min_points, max_points, unbiased=unbiased)
        self.kernel, self.unbiased, self.across_ranks = kernel, unbiased, across_ranks
        self.max_points, self.min_points = max_points, min_points
        self.draws = Draws(seed)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, a differentiable 0 without usable pairs, and what to log of it; see `PaKA.forward`.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)` and `valid` `(P, N)`.
        """
        points = Points.of(batch, self.draws)
        points = points._replace(valid=points.valid & batch.usable(self.min_points)[:, None])
        points = Points(*(side.flatten(0, 1)[None] for side in points)).subset(self.max_points, self.draws)
        if self.across_ranks:
            points = Points(*(rows_of_all_processes(side[0])[None] for side in points))
        similarity, floor = self._alignments(points)
        present = points.valid.any()
        logs = {
            "cka": torch.where(present, similarity.detach(), 0),
            "cka_floor": torch.where(present, floor.detach(), 0),
            "valid_points": batch.valid_share(),
        }
        return torch.where(present, 1 - similarity, 0 * similarity), logs

    def _alignments(self, points: Points) -> Tensor:
        """Return the CKA of student and teacher, and of student and shuffled teacher, (2,)."""
        features = points.features(self.kernel)
        compare, sides = (cka, points.kernels(self.kernel)) if features is None else (feature_cka, features)
        student, *others = sides
        return torch.cat([compare(student, other, points.valid, unbiased=self.unbiased) for other in others])
