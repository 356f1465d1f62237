"""A segmenter: an encoder and a decoder as one model, applied to images of any size by sliding windows."""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from paka.encoder import Encoder
from paka.protocols.sliding_window import sliding_logits
from paka.protocols.training_crops import fitted_scale
from paka.resizing import Interpolation, resize


class Segmenter(nn.Module):
    """An encoder and a decoder of its patch tokens.

    Args:
        encoder: Copied, and all of the copy that runs is trained; the one passed in stays as it is.
        decoder: Maps patch tokens (B, h, w, D) to logits (B, C, h, w).
        drop_path: Stochastic depth rate of the last block; earlier blocks get proportionally less.
        frozen: Whether the encoder is not trained, and always in evaluation mode.
    """

    def __init__(
        self, encoder: Encoder, decoder: nn.Module, *, drop_path: float = 0.0, frozen: bool = False
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.encoder = copy.deepcopy(encoder).requires_grad_(requires_grad=not frozen)
        if self.encoder.layers:
            self.encoder.model.blocks[self.encoder.layers[-1] + 1 :].requires_grad_(requires_grad=False)
        _set_drop_path(self.encoder, drop_path)
        self.decoder = decoder
        self.train()

    @property
    def fill(self) -> tuple[int, int, int]:
        """The encoder's mean colour in [0, 255], which it sees as 0: what images are padded with."""
        red, green, blue = cast(Tensor, self.encoder.mean).flatten().round().int().tolist()
        return red, green, blue

    def train(self, mode: bool = True) -> Segmenter:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of what is trained."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of images (B, 3, H, W) uint8, upsampled bilinearly."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            patches = self.encoder(images).patches
        logits = self.decoder(patches)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _set_drop_path(encoder: Encoder, rate: float) -> None:
    """Give every residual branch its stochastic depth."""
    blocks = encoder.model.blocks
    for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        for name in [name for name, _ in block.named_children() if name.startswith("drop_path")]:
            setattr(block, name, DropPath(share) if share else nn.Identity())


@torch.inference_mode()
def segment(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    *,
    short_side: int,
    window: int,
    stride: int,
    batch: int,
    interpolation: Interpolation = "area",
) -> NDArray[np.uint8]:
    """Segment one image by sliding windows at the resolution of the training.

    The logits of overlapping windows are averaged, brought to the size of the image and only then compared.

    Args:
        segmenter: In evaluation mode.
        image: (H, W, 3) uint8 RGB.
        short_side: What the image's shorter side is scaled to.
        window: Side of a window in pixels.
        stride: Pixels between windows.
        batch: Windows per forward pass.
        interpolation: Filter that the image is resized with.

    Returns:
        Class ids, (H, W) uint8.
    """
    height, width = image.shape[:2]
    scale = fitted_scale((height, width), short_side)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    padded = np.empty((max(size[0], window), max(size[1], window), 3), dtype=np.uint8)
    padded[:] = segmenter.fill
    padded[: size[0], : size[1]] = resize(image, size, interpolation)
    device = next(segmenter.parameters()).device
    pixels = torch.from_numpy(padded).permute(2, 0, 1).to(device)
    logits = sliding_logits(pixels, segmenter, window=window, stride=stride, batch=batch)
    logits = logits[None, :, : size[0], : size[1]]
    full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    found: NDArray[np.uint8] = full[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return found
