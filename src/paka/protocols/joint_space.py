"""The joint space of an image-text model of open_clip: names by its text tower, images by tokens of any encoder."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F

from paka import weights
from paka.encoder import Encoder
from paka.weights import Transformer

CONFIG = "open_clip_config.json"
"""What open_clip calls the description of a model in the folder that holds it."""

NAMES = 256
"""Names that the text tower reads at a time, once for each template."""

UNFITTING = (
    ValueError,
    RuntimeError,
    KeyError,
    AttributeError,  # open_clip asks for the shape of a bias that the model may not have
    EOFError,
    OSError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What open_clip raises over weights that are damaged, or of another model."""

INSTALL = "install this package with its extra zeroshot, or pip install open_clip_torch transformers"


@dataclass(frozen=True)
class JointSpace:
    """The space that both towers of an image-text model map to.

    The image tower's own blocks are not used: what is mapped are tokens that an encoder made.

    Attributes:
        name: What the model is called in messages.
        model: open_clip's model.
        tokenizer: Its tokenizer.
    """

    name: str
    model: Any
    tokenizer: Any

    @property
    def pooling(self) -> str | None:
        """How the image tower makes one token of an image: `class token` or `attention`; None for any other way."""
        visual = self.model.visual
        trunk = getattr(visual, "trunk", None)
        if trunk is None:  # open_clip's own tower, or a ResNet
            own = getattr(visual, "pool_type", None) == "tok" and visual.attn_pool is None
            return "class token" if own else None
        if not isinstance(trunk, Transformer) or not isinstance(trunk.fc_norm, nn.Identity):
            return None
        pool: Any = trunk.attn_pool
        if isinstance(pool, AttentionPoolLatent):
            return None if trunk.num_prefix_tokens else "attention"
        return "class token" if trunk.global_pool == "token" else None

    @property
    def width(self) -> int:
        """Channels D of the image tower's tokens."""
        visual = self.model.visual
        return int(visual.trunk.embed_dim if hasattr(visual, "trunk") else visual.proj.shape[0])

    @torch.inference_mode()
    def images(self, globals: Tensor, patches: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return where n images are in the joint space, (n, E) float32 of length 1.

        Args:
            globals: Class tokens after the final norm, (n, D), read by `class token` pooling.
            patches: Patch tokens after the final norm, (n, N, D), read by `attention`.
            valid: Which of them count, (n, N) bool; None for all.

        Raises:
            ValueError: They have not the channels D of the image tower's.
        """
        visual = self.model.visual
        if globals.shape[1] != self.width:
            message = f"expected tokens of {self.width} channels, as {self.name} makes, got {globals.shape[1]}: choose its backbone"
            raise ValueError(message)
        if not hasattr(visual, "trunk"):
            return F.normalize(globals.float() @ visual.proj.float(), dim=1)
        pooled = globals.float()
        if self.pooling == "attention":
            pooled = visual.trunk.attn_pool(patches.float(), attn_mask=_mask(valid))
        return F.normalize(visual.head(visual.trunk.head(pooled)), dim=1)

    @torch.inference_mode()
    def texts(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return where names are in the joint space, (C, E) float32 of length 1: the mean over the templates' prompts.

        Args:
            names: The names; underscores are read as spaces.
            templates: Prompts with `{}` in place of the name.

        Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4, ensembling in embedding space.
        """
        classifier: Tensor = _open_clip().build_zero_shot_classifier(
            self.model,
            self.tokenizer,
            [name.replace("_", " ") for name in names],
            templates,
            num_classes_per_batch=NAMES,
            device=self.model.logit_scale.device,
        )
        return classifier.T.float()

    def mismatch(self, encoder: Encoder) -> str | None:
        """Return why tokens of the encoder have no place in this space, or None if it is built as the image tower."""
        if self.pooling is None:
            return f"the image tower of {self.name} takes images to the joint space neither by a class token nor by attention to the patches"
        if encoder.layers not in (None, (len(encoder.model.blocks) - 1,)):
            return f"{self.name} reads tokens of the last block: set backbone.layers=null"
        theirs, own = _facts(self.model.visual), _facts(encoder.model)
        differing = [f"{what} {theirs[what]} for {own[what]}" for what in own if own[what] != theirs[what]]
        if differing:
            return f"the image tower of {self.name} does not fit this backbone: {', '.join(differing)}"
        try:
            weights.fit(
                copy.deepcopy(encoder.model),
                _image_state(self.model.visual),
                f"the image tower of {self.name}",
            )
        except ValueError as error:
            return str(error)
        return None


def _mask(valid: Tensor | None) -> Tensor | None:
    """Return what is added to attention scores, (n, 1, 1, N), of which tokens count, (n, N)."""
    if valid is None:
        return None
    return torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, -torch.inf)[:, None, None]


