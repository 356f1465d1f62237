"""Pages about commands and configuration, written from the files of `conf/` and their comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from sphinx.application import Sphinx

from paka.command_help import GROUPED, answer
from paka.config import CONF_DIR
from paka.option_files import GROUPS, Setting, own_settings, settings, summary
from paka.report import _parser as report_parser

REPORT = report_parser()
_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"([\\*_{}\[\]<>#$~])")


def programs() -> list[str]:
    """Return the names of the primary configurations, one a program."""
    files = [path for path in CONF_DIR.glob("*.yaml") if "app_name:" in path.read_text(encoding="utf-8")]
    order = ["train", "evaluate", "report", "export", "doctor"]
    return sorted((path.stem for path in files), key=lambda name: (name not in order, order.index(name) if name in order else 0))  # fmt: skip


def text(words: str) -> str:
    """Return a comment as Markdown for a cell of a table."""
    parts = _CODE.split(words.replace(" # ", "; "))
    parts[::2] = [_MARKUP.sub(r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("|", r"\|")


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table; none without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        yield from ("", f"| {' | '.join(header)} |", f"|{' :-- |' * len(header)}", *lines, "")


def keys(found: Iterable[Setting], prefix: str = "") -> Iterator[str]:
    """Yield a table of keys, what they are set to, and what their comments say."""
    rows = (
        (f"`{prefix}{one.key}`", f"`{one.value}`" if one.value else "", text(one.comment)) for one in found
    )
    yield from table(("key", "value", "what it is"), rows)


def group_page(group: str) -> Iterator[str]:
    """Yield the page of a group: its options, and the keys that their files set."""
    files = sorted((CONF_DIR / group).glob("*.yaml"))
    yield from (f"# `{group}=`", "", f"{GROUPS[group]}.", "")
    rows = ((f"`{group}={path.stem}`", text(summary(path))) for path in files)
    yield from table(("option", "what it is"), rows)
    if len(files) > GROUPED:
        yield from ("## Keys of every option", *keys(settings(CONF_DIR, group, files[0].stem).values(), f"{group}."))  # fmt: skip
        return
    for path in files:
        preset = path.read_text(encoding="utf-8").startswith("# @package _global_")
        if lines := [*keys(own_settings(path), "" if preset else f"{group}.")]:
            yield from (f"## `{group}={path.stem}`", "", f"{text(summary(path))}.", *lines)


def program_page() -> Iterator[str]:
    """Yield the page of the commands: what `--help` says, and the keys that belong to no group."""
    yield from ("# Commands", "")
    yield "Each is a console script, and a module: `paka-train` is `python -m paka.train`."
    for name in programs():
        arguments = get_args_parser().parse_args(["--help"])
        told = answer(CONF_DIR, name, arguments, ["--help"]) or ""
        yield from ("", f"## `paka-{name}`", "", "```text", *told.splitlines(), "```", "")
        own = [
            one for key, one in settings(CONF_DIR, "", name).items() if key.partition(".")[0] not in GROUPS
        ]
        yield from keys(own)
    yield from ("", "## `paka-report`", "", "```text", *REPORT.format_help().splitlines(), "```", "")


def write(app: Sphinx) -> None:
    """Write the pages that are made from `conf/`, those that have changed."""
    folder = Path(app.srcdir) / "reference" / "generated"
    (folder / "groups").mkdir(parents=True, exist_ok=True)
    pages = {"commands": program_page(), **{f"groups/{group}": group_page(group) for group in GROUPS}}
    for name, lines in pages.items():
        page, path = "\n".join(lines) + "\n", folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
