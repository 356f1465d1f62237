"""What sweeps and their jobs are called: jobs by the values in which they differ."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

LONGEST = 100
"""Characters of a folder's name at most; file systems allow 255 bytes."""

VARIABLE = "PAKA_SWEEP"
"""Where a sweep tells its jobs, whichever process they are in, what is swept."""


class Plan(NamedTuple):
    """What a sweep tells its jobs.

    Attributes:
        keys: Keys and groups that have several values, in order.
        jobs: How many jobs there are.
        gpus: What CUDA calls the GPUs that the jobs of this machine share.
    """

    keys: tuple[str, ...]
    jobs: int
    gpus: tuple[str, ...] = ()


def tell(plan: Plan) -> None:
    """Tell all jobs that are started from here on what is swept."""
    os.environ[VARIABLE] = json.dumps(plan)


def told() -> Plan:
    """Return what the sweep told this job; a plan without keys outside of sweeps."""
    keys, jobs, gpus = json.loads(os.environ.get(VARIABLE, "[[], 1, []]"))
    return Plan(tuple(keys), jobs, tuple(gpus))


def swept(overrides: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values of the swept keys among one job's overrides, in the order of `keys`."""
    pairs = [override.lstrip("+").partition("=") for override in overrides]
    values = {key: value for key, _, value in pairs}
    return {key: values[key] for key in keys if key in values}


def short(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or all of it where two keys end alike."""
    full = [*keys]
    last = [key.rpartition(".")[2] for key in full]
    return {key: part if last.count(part) == 1 else key for key, part in zip(full, last, strict=True)}


def job_folder(overrides: Iterable[str], run_name: str) -> str:
    """Return the name of a job's folder, such as `bandwidth-0.25_seed-1`.

    It has no number: a sweep that is continued with more values knows its jobs again.

    Args:
        overrides: The job's overrides.
        run_name: What it is called if nothing is swept.
    """
    values = swept(overrides, told().keys)
    return folder_name("_".join(f"{short(values)[key]}-{value}" for key, value in values.items()) or run_name)


def folder_name(text: str) -> str:
    """Return a text as the name of a folder: letters, digits and `._+-`, which need no quotes on a command line.

    What had to be changed gets a suffix by which different texts stay apart.
    """
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:LONGEST].strip(".-")
    if safe == text and safe:
        return safe
    return f"{safe or 'run'}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def described(values: Mapping[str, str]) -> str:
    """Return values as they were typed: `kernel.bandwidth=0.25 seed=1`."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def sweep() -> str | None:
    """Return the name of the folder of the sweep that this run is a job of, or None."""
    return Path(HydraConfig.get().sweep.dir).name if _in_sweep() else None


def numbered(name: str) -> str:
    """Return a run's name, in a sweep with the number of the job before it."""
    return f"{HydraConfig.get().job.num}_{name}" if _in_sweep() else name


def job() -> str | None:
    """Return the name of the program, such as `train`; None where Hydra has not started one."""
    return HydraConfig.get().job.name if HydraConfig.initialized() else None


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
