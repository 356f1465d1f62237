"""One progress bar over all that an evaluation does, with the time that is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

Item = TypeVar("Item")

EVERY = 0.1
"""Seconds between looks at the clock in a loop that reports."""

_STEPS: ContextVar[Steps | None] = ContextVar("steps", default=None)


class Steps:
    """Steps of a long task: what is done, what is under way and how long the rest takes.

    A step takes as long as one of the same kind took before, or as those that are done took on average.

    Args:
        kinds: The steps by what they do, in any order; a kind may occur several times.
        clock: Returns seconds.
    """

    def __init__(self, kinds: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.left = list(kinds)
        self.count = len(self.left)
        self.took: dict[str, list[float]] = {}
        self.kind, self.name, self.share, self.started = "", "", 0.0, self.clock()
        self.bar: Progress | None = None
        self.console: Console | None = None
        self.looked = self.started

    @property
    def done(self) -> float:
        """Share of the whole time that is over, in [0, 1], as far as it can be told."""
        over = sum(map(sum, self.took.values())) + (self.clock() - self.started if self.kind else 0.0)
        rest = self.remaining
        return (
            1.0 if not self.left and not self.kind else 0.0 if rest is None else over / max(over + rest, 1e-9)
        )

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None as long as nothing is known."""
        known = [seconds for times in self.took.values() for seconds in times]
        spent = self.clock() - self.started if self.kind else 0.0
        if not known and self.share <= 0:
            return None
        mean = sum(known) / len(known) if known else spent / self.share
        expected = {kind: sum(times) / len(times) for kind, times in self.took.items()}
        current = 0.0
        if self.kind:
            whole = expected.get(self.kind, mean) if self.share <= 0 else spent / self.share
            current = max(whole - spent, 0.0)
        return current + sum(expected.get(kind, mean) for kind in self.left)

    def begin(self, kind: str, name: str) -> None:
        """Begin a step."""
        if kind in self.left:
            self.left.remove(kind)
        self.kind, self.name, self.share, self.started = kind, name, 0.0, self.clock()
        self._show()

    def report(self, share: float) -> None:
        """Say which share of the step is done, in [0, 1]."""
        self.share = share
        if self.clock() - self.looked > EVERY:
            self._show()

    def end(self) -> None:
        """End the step; what took no time because its result was kept says nothing about others."""
        self.took.setdefault(self.kind, []).append(self.clock() - self.started)
        self.kind, self.share = "", 0.0
        self._show()

    def _show(self) -> None:
        self.looked = self.clock()
        if self.bar is not None:
            left = "" if self.remaining is None else f"about {duration(self.remaining)} left"
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=self.name, left=left)


class TimeLeft(ProgressColumn):
    """The time that is left, as `duration` says it."""

    def render(self, task: Task) -> Text:
        """Return it; nothing as long as it cannot be told."""
        left = task.time_remaining
        return Text(f"about {duration(left)} left" if left else "")


@contextmanager
def showing(steps: Steps, console: Console, title: str) -> Iterator[Steps]:
    """Show the steps that `step` makes within: as one bar on a terminal, else as a line after each.

    Args:
        steps: All steps there will be.
        console: Where to show them.
        title: What the whole is called.
    """
    steps.console = console
    if animated(console):
        columns = (
            TextColumn(title),
            BarColumn(30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[left]}"),
        )
        steps.bar = Progress(*columns, console=console, transient=True)
        steps.bar.add_task("", total=1.0, left="")
        steps.bar.start()
    token = _STEPS.set(steps)
    try:
        yield steps
    finally:
        _STEPS.reset(token)
        if steps.bar is not None:
            steps.bar.stop()


@contextmanager
def step(kind: str, name: str) -> Iterator[None]:
    """Do one step of what is shown; nothing happens where nothing is.

    Args:
        kind: What it does; steps of a kind take about as long.
        name: What it is called.
    """
    steps = _STEPS.get()
    if steps is None:
        yield
        return
    steps.begin(kind, name)
    begun = steps.clock()
    yield
    steps.end()
    if steps.console is not None and not animated(steps.console):
        left = steps.remaining
        rest = f", about {duration(left)} left" if left and steps.left else ""
        number = steps.count - len(steps.left)
        steps.console.print(
            f"{number}/{steps.count}  {name}  {duration(steps.clock() - begun)}{rest}", highlight=False
        )


def pass_over(kind: str, name: str) -> None:
    """Say that a step need not be done, because what it makes is kept from before."""
    steps = _STEPS.get()
    if steps is None:
        return
    if kind in steps.left:
        steps.left.remove(kind)
    if steps.console is not None and not animated(steps.console):
        number = steps.count - len(steps.left)
        steps.console.print(f"{number}/{steps.count}  {name}  kept from before", highlight=False)


def tracked(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield items, and report after each which share of the step they make.

    Args:
        items: What is worked through.
        total: How many there are.
    """
    for number, item in enumerate(items, start=1):
        yield item
        report(number / max(total, 1))


def report(share: float) -> None:
    """Say which share of the step is done, in [0, 1]; nothing happens where nothing is shown."""
    steps = _STEPS.get()
    if steps is not None:
        steps.report(share)


def animated(console: Console) -> bool:
    """Return whether a line can be drawn again where a console prints: `FORCE_COLOR` colours a log, and animates none."""
    return console.is_interactive and (console.file.isatty() or "FORCE_COLOR" not in os.environ)


def duration(seconds: float) -> str:
    """Return a duration as one says it, such as `2 min 10 s`."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    if seconds < 595:
        minutes, rest = divmod(round(seconds / 10) * 10, 60)
        return _spoken((minutes, "min"), (rest, "s"))
    coarse = 1 if seconds < 3570 else 10
    hours, rest = divmod(round(seconds / 60 / coarse) * coarse, 60)
    return _spoken((hours, "h"), (rest, "min"))


def _spoken(*parts: tuple[int, str]) -> str:
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
