"""Decoders: patch tokens in, one map of logits per class on the token grid out."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_CHANNELS = 64
"""Channels of an attention head where their number is not given."""


class LinearDecoder(nn.Module):
    """A 1x1 convolution of patch tokens.

    Args:
        dim: Channels D of the tokens.
        classes: Number of classes C.
        batch_norm: Whether channels are batch-normalised before it.
        dropout: Probability of dropping a channel of an image, all over.
        dropout_first: Whether that comes before the normalisation, whose variance then counts what dropout adds.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
        dropout_first: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim) if batch_norm else nn.Identity()
        self.drop = nn.Dropout2d(dropout)
        self.dropout_first = dropout_first
        self.classify = nn.Conv2d(dim, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of patch tokens (B, h, w, D)."""
        channels = patches.permute(0, 3, 1, 2)
        found = self.norm(self.drop(channels)) if self.dropout_first else self.drop(self.norm(channels))
        logits: Tensor = self.classify(found)
        return logits


class MaskTransformer(nn.Module):
    """Class embeddings attend to the patches, and a class's logits are its similarity to each patch.

    Projected patch tokens and one learnt embedding per class go through transformer blocks together. The logits
    are the scalar products of both sides, projected and L2-normalised, with layer normalisation over the classes.
    It knows no positions but those that are in the tokens.

    Args:
        dim: Channels D of the tokens.
        classes: Number of classes C, at least 2.
        depth: Transformer blocks.
        heads: Attention heads, a divisor of D; None for one per 64 channels, or fewer where D is no multiple.
        drop_path: Stochastic depth rate of the blocks.

    Raises:
        ValueError: The heads do not divide the channels, or there are fewer than 2 classes.

    Source: Segmenter (Strudel et al., 2021, arXiv 2105.05633), section 3.2.
    """

    def __init__(
        self, dim: int, classes: int, depth: int = 2, heads: int | None = None, *, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        heads = _default_heads(dim) if heads is None else heads
        _check(dim, classes, heads)
        self.project = nn.Linear(dim, dim)
        self.class_embeddings = nn.Parameter(torch.empty(classes, dim))
        self.blocks = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True, drop_path=drop_path) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.project_patches = nn.Linear(dim, dim, bias=False)
        self.project_classes = nn.Linear(dim, dim, bias=False)
        self.norm_logits = nn.LayerNorm(classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for projection in (self.project_patches, self.project_classes):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        nn.init.trunc_normal_(self.class_embeddings, std=0.02)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits (B, C, h, w) of patch tokens (B, h, w, D)."""
        images, rows, columns, _ = patches.shape
        projected = self.project(patches.flatten(1, 2))
        joined = torch.cat([projected, self.class_embeddings.to(projected).expand(images, -1, -1)], dim=1)
        found = self.norm(self.blocks(joined))
        tokens = F.normalize(self.project_patches(found[:, : rows * columns]), dim=-1)
        classes = F.normalize(self.project_classes(found[:, rows * columns :]), dim=-1)
        logits: Tensor = self.norm_logits(tokens @ classes.transpose(1, 2))
        return logits.transpose(1, 2).reshape(images, -1, rows, columns)


def _default_heads(dim: int) -> int:
    """Return the most heads of at least 64 channels each that divide the channels, at least 1."""
    return next(heads for heads in range(max(dim // HEAD_CHANNELS, 1), 0, -1) if dim % heads == 0)


def _check(dim: int, classes: int, heads: int) -> None:
    if heads < 1 or dim % heads:
        raise ValueError(
            f"expected heads that divide the {dim} channels, got {heads}: take {_default_heads(dim)}"
        )
    if classes < 2:
        raise ValueError(f"expected at least 2 classes to tell apart, got {classes}: use a LinearDecoder")
