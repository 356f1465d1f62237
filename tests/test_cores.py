"""Cores: the tightest of all limits, and what is left of them for loader processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paka import cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 16 cores without limits; returns where its control group is."""
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    return tmp_path


def test_without_limits_all_cores_are_there(machine: Path) -> None:
    assert cores.available_cores() == 16
    (machine / "cpu.max").write_text("max 100000\n")
    assert cores.available_cores() == 16


def test_the_tightest_limit_holds(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert cores.available_cores() == 6
    (machine / "cpu.max").write_text("450000 100000\n")
    assert cores.available_cores() == 4


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 16), ("50000", 1)])
def test_version_1_control_groups(machine: Path, quota: str, expected: int) -> None:
    (machine / "cpu").mkdir()
    (machine / "cpu/cpu.cfs_quota_us").write_text(quota)
    (machine / "cpu/cpu.cfs_period_us").write_text("100000")
    assert cores.available_cores() == expected


@pytest.mark.parametrize(
    ("asked", "processes", "expected"),
    [("auto", 1, 8), ("auto", 4, 3), ("auto", 16, 1), (0, 1, 0), (12, 4, 12)],
)
def test_loader_processes(machine: Path, asked: int | str, processes: int, expected: int) -> None:
    assert cores.loader_workers(asked, processes=processes) == expected


def test_slurm_counts_cores_per_process(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    assert cores.loader_workers("auto", processes=4) == 4
