"""The teacher: an exponential moving average (EMA) of the student."""

from __future__ import annotations

import copy
from typing import Self

import torch

from paka.head import Branch


class EMATeacher(Branch):
    """A frozen copy of a student that follows it slowly.

    It never trains and stays in evaluation mode whatever its parent module does.

    Args:
        student: The branch to copy; encoder and heads start equal to it.
    """

    def __init__(self, student: Branch) -> None:
        super().__init__(*copy.deepcopy((student.encoder, student.head, student.image_head)))
        self.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - the signature of nn.Module
        """Stay in evaluation mode."""
        del mode
        return super().train(mode=False)

    @torch.no_grad()
    def update(self, student: Branch, momentum: float) -> None:
        """Set every weight to `momentum * own + (1 - momentum) * student`; buffers are copied.

        Args:
            student: The branch to follow.
            momentum: Share of the own weight that is kept, in [0, 1].
        """
        own, followed = ([value.data for value in side.parameters()] for side in (self, student))
        if own:
            torch._foreach_lerp_(own, followed, 1.0 - momentum)
        for mine, theirs in zip(self.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
