"""Where a run came from: code version, package versions, command line."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "timm", "albumentations", "numpy")


def provenance() -> dict[str, Any]:
    """Return what is needed to tell two runs apart, as plain types."""
    return {
        "command": command_line(),
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("paka-ssl", *PACKAGES)},
    }


def command_line(*more: str) -> str:
    """Return this process's command line as a user would type it, with `more` overrides."""
    entry = "paka." + Path(sys.argv[0]).stem.removeprefix("paka-")
    return shlex.join(["python", "-m", entry, *sys.argv[1:], *more])


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


def write_provenance(path: Path) -> None:
    """Write `provenance()` as JSON."""
    path.write_text(json.dumps(provenance(), indent=2) + "\n")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
