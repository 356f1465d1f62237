"""Shell completion: Hydra's answers to TAB, without the words that it cannot read."""

from __future__ import annotations

import os
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

FLAGS = ("-m", "--multirun")
"""Flags that change what may follow."""


def prepare() -> None:
    """Leave in `COMP_LINE`, which a shell completes, only what Hydra can read: it answers the rest with a traceback."""
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.lstrip().partition(" ")
    os.environ["COMP_LINE"] = f"{program} {readable(rest)}"


def readable(line: str) -> str:
    """Return a command line without quotes, and without words that are neither an override nor a flag of a sweep.

    The last word, which is to be completed, stays as it is.
    """
    before, space, last = line.rpartition(" ")
    words = [word for word in _words(before) if word in FLAGS or _is_override(word)]
    return " ".join([*words, last]) if words or space else last


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark that is not closed yet
        return text.split()


def _is_override(word: str) -> bool:
    """Return whether Hydra reads a word, which must have no space in it, because Hydra splits at them."""
    if " " in word or word.startswith("-"):
        return False
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
