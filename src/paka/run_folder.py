"""The folder of a run: what state the run is in, kept while it goes, and its files read back."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from paka.disk import whole

if TYPE_CHECKING:
    from paka.scores import Score

State = Literal["running", "finished", "failed", "stopped", "killed"]
"""`stopped` by a signal and whole, `killed` by anything that left it no time to say so."""

STATUS = "status.json"

STOPS = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
"""Exit codes of a run that a signal stopped."""


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes:
        state: `running` until it says otherwise; `RunFolder.state` tells whether its process is still there.
        started: When, in UTC, as `2026-11-25T18:45:51Z`.
        ended: When, or None.
        score: What it returned for sweeps to compare, if it did.
        error: Why it failed, in a sentence; empty unless it did.
        host: Name of the machine.
        pid: Number of the process there.
        job: What it is recognised by when SLURM starts its job again, see `paka.resuming.job`; empty outside of SLURM.
    """

    state: State
    started: str
    ended: str | None = None
    score: float | None = None
    error: str = ""
    host: str = ""
    pid: int = 0
    job: str = ""


def recorded(folder: Path, run: Callable[[], float | None], *, job: str = "") -> float | None:
    """Return what `run` returns, and keep in `folder` how it stands, from now to its end, whatever that is.

    Args:
        folder: The run's folder.
        run: What is run; whatever it raises is raised again.
        job: Its job of SLURM, see `Status`.
    """
    status = Status("running", _now(), host=platform.node(), pid=os.getpid(), job=job)
    with _recording(folder, status):
        score = run()
    _write(folder, replace(status, state="finished", ended=_now(), score=score))
    return score


@contextmanager
def _recording(folder: Path, status: Status) -> Iterator[None]:
    """Keep that a run is going, and how it ended if it does not reach its end."""
    _write(folder, status)
    try:
        yield
    except BaseException as error:
        stops = isinstance(error, KeyboardInterrupt) or (
            isinstance(error, SystemExit) and error.code in STOPS
        )
        reason = "" if stops else str(error) or type(error).__name__
        with suppress(OSError):  # of a full disk, which is not what the error was, or is told by it
            _write(
                folder, replace(status, state="stopped" if stops else "failed", ended=_now(), error=reason)
            )
        raise


def _write(folder: Path, status: Status) -> None:
    with whole(folder / STATUS) as unfinished:
        unfinished.write_text(json.dumps(asdict(status), indent=2) + "\n", encoding="utf-8")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class RunFolder:
    """What a run left in its folder.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: There is no such folder, or no run left its configuration there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not (self.path / "config.yaml").is_file():
            job = next(iter(sorted(self.path.glob("*/config.yaml"))), None)
            found = "no config.yaml there: name a folder below outputs/ or multirun/"
            if job is not None:
                found = f"runs below it: name one of them, such as {job.parent}"
            raise FileNotFoundError(f"expected the folder of a run at {self.path}, found {found}")

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration.

        Raises:
            ValueError: The file does not hold one.
        """
        return _read_yaml(self.path / "config.yaml")

    @cached_property
    def hydra(self) -> DictConfig:
        """What Hydra recorded of how it started the run, under `hydra`; empty if it left no record.

        Raises:
            ValueError: The file does not hold one.
        """
        record = self.path / ".hydra" / "hydra.yaml"
        return _read_yaml(record) if record.is_file() else OmegaConf.create()

    @cached_property
    def choices(self) -> dict[str, str]:
        """Which option of each group was chosen, by group; empty if Hydra left no record."""
        chosen = OmegaConf.select(self.hydra, "hydra.runtime.choices") or {}
        return {str(group): str(option) for group, option in chosen.items()}

    @cached_property
    def overrides(self) -> list[str]:
        """What was set on the command line, in order; empty if Hydra left no record."""
        typed = OmegaConf.select(self.hydra, "hydra.overrides.task")
        plain = (
            [] if typed is None else OmegaConf.to_container(typed, resolve=False)
        )  # what they refer to is elsewhere
        return [str(override) for override in plain or []]

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Command, commit and versions, see `paka.provenance`; empty if they were not written."""
        return _read_json(self.path / "provenance.json")

    @property
    def status(self) -> Status | None:
        """How the run says it stands, None if it never did."""
        found = _read_json(self.path / STATUS)
        return Status(**found) if found else None

    @property
    def state(self) -> State:
        """How the run stands: `killed` when it says that it is running and its process is gone."""
        status = self.status
        if status is None:
            return "killed"
        here = status.state == "running" and status.host == platform.node()
        return "killed" if here and not _lives(status.pid, since=status.started) else status.state

    @property
    def scores(self) -> list[Score]:
        """Rows of `results.csv`; none without that file.

        Raises:
            ValueError: The file is damaged.
        """
        from paka.scores import read_results  # brings matplotlib, which a wrong override need not wait for

        path = self.path / "results.csv"
        return read_results(path) if path.is_file() else []


def _read_yaml(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, ValueError, YAMLError) as error:
        raise ValueError(f"expected a configuration in {path}, got what cannot be read: {error}") from error
    if isinstance(loaded, ListConfig):
        raise ValueError(f"expected a configuration in {path}, got a list")  # noqa: TRY004 - a file's fault
    return loaded


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got what cannot be read: {error}") from error
    return dict(found)


def _lives(pid: int, since: str) -> bool:
    """Return whether a process of this machine is still there, and not another that was given its number later."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    born = _born(pid)
    return born is None or born <= datetime.fromisoformat(since).timestamp() + 1


def _born(pid: int) -> float | None:
    """Return when a process was started, in seconds since 1970; None where the system does not tell."""
    try:
        after_boot = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + after_boot / os.sysconf("SC_CLK_TCK")


def save_config(folder: Path, cfg: DictConfig) -> None:
    """Keep a run's configuration, resolved, in its folder; whole, however the run ends."""
    with whole(folder / "config.yaml") as unfinished:
        OmegaConf.save(cfg, unfinished, resolve=True)
