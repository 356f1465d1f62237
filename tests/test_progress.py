"""What a progress bar knows: shares, kinds of steps that were timed before, and what is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from paka.progress import Steps, duration, pass_over, showing, step, tracked


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_follows_from_the_same_kind_of_step() -> None:
    clock = Clock()
    steps = Steps(["encode", "probe", "encode", "probe"], clock)
    assert steps.remaining is None
    for kind, seconds in (("encode", 10.0), ("probe", 2.0)):
        steps.begin(kind, kind)
        clock.now += seconds
        steps.end()
    assert steps.remaining == pytest.approx(12.0)
    assert steps.done == pytest.approx(0.5)
    steps.begin("encode", "encode")
    clock.now += 5.0
    assert steps.remaining == pytest.approx(5.0 + 2.0)
    steps.report(0.25)  # slower than the first: 5 s for a quarter
    assert steps.remaining == pytest.approx(15.0 + 2.0)
    steps.end()
    steps.begin("probe", "probe")
    steps.end()
    assert (steps.done, steps.remaining) == (1.0, 0.0)


def test_the_first_step_is_judged_by_its_own_share() -> None:
    clock = Clock()
    steps = Steps(["a", "b"], clock)
    steps.begin("a", "a")
    clock.now += 3.0
    assert steps.remaining is None
    steps.report(0.3)
    assert steps.remaining == pytest.approx(7.0 + 10.0)


def test_without_a_terminal_each_step_is_a_line() -> None:
    out = io.StringIO()
    with showing(Steps(["a", "b", "b"]), Console(file=out, width=100), "evaluate"):
        with step("a", "before a"):
            assert [*tracked("xyz", 3)] == ["x", "y", "z"]
        pass_over("b", "before b")
        with step("b", "after b"):
            pass
    first, second, third = out.getvalue().splitlines()
    assert first.startswith("1/3  before a  1 s, about ")
    assert second == "2/3  before b  kept from before"
    assert third == "3/3  after b  1 s"


def test_a_terminal_gets_one_bar_that_goes_away() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with showing(Steps(["a"]), console, "evaluate"), step("a", "the step"):
        [*tracked(range(4), 4)]
    assert "evaluate" in out.getvalue()
    assert "\n1/1" not in out.getvalue()


def test_nothing_is_shown_where_nobody_looks() -> None:
    with step("a", "a"):
        assert [*tracked(range(3), 3)] == [0, 1, 2]
    pass_over("a", "a")


def test_a_step_that_fails_leaves_no_line() -> None:
    out = io.StringIO()
    with (
        pytest.raises(ValueError, match="broken"),
        showing(Steps(["a"]), Console(file=out), "evaluate"),
        step("a", "a"),
    ):
        raise ValueError("broken")
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (131, "2 min 10 s"),
        (3000, "50 min"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_are_said(seconds: float, text: str) -> None:
    assert duration(seconds) == text
