"""Docstrings of this package are plain text with code between backticks; Sphinx reads reStructuredText."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"([|]|(?<!^)[*]|_(?=\W|$))")  # a star at the beginning is that of a list


def escape(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape what would be markup outside of code."""
    del app, name, thing, options
    if kind in ("data", "attribute"):
        lines.insert(0, "")  # napoleon takes what is before a colon in the first line for a type
    for number, line in enumerate(lines):
        indent = line[: len(line) - len(line.lstrip())]
        parts = _CODE.split(line.lstrip())
        parts[::2] = [_MARKUP.sub(r"\\\1", part) for part in parts[::2]]
        lines[number] = indent + "".join(parts)


def skip(app: Sphinx, kind: str, name: str, thing: Any, is_skipped: bool, options: Any) -> bool | None:  # noqa: FBT001
    """Leave out the fields of named tuples, which the class's own docstring explains."""
    del app, kind, name, is_skipped, options
    return True if type(thing).__name__ == "_tuplegetter" else None


class Modules(SphinxDirective):
    """The public functions and classes of modules, named one a line; `paka.protocols.*` names all of a package."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a section for each module."""
        found: list[nodes.Node] = []
        for line in self.content:
            for name in _expanded(line.strip()):
                section = nodes.section(ids=[name.replace(".", "-")], names=[name])
                section += nodes.title(name, "", nodes.literal(text=name))
                lines = ["```{eval-rst}", f".. automodule:: {name}", "   :members:", "```"]
                text = StringList(lines, source="modules")
                self.state.nested_parse(text, 0, section)
                found.append(section)
        return found


def _expanded(name: str) -> list[str]:
    if not name.endswith(".*"):
        return [name]
    package = importlib.import_module(name.removesuffix(".*"))
    inner = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [package.__name__, *(f"{package.__name__}.{one}" for one in inner)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive `modules`, and escape docstrings before napoleon reads them."""
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-docstring", escape, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
