"""Rival: Gram anchoring, which keeps the similarities between all patches of a view as the teacher has them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from paka.objectives import Correspondences
from paka.precision import in_float32


class GramAnchoring(nn.Module):
    """The mean squared difference of the cosine similarities of all patches of a global, student against teacher.

    It reads the encoder's tokens themselves, without a head, of globals that both sides see in the same crop. The
    published method anchors to an early copy of the model: choose `teacher=anchor`.

    Source: DINOv3 (arXiv 2508.10104), section 4.2, equation 2; per image and with negative similarities kept, as in
    its released recipe. There, the teacher sees the crop at twice the resolution; here all objectives have the same views.
    """

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, float32 in [0, 4].

        Args:
            batch: reads `student_globals` and `teacher`, on the same grid.

        Raises:
            ValueError: The augmentation renders no globals for the student.
        """
        if batch.student_globals is None or batch.teacher is None:
            raise ValueError(
                "objective=gram looks at the student's globals: set augmentation.student_globals=true"
            )
        student, teacher = batch.student_globals.patches, batch.teacher.patches
        return gram_difference(student.flatten(1, 2), teacher.detach().flatten(1, 2)), {}


@in_float32
def gram_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the Gram matrices of unit tokens, both (B, N, D)."""
    student, teacher = (F.normalize(side, dim=2) for side in (student, teacher))
    return F.mse_loss(student @ student.transpose(1, 2), teacher @ teacher.transpose(1, 2))
