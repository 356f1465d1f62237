"""Rival: go on with an image-level objective on the same images. It is the control for the data."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paka.collectives import sum_over_processes
from paka.objectives import Correspondences
from paka.precision import in_float32


class ImageLevel(nn.Module):
    """DINO: every view of the student should choose the prototypes that the teacher chooses for the clean globals.

    Args:
        prototypes: Number of prototypes K, as the head has.
        student_temperature: Divisor of the student's similarities.
        teacher_temperature: Divisor of the teacher's; the smaller, the more decided.
        centre_momentum: Share of the running mean of the teacher's similarities that a step keeps, in [0, 1]. The
            mean is taken off them, so that no prototype wins everywhere.

    Source: DINO (Caron et al. 2021, arXiv 2104.14294), equations 1 to 4. The teacher sees clean globals, as for all
    objectives here.
    """

    def __init__(
        self,
        *,
        prototypes: int,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy in nats over all pairs of a teacher's global and another view of its image.

        Args:
            batch: reads `image_student` (B, V, K) and `image_teacher` (B, G, K).

        Returns:
            The loss, and `prototype_entropy`, the entropy of the teacher's mean choice in nats: log K when all
            prototypes are used alike, 0 when one is all that is left.

        Raises:
            ValueError: There is no other view to compare with.
        """
        student, teacher = cast(Tensor, batch.image_student), cast(Tensor, batch.image_teacher)
        if student.shape[1] < 2:
            raise ValueError(
                "objective=image_level expected at least two views of an image: raise augmentation.locals"
            )
        target = self._choices(teacher.detach())
        loss = _cross_entropy(student, target, self.student_temperature)
        mean = target.mean(dim=(0, 1))
        if self.training:
            self._move_centre(teacher.detach())
        return loss, {"prototype_entropy": -(mean * mean.clamp_min(1e-12).log()).sum()}

    def _choices(self, teacher: Tensor) -> Tensor:
        return ((teacher.float() - cast(Tensor, self.centre)) / self.teacher_temperature).softmax(dim=2)

    @torch.no_grad()
    def _move_centre(self, teacher: Tensor) -> None:
        total = sum_over_processes(teacher.float().sum(dim=(0, 1)))
        count = sum_over_processes(
            torch.tensor(float(teacher.shape[0] * teacher.shape[1]), device=total.device)
        )
        cast(Tensor, self.centre).lerp_(total / count, 1 - self.centre_momentum)


@in_float32
def _cross_entropy(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the mean over teacher's globals g and student's views v other than g; the first G views are globals."""
    logs = F.log_softmax(student / temperature, dim=2)
    entropies = -torch.einsum("bgk,bvk->bgv", target, logs)
    globals_, views = entropies.shape[1:]
    other = ~torch.eye(globals_, views, dtype=torch.bool, device=student.device)
    return (entropies * other).sum() / (len(student) * (globals_ * views - min(globals_, views)))
