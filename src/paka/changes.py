"""What differs between the configuration of a run and that under which it is to go on, and what of it may."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

_ELSEWHERE = ("resume", "init_from", "output_dir", "sweep_dir", "run_name", "method", "tags")
"""Keys that say where a run is and what it is called."""

_PLACES = re.compile(r"(data|benchmark)\.(.*\.)?(root|cache|home)|(data|benchmark)\.miniature\b.*")
"""Keys that say where images are."""

_FREE = re.compile(
    r"(logger|eval|profile|benchmark)\b.*|split|export|snapshots|visualize|choose"
    r"|trainer\.(workers|log_every|checkpoint_every|devices|strategy|accelerator)"
)
"""Keys that training does not depend on."""

_REFUSED = {
    "seed": "which makes the order of images",
    "data": "which makes the order of images",
    "backbone.batch_size": "which makes the order of images",
    "backbone.name": "whose weights the checkpoint holds",
    "backbone.layers": "whose weights the checkpoint holds",
    "backbone.encoder.model": "whose weights the checkpoint holds",
    "backbone.encoder.arch": "whose weights the checkpoint holds",
    "head": "whose weights the checkpoint holds",
    "image_head": "whose weights the checkpoint holds",
    "tuning": "by which the optimizer's state is divided",
    "optim.optimizer._target_": "whose state the checkpoint holds",
    "trainer.accumulate": "by which the loader's place is counted",
}
"""Keys that a run cannot be resumed without, with the reason."""


class Change(NamedTuple):
    """A key whose value is another than when the checkpoint was written; None stands for a key that is not there."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """Return it as `optim.lr: 0.0001 -> 0.001`."""
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.now)}"


def is_free(key: str) -> bool:
    """Return whether training does not depend on a key."""
    return bool(_FREE.fullmatch(key) or _PLACES.fullmatch(key))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a resolved configuration as plain types, without Hydra's own part and the folder that it is not to depend on."""
    copied = cfg.copy()
    with open_dict(copied):
        copied.pop("hydra", None)
        copied["output_dir"] = ""
    found = OmegaConf.to_container(copied, resolve=True)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return the keys whose values differ, in order; what several keys repeat is told once.

    Args:
        before: Resolved configuration of the run.
        now: That of the present.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    found: dict[tuple[str, str, str], Change] = {}
    for key in dict.fromkeys([*new, *old]):
        change = Change(key, old.get(key), new.get(key))
        if change.before != change.now and key.partition(".")[0] not in _ELSEWHERE:
            found.setdefault((key.rpartition(".")[2], repr(change.before), repr(change.now)), change)
    return list(found.values())


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def refuse(found: Sequence[Change], checkpoint: Path) -> None:
    """Refuse changes under which a run cannot be resumed.

    Raises:
        ValueError: There are such changes.
    """
    refused = [(one, reason) for one in found if (reason := _reason(one.key)) is not None]
    if refused:
        listed = "; ".join(f"{one}, {reason}" for one, reason in refused[:4])
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        message = f"resume={checkpoint} cannot go on with {listed}{more}: leave them as they were, or start anew from its weights with init_from={checkpoint}"
        raise ValueError(message)


def _reason(key: str) -> str | None:
    if _PLACES.fullmatch(key):
        return None
    return next((why for prefix, why in _REFUSED.items() if f"{key}.".startswith(f"{prefix}.")), None)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
