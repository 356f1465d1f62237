"""Which checkpoint to keep, without labels: estimates of each, and how well they ranked those that labels scored."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paka.features import DenseFeatures
from paka.progress import tracked
from paka.protocols.label_free import (
    RankAgreement,
    Structure,
    cluster_stability,
    dse,
    rank_agreement,
    structure,
)

IMAGES = 128
"""Images that estimates are made of, evenly spaced."""

CLUSTERS = 32
"""Clusters of which the stability is measured."""

SPLITS = 3
"""Times the images are halved for it."""

ESTIMATES = ("dse", "stability")
"""What checkpoints may be chosen by."""


@dataclass(frozen=True)
class Estimates:
    """Label-free estimates of checkpoints; the higher, the better each is held to be.

    Attributes:
        names: What the checkpoints are called.
        structures: The terms of DSE.
        dse: Dense representation structure estimate, of at least two checkpoints; not comparable across runs.
        stability: How much clusterings of two halves of the images agree, at most 1.
    """

    names: tuple[str, ...]
    structures: tuple[Structure, ...]
    dse: tuple[float, ...]
    stability: tuple[float, ...]

    def best(self, estimate: str) -> str:
        """Return the checkpoint of the highest estimate; of equal ones, the first.

        Args:
            estimate: One of `ESTIMATES`.
        """
        values: tuple[float, ...] = getattr(self, estimate)
        return self.names[values.index(max(values))]

    def agreement(self, scores: Mapping[str, float]) -> dict[str, RankAgreement]:
        """Return how well each estimate ranked the checkpoints, by estimate.

        Args:
            scores: What labels said of each checkpoint, the higher the better; at least three.
        """
        said = [scores[name] for name in self.names]
        return {estimate: rank_agreement(getattr(self, estimate), said) for estimate in ESTIMATES}

    def records(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each checkpoint."""
        return [
            {
                "checkpoint": name,
                "dse": value,
                "inter": found.inter,
                "intra": found.intra,
                "dimensionality": found.dimensionality,
                "stability": stable,
            }
            for name, value, found, stable in zip(
                self.names, self.dse, self.structures, self.stability, strict=True
            )
        ]


def tables(estimates: Estimates, scores: Mapping[str, Mapping[str, float]]) -> list[list[tuple[str, ...]]]:
    """Return what the estimates say as tables of text, the header first: of the checkpoints, and of how well they were ranked.

    Args:
        estimates: Of at least two checkpoints.
        scores: What labels said of each checkpoint, by protocol; the higher the better. The second table is empty unless
            there are three checkpoints and a finite score of each.
    """
    marks = {name: {estimates.best(name)} for name in ESTIMATES}
    rows = [
        (
            name,
            f"{value:.3f}{' (best)' * (name in marks['dse'])}",
            f"{stable:.3f}{' (best)' * (name in marks['stability'])}",
            *(f"{of[name]:.2f}" for of in scores.values()),
        )
        for name, value, stable in zip(estimates.names, estimates.dse, estimates.stability, strict=True)
    ]
    ranked: list[tuple[str, ...]] = [
        (
            protocol,
            name,
            estimates.best(name),
            f"{found.spearman:.2f}",
            f"{found.kendall:.2f}",
            f"{found.regret:.2f}",
        )
        for protocol, of in scores.items()
        if all(map(isfinite, of.values()))
        for name, found in (estimates.agreement(of).items() if len(estimates.names) > 2 else ())
    ]
    if ranked:
        ranked.insert(0, ("protocol", "estimate", "chosen", "Spearman", "Kendall", "points lost"))
    return [[("checkpoint", "DSE", "stability", *scores), *rows], ranked]


def estimate(checkpoints: Iterable[tuple[str, DenseFeatures]], count: int, *, seed: int) -> Estimates:
    """Return label-free estimates of checkpoints from their tokens of the same images.

    Args:
        checkpoints: What each is called, and its features; read one after another.
        count: How many there are, at least two.
        seed: Seed of clusterings and draws, the same for all.

    Raises:
        ValueError: There are fewer than two, or too few images or patches.
    """
    names, structures, stability = [], [], []
    for name, features in tracked(checkpoints, count):
        tokens = sample(features)
        names.append(name)
        structures.append(structure(tokens, seed=seed))
        stability.append(
            cluster_stability(tokens, CLUSTERS, [seed + split for split in range(SPLITS)], halves=True)
        )
    return Estimates(tuple(names), tuple(structures), tuple(dse(structures).tolist()), tuple(stability))


def sample(features: DenseFeatures) -> Tensor:
    """Return the tokens of up to `IMAGES` evenly spaced images, (m, N, D) float32.

    Images that do not fill their frame are cut to the rows and columns that all of them have.
    """
    chosen = torch.from_numpy(evenly(len(features)))
    tokens = features.tokens[chosen]
    if features.valid is not None:
        own = features.valid[chosen]
        rows, columns = own.any(dim=2).all(dim=0).sum(), own.any(dim=1).all(dim=0).sum()
        tokens = tokens[:, : int(rows), : int(columns)]
    return tokens.flatten(1, 2).float()


def evenly(images: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return up to `IMAGES` evenly spaced numbers of images, ascending."""
    return np.unique(np.linspace(0, images - 1, min(images, IMAGES)).astype(np.int64))


def write(path: Path, estimates: Estimates) -> Path:
    """Write the estimates as CSV; return the path."""
    rows = estimates.records()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
