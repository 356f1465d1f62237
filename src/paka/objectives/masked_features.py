"""Self-supervised pretraining: tell from a masked picture which gradients each patch of the clean one holds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from paka.objectives import Correspondences
from paka.precision import in_float32

ORIENTATIONS = 8
"""Bins of the orientation of a gradient over half a turn."""
WIDTHS = (1, 2, 3)
"""Half distances in pixels over which gradients are taken, each after a blur that fits it."""


class MaskedFeatures(nn.Module):
    """Prediction of histograms of oriented gradients from masked, recoloured pictures.

    After MaskFeat (Wei et al., 2022, arXiv 2112.09133), with three differences: histograms are taken at three widths
    and over 3 x 3 patches, since textures differ in coarseness; every patch counts, not only masked ones; and
    targets are standardised per channel over the batch, without which their common mean is all that is learnt at
    first (`experiments/tiny-encoder/`).

    Args:
        dim: Channels of the encoder's tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.predictor = nn.Linear(dim, len(WIDTHS) * (ORIENTATIONS + 1))

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error in units of the targets' variance: 1 for a constant guess.

        Args:
            batch: Reads `student_globals` and `clean`.

        Raises:
            ValueError: The augmentation renders no globals for the student.
        """
        if batch.student_globals is None:
            raise ValueError(
                "objective=masked_features looks at the student's globals: set augmentation=masked"
            )
        patches = batch.student_globals.patches
        target = oriented_gradients(batch.clean, batch.clean.shape[-1] // patches.shape[-2])
        deviation, mean = torch.std_mean(target, dim=(0, 1, 2))
        standardised = (target - mean) / (deviation + 1e-4)
        return nn.functional.mse_loss(self.predictor(patches).float(), standardised), {}


@in_float32
def oriented_gradients(images: Tensor, patch: int) -> Tensor:
    """Return histograms of oriented gradients at several widths, of length 1 per patch.

    Args:
        images: (B, 3, h * patch, w * patch) uint8.
        patch: Side of a patch in pixels.

    Returns:
        (B, h, w, 27) float32: for each of `WIDTHS`, mean gradient magnitude per orientation, split linearly between
        neighbouring bins, and over all, over the patch and its eight neighbours.
    """
    gray = images.float().mean(dim=1, keepdim=True) / 255.0
    histograms = torch.cat([_histogram(gray, width) for width in WIDTHS], dim=1)
    cells = nn.functional.avg_pool2d(histograms, patch)
    around = nn.functional.avg_pool2d(nn.functional.pad(cells, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return nn.functional.normalize(around, dim=1, eps=1e-3).permute(0, 2, 3, 1)


def _histogram(gray: Tensor, width: int) -> Tensor:
    """Return per pixel of (B, 1, H, W) the gradient's magnitude by orientation, then in all, (B, 9, H, W)."""
    if width > 1:
        radius = 3 * (width - 1)
        gray = gaussian_blur(gray, [2 * radius + 1] * 2, [0.8 * (width - 1)] * 2)
    padded = nn.functional.pad(gray, (width,) * 4, mode="reflect")
    across = padded[..., width:-width, 2 * width :] - padded[..., width:-width, : -2 * width]
    down = padded[..., 2 * width :, width:-width] - padded[..., : -2 * width, width:-width]
    magnitude = torch.hypot(across, down)
    bin_ = torch.atan2(down, across) / math.pi % 1 * ORIENTATIONS
    centres = torch.arange(ORIENTATIONS, device=gray.device).view(-1, 1, 1)
    distance = (bin_ - centres + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2
    return torch.cat([magnitude * (1 - distance.abs()).clamp_min(0), magnitude], dim=1)
