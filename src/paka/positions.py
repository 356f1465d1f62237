"""Absolute position embeddings at grids that they were not learnt for: as timm resamples them, or as their authors do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import Eva, VisionTransformer
from torch import Tensor


@dataclass(frozen=True)
class Resampling:
    """How a grid of position embeddings becomes one of another size.

    timm's own is bicubic with antialiasing for every model.

    Attributes:
        mode: Interpolation, `bicubic` or `bilinear`.
        antialias: Whether a smaller grid is low-pass filtered first.
        align_corners: Whether the outermost positions of both grids coincide, rather than their borders.
        offset: Added to the rows and columns asked for before the scale is computed, as in DINO, whose scale of
            (n + 0.1) / m keeps rounding from losing a row; sampling positions shift by it.
    """

    mode: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    align_corners: bool = False
    offset: float = 0.0

    def __call__(self, positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Resample positions, (1, h * w, D) on the grid `old`, to (1, h' * w', D) on the grid `new`."""
        if old == new:
            return positions
        grid = positions.float().unflatten(1, old).permute(0, 3, 1, 2)
        if self.offset:
            factors = [(sides[0] + self.offset) / sides[1] for sides in zip(new, old, strict=True)]
            grid = F.interpolate(grid, scale_factor=factors, mode=self.mode, antialias=self.antialias)
        else:
            corners = self.align_corners
            grid = F.interpolate(
                grid, size=new, mode=self.mode, antialias=self.antialias, align_corners=corners
            )
        return grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)


class AuthorPositions:
    """A forward hook on timm's patch embedding by which positions are resampled as a model's authors do.

    timm adds its own resampling right after the patch embedding; the hook adds the difference before, and so
    leaves module, weights and their names as they are.

    Args:
        model: A timm vision transformer made with `dynamic_img_size`.
        resampling: How the authors resample.
    """

    def __init__(self, model: VisionTransformer | Eva, resampling: Resampling) -> None:
        self.model, self.resampling = model, resampling

    def __call__(self, patch_embed: PatchEmbed, arguments: tuple[Tensor, ...], patches: Tensor) -> Tensor:
        """Return the patches, (B, h, w, D), plus the authors' positions less timm's."""
        del arguments
        old, new = tuple(patch_embed.grid_size), (patches.shape[1], patches.shape[2])
        if old == new:
            return patches
        prefix = 0 if self.model.no_embed_class else int(self.model.num_prefix_tokens)
        learnt = cast(Tensor, self.model.pos_embed)[:, prefix:]
        theirs: Tensor = self.resampling(learnt, old, new)
        timms: Tensor = resample_abs_pos_embed(
            learnt, new_size=list(new), old_size=list(old), num_prefix_tokens=0
        )
        return patches + torch.unflatten(theirs - timms, 1, new)


def resampling_of(model: VisionTransformer | Eva) -> Resampling:
    """Return how a model resamples its position embeddings: by its hook, or as timm does."""
    hooks = model.patch_embed._forward_hooks.values()
    return next((hook.resampling for hook in hooks if isinstance(hook, AuthorPositions)), Resampling())
