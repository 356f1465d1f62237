"""Key layouts of checkpoints: one two-way table each, between a publisher's names and timm's.

A row pairs timm's keys with the publisher's; `{i}` stands for the number of a block. Where one side keeps query, key and value
in one matrix and the other in three, the row names all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        ours: timm's key.
        theirs: The publisher's keys; several are stacked into ours along the first dimension.
        mlp: The kind of MLP that the row belongs to: `plain`, `packed` (gate and value in one matrix) or `gated`
            (in two); None for all.
        flat: Whether the publisher leaves out leading dimensions of size 1.
    """

    ours: str
    theirs: tuple[str, ...]
    mlp: str | None = None
    flat: bool = False


@dataclass(frozen=True)
class Layout:
    """The names that a publisher gives to the weights of a vision transformer.

    Attributes:
        name: What the layout is called.
        anchor: Key of the patch embedding, by which a prefix in front of all keys is found.
        marks: Keys by one of which the layout is recognised, of block 0; none for what everything else is.
        rows: The table.
        unused: Patterns of keys that only training or another task needs.
        class_position: Whether the class token has a position of its own; timm adds it to the token where
            positions are those of patches alone.
        key_bias: Whether biases of query, key and value are one vector whose key part is fixed at zero.
    """

    name: str
    anchor: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()
    class_position: bool = False
    key_bias: bool = False


def _rows(table: str, *, flat: tuple[str, ...] = ()) -> tuple[Row, ...]:
    """Read rows of `ours = theirs [theirs theirs] [| mlp]`; with `*`, once for weights and once for biases."""
    rows = []
    for line in filter(None, map(str.strip, table.splitlines())):
        pair, _, mlp = (part.strip() for part in line.partition("|"))
        ours, _, theirs = (part.strip() for part in pair.partition("="))
        for part in ("weight", "bias") if "*" in line else ("",):
            keys = tuple(key.replace("*", part) for key in theirs.split())
            rows.append(Row(ours.replace("*", part), keys, mlp or None, flat=ours in flat))
    return tuple(rows)


_PATCHES = "patch_embed.proj.* = embeddings.patch_embeddings.projection.*\n"
_HF_ATTENTION = """
blocks.{i}.attn.qkv.* = L.attention.attention.query.* L.attention.attention.key.* L.attention.attention.value.*
blocks.{i}.attn.proj.* = L.attention.output.dense.*
""".replace("L.", "encoder.layer.{i}.")
_HF_TOWER = """
patch_embed.proj.* = embeddings.patch_embedding.*
cls_token = embeddings.class_embedding
pos_embed = embeddings.position_embedding.weight
norm_pre.* = pre_layrnorm.*
norm.* = post_layernorm.*
blocks.{i}.norm1.* = L.layer_norm1.*
blocks.{i}.attn.qkv.* = L.self_attn.q_proj.* L.self_attn.k_proj.* L.self_attn.v_proj.*
blocks.{i}.attn.proj.* = L.self_attn.out_proj.*
blocks.{i}.norm2.* = L.layer_norm2.*
blocks.{i}.mlp.fc1.* = L.mlp.fc1.*
blocks.{i}.mlp.fc2.* = L.mlp.fc2.*
""".replace("L.", "encoder.layers.{i}.")

_SHARED = """
cls_token = cls_token
patch_embed.proj.* = patch_embed.proj.*
norm.* = norm.*
blocks.{i}.norm1.* = blocks.{i}.norm1.*
blocks.{i}.attn.qkv.weight = blocks.{i}.attn.qkv.weight
blocks.{i}.attn.proj.* = blocks.{i}.attn.proj.*
blocks.{i}.norm2.* = blocks.{i}.norm2.*
blocks.{i}.mlp.fc1.* = blocks.{i}.mlp.fc1.* | plain
blocks.{i}.mlp.fc2.* = blocks.{i}.mlp.fc2.* | plain
"""

