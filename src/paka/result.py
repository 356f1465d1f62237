"""What a protocol made of a benchmark with one encoder, once for each seed, and what is said of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from paka.protocols import STATED, Outcome
from paka.statistics import Metric


@dataclass(frozen=True)
class Result:
    """What a protocol made of n images, once for each of S seeds.

    Attributes:
        outcomes: One for each seed.
    """

    outcomes: tuple[Outcome, ...]

    @cached_property
    def counts(self) -> Tensor:
        """Counts per image and seed, (n, S, *count)."""
        return torch.stack([outcome.counts for outcome in self.outcomes], dim=1)

    @property
    def pictures(self) -> Mapping[int, Tensor]:
        """What was predicted for some images, with the first seed."""
        return self.outcomes[0].pictures

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the counts, as means over the seeds."""
        return tuple(_mean_over_seeds(metric) for metric in self.outcomes[0].metrics)


def _mean_over_seeds(metric: Metric) -> Metric:
    """Return the metric of counts with an axis of seeds after that of the images, if there is one."""
    if not metric.weighs:
        return metric._replace(of=lambda counts: metric.of(counts).mean(dim=-1))

    def of(counts: Tensor, times: Tensor) -> Tensor:
        return torch.stack([metric.of(seed, times) for seed in counts.unbind(dim=1)]).mean(dim=0)

    return metric._replace(of=of)


def stated(*sides: Result) -> dict[str, Any]:
    """Return what scores depend on beside the profile; what is chosen otherwise for other seeds or encoders is in the note.

    How many patches a memory holds is that of the first seed.
    """
    first = sides[0].outcomes[0].stated
    chosen = {
        name
        for name in first
        if name != "memory" and len({outcome.stated[name] for side in sides for outcome in side.outcomes}) > 1
    }
    if not chosen:
        return {**first}
    told = dict.fromkeys(_told(side, chosen) for side in sides)
    note = "" if "note" in chosen else first.get("note", "")
    agreed = {name: fact for name, fact in first.items() if name not in chosen}
    return {**agreed, "note": "; ".join(filter(None, [note, " against ".join(told)]))}


def _told(side: Result, names: Collection[str]) -> str:
    """Return what an encoder's outcomes state under some names, each once."""
    facts = [
        ", ".join(
            f"{'' if name == 'note' else name} {one.stated[name]}".strip() for name in STATED if name in names
        )
        for one in side.outcomes
    ]
    return " or ".join(dict.fromkeys(facts))


def value(result: Result, metric: Metric) -> float:
    """Return a metric of all images, in the unit in which it is printed."""
    return metric.scale * metric.once(result.counts)


def printed(result: Result) -> float:
    """Return the first metric of a protocol, in the unit in which it is printed."""
    return value(result, result.metrics[0])
