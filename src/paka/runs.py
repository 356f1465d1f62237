"""Runs found on disk: whatever their folders hold, read as far as it can be read."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from paka.config_keys import flattened
from paka.run_folder import STATUS, RunFolder, Status

if TYPE_CHECKING:
    from paka.scores import Score

SEARCHED_FOR = ("provenance.json", "metrics.csv", "results.csv")
"""Beside a `config.yaml`, what tells a run's folder from any other; `status.json` does so alone."""
PROGRAMS = ("train", "evaluate")
"""Programs whose runs have scores, by their job's name."""
UNREADABLE = (OSError, ValueError, TypeError, LookupError, OmegaConfBaseException, YAMLError)
"""What reading files raises that are damaged, cut off or somebody else's."""


@dataclass(frozen=True, eq=False)
class Run:
    """What is known of a run.

    Attributes:
        path: Its folder.
        name: The folder as reports call it.
        program: `train` or `evaluate`.
        state: How it stands, see `paka.run_folder.State`; or `damaged`.
        reason: Why it is not finished, in a sentence; empty if it is.
        settings: Resolved configuration by dotted key; lists are values.
        composed: The same before references were resolved; empty where Hydra left no record.
        choices: Options by group; empty where Hydra left no record.
        typed: Keys and groups that were set on the command line.
        scores: Rows of results, of a finished run.
        status: What it says of itself.
        command: Its command line.
    """

    path: Path
    name: str
    program: str
    state: str
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    composed: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    scores: Sequence[Score] = ()
    status: Status | None = None
    command: str = ""

    @property
    def counts(self) -> bool:
        """Whether its numbers may enter a report."""
        return self.state == "finished" and bool(self.scores)

    @property
    def seed(self) -> int | None:
        """Seed of the run; None where it is not known."""
        seed = self.settings.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def steps(self) -> int | None:
        """Optimizer steps that it was to take; None of an evaluation."""
        steps = self.settings.get("trainer.max_steps")
        return steps if isinstance(steps, int) else None

    @cached_property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and finite values of each column of `metrics.csv`; what is cut off is left out."""
        return _curves(self.path / "metrics.csv")


def find(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of runs in folders, searched to any depth, each once and in order of their names.

    Links are followed, and lead nowhere twice.

    Args:
        folders: Folders of runs, or folders that hold some.

    Raises:
        FileNotFoundError: One of them does not exist, or there is no run in any.
    """
    found: dict[Path, Path] = {}
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"expected a folder at {folder}, found {'a file' if folder.exists() else 'nothing'}: name folders of runs, as below outputs/ or multirun/"
            )
        for path in _walked(folder, seen):
            if is_run(path):
                found.setdefault(path.resolve(), path)
    if not found:
        raise FileNotFoundError(
            f"expected runs of paka.train or paka.evaluate in {', '.join(map(str, folders))}, found none: name folders below outputs/ or multirun/"
        )
    return list(found.values())


def refuse_run(folder: Path) -> None:
    """Refuse to write a report where a run has its own.

    Raises:
        ValueError: The folder is that of a run.
    """
    if is_run(folder):
        raise ValueError(
            f"expected a folder for the report, got {folder}, where a run has a report of its own: choose another with --output"
        )