DINOV2_HUB = Layout(
    "dinov2_hub",
    anchor="patch_embed.proj.weight",
    marks=("register_tokens", "blocks.0.mlp.w12.weight"),
    rows=_rows(
        _SHARED
        + """
        pos_embed = pos_embed
        reg_token = register_tokens
        blocks.{i}.attn.qkv.bias = blocks.{i}.attn.qkv.bias
        blocks.{i}.ls1.gamma = blocks.{i}.ls1.gamma
        blocks.{i}.ls2.gamma = blocks.{i}.ls2.gamma
        blocks.{i}.mlp.fc1.* = blocks.{i}.mlp.w12.* | packed
        blocks.{i}.mlp.fc2.* = blocks.{i}.mlp.w3.* | packed
        """
    ),
    unused=("mask_token",),
    class_position=True,
)
"""facebookresearch/dinov2, and NeCo's checkpoints, which keep its names. Without registers these are timm's."""

DINOV3_HUB = Layout(
    "dinov3_hub",
    anchor="patch_embed.proj.weight",
    marks=("storage_tokens", "rope_embed.periods"),
    rows=_rows(
        _SHARED
        + """
        reg_token = storage_tokens
        blocks.{i}.gamma_1 = blocks.{i}.ls1.gamma
        blocks.{i}.gamma_2 = blocks.{i}.ls2.gamma
        blocks.{i}.mlp.fc1_g.* = blocks.{i}.mlp.w1.* | gated
        blocks.{i}.mlp.fc1_x.* = blocks.{i}.mlp.w2.* | gated
        blocks.{i}.mlp.fc2.* = blocks.{i}.mlp.w3.* | gated
        """
    ),
    unused=("mask_token", r"rope_embed\.periods", r".*\.bias_mask", r"local_cls_norm\..*", r"projectors\..*"),
    key_bias=True,
)
"""facebookresearch/dinov3."""

HF_DINOV2 = Layout(
    "hf_dinov2",
    anchor="embeddings.patch_embeddings.projection.weight",
    marks=("encoder.layer.0.layer_scale1.lambda1",),
    rows=_rows(
        _PATCHES
        + _HF_ATTENTION
        + """
        cls_token = embeddings.cls_token
        reg_token = embeddings.register_tokens
        pos_embed = embeddings.position_embeddings
        norm.* = layernorm.*
        blocks.{i}.norm1.* = encoder.layer.{i}.norm1.*
        blocks.{i}.norm2.* = encoder.layer.{i}.norm2.*
        blocks.{i}.ls1.gamma = encoder.layer.{i}.layer_scale1.lambda1
        blocks.{i}.ls2.gamma = encoder.layer.{i}.layer_scale2.lambda1
        blocks.{i}.mlp.fc1.* = encoder.layer.{i}.mlp.fc1.* | plain
        blocks.{i}.mlp.fc2.* = encoder.layer.{i}.mlp.fc2.* | plain
        blocks.{i}.mlp.fc1.* = encoder.layer.{i}.mlp.weights_in.* | packed
        blocks.{i}.mlp.fc2.* = encoder.layer.{i}.mlp.weights_out.* | packed
        """
    ),
    unused=(r"embeddings\.mask_token",),
    class_position=True,
)
"""transformers: Dinov2Model and Dinov2WithRegistersModel."""

HF_DINOV3 = Layout(
    "hf_dinov3",
    anchor="embeddings.patch_embeddings.weight",
    marks=("layer.0.attention.q_proj.weight",),
    rows=_rows(
        """
        cls_token = embeddings.cls_token
        reg_token = embeddings.register_tokens
        patch_embed.proj.* = embeddings.patch_embeddings.*
        norm.* = norm.*
        blocks.{i}.norm1.* = layer.{i}.norm1.*
        blocks.{i}.norm2.* = layer.{i}.norm2.*
        blocks.{i}.gamma_1 = layer.{i}.layer_scale1.lambda1
        blocks.{i}.gamma_2 = layer.{i}.layer_scale2.lambda1
        blocks.{i}.attn.qkv.weight = L.q_proj.weight L.k_proj.weight L.v_proj.weight
        blocks.{i}.attn.q_bias = L.q_proj.bias
        blocks.{i}.attn.v_bias = L.v_proj.bias
        blocks.{i}.attn.proj.* = L.o_proj.*
        blocks.{i}.mlp.fc1.* = layer.{i}.mlp.up_proj.* | plain
        blocks.{i}.mlp.fc2.* = layer.{i}.mlp.down_proj.* | plain
        blocks.{i}.mlp.fc1_g.* = layer.{i}.mlp.gate_proj.* | gated
        blocks.{i}.mlp.fc1_x.* = layer.{i}.mlp.up_proj.* | gated
        blocks.{i}.mlp.fc2.* = layer.{i}.mlp.down_proj.* | gated
        """.replace("L.", "layer.{i}.attention.")
    ),
    unused=(r"embeddings\.mask_token",),
)
"""transformers: DINOv3ViTModel."""

