"""The encoder: any timm vision transformer, uint8 images in, patch and prefix tokens out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.models import VisionTransformer, is_model_in_modules
from torch import Tensor, nn

from paka import weights


class Tokens(NamedTuple):
    """Tokens of B images after the encoder's final normalisation.

    Attributes:
        patches: One token per image patch, (B, H, W, D).
        prefix: Class and register tokens, (B, R, D); R may be 0.
    """

    patches: Tensor
    prefix: Tensor


class Encoder(nn.Module):
    """A timm vision transformer with its own pixel normalisation.

    Args:
        model: The transformer; its `state_dict` is what is exported.
        mean: Mean per channel of the images it was trained on, for pixels in [0, 1].
        std: Standard deviation per channel likewise.
    """

    def __init__(self, model: VisionTransformer, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255.0, persistent=False)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.patch_embed.patch_size[0])

    @property
    def dim(self) -> int:
        """Channels D of a token."""
        return int(self.model.embed_dim)

    def forward(self, images: Tensor) -> Tokens:
        """Encode images, (B, 3, h * patch, w * patch) uint8, to tokens on an h x w grid."""
        pixels = (images.float() - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        tokens = self.model.forward_features(pixels)
        prefix = int(self.model.num_prefix_tokens)
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        return Tokens(torch.unflatten(tokens[:, prefix:], 1, grid), tokens[:, :prefix])


def create_encoder(
    model: str,
    *,
    arch: Mapping[str, Any] | None = None,
    weights_file: str | Path | None = None,
    packaged: str | None = None,
    pretrained: bool = True,
    drop_path: float = 0.0,
) -> Encoder:
    """Build an encoder and load its weights.

    Weights come from `weights_file` if given, else from the package if `packaged` names a file of it, else
    from timm's hub cache.

    Args:
        model: A timm model name, perhaps with its pretrained tag.
        arch: Arguments of the timm model that differ from its definition.
        weights_file: Checkpoint to load, in timm's or the original authors' layout.
        packaged: Name of weights shipped inside this package.
        pretrained: False starts from random weights.
        drop_path: Stochastic depth rate of the last block; earlier blocks get proportionally less.

    Raises:
        ValueError: The model is unknown or not a plain vision transformer, or the weights do not fit.
        FileNotFoundError: The weights are missing.
    """
    options: dict[str, Any] = {
        "num_classes": 0,
        "dynamic_img_size": True,
        "drop_path_rate": drop_path,
        **(arch or {}),
    }
    family = model.partition(".")[0]
    if not timm.is_model(model):
        close = ", ".join(timm.list_models(f"*{family}*")[:3]) or "see timm.list_models()"
        message = f"expected a timm model name, got {model!r}; close: {close}"
        raise ValueError(message)
    if not is_model_in_modules(family, ["vision_transformer"]):
        message = f"expected one of timm's plain vision transformers (class VisionTransformer), got {model!r}"
        raise ValueError(message)
    published = pretrained and weights_file is None and packaged is None
    network = (
        weights.from_hub(model, options)
        if published
        else cast(VisionTransformer, timm.create_model(model, **options))
    )
    if weights_file is not None:
        weights.load_file(network, weights_file)
    elif packaged is not None and pretrained:
        weights.load_packaged(network, packaged)
    config = cast(dict[str, Any], network.pretrained_cfg)
    return Encoder(network, mean=tuple(config["mean"]), std=tuple(config["std"]))
