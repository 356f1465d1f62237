"""Room for what is large: in memory where it fits, else in files that end with what they hold, else an error."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from paka import workspace
from paka.workspace import Workspace, free_memory, memory_named, size


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "free_memory", lambda: 1000)


def mapped(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(folder))


def test_what_fits_stays_in_memory(tmp_path: Path) -> None:
    found = Workspace(dtype=torch.float16, folder=tmp_path).empty(3, 4)
    assert (found.shape, found.dtype) == ((3, 4), torch.float16)
    assert not mapped(tmp_path)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_what_does_not_fit_goes_to_a_file_that_ends_with_it(tmp_path: Path, dtype: torch.dtype) -> None:
    found = Workspace(folder=tmp_path / "large").empty(100, 200, dtype=dtype)
    found[:] = 7
    assert (found.dtype, int(found.long().sum())) == (dtype, 7 * 100 * 200)
    assert mapped(tmp_path)
    assert not [*(tmp_path / "large").iterdir()], "the file has no name that could be left behind"
    del found
    gc.collect()
    assert not mapped(tmp_path)


@pytest.mark.usefixtures("crowded")
def test_without_a_folder_the_message_says_which_knobs_there_are() -> None:
    with pytest.raises(
        MemoryError, match=r"room for a memory, 80 kB, got 1 kB of free memory: set cache .* store"
    ):
        Workspace().empty(100, 200, what="a memory")


@pytest.mark.usefixtures("crowded")
def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 500})())
    with pytest.raises(
        MemoryError, match=r"room for tokens in .*, 80 kB, got 500 bytes of free disk: set cache"
    ):
        Workspace(folder=tmp_path).empty(100, 200, what="tokens")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "CGROUP", tmp_path)
    monkeypatch.setattr(workspace, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    4000 kB\n")
    assert free_memory() == 4_096_000
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == 4_096_000


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 bytes"), (15_700_000_000, "15.7 GB"), (2_100, "2.1 kB")]
)
def test_sizes_are_said(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        ),
    ],
    ids=["GPU", "CPU"],
)
def test_memory_that_runs_out_is_told_with_what_takes_less(error: RuntimeError) -> None:
    knobs = r"room for knn, but .* device=cpu, .* store=float16, .* profile\.memory"
    with pytest.raises(MemoryError, match=knobs), memory_named("knn"):
        raise error
    with pytest.raises(RuntimeError, match="something else"), memory_named("knn"):
        raise RuntimeError("something else")
