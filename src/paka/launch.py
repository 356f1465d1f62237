"""What launchers tell each process of a run: its number, how many there are, and SLURM's job."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Variables that hold a process's number, in the order in which they count: in a script of SLURM the last is 0 for all that it starts."""


def rank() -> int:
    """Return the number that a launcher gave to this process, 0 without one."""
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def world_size() -> int:
    """Return how many processes torchrun or `srun` has started for this run, 1 without them."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_NTASKS", "1")) if slurm_job() else 1


def is_launched() -> bool:
    """Return whether somebody else starts this run's processes, so that Lightning does not."""
    return "RANK" in os.environ or "LOCAL_RANK" in os.environ or world_size() > 1


def starter() -> list[str]:
    """Return the words that start a module of this package as this process was started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m"]
    return ["python", "-m"]


def slurm_job() -> str:
    """Return the job of SLURM that this process belongs to, as `scontrol` calls it; empty outside and in an interactive one."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
