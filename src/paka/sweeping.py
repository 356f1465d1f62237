"""A sweep as a whole: one at a time in a folder, how its jobs ended, and how it is gone on with."""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from paka import report
from paka.command_line import USER_ERRORS
from paka.disk import FULL
from paka.launch import rank
from paka.locks import locked
from paka.provenance import command_line
from paka.run_folder import STATUS, STOPS, RunFolder
from paka.sweep_job import LOCK, PLACES, refuse_others, settings, visible_gpus
from paka.sweep_names import Plan, described, job_folder, short, swept, tell

LONGEST = 120
"""Characters of the reason why a job failed at most; its log holds the rest."""


@dataclass
class Sweep:
    """A sweep that this process has started.

    Attributes:
        folder: Where its jobs' folders are.
        plan: What is swept.
        names: Folders of its jobs in there, in order; empty where they depend on how earlier jobs end.
        held: What is given back at its end.
    """

    folder: Path
    plan: Plan
    names: tuple[str, ...] = ()
    held: ExitStack = field(default_factory=ExitStack)


_CURRENT: ContextVar[Sweep | None] = ContextVar("sweep", default=None)


class Begin(Callback):
    """Hydra's way to tell that a sweep begins; `conf/train.yaml` names it under `hydra.callbacks`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the sweep's folder, refuse jobs of others in it and say what is about to happen.

        Raises:
            SystemExit: Another sweep is at work in the folder, or it holds jobs of another configuration.
        """
        del kwargs
        try:
            _begin(config)
        except USER_ERRORS as error:
            raise SystemExit(f"error: {error}") from error
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(1) from error  # Hydra would make a warning of it and go on


def _begin(config: DictConfig) -> None:
    overrides = _overrides(config)
    jobs = _jobs(config, overrides)
    count = len(jobs) if jobs else config.hydra.sweeper.n_trials
    sweep = Sweep(Path(config.hydra.sweep.dir), Plan(_keys(config, overrides), count, tuple(visible_gpus())))
    tell(sweep.plan)
    if sweep.plan.keys:
        sweep.names = tuple(job_folder(job, "") for job in jobs)
    if rank() > 0:  # the first process speaks for all
        return
    if not sweep.held.enter_context(locked(sweep.folder / LOCK)):
        sweep.held.close()
        raise ValueError(
            f"expected {sweep.folder} at rest, found another sweep at work there: wait for it, or choose another sweep_dir"
        )
    if config.hydra.runtime.choices["hydra/sweeper"] == "optuna":
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
    if any(sweep.folder.glob(f"*/{STATUS}")):
        _refuse_others(config, sweep.folder, jobs)
    _CURRENT.set(sweep)
    sys.stdout.write(_announcement(config, overrides, sweep))
    sys.stdout.flush()


def _overrides(config: DictConfig) -> list[Override]:
    """Return what is set in all jobs, sweeps unexpanded: the preset's, then what was typed."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(
        [*params, *config.hydra.overrides.task]
    )
    return [*{one.get_key_element(): one for one in parsed}.values()]  # typed ones replace the preset's


def _keys(config: DictConfig, overrides: list[Override]) -> tuple[str, ...]:
    """Return the keys that have several values, and those of the preset in any case: more may be added to a sweep later."""
    preset = config.hydra.sweeper.params or {}
    found = (
        one.get_key_element()
        for one in overrides
        if one.is_sweep_override() or one.get_key_element() in preset
    )
    return tuple(dict.fromkeys(found))


def _jobs(config: DictConfig, overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of each job; none where they depend on how earlier jobs end."""
    if config.hydra.runtime.choices["hydra/sweeper"] != "basic":
        return []
    return BasicSweeper.split_arguments(overrides, None)[0]


def _refuse_others(config: DictConfig, folder: Path, jobs: Sequence[list[str]]) -> None:
    """Compare the jobs with those that an earlier sweep left in the folder, before any of them is touched."""
    loader, previous = GlobalHydra.instance().config_loader(), HydraConfig.instance().cfg
    try:
        for number, overrides in enumerate(jobs):
            job = loader.load_sweep_config(config, overrides)
            HydraConfig.instance().set_config(job)
            own = folder / job.hydra.sweep.subdir
            with read_write(job.hydra), open_dict(job.hydra):
                job.hydra.runtime.output_dir, job.hydra.job.num = str(own), number
            HydraConfig.instance().set_config(job)
            with read_write(job), open_dict(job):
                del job["hydra"]
            refuse_others(own, settings(job))
    finally:
        HydraConfig.instance().cfg = previous


def _announcement(config: DictConfig, overrides: list[Override], sweep: Sweep) -> str:
    keys = sweep.plan.keys
    typed = {
        one.get_key_element(): str(one.input_line).partition("=")[2]
        for one in overrides
        if one.get_key_element() in keys
    }
    launcher, places = config.hydra.runtime.choices["hydra/launcher"], config.hydra.job.env_set.get(PLACES)
    order = "one after the other" if launcher == "basic" else f"by {launcher}"
    order += f", {places} at a time" if places else ""
    output = "" if launcher == "basic" else f"\n  output  {sweep.folder / '.submitit'}"
    return (
        f"paka: a sweep of {sweep.plan.jobs} jobs, {order}\n"
        f"  swept   {described(typed) or 'nothing'}\n  folder  {sweep.folder}{output}\n"
    )