def _walked(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield a folder and those in it, but for hidden ones and those that were seen."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    yield folder
    try:
        inner = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return  # not ours to read
    for entry in sorted(inner, key=lambda entry: by_number(entry.name)):
        yield from _walked(Path(entry.path), seen)


def by_number(name: str) -> tuple[Any, ...]:
    """Return what puts names in order as people do: `2_run` before `10_run`."""
    head = name.split("_", maxsplit=1)[0]
    return (0, int(head), name) if head.isdecimal() else (1, 0, name)


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run that trains or evaluates, however little of it is left.

    Other programs leave a `.hydra` and jobs called `train` too: without a status there has to be a mark of this one.
    """
    if (folder / "multirun.yaml").exists():
        return False
    record = _hydra(folder)
    begun = (folder / "config.yaml").is_file() and any((folder / name).exists() for name in SEARCHED_FOR)
    marked = _selected(record, "hydra.runtime.choices.hydra/job_logging") == "paka"
    ours = (folder / STATUS).is_file() or (begun if record is None else marked)
    return ours and program_of(folder) in PROGRAMS


def program_of(folder: Path) -> str:
    """Return the name of the program whose folder it is; without a record of Hydra, by what else is there."""
    job = _selected(_hydra(folder), "hydra.job.name")
    if job is not None:
        return str(job)
    settings = _read(folder / "config.yaml")
    if settings is None:
        return PROGRAMS[0]
    programs = {"objective": "train", "compare": "evaluate"}
    return next((program for key, program in programs.items() if key in settings), "")


def _hydra(folder: Path) -> DictConfig | None:
    return _read(folder / ".hydra" / "hydra.yaml")


def _selected(record: DictConfig | None, key: str) -> Any:
    """Return a value of a record, or None where it has none, or one that refers to what is not there."""
    try:
        return None if record is None else OmegaConf.select(record, key)
    except OmegaConfBaseException:
        return None


def read(paths: Sequence[Path], roots: Sequence[Path]) -> list[Run]:
    """Return runs by their folders.

    Args:
        paths: The folders, see `find`.
        roots: Where they were searched for; runs are named relative to what these share.
    """
    common = Path(os.path.commonpath([root.absolute() for root in roots]))
    return [_run(path, os.path.relpath(path.absolute(), common)) for path in paths]


def _run(path: Path, name: str) -> Run:
    """Return a run; what of it cannot be read makes it a damaged one."""
    name = path.absolute().name if name == "." else name
    program = program_of(path)
    if not (path / "config.yaml").is_file():
        return _begun(path, name, program)
    folder = RunFolder(path)
    try:
        status = folder.status
        state, reason = standing(folder, status)
        run = Run(
            path, name, program, state, reason,
            settings=_flattened(folder.config, resolve=True),
            composed=_composed(path),
            choices=folder.choices,
            typed=_typed(path),
            status=status,
            command=str(folder.provenance.get("command", "")),
            scores=folder.scores if state == "finished" else (),
        )  # fmt: skip
    except UNREADABLE as error:
        return Run(path, name, program, "damaged", _sentence(error))
    if run.state == "finished" and not run.scores:
        return replace(run, reason="it has no scores: there was nothing to score")
    return run


def standing(folder: RunFolder, status: Status | None) -> tuple[str, str]:
    """Return how a run stands, and why it is not finished."""
    if status is None:  # left by hands, or by a version that kept none
        finished = (folder.path / "results.csv").is_file()
        return ("finished", "") if finished else ("killed", "it left no results, and does not say why")
    reasons = {
        "running": "it has not ended yet",
        "stopped": "by Ctrl-C, before its end",
        "killed": "its process is gone, and left no reason",
        "failed": " ".join(status.error.split()) or "it gave no reason",
    }
    return folder.state, reasons.get(folder.state, "")


def _begun(path: Path, name: str, program: str) -> Run:
    """Return a run that ended before it had written its configuration."""
    settings = _composed(path)
    try:
        status = Status(**json.loads((path / STATUS).read_text(encoding="utf-8")))
    except UNREADABLE:
        return Run(
            path, name, program, "killed", "it ended before it wrote its configuration", settings=settings
        )
    reason = " ".join(status.error.split()) or "it ended before it wrote its configuration"
    state = "killed" if status.state == "finished" else status.state
    return Run(path, name, program, state, reason, settings=settings, status=status)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(path: Path) -> DictConfig | None:
    """Return a configuration, or None where there is none that can be read."""
    try:
        loaded = OmegaConf.load(path)
    except (*UNREADABLE, AttributeError):
        return None
    return None if isinstance(loaded, ListConfig) else loaded


def _composed(path: Path) -> dict[str, Any]:
    record = _read(path / ".hydra" / "config.yaml")
    return {} if record is None else _flattened(record, resolve=False)


def _typed(path: Path) -> frozenset[str]:
    """Return keys and groups that were set on the command line."""
    try:
        overrides = OmegaConf.load(path / ".hydra" / "overrides.yaml")
    except (*UNREADABLE, AttributeError):
        return frozenset()
    names = (str(override).partition("=")[0].lstrip("+~").partition("@")[0] for override in overrides)
    return frozenset(names)


def _flattened(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    """Return a configuration's values by dotted key; lists are values."""
    plain = OmegaConf.to_container(config, resolve=resolve)
    return flattened({str(key): value for key, value in plain.items()}) if isinstance(plain, dict) else {}


def _curves(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (*UNREADABLE, csv.Error):
        return {}
    curves: dict[str, dict[int, float]] = {}
    for step, name, value in _logged(rows):
        curves.setdefault(name, {})[step] = value  # a run that was resumed may have logged a step twice
    return {name: (sorted(one), [one[step] for step in sorted(one)]) for name, one in curves.items()}


def _logged(rows: Iterable[Mapping[str | None, Any]]) -> Iterator[tuple[int, str, float]]:
    for row in rows:
        for name, text in row.items():
            try:
                step, value = int(row["step"]), float(text)
            except (TypeError, ValueError, KeyError):
                continue  # nothing was logged here, or the line is cut off
            if name is not None and name != "step" and math.isfinite(value):
                yield step, name, value
