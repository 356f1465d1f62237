"""Scores of frozen patch tokens in one call: what `paka.evaluate` measures, for notebooks and scripts of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from paka.applicable import applicable, check_some
from paka.benchmark import Benchmark
from paka.encoder import Encoder
from paka.presets import preset, protocols
from paka.protocols import Profile
from paka.scores import Score
from paka.sources import VOID, Source
from paka.sources.arrays import Arrays
from paka.sources.subset import verify_labels
from paka.workspace import Workspace

Labelled = tuple[Sequence[NDArray[np.uint8]], Sequence[NDArray[np.uint8]]]
"""Images, (H, W, 3) uint8 each, and their masks, (H, W) uint8 each with 255 for void."""


def score(
    encoder: Encoder,
    train: Source | Labelled | None,
    test: Source | Labelled,
    *,
    using: Sequence[str] | str = "in_context",
    profile: Profile | str = "compact",
    against: Encoder | None = None,
    seed: int = 0,
) -> list[Score]:
    """Return the scores of an encoder's frozen tokens, with 95 % intervals.

    They are those of `python -m paka.evaluate` for the same encoder, images, profile and seed. For tokens of any
    function, and for frozen weights of one's own::

        tokens = PatchFeatures(function, patch_size=16)      # (B, 3, H, W) to (B, N, D)
        for row in score(tokens, (images, masks), (test_images, test_masks), using=["in_context", "linear"]):
            print(row.protocol, row.before, row.ci_low, row.ci_high)

    `paka.terminal.print_table` prints them as the programs do.

    Args:
        encoder: An `Encoder`, or `PatchFeatures`; computed with where its parameters are.
        train: Labelled images that memories and probes are built from, as a source or as images and masks; None for
            protocols that need none. At most as many as `profile.train_images`.
        test: Images that are scored, at most as many as `profile.test_images`.
        using: Protocols: one or several options of `conf/eval`. A warning names those that do not fit.
        profile: Their settings: an option of `conf/profile`, or a profile as `preset("profile", "compact", memory=1000)`
            makes it.
        against: Another encoder: rows then hold its score as `before`, the encoder's as `after`, and the interval of the
            paired difference.
        seed: Seed of protocols and intervals.

    Returns:
        A row for each protocol and metric, in percent or its own unit.

    Raises:
        ValueError: No protocol fits the images and the encoder, or images, masks or tokens are not as they should be.
    """
    settings: Profile = preset("profile", profile) if isinstance(profile, str) else profile
    names = [using] if isinstance(using, str) else [*using]
    sources = _sources(train, test)
    fitting, skipped = applicable(protocols(*names), *sources, encoder, settings)
    if against is not None:
        fitting, of_both = applicable(fitting, *sources, against, settings)
        skipped |= of_both
    check_some(fitting, skipped, sources[1])
    for name, reason in skipped.items():
        warnings.warn(f"{name} is not run: {reason}", stacklevel=2)
    for source, limit in zip(sources, (settings.train_images, settings.test_images), strict=True):
        if source is not None:
            verify_labels(source, limit)
    workspace = Workspace(_device(encoder))
    benchmark = Benchmark(
        *sources, settings, fitting, seed, settings.test_images, skipped, workspace=workspace
    )
    found = benchmark.run(encoder)
    if against is None:
        return benchmark.compare(found, None, method="")
    return benchmark.compare(benchmark.run(against), found, method="encoder")


def _device(encoder: Encoder) -> torch.device:
    held = next(encoder.parameters(), None)
    return encoder.device if held is None else held.device


def _sources(train: Source | Labelled | None, test: Source | Labelled) -> tuple[Source | None, Source]:
    """Return sources of what may be arrays, with the classes of both."""
    arrays = [side for side in (train, test) if isinstance(side, tuple)]
    known = [side.classes for side in (train, test) if side is not None and not isinstance(side, tuple)]
    ids = [int(mask[mask != VOID].max(initial=0)) for side in arrays for mask in map(np.asarray, side[1])]
    classes: Sequence[str] | int = known[0] if known else max(ids, default=0) + 1

    def opened(side: Source | Labelled, split: str) -> Source:
        return Arrays(*side, classes=classes, split=split) if isinstance(side, tuple) else side

    return (None if train is None else opened(train, "train")), opened(test, "test")