@contextmanager
def concluding() -> Iterator[None]:
    """Say in the end how the jobs of a sweep ended, if the block ran one, and write the report over them.

    Raises:
        SystemExit: With 1 if a job did not finish, with 128 and the signal's number after one that asked for a stop.
    """
    code: Any = 0
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if _CURRENT.get() is None:
            raise
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
    if (sweep := _CURRENT.get()) is not None:
        _CURRENT.set(None)
        with sweep.held:
            _conclude(sweep, code)


def _conclude(sweep: Sweep, code: Any) -> None:
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    runs, earlier = _runs(sweep)
    finished = [run for run in runs if run.state == "finished"]
    if runs:
        _print(sweep, runs)
    problem = _report(sweep.folder) if finished and code not in STOPS else ""
    if earlier:
        sys.stdout.write(f"\n{earlier} more in the folder, of earlier sweeps\n")
    sys.stdout.write(f"\n{len(finished)} of {max(len(runs), sweep.plan.jobs)} jobs finished\n")
    if going := sum(run.state == "running" for run in runs):
        sys.stdout.write(f"{going} still running in processes of their own\n")
    if len(finished) < max(len(runs), sweep.plan.jobs):
        sys.stdout.write(f"To go on with the others:\n  {_continuing(sweep.folder)}\n")
        code = code or 1
    if problem:
        sys.stderr.write(f"error: {problem}\n")
    if code or problem:
        raise SystemExit(code if code in STOPS else 1)


def _runs(sweep: Sweep) -> tuple[list[RunFolder], int]:
    """Return the jobs of a sweep that have begun, in order, and how many others are in its folder."""
    found = [
        path.parent for path in sweep.folder.glob(f"*/{STATUS}") if (path.parent / "config.yaml").is_file()
    ]
    own = [RunFolder(path) for path in found if not sweep.names or path.name in sweep.names]
    return sorted(own, key=lambda run: (_number(run), run.path.name)), len(found) - len(own)


def _number(run: RunFolder) -> int:
    """Return a job's number in the last sweep that it was part of."""
    number = OmegaConf.select(run.hydra, "hydra.job.num")
    return -1 if number is None else int(number)


def _values(run: RunFolder, plan: Plan) -> dict[str, str]:
    return swept(run.overrides, plan.keys)


def _print(sweep: Sweep, runs: Sequence[RunFolder]) -> None:
    """Print one line for each job: what was swept, how it ended, what it scored, how long it took, and why it failed."""
    from paka import terminal  # brings torch, which a refused sweep need not wait for

    console, keys = terminal.standard_output(), sweep.plan.keys
    header = ["job", *short(keys).values(), "state", "score", "time", "reason"]
    left = [False, *(True for _ in keys), True, False, False, True]
    console.print("\nJobs", style="bold")
    terminal.print_columns(
        header, [[str(place), *_row(run, sweep.plan)] for place, run in enumerate(runs, 1)], left, console
    )
    console.print(_monitored(runs[0].config), style="dim")


def _row(run: RunFolder, plan: Plan) -> list[str]:
    from paka.progress import duration

    status, values = run.status, _values(run, plan)
    shown = [_shortened(values.get(key, "")) for key in plan.keys]
    if status is None:
        return [*shown, run.state, "", "", ""]
    reason = next(iter(status.error.splitlines()), "")
    return [
        *shown,
        run.state,
        "" if status.score is None else f"{status.score:.2f}",
        "" if status.ended is None else duration(_seconds(status.started, status.ended)),
        reason if len(reason) <= LONGEST else f"{reason[: LONGEST - 1]}…",
    ]


def _shortened(value: str) -> str:
    """Return a number with four digits where that is shorter, and other values as they are."""
    try:
        return min(value, f"{float(value):.4g}", key=len)
    except ValueError:
        return value


def _seconds(started: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def _monitored(cfg: DictConfig) -> str:
    """Return what the scores of jobs are."""
    protocol = next(iter(OmegaConf.select(cfg, "eval.protocols") or {}), None)
    images = "validation" if "trainer" in cfg else OmegaConf.select(cfg, "split")
    return "no scores: nothing is evaluated" if protocol is None else f"score: {protocol} on {images} images"


def _report(folder: Path) -> str:
    """Write the report over a sweep's jobs and print its tables; return what kept it from being written."""
    sys.stdout.write("\n")
    sys.stdout.flush()
    try:
        report.run([folder], folder, None)
    except (OSError, *USER_ERRORS) as error:  # how its jobs ended is still to be told
        reason = FULL.get(error.errno or 0, str(error)) if isinstance(error, OSError) else str(error)
        return f"no report: {reason}; python -m paka.report {shlex.quote(str(folder))} writes one"
    return ""


def _continuing(folder: Path) -> str:
    """Return the command that goes on with a sweep."""
    named = any(argument.partition("=")[0] in ("sweep_dir", "hydra.sweep.dir") for argument in sys.argv[1:])
    return command_line() if named else command_line(f"sweep_dir={folder}")
