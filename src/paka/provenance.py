"""Where a run came from: code version, package versions, command line."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from paka.launch import starter

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "timm", "albumentations", "numpy")


def provenance() -> dict[str, Any]:
    """Return what is needed to tell two runs apart, as plain types."""
    return {
        "command": command_line(),
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("paka-ssl", *PACKAGES)},
    }


def command_line(*more: str, without: Collection[str] = ()) -> str:
    """Return this process's command line as a user would type it, with `more` overrides and `without` those of some keys."""
    entry = "paka." + Path(sys.argv[0]).stem.removeprefix("paka-")
    kept = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in without]
    return shlex.join([*starter(), entry, *kept, *more])


def private(text: str) -> str:
    """Return words, a command or a value without the path of the home folder, which nobody else need know."""
    home = str(Path.home())
    whole_path = rf"""(?<![^\s'"=:;,(\[{{]){re.escape(home)}(?=$|[/\s'":;,)\]}}])"""
    return text if home == "/" else re.sub(whole_path, "~", text)


def git_revision() -> str | None:
    """Return the commit of the checkout this package runs from, with `-dirty` for local changes.

    None when it runs from an installed wheel or git is missing.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def write_provenance(path: Path, before: Path | None = None) -> None:
    """Write `provenance()` as JSON.

    Args:
        path: The file.
        before: Folder of the run that is gone on with, perhaps the same; what is known of its parts is kept under `before`, the
            oldest first.
    """
    record = provenance()
    earlier = None if before is None else before / path.name
    if earlier is not None and earlier.is_file():
        known = json.loads(earlier.read_text(encoding="utf-8"))
        record["before"] = [*known.pop("before", []), known]
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