def _facts(tower: Any) -> dict[str, Any]:
    """Return what weights do not tell of an image tower, or not in so few words."""
    network = getattr(tower, "trunk", tower)
    if hasattr(network, "blocks"):
        block, patch, prefix = network.blocks[0], network.patch_embed.patch_size, network.num_prefix_tokens
        activation = block.mlp.act
    else:
        block, patch, prefix = network.transformer.resblocks[0], network.patch_size, 1
        activation = block.mlp.gelu
    facts = {"patch": patch[0], "prefix tokens": prefix, "heads": block.attn.num_heads}
    return {**facts, "activation": repr(activation)}


def _image_state(visual: Any) -> dict[str, Tensor]:
    """Return the weights of an image tower under names that `paka.weights.fit` knows."""
    if hasattr(visual, "trunk"):
        state: dict[str, Tensor] = visual.trunk.state_dict()
        return state
    return {f"visual.{key}": value for key, value in visual.state_dict().items()}


def open_joint_space(model: str, weights_file: str | None, device: torch.device) -> JointSpace:
    """Load an image-text model.

    Args:
        model: Its name in open_clip, or a folder with `open_clip_config.json` and weights, as they are published.
        weights_file: Its checkpoint; None where `model` is a folder.
        device: Where it is to compute.

    Raises:
        ValueError: open_clip is not installed or does not know the model, or the weights are those of another.
        FileNotFoundError: There is no checkpoint, or the text tower needs files that are out of reach.
    """
    open_clip = _open_clip()
    name = _checked_name(open_clip, model, weights_file)
    checkpoint = None if weights_file is None else str(Path(weights_file).expanduser().resolve())
    try:
        network = open_clip.create_model(name, pretrained=checkpoint, require_pretrained=True, device=device)
    except UNFITTING as error:
        message = (
            f"expected weights of open_clip's {model} in {weights_file or model}, got: {_first_line(error)}; "
            "choose the model that they were made with"
        )
        raise ValueError(message) from error
    return JointSpace(Path(model).name, network.eval(), _tokenizer(open_clip, name))


def _tokenizer(open_clip: ModuleType, name: str) -> Any:
    """Return the tokenizer of a model; that of SigLIP is one of transformers.

    Raises:
        ValueError: transformers is not installed.
        FileNotFoundError: Its files are out of reach.
    """
    try:
        return open_clip.get_tokenizer(name)
    except ImportError as error:
        raise ValueError(f"the tokenizer of {name} needs transformers: {INSTALL}") from error
    except (OSError, ValueError) as error:
        message = (
            f"expected the tokenizer of {name} in its folder, in the hub cache or within reach, got: {_first_line(error)}; "
            "set profile.settings.zero_shot.model to a folder with all files of the model's page"
        )
        raise FileNotFoundError(message) from error


def _open_clip() -> ModuleType:
    """Return open_clip, which only zero-shot classification needs.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(f"zero-shot classification needs the text towers of open_clip: {INSTALL}") from error
    module: ModuleType = open_clip
    return module


def _checked_name(open_clip: ModuleType, model: str, weights_file: str | None) -> str:
    """Return what open_clip calls a model, whose files are there."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            message = (
                f"expected {CONFIG} in {folder}, found none: download the whole folder of an open_clip model"
            )
            raise FileNotFoundError(message)
        if weights_file is not None:
            message = f"expected no weights beside the folder {folder}, which holds its own, got {weights_file}: leave one out"
            raise ValueError(message)
        return f"local-dir:{folder}"
    known = open_clip.list_models()
    if model not in known:
        close = ", ".join(get_close_matches(model, known, cutoff=0.4)) or "see open_clip.list_models()"
        message = f"expected a model of open_clip, or a folder with {CONFIG}, got {model!r}; close: {close}"
        raise ValueError(message)
    if weights_file is None or not Path(weights_file).expanduser().is_file():
        message = f"expected a checkpoint of open_clip's {model}, found no file {weights_file}: correct profile.settings.zero_shot.weights"
        raise FileNotFoundError(message)
    return model


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
