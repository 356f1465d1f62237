"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of this process's control group."""


def available_cores() -> int:
    """Return the cores that this process may use, at least 1.

    The fewest of what SLURM gave to the task, what the process is bound to, and what its container may use.
    """
    slurm = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [bound, *filter(None, [slurm, _container_cores()])]
    return max(1, min(limits))


def loader_workers(workers: int | str, *, processes: int = 1) -> int:
    """Return the number of loader processes of one training process.

    Args:
        workers: The number itself, or `auto`: a core each, up to 8, after one is left to the trainer.
        processes: Training processes that share this machine's cores; SLURM counts them apart.
    """
    if workers != "auto":
        return int(workers)
    shared = 1 if "SLURM_CPUS_PER_TASK" in os.environ else processes
    return max(1, min(available_cores() // shared - 1, 8))


def _container_cores() -> int | None:
    """Return the cores that the control group's quota amounts to, rounded down; None without a quota."""
    quota, period = _quota()
    return None if quota <= 0 or period <= 0 else max(1, quota // period)


def _quota() -> tuple[int, int]:
    """Return microseconds of processor time per period and the period, of version 2 or 1; (0, 0) without."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            fields = [field for name in names for field in (CGROUP / name).read_text().split()]
            return int(fields[0]), int(fields[1])
        except (OSError, ValueError):  # other version, or `max`: no limit
            continue
    return 0, 0
