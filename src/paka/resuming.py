"""Going on with a run that was interrupted, or further with one that is finished: which run, where, and what may change.

A run goes on in its own folder as long as it is the same run. One that is finished, or whose training is changed, is another
run: it gets a folder of its own, whose `metrics.csv` begins with that of the first.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from paka.changes import changes, is_free, plain, refuse
from paka.launch import rank, slurm_job, starter, world_size
from paka.run_folder import STATUS, RunFolder

OUTPUTS = Path("outputs")
"""Where `hydra.run.dir` puts runs, and `resume=last` looks for them."""

LAST = Path("checkpoints", "last.ckpt")
"""A run's checkpoint, in its folder."""

MULTIRUN = Path("multirun")
"""Where `sweep_dir` puts sweeps."""

_NOT_SETTINGS = ("resume", "init_from", "sweep", "sweep_dir", "output_dir")
"""What a resumed run does not take over from the command line of the run."""


def settings(arguments: Sequence[str]) -> list[str]:
    """Return a command line as it is run: `resume=` names a checkpoint, and the settings of its run hold unless typed anew.

    In a job that SLURM has started again, the run or the sweep that it began goes on.

    Args:
        arguments: The command line without the program.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no run to go on with.
        ValueError: The run is still running, or `last` is asked for by one of several processes.
        SystemExit: With 0 if the run of a job that was started again is finished.
    """
    typed = _typed(arguments)
    if "sweep" in typed or {"-m", "--multirun"} & {*arguments}:
        job = (
            None if "sweep_dir" in typed else next(_begun(arguments, MULTIRUN.glob(f"*/*/*/{STATUS}")), None)
        )
        return [*_resumed(arguments, typed), *([] if job is None else [f"sweep_dir={_quoted(job.parent)}"])]
    run = _requeued(arguments, typed)
    if run is None:
        return _resumed(arguments, typed)
    if not (run / LAST).is_file():  # stopped before its first checkpoint
        return [*_resumed(arguments, typed), f"hydra.run.dir={_quoted(run)}"]
    again = [one for one in arguments if _key(one) not in ("resume", "init_from")]
    return _going_on(again, typed, run / LAST)


def _resumed(arguments: Sequence[str], typed: Mapping[str, str]) -> list[str]:
    """Return a command line with the checkpoint and the settings that its `resume=` means, if it has one."""
    if typed.get("resume", "null") in ("null", "", "''"):
        return list(arguments)
    path = _asked_for(_value(typed["resume"]), typed)
    if (run := run_of(path)) is not None:
        _refuse_running(run)
    return _going_on(arguments, typed, path)


def _going_on(arguments: Sequence[str], typed: Mapping[str, str], checkpoint: Path) -> list[str]:
    """Return a command line that goes on from a checkpoint with the settings of its run."""
    rest = [one for one in arguments if _key(one) != "resume"]
    place = next((n for n, one in enumerate(arguments) if _key(one) == "resume"), len(rest))
    run = run_of(checkpoint)
    taken = [] if run is None else [*_taken_over(run, {*typed})]
    return [*rest[:place], *taken, f"resume={_quoted(checkpoint)}", *rest[place:]]


