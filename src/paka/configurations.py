"""What runs differ in beside their seed: the columns that tell configurations apart, and their names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paka.config_keys import is_name, is_pace, is_place
from paka.runs import Run

_IGNORED = ("seed", "profile.bootstrap")
"""Keys that make no configuration another, beside names, places and pace: of seeds means are taken, and resamples are counted."""
_PASSED_OVER = ("eval", "sweep", "trainer")
"""Groups whose options are no difference: what runs are scored by, how they are started, and what keys of their own say."""
OWN = ("folder", "frames", "keypoints", "shards")
"""Names of images that anybody has; all others are the same images wherever they are."""
_SILENT = ("true", "false", "null", "nan", "inf")
NO_VALUE = "-"
"""Value of a key that a configuration does not have."""

Values = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A key, or a group, in which runs differ.

    Attributes:
        key: Dotted key, or name of the group.
        name: The shortest name that no other column has.
        group: Whether it is a group, whose options are values.
    """

    key: str
    name: str
    group: bool = False

    def value(self, run: Run) -> Any:
        """Return the value that a run has."""
        return run.choices.get(self.key) if self.group else run.settings.get(self.key)

    def text(self, run: Run) -> str:
        """Return the value that a run has as text."""
        value = self.value(run)
        absent = value is None and (self.group or self.key not in run.settings)
        text = NO_VALUE if absent else as_text(value)
        return text.rpartition(".")[2] if self.key.endswith("_target_") else text


def as_text(value: Any) -> str:
    """Return a value as it would be typed."""
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def within(key: str, parts: Iterable[str]) -> bool:
    """Return whether a dotted key is one of some, or below it."""
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def is_ignored(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a dotted key changes where, how fast or how often something is done, but not what comes out.

    Args:
        key: The key.
        settings: The configuration that it is of.
    """
    return is_name(key) or is_pace(key) or key in _IGNORED or (is_place(key) and not _is_own(key, settings))


def _is_own(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a place is all that says which images are there."""
    parts = key.split(".")
    names = (settings.get(".".join([*parts[:depth], "name"])) for depth in range(len(parts) - 1, 0, -1))
    return parts[-1] == "root" and next((name for name in names if name is not None), None) in OWN


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return what runs differ in beside their seed and what changes no result.

    A group whose option was chosen is one column, and stands for all values of its file. A key that was set on the command
    line is a column if its values differ. Of the others, those that follow from these columns are left out.

    Args:
        runs: Runs of one program.
    """
    typed = frozenset().union(*(run.typed for run in runs))
    groups = [group for group in _differing_groups(runs) if group in typed]
    keys = [key for key in _differing_keys(runs) if key not in groups and _set(key, typed)]
    chosen = [*groups, *keys]
    left = [key for key in _differing_keys(runs) if key not in chosen]
    while left := [key for key in left if not _follows(key, chosen, groups, runs)]:
        chosen.append(left.pop(0))
    names = shortest([key for key in chosen if key not in groups], groups)
    return [Column(key, names[key], key in groups) for key in chosen]


def _differing_groups(runs: Sequence[Run]) -> list[str]:
    """Return groups of which runs chose different options, in order of their names."""
    known = {group for run in runs for group in run.choices if not group.startswith("hydra/")}
    return sorted(
        group
        for group in known
        if not (is_name(group) or group in _PASSED_OVER) and len({run.choices.get(group) for run in runs}) > 1
    )


def _differing_keys(runs: Sequence[Run]) -> list[str]:
    """Return keys that runs have different values of, the shortest first; references to others are no values."""
    known = {
        key
        for run in runs
        for key in run.settings
        if not (is_ignored(key, run.settings) or within(key, ["eval"]))
    }
    recorded = all(run.composed for run in runs)
    differing = [
        key
        for key in known
        if _differs(key, [run.settings for run in runs])
        and (not recorded or _differs(key, [run.composed for run in runs]))
    ]
    return sorted(differing, key=lambda key: (key.count("."), len(key), key))


def _differs(key: str, settings: Iterable[Mapping[str, Any]]) -> bool:
    return len({json.dumps(one[key]) if key in one else None for one in settings}) > 1


def _set(key: str, typed: Iterable[str]) -> bool:
    """Return whether a key, or what it is part of, was set on the command line."""
    return any(within(key, [name]) for name in typed if "." in name) or key in typed


def _follows(key: str, chosen: Sequence[str], groups: Sequence[str], runs: Sequence[Run]) -> bool:
    """Return whether the value of a key follows from columns: it is that of one, or of the seed, or settled by the options."""
    own = [json.dumps(run.settings.get(key)) for run in runs]
    copied = ["seed", *(one for one in chosen if one not in groups)]
    if any(own == [json.dumps(run.settings.get(one)) for run in runs] for one in copied):
        return True
    if not all(run.composed for run in runs):
        return False  # nothing says what was chosen and what followed
    settled: dict[Values, set[str]] = {}
    for run, value in zip(runs, own, strict=True):
        settled.setdefault(_cell(run, chosen, groups), set()).add(value)
    return all(len(values) == 1 for values in settled.values())


def _cell(run: Run, chosen: Sequence[str], groups: Sequence[str]) -> Values:
    values = (run.choices.get(one) if one in groups else run.settings.get(one) for one in chosen)
    return tuple(json.dumps(value) for value in values)


def shortest(keys: Sequence[str], groups: Sequence[str] = ()) -> dict[str, str]:
    """Return the shortest end of each key that no other column ends in; groups keep their names."""
    names = {group: group for group in groups}
    spoken = {key: key.removesuffix("._target_") for key in keys}
    for key, whole in spoken.items():
        others = {
            *groups,
            *(ending for other in spoken.values() if other != whole for ending in _endings(other)),
        }
        names[key] = next((ending for ending in _endings(whole) if ending not in others), whole)
    return names


def _endings(key: str) -> Iterator[str]:
    """Yield the ends of a dotted key, the shortest first."""
    parts = key.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[-length:])


def numbers(texts: Iterable[str]) -> list[float] | None:
    """Return values as finite numbers, or None if one is none."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def label(names: Sequence[str], values: Values) -> str:
    """Return a configuration in words, such as `kernel=rbf, bandwidth=0.5`; what it does not have is left out."""
    said = [f"{name}={value}" for name, value in zip(names, values, strict=True) if value != NO_VALUE]
    return ", ".join(said) or "as configured"


def short(values: Values) -> tuple[str, ...]:
    """Return the values that speak for themselves: words, but not `true`, numbers or lists."""
    return tuple(
        value for value in values if value != NO_VALUE and value[0].isalpha() and value not in _SILENT
    )


def short_labels(names: Sequence[str], configurations: Iterable[Values]) -> dict[Values, str]:
    """Return configurations in few words, for narrow places: keys are left out where the values speak for themselves."""
    labels = {}
    for values in configurations:
        spoken = short(values)
        said = [
            value if value in spoken else f"{name}={value}"
            for name, value in zip(names, values, strict=True)
            if value != NO_VALUE
        ]
        labels[values] = ", ".join(said) or "as configured"
    return labels if len({*labels.values()}) == len(labels) else {one: label(names, one) for one in labels}


def order(values: Values) -> tuple[tuple[int, float, str], ...]:
    """Return what puts configurations in order: numbers by size, then words, then nothing."""
    return tuple(_place(value) for value in values)


def _place(value: str) -> tuple[int, float, str]:
    if value == NO_VALUE:
        return 2, 0.0, ""
    number = numbers([value])
    return (1, 0.0, value) if number is None else (0, number[0], "")
