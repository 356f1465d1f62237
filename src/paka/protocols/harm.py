"""The do-no-harm report: what post-training did to tokens beyond the tasks it was meant for, without labels."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from paka.alignment import LEAST_UNBIASED, feature_cka
from paka.diagnostics import effective_rank, norm_outliers, positional_r2, thinned
from paka.distances import centred
from paka.precision import in_float32

MOST_POSITIONAL = 100_000
"""Patches that enter the fits of positions; images beyond them are left out, spread evenly."""

CHUNK = 65536
"""Tokens that are widened at a time."""

ROUNDING = 1e-5
"""Changes up to this share of the value, or of 1, are rounding."""

Worrying = Literal["rise", "fall"]
"""The change of a measure that speaks of harm."""


@dataclass(frozen=True)
class HarmRow:
    """One measure before and after post-training.

    Attributes:
        name: As tables print it.
        before: Its value of the encoder that training started from.
        after: Its value of the post-trained encoder.
        unit: What it is counted in: `dimensions`, `share`, `medians` or `distance`.
        worrying: Which change speaks of harm.
        meaning: One sentence on what it says.
    """

    name: str
    before: float
    after: float
    unit: str
    worrying: Worrying
    meaning: str

    @property
    def change(self) -> float:
        """After minus before, in the unit."""
        return self.after - self.before

    @property
    def worse(self) -> bool:
        """Whether it changed the worrying way beyond rounding; how far matters is for the reader to judge.

        False where either value is NaN.
        """
        toward = self.change if self.worrying == "rise" else -self.change
        return toward > ROUNDING * max(abs(self.before), 1.0)


@dataclass(frozen=True)
class HarmReport:
    """Measures before and after, in the order tables show them.

    Attributes:
        rows: The measures.
    """

    rows: tuple[HarmRow, ...]

    def __getitem__(self, name: str) -> HarmRow:
        """Return a measure by its name.

        Raises:
            KeyError: There is none of that name.
        """
        return {row.name: row for row in self.rows}[name]

    def records(self) -> list[dict[str, object]]:
        """Return the rows as plain values, one dictionary each, for tables and files."""
        return [asdict(row) | {"change": row.change, "worse": row.worse} for row in self.rows]


@dataclass(frozen=True)
class ImageTokens:
    """What an encoder made of n images.

    Attributes:
        patches: Patch tokens, (n, H, W, D).
        globals: One token for each image, (n, D).
        valid: Which patches are the image's own, (n, H, W) bool; None for all.
    """

    patches: Tensor
    globals: Tensor
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises:
            ValueError: The shapes differ in the number of images, or there is none.
        """
        shapes = [tuple(side.shape) for side in (self.patches, self.globals)]
        fits = self.valid is None or self.valid.shape == self.patches.shape[:3]
        if [len(shape) for shape in shapes] != [4, 2] or shapes[0][0] != shapes[1][0] or not fits:
            message = f"expected patches (n, H, W, D), globals (n, D) and valid (n, H, W), got {shapes}: one row for each image"
            raise ValueError(message)
        if not len(self.patches):
            raise ValueError("expected at least one image, got none: choose a source with images")

    @property
    def own(self) -> Tensor:
        """The patch tokens that count, (M, D)."""
        return self.patches.flatten(0, 2) if self.valid is None else self.patches[self.valid]


def harm_report(before: ImageTokens, after: ImageTokens) -> HarmReport:
    """Compare an encoder's tokens of the same images before and after post-training.

    Args:
        before: Tokens of the encoder that training started from.
        after: Tokens of the post-trained encoder, of the same images in the same order.

    Returns:
        The rows of `STANDING`, then those of `DRIFT`, whose `before` is 0 by definition.

    Raises:
        ValueError: The two sides are not of the same images and patches.
    """
    if before.patches.shape[:3] != after.patches.shape[:3] or not _same(before.valid, after.valid):
        message = f"expected tokens of the same patches, got {tuple(before.patches.shape)} and {tuple(after.patches.shape)}: encode the same images on one grid"
        raise ValueError(message)
    standing = [
        HarmRow(name, float(of(before)), float(of(after)), unit, worrying, meaning)
        for name, (of, unit, worrying, meaning) in STANDING.items()
    ]
    drift = [
        HarmRow(name, 0.0, float(of(before, after)), "distance", "rise", meaning)
        for name, (of, meaning) in DRIFT.items()
    ]
    return HarmReport((*standing, *drift))