HF_VIT = Layout(
    "hf_vit",
    anchor="embeddings.patch_embeddings.projection.weight",
    marks=("encoder.layer.0.intermediate.dense.weight",),
    rows=_rows(
        _PATCHES
        + _HF_ATTENTION
        + """
        cls_token = embeddings.cls_token
        pos_embed = embeddings.position_embeddings
        norm.* = layernorm.*
        blocks.{i}.norm1.* = encoder.layer.{i}.layernorm_before.*
        blocks.{i}.norm2.* = encoder.layer.{i}.layernorm_after.*
        blocks.{i}.mlp.fc1.* = encoder.layer.{i}.intermediate.dense.*
        blocks.{i}.mlp.fc2.* = encoder.layer.{i}.output.dense.*
        """
    ),
    unused=(r"embeddings\.mask_token", r"pooler\..*"),
)
"""transformers: ViTModel, the encoder of ViTMAEModel, IJepaModel."""

HF_CLIP = Layout(
    "hf_clip",
    anchor="embeddings.patch_embedding.weight",
    marks=("embeddings.class_embedding",),
    rows=_rows(_HF_TOWER, flat=("cls_token", "pos_embed")),
    unused=(r"embeddings\.position_ids",),
)
"""transformers: CLIPVisionModel."""

HF_SIGLIP = Layout(
    "hf_siglip",
    anchor="embeddings.patch_embedding.weight",
    marks=("embeddings.position_embedding.weight",),
    rows=_rows(_HF_TOWER, flat=("cls_token", "pos_embed")),
    unused=(r"embeddings\.position_ids", r"head\..*"),
)
"""transformers: SiglipVisionModel, of fixed-size SigLIP 2 too."""

TIMM = Layout(
    "timm",
    anchor="patch_embed.proj.weight",
    marks=(),
    rows=(),
    # Of the original DINO and MAE too, which share timm's names.
    unused=("mask_token", r"(head|head_drop|fc_head|attn_pool)\..*", r"decoder_.*", r"rope\..*"),
)
"""timm's own."""

LAYOUTS = (DINOV2_HUB, DINOV3_HUB, HF_DINOV2, HF_DINOV3, HF_VIT, HF_CLIP, HF_SIGLIP, TIMM)
"""All layouts, those that are told by less after those that are told by more."""


def recognise(state: State) -> Layout | None:
    """Return the layout of a checkpoint whose keys have no prefix, or None."""
    for layout in LAYOUTS:
        if layout.anchor in state and (not layout.marks or any(mark in state for mark in layout.marks)):
            return layout
    return None


def to_timm(state: State, layout: Layout, network: nn.Module) -> dict[str, Tensor]:
    """Return a checkpoint under timm's names; keys that the table does not have keep theirs.

    Args:
        state: Weights in the layout.
        layout: The layout.
        network: The timm transformer that they are for.
    """
    rest = {key: value for key, value in state.items() if not is_unused(key, layout)}
    rest = dict(_split_bias(rest)) if layout.key_bias else rest
    found: dict[str, Tensor] = {}
    for row in _expanded(layout, _depth(rest), _mlp(network.state_dict())):
        if all(key in rest for key in row.theirs):
            parts = [rest.pop(key) for key in row.theirs]
            value = parts[0] if len(parts) == 1 else torch.cat(parts)
            found[row.ours] = value.reshape(1, -1, value.shape[-1]) if row.flat else value
    found = _without_zero_bias({**found, **rest}, network)
    return _fold_class(found, network) if layout.class_position else found


