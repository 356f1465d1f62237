"""SHA-256 of files, kept beside them in the format of `sha256sum`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

DIGESTS = "SHA256SUMS"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Write the SHA-256 of files of a folder beside them; `sha256sum -c SHA256SUMS` compares.

    Args:
        folder: The folder.
        names: Files in it.
    """
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def read_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of files of a folder by name, as they were written beside them; empty if none were."""
    record = folder / DIGESTS
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    return {line[66:]: line[:64] for line in lines}


def check_digest(path: Path) -> None:
    """Compare a file with the SHA-256 that was written beside it, if one was.

    Raises:
        ValueError: They differ.
    """
    recorded = read_digests(path.parent).get(path.name)
    if recorded is None:
        return
    found = sha256(path)
    if found != recorded:
        raise ValueError(
            f"expected {path} with SHA-256 {recorded} of {DIGESTS}, found {found}: the file is damaged or was changed; copy it "
            f"again, or delete {DIGESTS} if the change was meant"
        )
