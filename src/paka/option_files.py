"""What the files of `conf/` say about themselves in their comments: what an option is, and what its keys mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

GROUPS = {
    "experiment": "A whole recipe: it sets any of the groups and keys below",
    "backbone": "The encoder that is taken, and the sizes and rates that suit it",
    "data": "The images that are post-trained on; their labels are never read",
    "benchmark": "The labelled images that scores are computed on",
    "augmentation": "The views of an image that student and teacher see",
    "kernel": "How similar two tokens are to each other",
    "objective": "What is minimised: PaKA, its variants and its rivals",
    "optim": "The optimizer and its schedules",
    "tuning": "Which of the encoder's weights train",
    "teacher": "How the teacher follows the student",
    "eval": "The protocols that score frozen tokens",
    "profile": "The sizes and rules that protocols measure by",
    "trainer": "Length, hardware and bookkeeping of the run",
    "logger": "Where scalars go beside metrics.csv",
    "sweep": "Several runs at a time, one for each value",
}
"""What each group decides, in the order in which help and documentation name them."""

_KEY = re.compile(r"^( *)([\w-]+):(?: +(.*))?$")
_COMMENT = re.compile(r"(?:^|\s)# ?(.*)$")
_SENTENCE = re.compile(r"^(.*?(?<! al)\.)(?:\s|$)")
_STRUCTURE = ("defaults", "hydra", "_target_", "_partial_")


@dataclass(frozen=True)
class Setting:
    """A key of an option's file.

    Attributes:
        key: Its name, with dots: `loss.unbiased`.
        value: Its value as the file writes it; empty where it holds other keys.
        comment: What the file says about it; may be empty.
    """

    key: str
    value: str
    comment: str


def summary(path: Path) -> str:
    """Return the first sentence of the comment at the top of a file; empty if there is none."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    text = " ".join(lines)
    sentence = _SENTENCE.match(text)
    return (sentence.group(1) if sentence else text).rstrip(".")


def own_settings(path: Path) -> Iterator[Setting]:
    """Yield the keys that a file sets itself, those that say how it is composed left out."""
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not (match := _KEY.match(line)):
            continue
        indent, name = len(match.group(1)), match.group(2)
        while parents and parents[-1][0] >= indent:
            parents.pop()
        parents.append((indent, name))
        if _STRUCTURE[0] in (top := [one for _, one in parents])[:1] or {*_STRUCTURE[1:]} & {*top}:
            continue
        value, comment = _split(match.group(3) or "")
        yield Setting(".".join(top), value, comment)


def settings(conf: Path, group: str, option: str) -> dict[str, Setting]:
    """Return the keys of an option, those of the files it is composed of included, by name.

    Args:
        conf: Folder of the configuration.
        group: Name of the group; empty for a file beside the groups.
        option: Name of the option.
    """
    path = conf / group / f"{option}.yaml"
    found: dict[str, Setting] = {}
    if not path.is_file():
        return found
    for entry in _defaults(path):
        found |= _included(conf, group, entry)
    for one in own_settings(path):
        inherited = found.get(one.key)
        # What a key means is inherited; where a value comes from is not.
        comment = one.comment or (meaning(inherited.comment) if inherited else "")
        found[one.key] = Setting(one.key, one.value, comment)
    return found


def meaning(comment: str) -> str:
    """Return a comment without the mark of where the value comes from, such as `# paper`."""
    first = comment.partition(" # ")[0]
    return "" if first.startswith(("paper", "assumed")) else first


def _defaults(path: Path) -> list[str]:
    """Return the files that a file is composed of; none of a preset, which chooses among groups."""
    loaded = OmegaConf.load(path)
    if path.read_text(encoding="utf-8").startswith("# @package _global_") or not isinstance(
        loaded, DictConfig
    ):
        return []
    return [entry for entry in loaded.get("defaults", ()) if isinstance(entry, str) and entry != "_self_"]


def _included(conf: Path, group: str, entry: str) -> dict[str, Setting]:
    """Return the keys that an entry of the defaults brings: `paka`, `/vit@_here_` or `/settings@settings`."""
    name, _, package = entry.partition("@")
    folder = "" if name.startswith("/") else group
    prefix = "" if package in ("", "_here_") else f"{package}."
    found = settings(conf, folder, name.removeprefix("/"))
    return {prefix + key: Setting(prefix + key, one.value, one.comment) for key, one in found.items()}


def _split(text: str) -> tuple[str, str]:
    """Return value and comment of what follows the colon."""
    if text[:1] in "'\"" and text:
        end = text.find(text[0], 1) + 1
        return text[:end], text[end:].strip().removeprefix("#").strip()
    found = _COMMENT.search(text)
    return (text, "") if found is None else (text[: found.start()].strip(), found.group(1).strip())
