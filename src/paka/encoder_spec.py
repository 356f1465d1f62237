"""What has to be known of an encoder to build it again, and how it travels in the metadata of a weights file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open

from paka.encoder import Encoder, create_encoder
from paka.image_transform import ImageTransform


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder but for its weights, in plain types.

    Attributes:
        timm_model: timm's name of the model, perhaps with a tag.
        arch: Arguments of it that differ from timm's definition.
        layers: Blocks whose outputs are the tokens, see `Encoder`; None for the last.
        resampling: Arguments of `paka.positions.Resampling`; None for timm's own.
        mean: Mean per channel of pixels in [0, 1] that it subtracts.
        std: Standard deviation per channel that it divides by.
        grid: Side in tokens of the images that it was trained on last.
    """

    timm_model: str
    arch: Mapping[str, Any]
    layers: list[int] | None
    resampling: Mapping[str, Any] | None
    mean: list[float]
    std: list[float]
    grid: int

    def metadata(self) -> dict[str, str]:
        """Return the fields as texts: the model's name as it is, the others as JSON."""
        found = {field.name: json.dumps(getattr(self, field.name)) for field in fields(self)}
        return {**found, "timm_model": self.timm_model}

    @classmethod
    def configured(cls, node: Mapping[str, Any], grid: int) -> EncoderSpec:
        """Return what a configuration says.

        Args:
            node: Arguments of `paka.encoder.create_encoder`, in plain types.
            grid: Side of a global view in tokens.

        Raises:
            ValueError: Some are missing.
        """
        try:
            parts = {name: node[name] for name in ("arch", "layers", "resampling")}
            published = timm.get_pretrained_cfg(node["model"])
        except KeyError as error:
            raise ValueError(
                f"expected backbone.encoder to say {error}, as the encoders of this version do"
            ) from error
        if published is None:
            raise ValueError(
                f"expected a model that timm knows, got {node['model']}: install the version of timm that trained it"
            )
        mean, std = list(published.mean), list(published.std)
        return cls(
            timm_model=node["model"], **{**parts, "arch": parts["arch"] or {}}, mean=mean, std=std, grid=grid
        )

    @classmethod
    def of(cls, metadata: Mapping[str, str], source: Path) -> EncoderSpec:
        """Return what `metadata` says.

        Args:
            metadata: Texts that `metadata()` returned, perhaps among others.
            source: Where they come from, for messages.

        Raises:
            ValueError: Some are missing or make no sense.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in metadata]
        if missing:
            raise ValueError(
                f"expected {source} to say what encoder it holds, its metadata lack {', '.join(missing)}: name the folder of the "
                "run that made it, or build the encoder with paka.encoder.create_encoder(weights_file=...)"
            )
        try:
            values = {name: json.loads(metadata[name]) for name in names if name != "timm_model"}
        except ValueError as error:
            raise ValueError(f"expected JSON in the metadata of {source}, got: {error}") from error
        return cls(timm_model=metadata["timm_model"], **values)

    def build(self, weights_file: Path | None = None) -> Encoder:
        """Return the encoder, in evaluation mode.

        Args:
            weights_file: Weights in any layout that `paka.weights` knows; None leaves them random.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or holds weights of another encoder.
        """
        made = create_encoder(
            self.timm_model,
            arch=self.arch,
            weights_file=weights_file,
            pretrained=False,
            resampling=self.resampling,
        )
        encoder = Encoder(made.model, mean=tuple(self.mean), std=tuple(self.std), layers=self.layers)
        encoder.transform = ImageTransform(encoder.patch_size, self.grid * encoder.patch_size)
        return encoder.eval()


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected weights in {path}, found no such file")
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"expected whole weights in {path}, got a damaged or truncated file ({error}): copy or export it again"
        ) from error
