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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from paka.changes import changes, is_free, plain, refuse
from paka.run_folder import RunFolder

OUTPUTS = Path("outputs")
"""Where `hydra.run.dir` puts runs, and `resume=last` looks for them."""

LAST = Path("checkpoints", "last.ckpt")
"""A run's checkpoint, in its folder."""

_NOT_SETTINGS = ("resume", "init_from", "sweep", "output_dir")
"""What a resumed run does not take over from the command line of the run."""


def settings(arguments: Sequence[str]) -> list[str]:
    """Return a command line as it is run: `resume=` names a checkpoint, and the settings of its run hold unless typed anew.

    In a job that SLURM has started again, the run that it began goes on, whatever `resume=` says.

    Args:
        arguments: The command line without the program.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no run to go on with.
        ValueError: The run is still running, or `last` is asked for by one of several processes.
        SystemExit: With 0 if the run of a job that was started again is finished.
    """
    typed = _typed(arguments)
    requeued = None if {"-m", "--multirun"} & {*arguments} else _requeued(arguments, typed)
    if requeued is None and typed.get("resume", "null") in ("null", "", "''"):
        return list(arguments)
    rest = [one for one in arguments if _key(one) != "resume"]
    if requeued is not None and not (requeued / LAST).is_file():
        return [*rest, f"hydra.run.dir={_quoted(requeued)}"]  # stopped before its first checkpoint
    path = checkpoint_of(requeued) if requeued is not None else _asked_for(_value(typed["resume"]), typed)
    run = run_of(path)
    if run is not None and requeued is None:
        _refuse_running(run)
    place = next((n for n, one in enumerate(arguments) if _key(one) == "resume"), len(rest))
    taken = [] if run is None else [*_taken_over(run, {*typed})]
    return [*rest[:place], *taken, f"resume={_quoted(path)}", *rest[place:]]


def next_command(run: Path) -> str:
    """Return the command that goes on with a run; its settings need not be typed again."""
    known = get_args_parser().parse_known_args()[0]
    places = ["--config-dir", known.config_dir] if known.config_dir else []
    return shlex.join(["python", "-m", "paka.train", *places, f"resume={_quoted(run)}"])


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
    if any(int(os.environ.get(name, "1")) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
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
    for run in runs:
        if run.state == "running":
            continue
        if run.state != "finished" or int(typed.get("trainer.max_steps", "0")) > run.config.trainer.max_steps:
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
    first = all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    status = run.status
    if first and status is not None and run.state == "running":
        message = (
            f"expected a run that has stopped, {run.path} is running as process {status.pid} of {status.host}: stop it first; if it is "
            f"gone, delete {run.path / 'status.json'}"
        )
        raise ValueError(message)


def _taken_over(run: RunFolder, typed: set[str]) -> Iterator[str]:
    """Yield the overrides of a run that were not typed anew; an option typed anew brings its own values."""
    record = run.path / ".hydra" / "overrides.yaml"
    overrides: Iterable[object] = OmegaConf.load(record) if record.is_file() else ()
    for override in map(str, overrides):
        key = _key(override)
        if (
            key not in typed
            and key not in _NOT_SETTINGS
            and not any(key.startswith(f"{one}.") for one in typed)
        ):
            yield override


def _typed(arguments: Sequence[str]) -> dict[str, str]:
    """Return the overrides of a command line, by key."""
    return {_key(one): one.partition("=")[2] for one in arguments if "=" in one and not one.startswith("-")}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _value(text: str) -> str:
    """Return a value as Hydra reads it, without quotes."""
    return str(OverridesParser.create().parse_override(f"resume={text}").value())


def _quoted(path: Path) -> str:
    """Return a path as an override's value."""
    text = str(path)
    return (
        text
        if re.fullmatch(r"[\w./+:@%-]+", text)
        else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    )


def slurm_job() -> str:
    """Return the job of SLURM that this process belongs to, as `scontrol` calls it; empty outside and in an interactive one."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def job(arguments: Sequence[str]) -> str:
    """Return what a run is recognised by when SLURM starts its job again: the job and the command line; empty outside of SLURM."""
    digest = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:16]
    return f"slurm {slurm_job()} {digest}" if slurm_job() else ""


def _requeued(arguments: Sequence[str], typed: Mapping[str, str]) -> Path | None:
    """Return the folder of the run that this job began before SLURM started it again, if it did.

    Raises:
        SystemExit: The run is finished.
    """
    if not slurm_job() or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    named = [Path(_value(typed["hydra.run.dir"]))] if "hydra.run.dir" in typed else []
    records = [*OUTPUTS.glob("*/status.json"), *OUTPUTS.glob("*/*/status.json")]
    found = sorted(records, key=lambda path: -path.stat().st_mtime)
    for folder in [*named, *(path.parent for path in found)]:
        status = RunFolder(folder).status if (folder / "config.yaml").is_file() else None
        if status is not None and status.job == job(arguments):
            if status.state == "finished":
                sys.stdout.write(
                    f"SLURM job {slurm_job()} was started again, and its run in {folder} is finished\n"
                )
                raise SystemExit(0)
            return folder
    return None


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
