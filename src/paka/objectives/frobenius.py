"""Rival: the plain difference of the two kernels, without CKA's normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from paka.alignment import centre
from paka.kernels import Kernel, linear
from paka.objectives import Correspondences
from paka.objectives.points import of_all_sides


class Frobenius(nn.Module):
    """The objective `|H (K_s - K_t) H|^2 / n^2` over the n aligned tokens of each pair.

    Kernels are centred, as everywhere here, since they are only given up to what centring removes. Unlike CKA it is
    not indifferent to the scale of the tokens: with the linear kernel it is a distance in token units to the fourth
    power; the cosine kernel is the one to compare with.

    Args:
        kernel: Similarity of tokens, used on both sides.
        min_points: A pair with fewer valid points does not count.

    Source: PaKA (arXiv 2509.05606), first version, whose normalisation is not stated in what is public.
    """

    def __init__(self, kernel: Kernel = linear, *, min_points: int = 4) -> None:
        super().__init__()
        self.kernel, self.min_points = kernel, min_points

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean over images of the mean over their usable pairs, at least 0; and `valid_points`.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)` and `image` `(P,)`.
        """
        sides = batch.aligned_student, batch.aligned_teacher.detach()
        student, teacher = of_all_sides(self.kernel, *sides, valid=batch.valid)
        difference = centre(student - teacher, batch.valid)
        n = batch.valid.sum(dim=1).clamp_min(1)
        loss = batch.average(difference.square().sum(dim=(1, 2)) / n.square(), batch.usable(self.min_points))
        return loss, {"valid_points": batch.valid_share()}
