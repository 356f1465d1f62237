"""Parts of a source: shares that nest, splits that do not overlap, and labels that are read before they are needed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.doubles import NoiseImages

from paka.sources import Source
from paka.sources.subset import Subset, labelled_splits, open_images, subset, verify_labels


class Named(NoiseImages):
    """The 24 images of a split."""

    def __init__(self, split: str, *, labelled: bool = True) -> None:
        self.split = split
        self.classes = ("left", "right") if labelled else ()


def items(source: Source) -> list[str]:
    return [source.item(index) for index in range(len(source))]


@pytest.mark.parametrize(
    ("limit", "fraction", "count"),
    [
        (None, 1, 24),
        (5, 1, 5),
        (None, 0.5, 12),
        (None, "1/8", 3),
        (2, "1/8", 2),
        (100, "1/3", 8),
        (None, "1/1000", 1),
    ],
)
def test_shares_and_limits(limit: int | None, fraction: float | str, count: int) -> None:
    part = subset(NoiseImages(), limit=limit, fraction=fraction, seed=3)
    assert len(part) == count
    assert len({*items(part)}) == count
    assert items(part) == sorted(items(part), key=lambda item: int(item.split()[1]))


def test_smaller_parts_lie_in_larger_ones_of_the_same_seed() -> None:
    parts = [
        {*items(subset(NoiseImages(), limit=None, fraction=share, seed=7))} for share in ("1/8", "1/4", "1/2")
    ]
    assert parts[0] < parts[1] < parts[2]
    other = items(subset(NoiseImages(), limit=None, fraction="1/4", seed=8))
    assert {*other} != parts[1]
    assert other == items(subset(NoiseImages(), limit=None, fraction="1/4", seed=8))


def test_a_part_shows_what_the_whole_does() -> None:
    whole, part = NoiseImages(), Subset(NoiseImages(), np.array([3, 20]))
    np.testing.assert_array_equal(part.image(1), whole.image(20))
    np.testing.assert_array_equal(part.mask(1), whole.mask(20))
    np.testing.assert_array_equal(part.tags(0), whole.tags(3))
    np.testing.assert_array_equal(part.palette, whole.palette)
    assert (part.name, part.split, part.classes, part.tag_names) == (
        "noise",
        "train",
        whole.classes,
        whole.tag_names,
    )
    with pytest.raises(LookupError, match="noise 20 has no depth"):
        part.depth(1)


def test_what_is_post_trained_on_is_an_option_of_data() -> None:
    part = open_images(Named, split="val", limit=4, fraction="1/2", subset_seed=1, home=None, root="x")
    assert (len(part), part.split) == (4, "val")


def test_a_tenth_is_held_out_where_there_is_nothing_to_choose_by() -> None:
    names = {"train": "trainaug", "val": None, "test": "val"}
    memory, scored = labelled_splits(Named, names, "test", seed=0)
    assert (memory.split, len(memory), scored.split, len(scored)) == ("trainaug", 24, "val", 24)
    memory, scored = labelled_splits(Named, names, "val", seed=0)
    assert (len(memory), len(scored), scored.split) == (22, 2, "trainaug, held out")
    assert {*items(memory)} | {*items(scored)} == {*items(Named("trainaug"))}
    again = labelled_splits(Named, names, "val", seed=0)
    assert items(again[1]) == items(scored)
    assert items(labelled_splits(Named, names, "val", seed=1)[1]) != items(scored)


def test_images_without_labels_are_scored_as_they_are() -> None:
    names = {"train": "train", "val": "val", "test": "absent"}
    memory, scored = labelled_splits(partial(Named, labelled=False), names, "test", seed=0)
    assert (memory, scored.split, scored.classes) == (None, "train", ())
    with pytest.raises(ValueError, match="expected split=val, got split=test, of which the data set has no"):
        labelled_splits(Named, {**names, "test": None}, "test", seed=0)


def test_labels_are_verified_as_far_as_they_are_used() -> None:
    class Wrong(NoiseImages):
        def mask(self, index: int) -> np.ndarray:
            if index == 5:
                raise ValueError("mask 5 is wrong")
            return super().mask(index)

    verify_labels(Wrong(), 5)
    for count in (6, None, 100):
        with pytest.raises(ValueError, match="mask 5 is wrong"):
            verify_labels(Wrong(), count)


def test_images_of_which_nothing_is_known_are_refused() -> None:
    class Void(NoiseImages):
        def mask(self, index: int) -> np.ndarray:
            return np.full_like(super().mask(index), 0 if index == 3 else 255)

    verify_labels(Void(), 4)
    with pytest.raises(
        ValueError, match="labelled pixel in the 3 train images of noise, got void masks only"
    ):
        verify_labels(Void(), 3)
