"""A mix: shares as asked for, spread evenly, every image of the longest part once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.doubles import NoiseImages

from paka.sources import Source
from paka.sources.mix import Mix


class Numbered(NoiseImages):
    """Images whose pixels say which they are."""

    def __init__(self, split: str, *, first: int, count: int) -> None:
        self.split, self.first, self.count = split, first, count

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        assert 0 <= index < self.count
        return np.full((1, 1, 3), self.first + index, dtype=np.uint8)

    def item(self, index: int) -> str:
        return str(self.first + index)


def mix(counts: dict[str, int], weights: dict[str, float], **choice: object) -> Mix:
    parts = {
        name: {
            "source": partial(Numbered, first=100 * place, count=count),
            "split": "train",
            "root": "x",
            **choice,
        }
        for place, (name, count) in enumerate(sorted(counts.items()))
    }
    return Mix("mix", parts=parts, weights=weights)


def shown(source: Source) -> np.ndarray:
    return np.array([source.image(index)[0, 0, 0] for index in range(len(source))])


@pytest.mark.parametrize(("weights", "length"), [((1, 1), 80), ((3, 1), 53), ((1, 3), 160)])
def test_the_part_that_lasts_longest_is_passed_once(weights: tuple[float, float], length: int) -> None:
    source = mix({"a": 40, "b": 10}, dict(zip("ab", weights, strict=True)))
    found = shown(source)
    assert len(source) == length
    own = found[found < 100]
    assert sorted(own) == list(range(40)) if weights != (1, 3) else len(own) == 40
    share = weights[0] / sum(weights)
    cumulated = np.cumsum(found < 100) - share * np.arange(1, length + 1)
    assert np.abs(cumulated).max() <= 1
    counts = np.bincount(found[found >= 100] - 100)
    assert counts.max() - counts.min() <= 1


def test_weights_are_relative() -> None:
    counts = {"a": 7, "b": 5, "c": 9}
    np.testing.assert_array_equal(
        shown(mix(counts, {"a": 1, "b": 2, "c": 3})), shown(mix(counts, {"a": 0.5, "b": 1, "c": 1.5}))
    )


def test_parts_may_be_limited_and_keep_their_names() -> None:
    source = mix({"a": 40, "b": 10}, {"a": 1, "b": 1}, limit=4)
    assert len(source) == 8
    assert [source.item(i) for i in range(8)] == [str(pixel) for pixel in shown(source)]
    assert source.tags(0).shape == (0,)


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": 0}, {"a": 1, "b": 1, "c": 1}])
def test_weights_have_to_fit(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a weight above 0 for each of the parts a, b"):
        mix({"a": 3, "b": 3}, weights)
