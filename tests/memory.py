"""The memory that code takes, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

MEASURED = """
from pathlib import Path

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

{before}
start = peak()
{measured}
print(peak() - start)
"""


def extra_bytes(before: str, measured: str, *arguments: str) -> int:
    """Return by how many bytes the peak of a process rises while it runs some code.

    Args:
        before: Code that runs before: imports, inputs, and a first call for what a library takes once.
        measured: Code whose memory counts.
        arguments: What `sys.argv` holds from 1 on.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of a process's memory is read from /proc, which only Linux has")
    # Not of resource.getrusage: its peak is inherited from the process that started this one.
    script = MEASURED.format(before=dedent(before), measured=dedent(measured))
    command = [sys.executable, "-c", script, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
