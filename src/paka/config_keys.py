"""What keys of a configuration are about: names, places, pace or scoring; what is left is what training depends on.

Whoever compares configurations takes from here what may differ: a run that goes on (`paka.changes`), a job of a sweep that
is recognised (`paka.sweep_job`), runs that are reported together (`paka.configurations`, `paka.cohort`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = re.compile(r"(output_dir|sweep_dir|run_name|method|tags|resume|logger|cache|cache_limit)(\..*)?")
_PLACES = re.compile(
    r"(data|benchmark)\.(.*\.)?(root|sbd_root|cache|home)|(data|benchmark)\.miniature(\..*)?"
)
_PACE = re.compile(
    r"trainer\.(workers|log_every|checkpoint_every|devices|strategy|accelerator)|snapshots|visualize|batch|device"
    r"|profile\.settings\.(.*\.)?(workers|accelerator|checkpoint_every)|eval\.(every|subset)"
)
_SCORING = re.compile(r"(eval|profile|benchmark)(\..*)?|split|export|choose")


def is_name(key: str) -> bool:
    """Return whether a dotted key says where a run is, what it is called, or what is kept of it where."""
    return bool(_NAMES.fullmatch(key))


def is_place(key: str) -> bool:
    """Return whether a dotted key says where images are, whichever they are."""
    return bool(_PLACES.fullmatch(key))


def is_pace(key: str) -> bool:
    """Return whether a dotted key says how fast, by what, or how often something is done, and nothing comes out otherwise."""
    return bool(_PACE.fullmatch(key))


def is_scoring(key: str) -> bool:
    """Return whether a dotted key says what is done with an encoder once it is trained."""
    return bool(_SCORING.fullmatch(key))


def flattened(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key; lists and empty mappings are values."""
    return dict(_leaves(node, prefix))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
