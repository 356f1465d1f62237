"""Conditions on single values of a configuration, each in words and as a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A condition on one value.

    Attributes:
        expected: The condition in words, as in "expected ...".
        holds: Whether a value keeps it.
    """

    expected: str
    holds: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def above(low: float) -> Rule:
    """Return the rule of numbers above a bound."""
    return Rule(f"a number above {low}", lambda value: _is_number(value) and value > low)


def at_least(low: int) -> Rule:
    """Return the rule of integers from a bound on."""
    return Rule(f"an integer of at least {low}", lambda value: type(value) is int and value >= low)


def within(low: float, high: float) -> Rule:
    """Return the rule of numbers between two bounds, which count."""
    return Rule(f"a number from {low} to {high}", lambda value: _is_number(value) and low <= value <= high)


def one_of(*choices: str) -> Rule:
    """Return the rule of a few words."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def some_of(*choices: str) -> Rule:
    """Return the rule of lists of a few words."""
    return Rule(
        f"a list out of {', '.join(choices)}",
        lambda value: isinstance(value, Sequence) and not isinstance(value, str) and {*value} <= {*choices},
    )


def either(literal: str | None, rule: Rule) -> Rule:
    """Return the rule that one word, or null, is allowed beside another rule."""
    word = "null" if literal is None else literal
    return Rule(f"{word} or {rule.expected}", lambda value: value == literal or rule.holds(value))


def _filled(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0


def _pair(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(holds, value))


def interval(high: float | None = None) -> Rule:
    """Return the rule of pairs of positive numbers in ascending order, up to `high`."""

    def holds(value: Any) -> bool:
        return _pair(value, _is_number) and 0 < value[0] <= value[1] and (high is None or value[1] <= high)

    return Rule(f"[low, high] with 0 < low <= high{'' if high is None else f' <= {high:g}'}", holds)


NOT_NEGATIVE = Rule("a number of at least 0", lambda value: _is_number(value) and value >= 0)
SHARE = Rule("a number above 0, up to 1", lambda value: _is_number(value) and 0 < value <= 1)
BELOW_ONE = Rule("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)
SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
BINS = Rule("an integer from 1 to 8", lambda value: type(value) is int and 1 <= value <= 8)
GRID = Rule("[rows, columns], integers of at least 2", lambda value: _pair(value, at_least(2).holds))
NAMES = Rule("a list of at least one name", _filled)
LAYERS = Rule(
    "null or a list of block numbers in ascending order, as [-4, -1]",
    lambda value: value is None or (len(value) > 0 and list(value) == sorted({*value})),
)
_FORMATS = ("timm", "dinov2_hub", "hf", "onnx")
EXPORTS = Rule(
    f"one of {', '.join(_FORMATS)}, or a list of them",
    lambda value: all(one in _FORMATS for one in value) if _filled(value) else value in _FORMATS,
)
SIZES = Rule(
    "null or a list of sizes in pixels, each a side or [height, width], as [224,[224,448]]",
    lambda value: (
        value is None
        or (_filled(value) and all(at_least(1).holds(one) or _pair(one, at_least(1).holds) for one in value))
    ),
)
EVEN = Rule("an even integer of at least 2", lambda value: at_least(2).holds(value) and value % 2 == 0)
ALL_ABOVE_0 = Rule(
    "a list of numbers above 0",
    lambda value: isinstance(value, Sequence) and len(value) > 0 and all(map(above(0).holds, value)),
)


def _is_fraction(value: object) -> bool:
    try:
        return 0 < Fraction(str(value)) <= 1
    except (ValueError, ZeroDivisionError):
        return False


FRACTION = Rule("a number above 0, up to 1, or a fraction like 1/8", _is_fraction)
DEVICE = Rule(
    "auto, cpu, cuda or cuda:NUMBER",
    lambda value: isinstance(value, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is not None,
)
BETAS = Rule("two numbers from 0 to below 1", lambda value: _pair(value, BELOW_ONE.holds))

KEPT = Rule("a logger, because reports read metrics.csv", lambda value: isinstance(value, Mapping))
