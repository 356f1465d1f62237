"""The projection head, and the branch that an encoder and its head make."""

from __future__ import annotations

from torch import nn

from paka.encoder import Encoder


class ProjectionHead(nn.Sequential):
    """Three linear layers with GELU between them, applied to each aligned token (arXiv 2509.05606, App. D.1).

    Args:
        dim: Channels of the encoder's tokens.
        hidden: Channels of the two hidden layers.
        out: Channels of the output.
    """

    def __init__(self, dim: int, *, hidden: int, out: int) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, out)
        )


class Branch(nn.Module):
    """One side of the comparison: an encoder and the head on its tokens.

    Args:
        encoder: The vision transformer.
        head: What is applied to aligned tokens, (..., D) to (..., D').
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
