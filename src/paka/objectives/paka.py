"""Patch-level kernel alignment: the student's tokens should relate to each other as the teacher's do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paka.alignment import cka, deconfounded_cka
from paka.kernels import Kernel
from paka.objectives import Correspondences


class PaKA(nn.Module):
    """The objective `1 - CKA(K_student, K_teacher)` over the aligned tokens of each view pair.

    Tokens that merely encode where they are have the same kernel in every image, which biased CKA, the paper's, takes
    for agreement. With `deconfound` only what an image does not share with others counts (`experiments/demo/`).

    Args:
        kernel: Similarity of tokens, for instance `paka.kernels.linear`, used on both sides.
        min_points: A pair with fewer valid points does not count; at least 2.
        deconfound: Regress out of each kernel what the kernels of the other images share, position above all.

    Raises:
        ValueError: `min_points` is under 2, where a centred kernel is always zero.

    Source: PaKA (arXiv 2509.05606).
    """

    def __init__(self, kernel: Kernel, *, min_points: int = 4, deconfound: bool = False) -> None:
        super().__init__()
        if min_points < 2:
            raise ValueError(
                f"expected min_points of at least 2, got {min_points}: one point has no relations"
            )
        self.kernel = kernel
        self.min_points = min_points
        self.deconfound = deconfound

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and what to log of it.

        The loss is the mean over images of the mean over the usable pairs of each image. The divisor is the
        number of images that have a usable pair, so ranks with equally many of them average to the loss of
        one process.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)`, `image`
                `(P,)` and `images`. Nothing flows back into the teacher.

        Returns:
            The loss, float32 in [0, 1] or, deconfounded, in [0, 2], a differentiable 0 without usable pairs; and
            detached `cka`, averaged like the loss, and `valid_points`, the share of all points.
        """
        teacher = batch.aligned_teacher.detach()
        k_student = self.kernel(batch.aligned_student, teacher, batch.valid)
        k_teacher = self.kernel(teacher, teacher, batch.valid)
        if self.deconfound:
            similarity = deconfounded_cka(k_student, k_teacher, batch.valid, batch.image)
        else:
            similarity = cka(k_student, k_teacher, batch.valid)

        usable = batch.valid.sum(dim=1) >= self.min_points
        members = _members(batch.image, usable, images=batch.images)
        logs = {
            "cka": _mean_over_images(similarity.detach(), members),
            "valid_points": batch.valid.sum() / max(batch.valid.numel(), 1),
        }
        return _mean_over_images(1 - similarity, members), logs


def _members(image: Tensor, usable: Tensor, *, images: int) -> Tensor:
    """Return which usable pairs belong to which image, `(images, P)` bool."""
    return (torch.arange(images, device=image.device)[:, None] == image) & usable


def _mean_over_images(values: Tensor, members: Tensor) -> Tensor:
    """Return the mean over images with members of the mean over their members of values `(P,)`."""
    pairs = members.sum(dim=1)
    per_image = torch.where(members, values, 0).sum(dim=1) / pairs.clamp_min(1)
    return per_image.sum() / (pairs > 0).sum().clamp_min(1)
