"""Where outcomes of protocols are kept, so that an evaluation that was killed goes on with what is left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paka.feature_store import code_digest, digest_of
from paka.protocols import Outcome, Profile
from paka.protocols.classification import MAP, TOP1
from paka.protocols.correspondence import PCK
from paka.protocols.depth_errors import PER_IMAGE, POOLED
from paka.protocols.foreground import JACCARD
from paka.protocols.region_boundary import OBJECTS
from paka.statistics import Metric

METRICS = {
    metric.name: metric
    for metric in (*POOLED, *PER_IMAGE, *OBJECTS, TOP1, MAP, JACCARD, *chain(*PCK.values()))
}
"""Metrics by name, but for mIoU, which a profile defines."""


@dataclass(frozen=True)
class OutcomeStore:
    """A folder of outcomes, each under a digest of all that it depends on, this package's own code included.

    Attributes:
        folder: Where they are; made when needed.
    """

    folder: Path

    def place(self, facts: Mapping[str, Any]) -> Path:
        """Return the file of the outcome that facts describe, whether it is there or not."""
        return self.folder / f"{digest_of({**facts, 'code': code_digest()})[:32]}.npz"

    def unfinished(self, facts: Mapping[str, Any]) -> Path:
        """Return the folder in which a protocol that trains for long may keep what it goes on from."""
        return self.folder / "unfinished" / self.place(facts).stem

    def get(self, facts: Mapping[str, Any], profile: Profile) -> Outcome | None:
        """Return the outcome that facts describe, if it is there.

        Args:
            facts: All that it depends on, as JSON.
            profile: Defines mIoU.
        """
        path = self.place(facts)
        if not path.exists():
            return None
        with np.load(path) as held:
            return unpacked({name: held[name] for name in held.files}, profile)

    def put(self, facts: Mapping[str, Any], outcome: Outcome) -> None:
        """Keep an outcome; a reader never sees half of it."""
        path = self.place(facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **packed(outcome))  # type: ignore[arg-type]  # numpy's stub takes them for its flag
        unfinished.replace(path)


def packed(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """Return an outcome as arrays by name, which files and other processes can take."""
    about = {
        "metrics": [metric.name for metric in outcome.metrics],
        "pictures": list(outcome.pictures),
        "stated": dict(outcome.stated),
    }
    pictures = {f"picture.{n}": picture.numpy() for n, picture in outcome.pictures.items()}
    return {"counts": outcome.counts.numpy(), "about": np.array(json.dumps(about)), **pictures}


def unpacked(arrays: Mapping[str, NDArray[Any]], profile: Profile) -> Outcome:
    """Return the outcome that `packed` took apart.

    Args:
        arrays: By name.
        profile: Defines mIoU.
    """
    about = json.loads(str(arrays["about"]))
    return Outcome(
        torch.from_numpy(arrays["counts"]),
        tuple(named(name, profile) for name in about["metrics"]),
        {int(n): torch.from_numpy(arrays[f"picture.{n}"]) for n in about["pictures"]},
        about["stated"],
    )


def named(name: str, profile: Profile) -> Metric:
    """Return a metric by its name, as a profile defines it."""
    return profile.iou if name == profile.iou.name else METRICS[name]