def next_command(run: Path) -> str:
    """Return the command that goes on with a run; its settings need not be typed again."""
    known = get_args_parser().parse_known_args()[0]
    places = ["--config-dir", known.config_dir] if known.config_dir else []
    return shlex.join([*starter(), "paka.train", *places, f"resume={_quoted(run)}"])


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the last one of a run's folder.

    Raises:
        FileNotFoundError: There is none.
    """
    path = path.expanduser()
    found = path / LAST if path.is_dir() else path
    if found.is_file():
        return found
    if path.is_dir():
        message = f"expected a checkpoint in the run's folder resume={path}, found no {LAST} there: the run was stopped before its first"
        raise FileNotFoundError(message)
    message = f"expected a checkpoint or a run's folder at resume={path}, found neither; resume=last takes the newest below {OUTPUTS}/"
    raise FileNotFoundError(message)


def run_of(checkpoint: Path) -> RunFolder | None:
    """Return the run whose checkpoint this is, None if it was moved away from it."""
    folder = checkpoint.parent.parent
    is_run = checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file()
    return RunFolder(folder) if is_run else None


def _asked_for(text: str, typed: Mapping[str, str]) -> Path:
    if text != "last":
        return checkpoint_of(Path(text))
    newest = _newest(typed)
    if world_size() > 1:
        message = f"resume=last: expected a single process, because several may find different runs: set resume={newest}"
        raise ValueError(message)
    return newest / LAST


def _newest(typed: Mapping[str, str]) -> Path:
    """Return the folder of the newest run below outputs/ that has steps left to do and is not running.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [*OUTPUTS.glob(f"*/{LAST}"), *OUTPUTS.glob(f"*/*/{LAST}")]
    newest_first = sorted(found, key=lambda path: -path.stat().st_mtime)
    runs = [run for path in newest_first if (run := run_of(path)) is not None]
    steps = _number(typed.get("trainer.max_steps", "0"))
    for run in runs:
        if run.state == "running":
            sys.stderr.write(f"resume=last: passed over {run.path}, which {_running(run)}\n")
        elif run.state != "finished" or steps > run.config.trainer.max_steps:
            return run.path
    finished = f"; {runs[0].path} is the newest with a checkpoint and {runs[0].state}" if runs else ""
    message = (
        f"resume=last: expected an interrupted run below {OUTPUTS.absolute()}, found none{finished}: name one with resume=RUN, and to "
        "go on with a finished one set trainer.max_steps higher"
    )
    raise FileNotFoundError(message)


def _refuse_running(run: RunFolder) -> None:
    """Refuse to go on with a run that is going on; the other processes of a launch leave it to the first.

    Raises:
        ValueError: It is running.
    """
    if rank() == 0 and run.state == "running":
        message = f"expected a run that has stopped, {run.path} {_running(run)}: stop it first; if it is gone, delete {run.path / STATUS}"
        raise ValueError(message)


def _running(run: RunFolder) -> str:
    status = run.status
    return f"is running as process {status.pid} of {status.host}" if status else "is running"


def _taken_over(run: RunFolder, typed: set[str]) -> Iterator[str]:
    """Yield the overrides of a run that were not typed anew; an option typed anew brings its own values."""
    for override in run.overrides:
        key = _key(override)
        if (
            key not in typed
            and key not in _NOT_SETTINGS
            and not any(key.startswith(f"{one}.") for one in typed)
        ):
            yield override
    if "sweep" in map(_key, run.overrides):
        yield from _chosen(run, {*typed, *map(_key, run.overrides)})


def _chosen(run: RunFolder, known: Container[str]) -> Iterator[str]:
    """Yield the options of groups that nobody typed, because a preset of sweeps, which is not taken over, may have chosen them."""
    for group, option in run.choices.items():
        named = re.fullmatch(r"\w+", option) and option != "None"
        if named and "/" not in group and group not in known and group not in (*_NOT_SETTINGS, "experiment"):
            yield f"{group}={option}"


def _typed(arguments: Sequence[str]) -> dict[str, str]:
    """Return the overrides of a command line, by key."""
    return {_key(one): one.partition("=")[2] for one in arguments if "=" in one and not one.startswith("-")}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _value(text: str) -> str:
    """Return a value as Hydra reads it, without quotes.

    Raises:
        ValueError: Hydra cannot read it.
    """
    try:
        return str(OverridesParser.create().parse_override(f"resume={text}").value())
    except HydraException as error:
        raise ValueError(
            f"expected a value that Hydra can read, got {text}: put quotes inside of the shell's, as in \"resume='{text}'\""
        ) from error


