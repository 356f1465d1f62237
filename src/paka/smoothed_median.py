"""A kernel of distances whose bandwidth is smoothed over the steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from paka.distances import every_token, median_distance
from paka.kernels import expect_above_zero


class SmoothedMedian(nn.Module):
    """A kernel of distances whose bandwidth follows the teacher's median distance by a moving average.

    One image's median jumps from step to step, this one value for all images hardly does. In training mode each
    call moves the buffer `median` towards the mean of `median_distance(reference)` over the images of all
    processes that have two valid tokens, which must call this together; the first such call sets it. In
    evaluation mode it stays; while it is 0, not set yet, each call goes by its own images.

    Args:
        kernel: Called as `kernel(tokens, reference, valid, bandwidth=tensor, bandwidth_rule="fixed")`.
        bandwidth: Sigma in smoothed medians, above 0.
        momentum: Share of the old value that each call keeps, from 0 to below 1.

    Raises:
        ValueError: the bandwidth is not above 0, or the momentum is out of range.
    """

    median: Tensor

    def __init__(
        self, kernel: Callable[..., Tensor], *, bandwidth: float = 1.0, momentum: float = 0.99
    ) -> None:
        super().__init__()
        expect_above_zero("bandwidth", bandwidth)
        if not 0 <= momentum < 1:
            raise ValueError(f"expected a momentum from 0 to below 1, got {momentum}")
        self.kernel, self.bandwidth, self.momentum = kernel, bandwidth, momentum
        self.register_buffer("median", torch.tensor(0.0))

    def forward(self, tokens: Tensor, reference: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Return the kernel `(B, N, N)` at the smoothed bandwidth, as `Kernel` describes it."""
        reference = tokens.detach() if reference is None else reference
        valid = every_token(tokens) if valid is None else valid
        total, images = self._medians(reference, valid)
        now = torch.where(images > 0, total / images.clamp_min(1), self.median)
        smoothed = torch.where(self.median > 0, self.median, now)
        if self.training:
            smoothed = torch.lerp(now, smoothed, self.momentum)
            self.median.copy_(smoothed)
        # Where no image has counted yet there is no kernel to speak of, but it has to be finite.
        sigma = self.bandwidth * torch.where(smoothed > 0, smoothed, 1)
        return self.kernel(tokens, reference, valid, bandwidth=sigma, bandwidth_rule="fixed")

    def _medians(self, reference: Tensor, valid: Tensor) -> Tensor:
        """Return the sum of the median distances and the number of images they are of, `(2,)`."""
        counted = valid.sum(dim=1) >= 2
        medians = torch.where(counted, median_distance(reference, valid), 0)
        sums = torch.stack([medians, counted.to(medians)]).sum(dim=1).to(self.median)
        if self.training and distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        return sums
