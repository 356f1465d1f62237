"""The numbers of a timm transformer that other libraries' configurations want."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.layers import GELUTanh, QuickGELU
from torch import nn

from paka.layouts import mlp_kind
from paka.weights import Transformer


@dataclass(frozen=True)
class Anatomy:
    """What a transformer is made of.

    Attributes:
        width: Channels of a token.
        depth: Blocks.
        heads: Attention heads.
        hidden: Channels inside an MLP, of one half where there are two.
        mlp: Kind of MLP: `plain`, `packed` (gate and value in one matrix) or `gated` (in two).
        activation: As transformers calls it, or the name of its class.
        eps: Of the layer norms.
        classes: Class tokens.
        registers: Register tokens.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    mlp: str
    activation: str
    eps: float
    classes: int
    registers: int


def anatomy(network: Transformer) -> Anatomy:
    """Return what a timm transformer is made of."""
    model: Any = network
    block = model.blocks[0]
    return Anatomy(
        width=int(model.embed_dim),
        depth=len(model.blocks),
        heads=int(block.attn.num_heads),
        hidden=int(block.mlp.fc2.in_features),
        mlp=mlp_kind(model.state_dict()),
        activation=_activation(block.mlp.act),
        eps=float(getattr(model.norm, "eps", 0.0)),
        classes=0 if model.cls_token is None else int(model.cls_token.shape[1]),
        registers=0 if model.reg_token is None else int(model.reg_token.shape[1]),
    )


def _activation(act: nn.Module) -> str:
    """Return an activation's name in transformers, or that of its class."""
    exact = isinstance(act, nn.GELU) and act.approximate == "none"
    if exact:
        return "gelu"
    tanh = isinstance(act, GELUTanh) or (isinstance(act, nn.GELU) and act.approximate == "tanh")
    names = {
        "gelu_pytorch_tanh": tanh,
        "quick_gelu": isinstance(act, QuickGELU),
        "silu": isinstance(act, nn.SiLU),
    }
    return next((name for name, holds in names.items() if holds), type(act).__name__)