def write_harm(path: Path, harm: Mapping[str, HarmReport]) -> Path:
    """Write reports as CSV, a row for each candidate and measure; return the path.

    Args:
        path: The file.
        harm: Reports by candidate, at least one.
    """
    rows = [{"candidate": name, **row} for name, found in harm.items() for row in found.records()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


@in_float32
def position_share(patches: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the share of the tokens' variance that their position explains.

    The mean token of each position in the first half of the images predicts the tokens of the second half; content
    that has no place is not predicted, however few the images.

    Args:
        patches: (n, H, W, D).
        valid: Which patches count, (n, H, W) bool; None for all.

    Returns:
        A scalar in [0, 1], float32; 0 for a single image, a single patch, or tokens that are all the same.
    """
    images = len(patches)
    counted = torch.ones(patches.shape[:3], dtype=torch.bool) if valid is None else valid.cpu()
    weight = counted.to(patches.device)[..., None].double()
    (fit, scored), (near, far) = (side.tensor_split([(images + 1) // 2]) for side in (patches, weight))
    if not len(scored):
        return patches.new_zeros(()).float()
    mean = (fit * near).sum(dim=(0, 1, 2)) / near.sum().clamp_min(1)
    seen = near.sum(dim=0)
    map_ = torch.where(seen > 0, (fit * near).sum(dim=0) / seen.clamp_min(1), mean)
    error = ((scored - map_).square() * far).sum()
    total = ((scored - mean).square() * far).sum()
    tiny = torch.finfo(torch.float32).eps ** 2 * (scored.double().square() * far).sum()
    explained: Tensor = torch.where(total > tiny, 1 - error / total, 0)
    return explained.clamp(0, 1).float()


def token_norms(tokens: Tensor) -> Tensor:
    """Return the Euclidean norms of tokens (M, D), (M,) float32, without a wide copy of them all."""
    return torch.cat([torch.linalg.vector_norm(part.float(), dim=1) for part in tokens.split(CHUNK)])


def largest_norm(norms: Tensor) -> Tensor:
    """Return the largest of norms (M,) over their median, a scalar of at least 1; NaN if all are 0."""
    return norms.max() / norms.median()


def cosine_drift(before: Tensor, after: Tensor) -> Tensor:
    """Return the mean cosine distance between tokens before and after, a scalar in [0, 2], float32.

    Args:
        before: (M, D).
        after: The same tokens, (M, D).

    Raises:
        ValueError: The shapes differ: directions in different spaces cannot be compared.
    """
    if before.shape != after.shape:
        message = f"expected tokens of one shape, got {tuple(before.shape)} and {tuple(after.shape)}: compare `cka_drift` instead"
        raise ValueError(message)
    sides = zip(before.split(CHUNK), after.split(CHUNK), strict=True)
    cosines = [F.cosine_similarity(first.float(), second.float(), dim=1) for first, second in sides]
    return 1 - torch.cat(cosines).mean()


@in_float32
def cka_drift(before: Tensor, after: Tensor) -> Tensor:
    """Return 1 minus the linear CKA, of the unbiased HSIC, between tokens before and after.

    It does not see rotations, shifts and a common scale, which no linear probe would notice either. The biased
    CKA of unrelated tokens rises with their channels; this one is 0.

    Args:
        before: (M, D).
        after: The same tokens, (M, D').

    Returns:
        A scalar, float32: 0 for tokens alike in geometry, about 1 for unrelated or collapsed ones. NaN for fewer
        than 4 tokens, of which there is no unbiased HSIC.

    Raises:
        ValueError: The number of tokens differs.

    Source: Kornblith et al. 2019 (arXiv 1905.00414); Song et al. 2012, for the unbiased HSIC.
    """
    if len(before) != len(after):
        message = f"expected the same tokens before and after, got {len(before)} and {len(after)}"
        raise ValueError(message)
    if len(before) < LEAST_UNBIASED:
        return before.new_full((), math.nan)
    valid = torch.ones(1, len(before), dtype=torch.bool, device=before.device)
    return 1 - feature_cka(centred(before[None], valid), centred(after[None], valid), valid, unbiased=True)[0]


def _spread(tokens: ImageTokens) -> tuple[Tensor, Tensor | None]:
    """Return patches and validity of as many images as `MOST_POSITIONAL` allows, spread evenly, at least two."""
    images, rows, columns, _ = tokens.patches.shape
    count = min(max(MOST_POSITIONAL // (rows * columns), 2), images)
    chosen = torch.arange(count) * images // count
    return tokens.patches[chosen].float(), None if tokens.valid is None else tokens.valid[chosen]


STANDING: dict[str, tuple[Callable[[ImageTokens], Tensor], str, Worrying, str]] = {
    "patch RankMe": (
        lambda tokens: effective_rank(thinned(tokens.own).float()),
        "dimensions",
        "fall",
        "Dimensions that patch tokens use; a fall means that they collapse onto fewer.",
    ),
    "global RankMe": (
        lambda tokens: effective_rank(thinned(tokens.globals).float()),
        "dimensions",
        "fall",
        "Dimensions that global tokens use; a fall means that images become harder to tell apart.",
    ),
    "positional R2": (
        lambda tokens: positional_r2(*_spread(tokens)),
        "share",
        "rise",
        "How well a linear map reads a patch's position from its token; a rise means that place takes room from content.",
    ),
    "position share": (
        lambda tokens: position_share(*_spread(tokens)),
        "share",
        "rise",
        "Share of the tokens' variance that depends on position alone; a rise means that place outweighs content.",
    ),
    "norm outliers": (
        lambda tokens: norm_outliers(token_norms(tokens.own)[:, None]),
        "share",
        "rise",
        "Patches whose norm is more than 5 robust deviations off the median; a rise means more artefact tokens.",
    ),
    "largest norm": (
        lambda tokens: largest_norm(token_norms(tokens.own)),
        "medians",
        "rise",
        "The largest norm of a patch token in medians; a rise means stronger artefact tokens.",
    ),
}
"""Measures of one encoder: the function, unit, worrying direction and meaning of each, by name.

Sources: RankMe, Garrido et al. 2023 (arXiv 2210.02885); norms, Darcet et al. 2024 (arXiv 2309.16588).
"""

DRIFT: dict[str, tuple[Callable[[ImageTokens, ImageTokens], Tensor], str]] = {
    "patch cosine drift": (
        lambda before, after: cosine_drift(before.own, after.own),
        "Mean cosine distance of patch tokens from the start; some is meant, much means old heads no longer fit.",
    ),
    "global cosine drift": (
        lambda before, after: cosine_drift(before.globals, after.globals),
        "Mean cosine distance of global tokens from the start; nothing asked them to move.",
    ),
    "patch CKA drift": (
        lambda before, after: cka_drift(thinned(before.own), thinned(after.own)),
        "1 - linear CKA of patch tokens with the start: how much their geometry changed, rotations aside.",
    ),
    "global CKA drift": (
        lambda before, after: cka_drift(thinned(before.globals), thinned(after.globals)),
        "1 - linear CKA of global tokens with the start: how far images lie otherwise to each other.",
    ),
}
"""Measures of how far one encoder went from another: the function and meaning of each, by name."""
