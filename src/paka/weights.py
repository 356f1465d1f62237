"""Reading and writing encoder weights: files, the package's own, and timm's hub cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import Eva, VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

Transformer = VisionTransformer | Eva
"""timm's two classes of plain vision transformers: Eva is the one with rotary positions."""

ASSETS = resources.files("paka") / "assets"
WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training frameworks wrap a state dict."""


def load_file(network: Transformer, path: str | Path) -> None:
    """Load a checkpoint in timm's or the original authors' layout; every key has to fit.

    Args:
        network: The transformer to fill.
        path: A `.safetensors` file, or a torch file, which is read with `weights_only=True`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, or its keys or shapes do not fit.
    """
    path = Path(path)
    if not path.is_file():
        message = f"expected encoder weights in {path}, found no such file: check backbone.weights"
        raise FileNotFoundError(message)
    state = checkpoint_filter_fn(_read(path), network)  # type: ignore[arg-type]
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misshapen = sorted(
        key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape
    )
    if missing or unknown or misshapen:
        message = (
            f"{path} does not fit this backbone: missing {_few(missing)}; unknown {_few(unknown)}; "
            f"other shape {_few(misshapen)}: choose the backbone it was made with"
        )
        raise ValueError(message)
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError) as error:
        message = f"expected a readable checkpoint in {path}, got: {str(error).splitlines()[0]}"
        raise ValueError(message) from error
    for wrapper in WRAPPERS:
        state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
    return dict(state)


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") if keys else "none"


def load_packaged(network: Transformer, name: str) -> None:
    """Load weights shipped inside this package, after comparing their SHA-256 with the recorded one.

    Raises:
        ValueError: The file is not the one that was released.
    """
    with resources.as_file(ASSETS / f"{name}.safetensors") as path:
        recorded = (ASSETS / f"{name}.sha256").read_text().split()[0]
        found = sha256(path)
        if found != recorded:
            message = f"expected {path} with SHA-256 {recorded}, found {found}: the file was changed, reinstall paka"
            raise ValueError(message)
        load_file(network, path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_hub(model: str, options: Mapping[str, Any]) -> Transformer:
    """Create a timm model with its published weights, from the hub cache or the hub.

    Raises:
        FileNotFoundError: The weights are neither cached nor within reach; says the three ways out.
    """
    try:
        return cast(Transformer, timm.create_model(model, pretrained=True, **options))
    except (OSError, RuntimeError) as error:
        message = (
            f"the published weights of {model} are neither in the hub cache nor within reach: give a file with "
            "backbone.weights=FILE, or copy the cache of a connected machine and point HF_HOME at it, "
            "or start from random weights with backbone.pretrained=false"
        )
        raise FileNotFoundError(message) from error


def save(network: Transformer, path: Path, **facts: str) -> None:
    """Write a transformer's weights as safetensors under timm's own keys.

    Args:
        network: The transformer.
        path: The file.
        facts: What goes into the file's metadata, such as its licence.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt", **facts})
