"""Sliding windows: the logits of a whole image from overlapping square windows of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor


def offsets(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along a side so that they cover it; the last one ends with the side.

    Args:
        length: Length of the side, at least `window`.
        window: Length of a window.
        stride: Distance between windows, at most `window`.

    Raises:
        ValueError: A side is shorter than a window, or windows would leave gaps.
    """
    if length < window or not 1 <= stride <= window:
        message = (
            f"expected a side of {window} at least and a stride from 1 to {window}, got {length} and {stride}"
        )
        raise ValueError(f"{message}: pad the image, or lower stride")
    count = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(count)]


def sliding_logits(
    image: Tensor, predict: Callable[[Tensor], Tensor], *, window: int, stride: int, batch: int = 8
) -> Tensor:
    """Return the mean logits (C, H, W) float32 of all windows that show a pixel.

    Args:
        image: (3, H, W), each side at least `window`.
        predict: Maps windows (B, 3, window, window) to logits (B, C, window, window).
        window: Side of a window in pixels.
        stride: Pixels between windows, at most `window`.
        batch: Windows per call.

    Raises:
        ValueError: The image is smaller than a window, or windows would leave gaps.
    """
    height, width = image.shape[1:]
    starts = list(product(offsets(height, window, stride), offsets(width, window, stride)))
    total: Tensor | None = None
    times = torch.zeros(height, width, device=image.device)
    for first in range(0, len(starts), batch):
        chosen = starts[first : first + batch]
        views = torch.stack([image[:, top : top + window, left : left + window] for top, left in chosen])
        found = predict(views).float()
        total = found.new_zeros(found.shape[1], height, width) if total is None else total
        for (top, left), logits in zip(chosen, found, strict=True):
            total[:, top : top + window, left : left + window] += logits
            times[top : top + window, left : left + window] += 1
    if total is None:
        raise ValueError("expected at least one window, got none: lower window")
    return total / times
