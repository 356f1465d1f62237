"""The encoder: any of timm's plain vision transformers, uint8 images in, patch and prefix tokens out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

import timm
import torch
from timm.models import is_model_in_modules
from torch import Tensor, nn

from paka import weights
from paka.attention import LastAttention
from paka.image_transform import ImageTransform
from paka.positions import AuthorPositions, Resampling
from paka.weights import Transformer


class Tokens(NamedTuple):
    """Tokens of B images after the encoder's final normalisation.

    Attributes:
        patches: One token per image patch, (B, H, W, D).
        prefix: Class and register tokens, (B, R, D); R may be 0.
        attention: Attention of the class token to the patches in the last block, averaged over the heads, (B, H, W)
            float32; (B, 0, 0) unless it was asked for and there is a class token.
    """

    patches: Tensor
    prefix: Tensor
    attention: Tensor = torch.zeros(0, 0, 0)


class Encoder(nn.Module):
    """A timm vision transformer with its own pixel normalisation.

    Args:
        model: The transformer; its `state_dict` is what is exported.
        mean: Mean per channel of the images it was trained on, for pixels in [0, 1].
        std: Standard deviation per channel likewise.
        layers: Blocks whose normalised outputs are joined along the channels, counted from 0 or, below 0, from
            the end; None takes the last one. Blocks behind the last of them never run, and are frozen.

    Attributes:
        transform: Makes its input of a picture: `encoder(encoder.transform(picture))`.

    Raises:
        ValueError: A layer does not exist, or they are not in ascending order.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.layers = None if layers is None else _check_layers(layers, len(model.blocks))
        for block in model.blocks[self.layers[-1] + 1 :] if self.layers else ():
            block.requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255.0, persistent=False)

    def normalised_by(self, *, blue_std: float) -> Encoder:
        """Return an encoder with the same model that divides blue by another standard deviation, in [0, 1]."""
        mean, std = (cast(Tensor, side).flatten() / 255.0 for side in (self.mean, self.std))
        other = Encoder(
            self.model,
            mean=tuple(mean.tolist()),
            std=(*std[:2].tolist(), blue_std),
            layers=self.layers,
        )
        return other.to(cast(Tensor, self.mean).device).train(self.training)

    @cached_property
    def transform(self) -> ImageTransform:
        """What makes its input of a picture; another one may be put in its place."""
        return ImageTransform(self.patch_size, min(self.model.patch_embed.grid_size) * self.patch_size)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.patch_embed.patch_size[0])

    @property
    def dim(self) -> int:
        """Channels D of a token."""
        return int(self.model.embed_dim) * len(self.layers or (-1,))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return cast(Tensor, self.mean).device

    @property
    def has_blocks(self) -> bool:
        """Whether it is a transformer of blocks that others can build on."""
        return True

    @property
    def published(self) -> dict[str, Any]:
        """What timm records of the model's published weights."""
        return cast(dict[str, Any], self.model.pretrained_cfg)

    @property
    def licence(self) -> str:
        """The licence of the published weights, as timm records it; `unknown` where it does not."""
        return str(self.published.get("license") or "unknown")

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the published weights were made for."""
        return cast(tuple[int, int], tuple(self.published["input_size"][1:]))

    @overload
    def forward(self, images: Tensor, *, attention: bool = ...) -> Tokens: ...

    @overload
    def forward(self, images: Sequence[Tensor], *, attention: bool = ...) -> list[Tokens]: ...

    def forward(self, images: Tensor | Sequence[Tensor], *, attention: bool = False) -> Tokens | list[Tokens]:
        """Encode images, (B, 3, h * patch, w * patch) uint8, to tokens on an h x w grid.

        Several batches of any sizes come back as a list in their order; those of one size go through together.

        Args:
            images: One batch, or several.
            attention: Whether the attention of the class token is wanted too.
        """
        if isinstance(images, Tensor):
            return self._encode(images, attention=attention)
        sizes: dict[torch.Size, list[int]] = {}
        for index, batch in enumerate(images):
            sizes.setdefault(batch.shape[-2:], []).append(index)
        found: dict[int, Tokens] = {}
        for members in sizes.values():
            tokens = self._encode(torch.cat([images[index] for index in members]), attention=attention)
            parts = [part.split([len(images[index]) for index in members]) for part in tokens]
            found |= dict(zip(members, map(Tokens, *parts), strict=True))
        return [found[index] for index in range(len(images))]

    @property
    def has_class_token(self) -> bool:
        """Whether there is a token for the image as a whole; a register is none."""
        return self.model.cls_token is not None

    def _encode(self, images: Tensor, *, attention: bool) -> Tokens:
        wanted = attention and self.has_class_token
        with LastAttention() if wanted else nullcontext() as last:
            patches, prefix = self.flat_tokens(images)
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        seen = patches.new_zeros(len(images), 0, 0)
        if last is not None:
            seen = last.of_class_token(prefix.shape[1]).unflatten(1, grid)
        return Tokens(patches.unflatten(1, grid), prefix, seen)

    def flat_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return patch and prefix tokens, (B, N, D) and (B, R, D)."""
        pixels = (images.float() - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        prefix = int(self.model.num_prefix_tokens)
        if self.layers is not None:
            return self._intermediates(pixels)
        tokens = self.model.forward_features(pixels)
        return tokens[:, prefix:], tokens[:, :prefix]

    def _intermediates(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return patch and prefix tokens of `layers`, (B, N, D) and (B, R, D), joined along the channels."""
        found: Any = self.model.forward_intermediates(
            pixels,
            indices=list(self.layers or ()),
            return_prefix_tokens=True,
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if not self.model.num_prefix_tokens:
            patches = torch.cat(found, dim=-1)
            return patches, patches[:, :0]
        patches, prefixes = (torch.cat(side, dim=-1) for side in zip(*found, strict=True))
        return patches, prefixes


def _check_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    found = tuple(layer + depth if layer < 0 else layer for layer in layers)
    if not found or not all(0 <= layer < depth for layer in found) or sorted(set(found)) != list(found):
        message = (
            f"expected blocks from {-depth} to {depth - 1} in ascending order, got {list(layers)}: "
            "set backbone.layers to some of them, or to null for the last"
        )
        raise ValueError(message)
    return found


def create_encoder(
    model: str,
    *,
    arch: Mapping[str, Any] | None = None,
    weights_file: str | Path | None = None,
    packaged: str | None = None,
    pretrained: bool = True,
    drop_path: float = 0.0,
    layers: Sequence[int] | None = None,
    resampling: Mapping[str, Any] | None = None,
) -> Encoder:
    """Build an encoder and load its weights.

    Weights come from `weights_file` if given, else from the package if `packaged` names a file of it, else
    from timm's hub cache.

    Args:
        model: A timm model name, perhaps with its pretrained tag.
        arch: Arguments of the timm model that differ from its definition.
        weights_file: Checkpoint to load, in any of the layouts of `paka.weights`.
        packaged: Name of weights shipped inside this package.
        pretrained: False starts from random weights.
        drop_path: Stochastic depth rate of the last block; earlier blocks get proportionally less.
        layers: Blocks whose outputs are the tokens, see `Encoder`; None takes the last one.
        resampling: Arguments of `paka.positions.Resampling`, by which position embeddings are brought to other
            grids; None leaves it to timm.

    Raises:
        ValueError: The model is unknown or not a plain vision transformer, or the weights do not fit.
        FileNotFoundError: The weights are missing.
    """
    options = timm_options(arch)
    _check_model(model)
    network = _create(model, {**options, "drop_path_rate": drop_path})
    _check_patches(model, network)
    if weights_file is not None:
        weights.load_file(network, weights_file)
    elif packaged is not None and pretrained:
        weights.load_packaged(network, packaged)
    elif pretrained:
        weights.load_published(network, model)
    if resampling is not None:
        _resample(model, network, Resampling(**resampling))
    config = cast(dict[str, Any], network.pretrained_cfg)
    return Encoder(network, mean=tuple(config["mean"]), std=tuple(config["std"]), layers=layers)


def timm_options(arch: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` that every encoder is made with.

    Without pooling, the final normalisation is applied to the tokens and no unused pooling weights remain.

    Args:
        arch: Arguments of the timm model that differ from its definition.
    """
    return {"num_classes": 0, "global_pool": "", "dynamic_img_size": True, **(arch or {})}


def _check_model(model: str) -> None:
    family = model.partition(".")[0]
    if not timm.is_model(family):
        found = timm.list_models(f"*{family}*")[:3] or get_close_matches(
            family, timm.list_models(["vit_*", "deit*", "eva*"]), 3
        )
        close = ", ".join(found) or "none; see timm.list_models()"
        message = f"expected a timm model name, got {model!r}; close: {close}"
        raise ValueError(message)
    tags = timm.list_pretrained(f"{family}.*")
    if "." in model and model not in tags:
        message = (
            f"expected a tag of timm's {family}, got {model!r}: choose one of {', '.join(tags) or 'none'}"
        )
        raise ValueError(message)
    if not is_model_in_modules(family, ["vision_transformer", "eva", "deit"]):
        module = timm.model_entrypoint(family).__module__.rpartition(".")[2]
        message = (
            f"expected one of timm's plain vision transformers, which give one token per patch of the image at any "
            f"size, got {model!r} of timm's family {module}: choose one of class VisionTransformer or Eva"
        )
        raise ValueError(message)


def _create(model: str, options: Mapping[str, Any]) -> Transformer:
    try:
        return cast(Transformer, timm.create_model(model, **options))
    except (TypeError, AssertionError) as error:
        message = f"expected arguments that {model} takes, got {dict(options)}: {error}; correct backbone.encoder.arch"
        raise ValueError(message) from error


def _check_patches(model: str, network: Transformer) -> None:
    height, width = network.patch_embed.patch_size
    if height != width:
        message = f"expected square patches, got {model} with {height}x{width} pixels: correct backbone.encoder.arch"
        raise ValueError(message)


def _resample(model: str, network: Transformer, resampling: Resampling) -> None:
    if network.pos_embed is None:
        message = f"expected a model with absolute position embeddings to resample, {model} has none: set backbone.pos_embed=timm"
        raise ValueError(message)
    network.patch_embed.register_forward_hook(AuthorPositions(network, resampling))