def from_timm(state: State, layout: Layout, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a timm transformer under the names of a layout; the inverse of `to_timm`.

    What only training needs is not made up.

    Args:
        state: Weights under timm's names.
        layout: The layout.
        network: The timm transformer that they are of.
    """
    if layout is TIMM:
        return dict(state)
    rest = _unfold_class(state, network) if layout.class_position else dict(state)
    if layout.key_bias or layout is HF_DINOV3:
        rest = dict(_with_bias(rest))
    rest = dict(_join_bias(rest)) if layout.key_bias else rest
    written: dict[str, Tensor] = {}
    for row in _expanded(layout, _depth(rest), _mlp(state)):
        if row.ours in rest:
            value = rest.pop(row.ours)
            value = value.squeeze() if row.flat else value
            written |= zip(row.theirs, value.chunk(len(row.theirs)), strict=True)
    return written | rest


def is_unused(key: str, layout: Layout) -> bool:
    """Return whether only training or another task needs a key."""
    return any(re.fullmatch(pattern, key) for pattern in layout.unused)


def _expanded(layout: Layout, depth: int, mlp: str) -> Iterator[Row]:
    """Yield the rows for a kind of MLP, those of blocks once for each block."""
    for row in layout.rows:
        for i in range(depth if "{i}" in row.ours else 1) if row.mlp in (None, mlp) else ():
            theirs = tuple(key.replace("{i}", str(i)) for key in row.theirs)
            yield row._replace(ours=row.ours.replace("{i}", str(i)), theirs=theirs)


def _depth(state: State) -> int:
    """Return the number of blocks, by the highest number in a key."""
    numbers = (re.match(r"(?:.*\.)?(?:blocks|layers?)\.(\d+)\.", key) for key in state)
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def _mlp(state: State) -> str:
    """Return the kind of MLP of a timm transformer, see `Row`."""
    if "blocks.0.mlp.fc1_g.weight" in state:
        return "gated"
    into, out = state["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc2.weight"]
    return "packed" if into.shape[0] == 2 * out.shape[1] else "plain"


def _patch_positions(network: nn.Module) -> bool:
    """Return whether timm keeps positions of patches alone, beside a class token."""
    return bool(getattr(network, "no_embed_class", False)) and network.cls_token is not None


def _fold_class(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Add the class token's position to it where timm keeps none."""
    if not _patch_positions(network) or not {"cls_token", "pos_embed"} <= {*state}:
        return state
    positions = state["pos_embed"]
    return {**state, "cls_token": state["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}


def _unfold_class(state: State, network: nn.Module) -> dict[str, Tensor]:
    """Give the class token a position of zero where timm keeps none."""
    if not _patch_positions(network):
        return dict(state)
    positions = state["pos_embed"]
    return {**state, "pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)}


def _split_bias(state: State) -> Iterator[tuple[str, Tensor]]:
    """Turn each bias of query, key and value into timm's two; that of the key is masked to zero."""
    for key, value in state.items():
        if key.endswith("attn.qkv.bias"):
            query, _, bias = value.chunk(3)
            yield key.replace("qkv.bias", "q_bias"), query
            yield key.replace("qkv.bias", "v_bias"), bias
        else:
            yield key, value


def _without_zero_bias(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Leave out biases of zero that timm has no place for: distilled DINOv3 models ended with none."""
    known = network.state_dict()
    return {
        key: value
        for key, value in state.items()
        if key in known or not key.endswith(("attn.q_bias", "attn.v_bias")) or bool(value.any())
    }


def _with_bias(state: State) -> Iterator[tuple[str, Tensor]]:
    """Add biases of zero where timm has none."""
    for key, value in state.items():
        yield key, value
        if key.endswith("attn.qkv.weight"):
            for name in ("q_bias", "v_bias"):
                own = key.replace("qkv.weight", name)
                yield own, state.get(own, value.new_zeros(len(value) // 3))


def _join_bias(state: State) -> Iterator[tuple[str, Tensor]]:
    """Turn timm's two biases into one vector of query, key and value, and the mask on its key part."""
    for key, value in state.items():
        if key.endswith("attn.q_bias"):
            none = torch.zeros_like(value)
            joined = key.replace("q_bias", "qkv.bias")
            yield joined, torch.cat([value, none, state[key.replace("q_bias", "v_bias")]])
            yield f"{joined}_mask", torch.cat([none + 1, none, none + 1])
        elif not key.endswith("attn.v_bias"):
            yield key, value