def _number(text: str) -> float:
    """Return a value as a number, 0 if it is none, which is refused elsewhere."""
    try:
        return float(_value(text))
    except ValueError:
        return 0


def _quoted(path: Path) -> str:
    """Return a path as an override's value."""
    text = str(path)
    plain = re.fullmatch(r"[\w./+:@%-]+", text, re.ASCII)
    return text if plain else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def job(arguments: Sequence[str]) -> str:
    """Return what a run is recognised by when SLURM starts its job again: the job and the command line; empty outside of SLURM."""
    digest = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:16]
    return f"slurm {slurm_job()} {digest}" if slurm_job() else ""


def _requeued(arguments: Sequence[str], typed: Mapping[str, str]) -> Path | None:
    """Return the folder of the run that this job began before SLURM started it again, if it did.

    Raises:
        SystemExit: The run is finished.
    """
    named = [Path(_value(typed["hydra.run.dir"]), STATUS)] if "hydra.run.dir" in typed else []
    records = [*named, *OUTPUTS.glob(f"*/{STATUS}"), *OUTPUTS.glob(f"*/*/{STATUS}")]
    folder = next(_begun(arguments, records), None)
    if folder is not None and RunFolder(folder).state == "finished":
        sys.stdout.write(f"SLURM job {slurm_job()} was started again, and its run in {folder} is finished\n")
        raise SystemExit(0)
    return folder


def _begun(arguments: Sequence[str], records: Iterable[Path]) -> Iterator[Path]:
    """Yield the folders of runs that this job began before SLURM started it again, the newest first.

    Args:
        arguments: The command line.
        records: Files that say how runs stand.
    """
    if not slurm_job() or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return
    there = [path for path in records if (path.parent / "config.yaml").is_file() and path.is_file()]
    for path in sorted(there, key=lambda path: -path.stat().st_mtime):
        status = RunFolder(path.parent).status
        if status is not None and status.job == job(arguments):
            yield path.parent


_FOLDERS: dict[str, str] = {}
"""Where resumed runs of this process write, by their checkpoint: asked for again once the run is under way."""


def folder(default: str, *, _root_: DictConfig) -> str:
    """Return the folder in which a run writes, for `hydra.run.dir`: its own, or that of the run that it goes on with.

    Args:
        default: Its own.
        _root_: The composed configuration.
    """
    resume = OmegaConf.select(_root_, "resume")
    if resume is None:
        return default
    if resume not in _FOLDERS:
        run = run_of(Path(resume))
        _FOLDERS[resume] = default if run is None or starts_another(run, _root_) else str(run.path)
    return _FOLDERS[resume]


def starts_another(run: RunFolder, cfg: DictConfig) -> str:
    """Return why going on with a run under this configuration makes another run of it; empty if it does not."""
    if run.state == "finished":
        return "it is finished"
    try:
        found = [one.key for one in changes(plain(run.config), plain(cfg)) if not is_free(one.key)]
    except ValueError:
        return "its configuration cannot be read"
    return f"{', '.join(found[:3])}{' and more' if found[3:] else ''} changed" if found else ""


def examine(cfg: DictConfig) -> None:
    """Check what can be checked of a resumed run without its checkpoint, and take over what it was started from.

    Raises:
        ValueError: The run is finished, or cannot go on under this configuration.
    """
    run = None if cfg.resume is None else run_of(checkpoint_of(Path(cfg.resume)))
    if run is None:
        return
    refuse(changes(plain(run.config), plain(cfg)), run.path)
    if run.state == "finished" and cfg.trainer.max_steps <= run.config.trainer.max_steps:
        message = (
            f"resume={run.path}: expected steps that are left to do, the run has finished all {run.config.trainer.max_steps}: set "
            "trainer.max_steps higher to go on with it"
        )
        raise ValueError(message)
    cfg.init_from = OmegaConf.select(run.config, "init_from")
