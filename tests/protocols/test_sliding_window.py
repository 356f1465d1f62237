"""Sliding windows: they cover the image, and what they say of a pixel is averaged."""

from __future__ import annotations

import pytest
import torch

from paka.protocols.sliding_window import offsets, sliding_logits


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (8, 8, 5, [0]),
        (9, 8, 5, [0, 1]),
        (13, 8, 5, [0, 5]),
        (14, 8, 5, [0, 5, 6]),
        (16, 8, 8, [0, 8]),
    ],
)
def test_windows_start_here(length: int, window: int, stride: int, expected: list[int]) -> None:
    assert offsets(length, window, stride) == expected


def test_a_pixelwise_prediction_comes_back_as_it_is() -> None:
    image = torch.rand(3, 21, 17, generator=torch.Generator().manual_seed(0))
    found = sliding_logits(image, lambda views: 2.0 * views, window=8, stride=5, batch=3)
    torch.testing.assert_close(found, 2.0 * image)


def test_overlapping_windows_are_averaged() -> None:
    def numbered(views: torch.Tensor) -> torch.Tensor:
        return views[:, :1, :1, :1].expand(-1, 1, 4, 4)

    image = torch.arange(6.0).expand(3, 4, 6)  # a window's logits are the column it starts at: 0 or 2
    found = sliding_logits(image, numbered, window=4, stride=2)
    assert found[0, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_batch_does_not_matter(batch: int) -> None:
    image = torch.rand(3, 21, 17, generator=torch.Generator().manual_seed(0))
    found, expected = (
        sliding_logits(image, lambda views: views.cumsum(dim=3), window=8, stride=5, batch=size)
        for size in (batch, 7)
    )
    assert torch.equal(found, expected)


def test_gaps_and_images_that_are_too_small_are_refused() -> None:
    for length, stride in ((7, 5), (20, 9), (20, 0)):
        with pytest.raises(ValueError, match="lower stride"):
            offsets(length, 8, stride)
