"""Patch-level kernel alignment: the student's tokens should relate to each other as the teacher's do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paka import alignment
from paka.collectives import largest_over_processes, many_processes
from paka.draws import Draws
from paka.kernels import Kernel, linear
from paka.objectives import Correspondences
from paka.objectives.points import Points


class PaKA(nn.Module):
    """The objective `1 - CKA(K_student, K_teacher)` over the aligned tokens of each view pair.

    The paper's CKA, biased and per pair, is the default. Tokens that merely encode where they are have the same
    kernel in every image, which CKA takes for agreement; with `deconfound` only what an image does not share with
    others counts (`experiments/demo/`).

        >>> import torch
        >>> from paka.objectives import Correspondences
        >>> tokens = torch.randn(4, 49, 64)
        >>> loss, logs = PaKA()(Correspondences.of(tokens, tokens))
        >>> round(loss.item(), 4)
        0.0

    Args:
        kernel: Similarity of tokens, used on both sides; one with arguments is given as
            `functools.partial(paka.kernels.rbf, bandwidth=0.5)`.
        unbiased: Use the unbiased HSIC, by which independent tokens score 0.
        deconfound: Regress out of each kernel what the kernels of the other images share, position above all.
        scale_bins: Number of octaves of the view's scale, 1 to 8, that are deconfounded apart.
        pooled: Take the ratio of mean HSICs over all pairs of all processes, in place of the mean CKA of a pair.
        max_points: A fresh random subset of so many points, valid ones first, enters each kernel; None for all.
        min_points: A pair with fewer valid points does not count; at least 2, or 4 if unbiased.
        seed: Seed of the subset and of the shuffle behind `cka_floor`.

    Raises:
        ValueError: A value is out of range.

    Source: PaKA (arXiv 2509.05606); `paka.alignment` for the estimators.
    """

    def __init__(
        self,
        kernel: Kernel = linear,
        *,
        unbiased: bool = False,
        deconfound: bool = False,
        scale_bins: int = 1,
        pooled: bool = False,
        max_points: int | None = None,
        min_points: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_points(min_points, max_points, unbiased=unbiased)
        if not 1 <= scale_bins <= alignment.BINS:
            raise ValueError(f"expected scale_bins from 1 to {alignment.BINS}, got {scale_bins}")
        if deconfound and max_points is not None:
            raise ValueError(
                f"expected max_points=None with deconfound, got {max_points}: kernels over different points have no mean"
            )
        self.kernel = kernel
        self.unbiased, self.deconfound, self.pooled = unbiased, deconfound, pooled
        self.scale_bins, self.max_points, self.min_points = scale_bins, max_points, min_points
        self.draws = Draws(seed)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and what to log of it.

        The loss is the mean over images of the mean over the usable pairs of each image. The divisor is the
        number of images that have a usable pair, so ranks with equally many of them average to the loss of
        one process.

        Args:
            batch: reads `aligned_student` and `aligned_teacher` `(P, N, D)`, `valid` `(P, N)`, `image` and `scale`
                `(P,)` and `images`. Nothing flows back into the teacher.

        Returns:
            The loss, float32 in [0, 1] or, unbiased or deconfounded, in [0, 2], a differentiable 0 without usable
            pairs; and detached, averaged like the loss: `cka`; `cka_floor`, the same with the teacher's tokens
            shuffled within the pair, which is what chance gives; `locality_share`, the share of the CKA, before
            anything is regressed out, that the mean kernel of other images explains; and `valid_points`, the
            share of all points.

        Raises:
            ValueError: Kernels are to be deconfounded and the batch has one image.
        """
        self._check(batch)
        points = Points.of(batch, self.draws).subset(self.max_points, self.draws)
        usable = points.valid.sum(dim=1) >= self.min_points
        plain = not (self.deconfound or self.pooled)
        features = points.features(self.kernel) if plain else None
        logs: dict[str, Tensor] = {}
        if features is not None:
            similarity, floor = (
                alignment.feature_cka(features[0], other, points.valid, unbiased=self.unbiased)
                for other in features[1:]
            )
        else:
            student, teacher, shuffled = points.kernels(self.kernel)
            if self.max_points is None:  # subsets differ from pair to pair
                logs["locality_share"] = self._locality_share(student, teacher, points.valid, batch, usable)
            similarity = self._similarity(student, teacher, points.valid, batch, usable)
            with torch.no_grad():
                floor = self._similarity(student, shuffled, points.valid, batch, usable)
        logs["cka"] = self._average(similarity.detach(), batch, usable)
        logs["cka_floor"] = self._average(floor.detach(), batch, usable)
        logs["valid_points"] = batch.valid_share()
        return self._average(1 - similarity, batch, usable), logs

    def _check(self, batch: Correspondences) -> None:
        if self.deconfound and batch.images < 2 and not many_processes():
            raise ValueError(
                "deconfound expected at least two images at a time, got one: raise backbone.batch_size, or lower "
                "trainer.accumulate or trainer.devices"
            )

    def _similarity(
        self, student: Tensor, teacher: Tensor, valid: Tensor, batch: Correspondences, usable: Tensor
    ) -> Tensor:
        """Return the alignment of two kernels (P, N, N), per pair (P,) or pooled ()."""
        student, teacher = (
            alignment.centre(side, valid, unbiased=self.unbiased) for side in (student, teacher)
        )
        if self.deconfound:
            bins = self._bins(batch.scale)
            student, teacher = (
                alignment.deconfound(side, valid, batch.image, bins, unbiased=self.unbiased)
                for side in (student, teacher)
            )
        if not self.pooled:
            return alignment.kernel_alignment(student, teacher)
        return alignment.pooled_alignment(
            student, teacher, valid, batch.weights(usable), unbiased=self.unbiased
        )

    def _locality_share(
        self, student: Tensor, teacher: Tensor, valid: Tensor, batch: Correspondences, usable: Tensor
    ) -> Tensor:
        bins = self._bins(batch.scale)
        explained = alignment.locality(student, teacher, valid, batch.image, bins, unbiased=self.unbiased)
        whole = alignment.cka(student.detach(), teacher, valid, unbiased=self.unbiased)
        part, total = batch.average(explained, usable), batch.average(whole, usable)
        return torch.where(total > 0, part / total.clamp_min(torch.finfo(total.dtype).tiny), 0)

    def _bins(self, scale: Tensor) -> Tensor | None:
        """Return the octave of each pair's scale, counted down from 1 and above, `(P,)` int64; None for one bin."""
        if self.scale_bins == 1:
            return None
        return scale.log2().floor().clamp(1 - self.scale_bins, 0).long() + self.scale_bins - 1

    def _average(self, values: Tensor, batch: Correspondences, usable: Tensor) -> Tensor:
        """Return the mean of values (P,) as the loss takes it; a pooled value () stands for itself."""
        if not self.pooled:
            return batch.average(values, usable)
        return torch.where(largest_over_processes(usable.any().float()) > 0, values, 0)


def check_points(min_points: int, max_points: int | None, *, unbiased: bool) -> None:
    """Raise unless so many points have relations that can be compared."""
    least = alignment.LEAST_UNBIASED if unbiased else 2
    if min_points < least:
        kind = "the unbiased HSIC needs four points" if unbiased else "one point has no relations"
        raise ValueError(f"expected min_points of at least {least}, got {min_points}: {kind}")
    if max_points is not None and max_points < min_points:
        raise ValueError(f"expected max_points of at least min_points={min_points}, got {max_points}")
