"""Key layouts of checkpoints: one two-way table each, between a publisher's names and timm's.

A row pairs timm's keys with the publisher's; `{i}` stands for the number of a block. Where one side keeps query, key and value
in one matrix and the other in three, the row names all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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

_HEADS = (r"(head|projection_head|dino_head|ibot_head|prototypes)\..*",)
"""Heads that training frameworks keep inside the encoder: NeCo's and Leopart's projection among them."""

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
    unused=("mask_token", *_HEADS),
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
    unused=(
        "mask_token",
        *_HEADS,
        r"rope_embed\.periods",
        r".*\.bias_mask",
        r"local_cls_norm\..*",
        r"projectors\..*",
    ),
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
    unused=(
        "mask_token",
        *_HEADS,
        r"(head_drop|fc_head|attn_pool)\..*",
        r"decoder_.*",
        r"rope\.(?!freqs$).*",
    ),
)
"""timm's own."""

LAYOUTS = (DINOV2_HUB, DINOV3_HUB, HF_DINOV2, HF_DINOV3, HF_VIT, HF_CLIP, HF_SIGLIP, TIMM)
"""All layouts, those that are told by less after those that are told by more."""
