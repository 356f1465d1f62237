"""One job of a sweep: finished before, to be gone on with, or to be begun."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from paka.config_keys import flattened, is_name, is_pace, is_place
from paka.cores import available_cores
from paka.locks import locked, place
from paka.rules import shown
from paka.run_folder import STATUS, RunFolder, Status, save_config
from paka.sweep_names import described, swept, told

LOCK = ".lock"
"""In a job's folder, held by the process that runs it; in a sweep's, by the process that started it."""

PLACES = "PAKA_SIDE_BY_SIDE"
"""How many jobs in processes of their own run at a time; `conf/sweep/submitit_local.yaml` sets it."""

MARKS = ("config.yaml", STATUS)
"""Files by which a folder is known as a job's."""

Run = Callable[[DictConfig], float | None]


def in_sweep(cfg: DictConfig) -> bool:
    """Return whether this is a job of a sweep that can be continued."""
    return "sweep_dir" in cfg and not OmegaConf.is_missing(HydraConfig.get().job, "num")


def as_job(cfg: DictConfig, run: Run, *, first: bool) -> float | None:
    """Run one job of a sweep unless it is finished, from its last checkpoint if it has one.

    Args:
        cfg: The job's configuration.
        run: What is run.
        first: Whether this is the first of the job's processes; the others follow what its folder says.

    Returns:
        The job's score, kept or new.

    Raises:
        ValueError: Another process is running the job, or its folder holds files of something else.
        SystemExit: The folder holds a job of another configuration.
    """
    folder = Path(cfg.output_dir) if first else Path(cfg.sweep_dir) / HydraConfig.get().sweep.subdir
    with locked(folder / LOCK) if first else nullcontext(enter_result=True) as free:
        if not free:
            raise ValueError(f"expected {folder} at rest, found another process at work there: wait for it")
        refuse_others(folder, settings(cfg))
        if first:
            _refuse_foreign(folder)
        status = _finished(folder)
        if status is not None:
            _say(f"{_title()}: finished before{_scored(status)}", first=first)
            return status.score
        with in_turn(folder.parent):
            return _go_on(folder, cfg, run, first=first)


def refuse_others(folder: Path, wanted: Mapping[str, Any]) -> None:
    """End the program if a folder holds a job of another configuration.

    Args:
        folder: The job's folder, which need not exist.
        wanted: The job's configuration, see `settings`.

    Raises:
        SystemExit: It does; with the keys that differ.
    """
    if not (folder / "config.yaml").is_file():
        return
    there = settings(RunFolder(folder).config)
    differing = [key for key in {**there, **wanted} if there.get(key, ...) != wanted.get(key, ...)]
    if differing:
        said = [
            f"{key} is {_value(there, key)} there and {_value(wanted, key)} here" for key in differing[:3]
        ]
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise SystemExit(
            f"error: expected the same job in {folder}, found another configuration: {'; '.join(said)}{more}; "
            "choose another sweep_dir"
        )


def settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the values of a configuration by dotted keys, but for those that may change when a job is gone on with."""
    plain = {
        str(key): _plain(cfg[key]) for key in cfg if not is_name(str(key))
    }  # names refer to the job's number
    return {key: value for key, value in flattened(plain).items() if not _may_change(key)}


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _may_change(key: str) -> bool:
    """Return whether neither what a job trains nor what it is scored by depends on a key."""
    scored = key.startswith("eval.") or key == "snapshots"  # its score is the last one taken while training
    return is_place(key) or (is_pace(key) and not scored)


def _value(values: Mapping[str, Any], key: str) -> str:
    return shown(values[key]) if key in values else "not"


def _finished(folder: Path) -> Status | None:
    """Return how a job ended, if it is finished."""
    if not (folder / "config.yaml").is_file():
        return None
    status = RunFolder(folder).status
    return status if status is not None and status.state == "finished" else None


def _scored(status: Status) -> str:
    return "" if status.score is None else f", score {status.score:.2f}"


def _title() -> str:
    hydra = HydraConfig.get()
    values = swept(hydra.overrides.task, told().keys)
    return f"job {hydra.job.num + 1} of {told().jobs}: {described(values)}".rstrip(": ")


def _say(line: str, *, first: bool) -> None:
    if first:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _go_on(folder: Path, cfg: DictConfig, run: Run, *, first: bool) -> float | None:
    """Run a job from its last checkpoint, or anew in a clean folder."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    resumes = "resume" in cfg and cfg.resume is None and _is_whole(checkpoint)
    if resumes:
        cfg.resume = str(checkpoint)
    _say(f"\n{_title()}{', from its last checkpoint' if resumes else ''}", first=first)
    if not first:
        return run(cfg)
    if not resumes:
        _clear(folder)
    save_config(folder, cfg)  # what is killed early is still known again
    return run(cfg)


def _is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint is there and can be read; it is a ZIP archive, whose index is written last."""
    if not zipfile.is_zipfile(checkpoint):
        return False
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that no attempt at a job has left its mark in, and that is not empty: its files are somebody's.

    Raises:
        ValueError: It is one.
    """
    if any((folder / name).is_file() for name in MARKS):
        return
    unfinished = tuple(f".{name}." for name in MARKS)  # of an attempt that was killed while it wrote them
    if found := sorted(path.name for path in _left(folder) if not path.name.startswith(unfinished)):
        raise ValueError(
            f"expected an empty folder or a job's at {folder}, found files of something else, such as {found[0]}: choose another sweep_dir"
        )


def _left(folder: Path) -> Iterator[Path]:
    """Yield what lies in a job's folder, but for other jobs, and this attempt's own record and log."""
    for path in folder.iterdir():
        if not (path.name in (".hydra", LOCK) or path.suffix == ".log" or (path / LOCK).exists()):
            yield path


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt left, its marks last: they say whose the rest is."""
    for path in sorted(_left(folder), key=lambda path: path.name in MARKS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait for a place among jobs in processes of their own, and take its share of the machine."""
    places = int(os.environ.get(PLACES, "0"))
    if places < 1:
        yield
        return
    with place(folder, places) as number:
        if gpus := told().gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // places)))
        yield


def visible_gpus() -> list[str]:
    """Return what CUDA calls the GPUs that this process may use, without asking it, which takes seconds."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def places_at_once() -> str:
    """Return how many jobs may run side by side: one on each GPU, or where there is none, one on two cores each."""
    return str(len(visible_gpus()) or max(1, available_cores() // 2))
