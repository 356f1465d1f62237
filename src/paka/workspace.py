"""Where protocols compute, and where they keep what is large."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LEFT = 0.5
"""Share of the free memory that one array may take before it goes to a file."""

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows free memory, and the limits of this process's control group."""


@dataclass(frozen=True)
class Workspace:
    """A device to compute on, and room for what is large.

    Attributes:
        device: Where protocols compute.
        dtype: What tokens and keys are kept as in bulk: float32, or float16 for half the room at 3 decimal digits.
        folder: Where files go that hold what does not fit into memory; None keeps everything in memory.
        batch: Images that are encoded at a time.
        bfloat16: Whether neighbours are searched in bfloat16 first, see `paka.search.nearest`.
        shared: Whether all processes of a group do the same work, and share what each of them can do a part of.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    folder: Path | None = None
    batch: int = 32
    shared: bool = False
    bfloat16: bool = False

    def empty(self, *shape: int, dtype: torch.dtype | None = None, what: str = "an array") -> Tensor:
        """Return an uninitialised CPU tensor, in memory if it fits, else mapped from a file that ends with it.

        Args:
            *shape: Its shape.
            dtype: Its type; None for the workspace's.
            what: What it is to hold, in the words of messages.

        Raises:
            MemoryError: It fits neither into memory nor onto the disk, or there is no folder for files.
        """
        dtype = dtype or self.dtype
        needed = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
        if needed <= LEFT * free_memory():
            return torch.empty(*shape, dtype=dtype)
        if self.folder is None:
            raise MemoryError(
                f"expected room for {what}, {size(needed)}, got {size(free_memory())} of free memory: {KNOBS}"
            )
        check_disk(self.folder, needed, what)
        kind = str(dtype).removeprefix("torch.")
        # The file has no name any more: its room is given back with the last tensor that is mapped from it, or when
        # this process ends in whatever way.
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return torch.from_numpy(np.memmap(file, dtype=kind, mode="w+", shape=shape))

    def near(self, values: Tensor) -> Tensor:
        """Return values on the device, if it has ample room for them, else where they are."""
        if self.device.type != "cuda":
            return values
        free, _ = torch.cuda.mem_get_info(self.device)
        return values.to(self.device) if values.nbytes <= LEFT * free else values


KNOBS = "set cache to a folder of a larger disk, store=float16, or a smaller profile.memory, profile.train_images or profile.grid"
"""What takes less room, as messages say it."""


@contextmanager
def memory_named(what: str, knobs: str = f"set device=cpu, {KNOBS}") -> Iterator[None]:
    """Say what took the memory that a device has not got, and which settings take less.

    Args:
        what: What room is needed for, in the words of the message.
        knobs: The settings.

    Raises:
        MemoryError: PyTorch has run out of memory.
    """
    try:
        yield
    except RuntimeError as error:  # on a GPU a subclass of it, and on the CPU no more than its text
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise MemoryError(f"expected room for {what}, but memory has run out: {knobs}") from error


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Make a folder, and raise unless its disk has room.

    Raises:
        MemoryError: It has not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MemoryError(
            f"expected room for {what} in {folder}, {size(needed)}, got {size(free)} of free disk: {KNOBS}"
        )


def free_memory() -> int:
    """Return the bytes of memory that this process may still take."""
    return min([_system(), *_group()])


def _system() -> int:
    for line in MEMINFO.read_text().splitlines() if MEMINFO.exists() else ():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 2**62


def _group() -> list[int]:
    """Return what the control group's limit leaves; nothing without a limit."""
    try:
        limit, used = (CGROUP / "memory.max").read_text(), (CGROUP / "memory.current").read_text()
    except OSError:
        return []
    return [] if limit.strip() == "max" else [max(int(limit) - int(used), 0)]


def size(count: float) -> str:
    """Return a number of bytes as one says it, such as `1.5 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
