"""Checkpoints from a publisher's names to timm's and back, by the tables of `paka.key_tables`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from paka.key_tables import HF_DINOV3, LAYOUTS, TIMM, Layout, Row

State = Mapping[str, Tensor]
"""Weights by key."""


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
    rest = dict(_split_bias(state)) if layout.key_bias else dict(state)
    rest = {key: value for key, value in rest.items() if not is_unused(key, layout)}
    found: dict[str, Tensor] = {}
    for row in _expanded(layout, _depth(rest), mlp_kind(network.state_dict())):
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
    rest = _arranged(state, layout, network)
    written: dict[str, Tensor] = {}
    for row in _expanded(layout, _depth(rest), mlp_kind(state)):
        if row.ours in rest:
            value = rest.pop(row.ours)
            value = value.squeeze() if row.flat else value
            written |= zip(row.theirs, value.chunk(len(row.theirs)), strict=True)
    return written | rest


def _arranged(state: State, layout: Layout, network: nn.Module) -> dict[str, Tensor]:
    """Return weights under timm's names, class positions and biases as the layout keeps them."""
    rest = _unfold_class(state, network) if layout.class_position else dict(state)
    if layout.key_bias or layout is HF_DINOV3:
        rest = dict(_with_bias(rest))
    return dict(_join_bias(rest)) if layout.key_bias else rest


def difference(layout: Layout, network: nn.Module, *, optional: Collection[str] = ()) -> str:
    """Return in what a timm transformer differs from the models of a layout; empty if its weights have their names.

    Args:
        layout: The layout.
        network: The timm transformer.
        optional: Weights by timm's names that only some models of the layout have.
    """
    rest = _arranged(network.state_dict(), layout, network)
    named = {row.ours for row in _expanded(layout, _depth(rest), mlp_kind(network.state_dict()))}
    surplus, missing = sorted(rest.keys() - named), sorted(named - rest.keys() - {*optional})
    parts = {"has": surplus, "has no": missing}
    return " and ".join(f"{word} {found[0]}" for word, found in parts.items() if found)


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


def mlp_kind(state: State) -> str:
    """Return the kind of MLP of a timm transformer, see `Row`."""
    if "blocks.0.mlp.fc1_g.weight" in state:
        return "gated"
    into, out = (state.get(f"blocks.0.mlp.fc{i}.weight") for i in (1, 2))
    packed = into is not None and out is not None and into.shape[0] == 2 * out.shape[1]
    return "packed" if packed else "plain"


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
    """Turn each bias of query, key and value into timm's two; one of the key that no mask sets to zero is kept."""
    for key, value in state.items():
        if key.endswith("attn.qkv.bias"):
            query, own, bias = value.chunk(3)
            yield key.replace("qkv.bias", "q_bias"), query
            yield key.replace("qkv.bias", "v_bias"), bias
            mask = state[f"{key}_mask"].chunk(3)[1] if f"{key}_mask" in state else torch.ones_like(own)
            # timm has no place for it, and with rotary positions it changes the attention: nothing may drop it.
            if bool((own[mask != 0] != 0).any()):
                yield key.replace("qkv.bias", "k_bias"), own
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
