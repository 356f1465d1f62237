"""What a report over runs says of differences: which are significant, and what their tests rest on."""

from __future__ import annotations

from collections.abc import Sequence

from paka.cohort import Cohort
from paka.comparisons import BOTH, IMAGES, OTHER_SEEDS, OTHER_SEEDS_AND_IMAGES, SEEDS, Comparison
from paka.document import Block, Text, counted
from paka.sweep_tables import Tested, comparison_table

LISTED = 12
"""Comparisons that are always shown; of more, only the significant ones."""
_RESTS_ON = {
    BOTH: "Intervals hold what other seeds and other images would change: a t interval over paired seeds and a paired bootstrap over the images, their margins summed as squares.",
    IMAGES: "Intervals of one seed hold only what other images would change: they compare these runs, not these configurations.",
    SEEDS: "Where runs kept no resamples of the same images, intervals are t intervals over paired seeds, on these images.",
    OTHER_SEEDS_AND_IMAGES: "Means over different seeds are compared by a t interval of each over its own seeds and a bootstrap over the images, their margins summed as squares.",
    OTHER_SEEDS: "Means over different seeds, of runs without resamples of the same images, are compared by a t interval of each over its own seeds.",
}
"""What is said of tests by their basis."""


def differences(tested: Tested, lacks: str | None = None) -> list[Block]:
    """Return which differences are significant, and how that was found; a table of all is folded away.

    Args:
        tested: The runs and their comparisons.
        lacks: The configuration that all were to be compared with, if it is not among these.
    """
    found = tested.comparisons
    if not found:
        return []
    tests = [one for one in found if one.corrected is not None]
    certain = [one for one in tests if one.significant]
    listed = sorted(found if len(found) <= LISTED else certain, key=_by_certainty)
    lacking = f"No single one of these is named {lacks}, so that every pair is compared. " if lacks else ""
    blocks: list[Block] = [Text(lacking + _method(tested.cohort, found, tests, certain))]
    if listed:
        blocks.append(
            comparison_table(
                tested.cohort,
                listed,
                title="Significant differences" if len(found) > LISTED else "Comparisons",
            )
        )
    if len(found) > LISTED:
        blocks.append(
            comparison_table(
                tested.cohort,
                sorted(found, key=_by_certainty),
                title=f"All {len(found)} comparisons",
                file="comparisons.csv",
            )
        )
    return blocks


def _by_certainty(one: Comparison) -> tuple[float, float]:
    return (2.0 if one.corrected is None else one.corrected, -abs(one.value))


def _over_some_seeds(cohort: Cohort, found: Sequence[Comparison]) -> bool:
    """Return whether a difference leaves out seeds that one of the two has."""
    pairs = (
        (one, {*cohort.samples[one.values][one.measure]}, {*cohort.samples[one.against][one.measure]})
        for one in found
        if one.against is not None
    )
    return any(first != second and one.seeds == str(len(first & second)) for one, first, second in pairs)


def _method(
    cohort: Cohort, found: Sequence[Comparison], tests: Sequence[Comparison], certain: Sequence[Comparison]
) -> str:
    bases = {one.basis for one in tests}
    told = [
        f"{len(certain) or 'None'} of {counted(len(tests), 'comparison')} {'is' if len(certain) < 2 else 'are'} significant at 5 % after Holm's correction for all that are made in the same score."
    ]
    told += [sentence for basis, sentence in _RESTS_ON.items() if basis in bases]
    if _over_some_seeds(cohort, found):
        told.append(
            "A difference is over the seeds that both have, where one has more: not that of the means above."
        )
    if len(found) > len(tests):
        told.append(
            f"{counted(len(found) - len(tests), 'comparison')} cannot be tested: nothing says how uncertain they are."
        )
    return " ".join(told)
