"""What README and docs tell people to type: blocks of shell and Python, and files that stand beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paka.config import CONF_DIR

ROOT = CONF_DIR.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [path for path in DOCUMENTS if not {"generated", "_build"} & {*path.parts}]
_FENCE = re.compile(r"^```(\w*)\s*$")
_FILE = re.compile(r"`([\w/]+\.(?:py|yaml))`")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        document: Where it stands, from the root of the repository.
        language: As its fence says; `bash` for commands that are indented.
        text: What it holds.
        before: The paragraph before it.
    """

    document: str
    language: str
    text: str
    before: str

    @property
    def file(self) -> str | None:
        """The file that the paragraph before says it is; None for code that is typed."""
        named = _FILE.findall(self.before) if self.language in ("python", "yaml") else []
        return next((name for name in reversed(named) if name.endswith(SUFFIX[self.language])), None)

    @property
    def commands(self) -> list[str]:
        """Lines of a shell, without comments."""
        if self.language not in ("bash", "zsh", "fish"):
            return []
        return [
            shlex.join(words) if "'" not in line and '"' not in line else line.partition(" #")[0].strip()
            for line in self.text.replace("\\\n", " ").splitlines()
            if (words := shlex.split(line, comments=True))
        ]


SUFFIX = {"python": ".py", "yaml": ".yaml"}


def blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a document: fenced ones, and those that are indented by four spaces after an empty line."""
    document, before = str(path.relative_to(ROOT)), ""
    paragraph: list[str] = []
    lines = iter([*path.read_text(encoding="utf-8").splitlines(), ""])
    for line in lines:
        if fence := _FENCE.match(line):
            yield Block(document, fence.group(1), "\n".join(iter(lines.__next__, "```")), before)
        elif line.startswith("    ") and not paragraph:
            indented = [line.strip()]
            while (line := next(lines)).startswith("    "):
                indented.append(line.strip())
            shell = re.match(r"(python|torchrun|make|pip|paka-\w+|\.) ", indented[0])
            yield Block(document, "bash" if shell else "text", "\n".join(indented), before)
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            before, paragraph = " ".join(paragraph), []
