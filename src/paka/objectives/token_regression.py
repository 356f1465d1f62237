"""Rival: each aligned token of the student should equal the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from paka.objectives import Correspondences
from paka.precision import in_float32


class TokenRegression(nn.Module):
    """The objective `1 - cos(z_s, z_t)` over aligned tokens: matches tokens themselves, not their relations.

    Nothing but the slow teacher keeps it from the trivial solution that all tokens are one.

    Args:
        min_points: A pair with fewer valid points does not count.

    Source: BYOL's loss (Grill et al. 2020, arXiv 2006.07733, equation 2, halved), at every aligned patch and without a predictor.
    """

    def __init__(self, *, min_points: int = 4) -> None:
        super().__init__()
        self.min_points = min_points

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss in [0, 2], averaged over the points of a pair, the pairs of an image, and images.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)` and `image` `(P,)`.

        Returns:
            The loss, and `valid_points`, the share of all points.
        """
        per_pair = _mean_distance(batch.aligned_student, batch.aligned_teacher.detach(), batch.valid)
        logs = {"valid_points": batch.valid_share()}
        return batch.average(per_pair, batch.usable(self.min_points)), logs


@in_float32
def _mean_distance(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    distance = 1 - F.cosine_similarity(student, teacher, dim=2)
    return (distance * valid).sum(dim=1) / valid.sum(dim=1).clamp_min(1)
