"""Reading what `wandb` keeps of an offline run: a log in the format of LevelDB whose entries are protobuf records."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
FULL, FIRST, LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """What an offline run's file holds."""

    folder: Path
    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    system: set[str] = field(default_factory=set)
    exit_code: int | None = None

    def media(self, name: str) -> Path:
        """The file that a value of the summary stands for."""
        return self.folder / "files" / self.summary[name]["path"]


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The runs below a folder, in order of their start."""
    return [read(file) for file in sorted(folder.rglob("offline-run-*/*.wandb"))]


def read(file: Path) -> OfflineRun:
    from wandb.proto.wandb_internal_pb2 import Record

    run = OfflineRun(file.parent)
    for entry in _entries(file.read_bytes()):
        record = Record.FromString(entry)
        kind = record.WhichOneof("record_type")
        if kind in TAKEN:
            TAKEN[kind](run, getattr(record, kind))
    return run


def _take_run(run: OfflineRun, found: Any) -> None:
    run.about = found
    _update(run.config, found.config.update)


def _take_history(run: OfflineRun, found: Any) -> None:
    run.history.append({})
    _update(run.history[-1], found.item)


def _take_exit(run: OfflineRun, found: Any) -> None:
    run.exit_code = found.exit_code


TAKEN: dict[str, Callable[[OfflineRun, Any], None]] = {
    "run": _take_run,
    "config": lambda run, found: _update(run.config, found.update),
    "history": _take_history,
    "summary": lambda run, found: _update(run.summary, found.update),
    "metric": lambda run, found: run.steps.update({found.name or found.glob_name: found.step_metric}),
    "artifact": lambda run, found: run.artifacts.append(found),
    "stats": lambda run, found: run.system.update(f"system/{item.key}" for item in found.item),
    "exit": _take_exit,
}
"""What is made of each kind of record."""


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *outer, name = [*item.nested_key] or [item.key]
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[name] = json.loads(item.value_json)


def _entries(data: bytes) -> Iterator[bytes]:
    """Entries of the log, put together from the parts that do not cross the ends of blocks."""
    place, entry = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        if kind == 0:
            return
        part = data[place + HEADER : place + HEADER + length]
        entry = part if kind in (FULL, FIRST) else entry + part
        if kind in (FULL, LAST):
            yield entry
        place += HEADER + length
