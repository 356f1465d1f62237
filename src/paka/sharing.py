"""Outcomes of several processes that share an evaluation: made by the first of them, or by each for its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from paka.collectives import gathered, is_first, own_share
from paka.features import DenseFeatures
from paka.outcome_store import packed, unpacked
from paka.protocols import Outcome, Profile


def by_first(run: Callable[[], Outcome], profile: Profile) -> Outcome:
    """Return on all processes what the first one makes.

    Args:
        run: Makes it.
        profile: Defines mIoU.
    """
    return unpacked(gathered(packed(run()) if is_first() else None)[0], profile)


def by_all(run: Callable[[DenseFeatures], Outcome], query: DenseFeatures, profile: Profile) -> Outcome:
    """Return on all processes what they make together, each of its share of the scored images.

    Args:
        run: Makes the outcome of some images.
        query: The scored images.
        profile: Defines mIoU.
    """
    share = own_share(len(query))
    own = packed(run(query.part(share))) if share else None
    parts = [
        (start, unpacked(arrays, profile))
        for start, arrays in gathered((share.start, own))
        if arrays is not None
    ]
    return replace(
        parts[0][1],
        counts=torch.cat([part.counts for _, part in parts]),
        pictures={start + n: picture for start, part in parts for n, picture in part.pictures.items()},
    )
