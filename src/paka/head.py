"""Heads on the encoder's tokens, and the branch that an encoder and its heads make."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paka.encoder import Encoder, Tokens


class ProjectionHead(nn.Sequential):
    """Three linear layers with GELU between them, applied to each aligned token (arXiv 2509.05606, App. D.1).

    Args:
        dim: Channels of the encoder's tokens.
        hidden: Channels of the two hidden layers.
        out: Channels of the output.
    """

    def __init__(self, dim: int, *, hidden: int = 2048, out: int = 256) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
        )


class PrototypeHead(nn.Module):
    """Cosine similarities of a whole view to learnt prototypes (DINO, Caron et al. 2021, arXiv 2104.14294, App. C).

    Args:
        dim: Channels of the encoder's tokens.
        hidden: Channels of the two hidden layers.
        out: Channels in which views and prototypes are compared.
        prototypes: Number of prototypes K.
        pooling: What stands for the view: its class token, or the mean of its patch tokens.
    """

    def __init__(
        self, dim: int, *, hidden: int, out: int, prototypes: int, pooling: Literal["class", "mean"]
    ) -> None:
        super().__init__()
        self.projection = ProjectionHead(dim, hidden=hidden, out=out)
        self.prototypes = nn.Parameter(torch.empty(prototypes, out))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.pooling = pooling

    def forward(self, tokens: Tokens) -> Tensor:
        """Return similarities in [-1, 1], (B, K), of B views.

        Raises:
            ValueError: The class token is asked for and the encoder has none.
        """
        if self.pooling == "class" and not tokens.prefix.shape[1]:
            raise ValueError(
                "expected an encoder with a class token, this one has none: set image_head.pooling=mean"
            )
        view = tokens.prefix[:, 0] if self.pooling == "class" else tokens.patches.mean(dim=(1, 2))
        return F.linear(
            F.normalize(self.projection(view).float(), dim=1), F.normalize(self.prototypes.float(), dim=1)
        )


class Branch(nn.Module):
    """One side of the comparison: an encoder and the heads on its tokens.

    Args:
        encoder: The vision transformer.
        head: What is applied to aligned tokens, (..., D) to (..., D').
        image_head: What is applied to all tokens of a view, `Tokens` to (B, K); None for objectives that do
            not look at whole views.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, image_head: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.image_head = image_head
