"""Reading and writing encoder weights: files in any known layout, the package's own, and timm's hub cache."""

from __future__ import annotations

import json
import logging
import math
import pickle
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import huggingface_hub.constants
import safetensors.torch
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import Eva, VisionTransformer, load_state_dict_from_hf
from torch import Tensor

from paka.digests import check_digest, sha256
from paka.disk import as_os_error, whole
from paka.key_tables import LAYOUTS, TIMM
from paka.layouts import State, is_unused, recognise, to_timm

logger = logging.getLogger(__name__)

Transformer = VisionTransformer | Eva
"""timm's two classes of plain vision transformers: Eva is the one with rotary positions."""

Branch = Literal["teacher", "student"]

ASSETS = resources.files("paka") / "assets"
WRAPPERS = ("state_dict", "model", "module", "model_ema", "encoder")
"""Keys under which training frameworks wrap a state dict."""

INDEX = "model.safetensors.index.json"
"""What transformers calls the list of the parts of a checkpoint."""

FILES = (INDEX, "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
"""Names under which transformers saves weights in a folder, by preference."""


def load_file(network: Transformer, path: str | Path, *, branch: Branch = "teacher") -> None:
    """Load a checkpoint in any of the layouts of `paka.key_tables`; every key has to fit.

    What only training or another task needs is left out by name and logged. Position embeddings of another grid are
    resampled as timm does.

    Args:
        network: The transformer to fill.
        path: A `.safetensors` file, a torch file, which is read with `weights_only=True`, or a folder that transformers saved.
        branch: Which encoder to take where there are two.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, has not the branch that was asked for, or its keys or shapes do not fit.
    """
    path = Path(path).expanduser()
    state = encoder_state(read(path), path, branch)
    if path.is_dir() and (path / "config.json").is_file():
        _check_heads(network, path / "config.json")
    fit(network, state, str(path))


def _check_heads(network: Transformer, path: Path) -> None:
    """Compare the number of heads, which no weight tells, with the one that transformers recorded."""
    config = json.loads(path.read_text(encoding="utf-8"))
    heads = config.get("vision_config", config).get("num_attention_heads")
    own = cast(Any, network.blocks[0]).attn.num_heads
    if heads not in (None, own):
        message = f"expected {own} attention heads, {path} has {heads}: choose the backbone it was made with"
        raise ValueError(message)


def read(path: Path) -> dict[str, Any]:
    """Return what a file, or a folder that transformers saved, holds, without running any of its code.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is no checkpoint.
    """
    if path.is_dir():
        path = next((path / name for name in FILES if (path / name).is_file()), path)
    if not path.is_file():
        message = f"expected encoder weights in {path}, found no such file: check backbone.weights"
        raise FileNotFoundError(message)
    if path.name.endswith(".index.json"):
        return {key: value for part in _parts(path) for key, value in read(path.with_name(part)).items()}
    state = _load(path)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(
            f"expected weights by name in {path}, got {type(state).__name__}: save the model's state dict"
        )
    return dict(state)


def _load(path: Path) -> Any:
    """Return what one file holds, without running any of its code; it is compared with the digest beside it, if there is one."""
    check_digest(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            first = file.read(1)
        if first not in (b"P", b"\x80"):  # neither a zip file nor a pickle
            message = f"expected a readable checkpoint in {path}, got another kind of file: was it downloaded whole?"
            raise ValueError(message) from error
        raise ValueError(
            f"{path} holds more than weights, and loading it could run code: expected tensors alone; if you trust it, save its "
            "state dict with safetensors.torch.save_file"
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or ["an empty file"])[0]
        raise ValueError(f"expected a readable checkpoint in {path}, got: {reason}") from error


def _parts(path: Path) -> list[str]:
    """Return the names of the files that an index lists."""
    try:
        return sorted({*json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"expected a list of checkpoint parts in {path}, with weight_map from keys to files: download it again"
        raise ValueError(message) from error


def encoder_state(state: Mapping[str, Any], path: Path, branch: Branch) -> State:
    """Return the weights of one encoder, without what wraps them and without a prefix in front of their keys.

    Raises:
        ValueError: Several may be the branch that was asked for, or none.
    """
    wrapper = next((key for key in (branch, *WRAPPERS) if isinstance(state.get(key), Mapping)), None)
    if wrapper is not None:
        return encoder_state(state[wrapper], path, branch)
    tensors = {
        re.sub(r"(^|\.)blocks\.\d+\.(\d+)\.", r"\1blocks.\2.", key): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    anchors = {layout.anchor for layout in LAYOUTS}
    prefixes = {
        key.removesuffix(anchor) for key in tensors for anchor in anchors if f".{key}".endswith(f".{anchor}")
    }
    prefix = _chosen(prefixes, path, branch)
    kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if len(kept) < len(tensors):
        logger.info("%s: took the %d weights below %s of %d", path, len(kept), prefix, len(tensors))
    return kept


def _chosen(prefixes: set[str], path: Path, branch: Branch) -> str:
    """Return the prefix of the encoder that is meant."""
    named = {prefix for prefix in prefixes if branch in prefix}
    if branch == "student" and not named:  # NeCo and Leopart call it `model`, beside a `teacher`
        named = {prefix for prefix in prefixes if "teacher" not in prefix}
    chosen = named if len(prefixes) > 1 or branch == "student" else prefixes
    if prefixes and len(chosen) != 1:
        raise ValueError(
            f"expected one encoder in {path}, found {', '.join(sorted(prefixes))}, none or several of which may be "
            f"the {branch}'s: save the one you mean alone"
        )
    prefix = next(iter(chosen), "")
    if branch not in prefix and "student" in prefix:
        logger.warning("%s: there is no %s, took %s", path, branch, prefix)
    return prefix


def fit(network: Transformer, state: State, source: str) -> None:
    """Load weights in any layout; every key has to fit.

    Args:
        network: The transformer to fill.
        state: Weights whose keys have no prefix.
        source: Where they come from, for messages.

    Raises:
        ValueError: Keys or shapes do not fit.
    """
    layout = recognise(state) or TIMM
    unused = sorted(key for key in state if is_unused(key, layout))
    if unused:
        logger.info("%s: left out %s", source, ", ".join(unused))
    fitted = _fitted(to_timm(state, layout, network), network, source)
    problem = _problem(fitted, network)
    if problem and layout is TIMM and _same_patches(fitted, network):
        converted = _fitted(_timms_filter(state, network), network, source)
        if not (rest := _problem(converted, network)) or not fitted.keys() & network.state_dict().keys():
            fitted, problem = converted, rest
    if problem:
        message = f"{source} does not fit this backbone: {problem}: choose the backbone it was made with"
        raise ValueError(message)
    network.load_state_dict(fitted)


def _fitted(state: State, network: Transformer, source: str) -> dict[str, Tensor]:
    """Return weights with the final norm and the position embeddings as this network has them."""
    fitted = {
        key.replace("fc_norm.", "norm.") if key.startswith("fc_norm.") else key: value
        for key, value in state.items()
    }
    learnt, wanted = fitted.get("pos_embed"), network.pos_embed
    if (
        learnt is None
        or wanted is None
        or learnt.shape == wanted.shape
        or learnt.shape[-1] != wanted.shape[-1]
    ):
        return fitted
    prefix = 0 if network.no_embed_class else int(network.num_prefix_tokens)
    side = math.isqrt(learnt.shape[1] - prefix)
    if side**2 != learnt.shape[1] - prefix:
        return fitted
    grid = list(network.patch_embed.grid_size)
    logger.info("%s: positions resampled from %d x %d to %d x %d", source, side, side, *grid)
    fitted["pos_embed"] = resample_abs_pos_embed(
        learnt, new_size=grid, old_size=[side, side], num_prefix_tokens=prefix
    )
    return fitted


def _timms_filter(state: State, network: Transformer) -> dict[str, Tensor]:
    """Return what timm's own conversion makes of a publisher's names that have no table here."""
    module = sys.modules[type(network).__module__]
    try:
        converted = module.checkpoint_filter_fn(dict(state), network)
    except (KeyError, IndexError, AttributeError, RuntimeError, ValueError):
        return dict(state)
    return {key: value for key, value in converted.items() if not is_unused(key, TIMM)}


def _same_patches(state: State, network: Transformer) -> bool:
    """Return whether timm would not have to resample the patch embedding, which makes another model of it."""
    own = state.get("patch_embed.proj.weight")
    return own is None or own.shape[-2:] == network.patch_embed.proj.weight.shape[-2:]


def _problem(state: State, network: Transformer) -> str:
    """Return what does not fit, with the probable reason; empty if all does."""
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} ({_shape(state[key])} for {_shape(expected[key])})"
        for key in sorted(expected.keys() & state.keys())
        if expected[key].shape != state[key].shape
    ]
    if not (missing or unknown or misshapen):
        return ""
    reasons = _reasons(state, expected)
    lists = f"missing {_few(missing)}; unknown {_few(unknown)}; other shape {_few(misshapen)}"
    return f"{', '.join(reasons)}; {lists}" if reasons else lists


def _reasons(state: State, expected: State) -> list[str]:
    """Return in what a checkpoint's architecture differs, as `width 384 for 768`."""
    if not state.keys() & expected.keys():
        return ["none of its names is known"]
    patch, norm, register = "patch_embed.proj.weight", "blocks.0.norm1.weight", "reg_token"
    facts = [
        {
            "patch": side[patch].shape[-1] if patch in side else None,
            "width": side[norm].shape[0] if norm in side else None,
            "blocks": len({key.split(".")[1] for key in side if key.startswith("blocks.")}),
            "registers": side[register].shape[1] if register in side else 0,
            "positions": "learnt" if "pos_embed" in side else "rotary",
        }
        for side in (state, expected)
    ]
    return [
        f"{what} {count} for {facts[1][what]}" for what, count in facts[0].items() if count != facts[1][what]
    ]


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape))


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


def load_published(network: Transformer, model: str) -> None:
    """Load a timm model's published weights, from the hub cache or the hub.

    Args:
        network: The transformer to fill.
        model: Its name, for messages.

    Raises:
        FileNotFoundError: The weights are neither cached nor within reach, or gated; says the ways out.
        ValueError: There are none, or they do not fit.
    """
    published = cast(dict[str, Any], network.pretrained_cfg)
    repository = published.get("hf_hub_id")
    if not repository:
        message = f"there are no published weights of {model}: expected a file, backbone.weights=FILE, or backbone.pretrained=false"
        raise ValueError(message)
    name = {"filename": published["hf_hub_filename"]} if published.get("hf_hub_filename") else {}
    ways = (
        "give a file with backbone.weights=FILE, or copy the cache of a connected machine and point HF_HOME at it, or start from random "
        "weights with backbone.pretrained=false"
    )
    try:
        state = load_state_dict_from_hf(repository, weights_only=True, **name)
    except GatedRepoError as error:
        message = f"the weights of {model} are gated: accept their licence on the hub page of {repository} and run `hf auth login`, or {ways}"
        raise FileNotFoundError(message) from error
    except (OSError, RuntimeError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if huggingface_hub.constants.HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"the published weights of {model} are neither in the hub cache nor within reach{offline}: {ways}"
        ) from error
    except SafetensorError as error:
        message = f"the cached weights of {model} cannot be read: delete {repository} from the hub cache and download it again, or {ways}"
        raise ValueError(message) from error
    fit(network, encoder_state(state, Path(repository), "teacher"), f"{repository} of the hub")


def save(network: Transformer, path: Path, **facts: str) -> None:
    """Write a transformer's weights as safetensors under timm's own keys.

    Args:
        network: The transformer.
        path: The file.
        facts: What goes into the file's metadata, such as its licence.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with whole(path) as unfinished, as_os_error(SafetensorError):
        safetensors.torch.save_file(state, unfinished, metadata={"format": "pt", **facts})
