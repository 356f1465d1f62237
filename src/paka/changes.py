"""What differs between the configuration of a run and that under which it is to go on, and what of it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from paka.config_keys import flattened, is_name, is_pace, is_place, is_scoring

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
    return is_pace(key) or is_scoring(key) or is_place(key)


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
    old, new = flattened(before), flattened(now)
    found: dict[tuple[str, str, str], Change] = {}
    for key in dict.fromkeys([*new, *old]):
        change = Change(key, old.get(key), new.get(key))
        if change.before != change.now and not is_name(key) and key != "init_from":
            found.setdefault((key.rpartition(".")[2], repr(change.before), repr(change.now)), change)
    return list(found.values())


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
    if is_place(key):
        return None
    return next((why for prefix, why in _REFUSED.items() if f"{key}.".startswith(f"{prefix}.")), None)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
