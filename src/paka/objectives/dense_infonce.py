"""Rival: each aligned token of the student should be nearer to its match than to any other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paka.objectives import Correspondences
from paka.precision import in_float32


class DenseInfoNCE(nn.Module):
    """Contrastive learning of aligned tokens: the match against other points of the pair and of other images.

    The points of an image's other pairs are left out: they may show the very same place.

    Args:
        temperature: Divisor of the cosines, above 0.
        min_points: A pair with fewer valid points does not count.

    Raises:
        ValueError: The temperature is not above 0.

    Source: DenseCL (Wang et al. 2021, arXiv 2011.09157), equation 2, with matches by geometry and the batch in place of a queue.
    """

    def __init__(self, *, temperature: float = 0.2, min_points: int = 4) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"expected a temperature above 0, got {temperature}")
        self.temperature, self.min_points = temperature, min_points

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy in nats, averaged over the points of a pair, the pairs of an image, and images.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)` and `image` `(P,)`.

        Returns:
            The loss; `match_accuracy`, the share of tokens whose match is the nearest; `valid_points`.
        """
        teacher, usable = batch.aligned_teacher.detach(), batch.usable(self.min_points)
        loss, hit = _contrast(batch.aligned_student, teacher, batch.valid, batch.image, self.temperature)
        logs = {
            "match_accuracy": batch.average(hit, usable).detach(),
            "valid_points": batch.valid_share(),
        }
        return batch.average(loss, usable), logs


@in_float32
def _contrast(
    student: Tensor, teacher: Tensor, valid: Tensor, image: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return each pair's mean cross-entropy and accuracy over its valid points, both (P,)."""
    pairs, points, _ = student.shape
    student, teacher = (F.normalize(side, dim=2).flatten(0, 1) for side in (student, teacher))
    same_pair = torch.eye(pairs, dtype=torch.bool, device=image.device)
    contrasted = same_pair | (image[:, None] != image)
    columns = contrasted.repeat_interleave(points, dim=1) & valid.flatten()
    logits = (student @ teacher.T).view(pairs, points, pairs * points) / temperature
    # A point that is not valid itself does not count below, but must keep its own column to stay finite.
    own = torch.eye(pairs * points, dtype=torch.bool, device=image.device).view(pairs, points, pairs * points)
    logits = torch.where(columns[:, None] | own, logits, -torch.inf).flatten(0, 1)
    match = torch.arange(pairs * points, device=image.device)
    loss = F.cross_entropy(logits, match, reduction="none").view(pairs, points)
    hit = (logits.detach().argmax(dim=1) == match).view(pairs, points) if pairs else loss
    counted = valid.sum(dim=1).clamp_min(1)
    return (loss * valid).sum(dim=1) / counted, (hit * valid).sum(dim=1) / counted
