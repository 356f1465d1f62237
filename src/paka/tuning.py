"""Which of the encoder's weights are trained, and at which share of its rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.utils import parametrize

from paka.encoder import Encoder
from paka.precision import in_float32
from paka.weights import Transformer


@dataclass(frozen=True)
class LowRank:
    """Low-rank adapters: the weights W stay, and W + alpha / rank * B A is computed with.

    A factor is an ordinary parameter beside the weights, which keep their place in the model. The package `peft`
    would bring `transformers` and `accelerate` along for the few lines that this takes. timm keeps query, key and
    value in one matrix, `qkv`; they share one A.

    Attributes:
        rank: Rows of A and columns of B.
        alpha: Scale of the product before it is divided by the rank.
        targets: Linear layers of a block by the last part of their names.

    Source: LoRA (Hu et al., 2021, arXiv 2106.09685), section 4.1.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: Sequence[str] = ("qkv", "proj")

    def attach(self, blocks: nn.Module) -> None:
        """Give every target in `blocks` an adapter; the function computed stays the same.

        Raises:
            ValueError: A target is not among the linear layers.
        """
        linears = {name: module for name, module in blocks.named_modules() if isinstance(module, nn.Linear)}
        known = sorted({_last(name) for name in linears})
        unknown = [target for target in self.targets if target not in known]
        if unknown or not self.targets:
            message = (
                f"expected names of linear layers of a block, got {', '.join(unknown) or 'none'}: "
                f"set tuning.adapter.targets to some of {', '.join(known)}"
            )
            raise ValueError(message)
        for name, module in linears.items():
            if _last(name) in self.targets:
                update = LowRankUpdate(*module.weight.shape, rank=self.rank, scale=self.alpha / self.rank)
                parametrize.register_parametrization(module, "weight", update.to(module.weight))


class LowRankUpdate(nn.Module):
    """A parametrization W -> W + scale * B A of a weight, with B zero at first.

    A is drawn from a normal distribution of variance 1 / in_features. Neither factor is decayed: that would pull
    the encoder towards where it started, where the decay of whole weights pulls towards zero.

    Args:
        out_features: Rows of the weight.
        in_features: Columns of the weight.
        rank: Rows of A and columns of B.
        scale: Factor on the product.
    """

    def __init__(self, out_features: int, in_features: int, *, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.lora_a = nn.Parameter(torch.randn(rank, in_features) / math.sqrt(in_features))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, (out_features, in_features), of the given one and in its dtype."""
        # Under autocast the product would be rounded, and the merged encoder would not be the trained one.
        return weight + (self.scale * _product(self.lora_b, self.lora_a)).to(weight.dtype)


@in_float32
def _product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@dataclass(frozen=True)
class Tuning:
    """What of an encoder trains; the head and the objective always do.

    The teacher follows the trained weights and equals the student in the frozen ones for ever. It averages the
    factors of an adapter, not their product.

    Attributes:
        freeze_blocks: The first blocks to freeze, with everything before them; 0 freezes nothing.
        train_blocks: Or the last blocks to train, with the final norm; None leaves it to `freeze_blocks`.
        biases_only: Of what is left, train only the biases, those of the norms included.
        layer_decay: Factor on the rate per block below the last, see `layer_scales`.
        adapter: Trained, in the blocks that are left, instead of the weights.

    Raises:
        ValueError: Two ways to choose blocks or weights are given at once.

    Source: biases only, BitFit (Zaken et al., 2022, arXiv 2106.10199).
    """

    freeze_blocks: int = 0
    train_blocks: int | None = None
    biases_only: bool = False
    layer_decay: float = 1.0
    adapter: LowRank | None = None

    def __post_init__(self) -> None:
        if self.freeze_blocks and self.train_blocks is not None:
            message = (
                "expected one of freeze_blocks and train_blocks, "
                f"got {self.freeze_blocks} and {self.train_blocks}: leave one out"
            )
            raise ValueError(message)
        if self.biases_only and self.adapter is not None:
            raise ValueError("expected one of biases_only and adapter, got both: leave one out")

    def apply(self, encoder: Encoder) -> None:
        """Freeze what does not train, and attach the adapters, in place.

        Args:
            encoder: The student's, before a teacher is made of it.

        Raises:
            ValueError: There are fewer blocks than asked for, an adapter's target does not exist, or nothing trains.
        """
        model = encoder.model
        frozen = self._frozen_layers(len(model.blocks))
        layers, final_norm = parameter_layers(model), set(model.norm.parameters())
        for name, parameter in model.named_parameters():
            below = layers[name] < frozen and parameter not in final_norm
            if below or self.adapter is not None or (self.biases_only and not name.endswith("bias")):
                parameter.requires_grad_(False)  # noqa: FBT003 - a tensor takes it by position only
        blocks = model.blocks[max(frozen - 1, 0) :]
        if self.adapter is not None and len(blocks):
            self.adapter.attach(blocks)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("expected some of the encoder to train, got nothing: lower tuning.freeze_blocks")

    def _frozen_layers(self, depth: int) -> int:
        """Return how many layers are frozen of an encoder of `depth` blocks, which are layers 1 to `depth`."""
        for key in ("freeze_blocks", "train_blocks"):
            blocks = getattr(self, key) or 0
            if not 0 <= blocks <= depth:
                message = (
                    f"expected at most {depth} blocks, the encoder's depth, got {blocks}: lower tuning.{key}"
                )
                raise ValueError(message)
        if self.train_blocks is not None:
            return depth - self.train_blocks + 1
        return self.freeze_blocks + 1 if self.freeze_blocks else 0


def parameter_layers(model: Transformer) -> dict[str, int]:
    """Return the layer of every parameter by timm's own grouping.

    0 is everything before the blocks and block i is layer i + 1; the final norm counts with the last block, and so
    does what comes after it.
    """
    found = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return {name: min(layer, len(model.blocks)) for name, layer in found.items()}


def layer_scales(encoder: Encoder, decay: float) -> dict[nn.Parameter, float]:
    """Return each parameter's share of the encoder's rate: `decay` to the power of its distance from the top.

    The last block and the final norm have distance 0, the patch embedding has the number of blocks.

    Args:
        encoder: The encoder that trains.
        decay: Factor per layer, in (0, 1].

    Source: layer-wise learning-rate decay as in BEiT (arXiv 2106.08254).
    """
    layers, depth = parameter_layers(encoder.model), len(encoder.model.blocks)
    return {value: decay ** (depth - layers[name]) for name, value in encoder.model.named_parameters()}


def merge(adapted: Encoder, plain: Encoder) -> Encoder:
    """Load what `adapted` computes with into `plain` and return that; adapters become part of the weights.

    `adapted` stays as it is. torch's own `remove_parametrizations` would break its deep copies, the teacher
    among them: it deletes the weight from the class that they share.

    Args:
        adapted: An encoder, with or without adapters.
        plain: An encoder of the same architecture without adapters, to be overwritten.
    """
    state = dict(adapted.state_dict())
    for name, module in _parametrized(adapted):
        state = {
            key: value for key, value in state.items() if not key.startswith(f"{name}.parametrizations.")
        }
        state[f"{name}.weight"] = module.weight.detach()
    plain.load_state_dict(state)
    return plain


def _parametrized(encoder: Encoder) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in encoder.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            yield name, cast(nn.Linear, module)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
