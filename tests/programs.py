"""Documented command lines as their users start them, without seconds of imports for each.

`run("-m", "paka.train", "experiment=demo", cwd=folder)` is `python -m paka.train experiment=demo` in that folder, and
returns what `subprocess.run` does. `start` returns at once, with a process that can be polled, sent signals and
waited for like a `subprocess.Popen`.

Importing torch, timm and lightning takes 5 s of a processor. So each test process has one server, a process that
imports them once and does nothing else; every command is a fork of it. It has the working folder, environment, streams,
session, signal handlers and random state of a new process, and ends as the interpreter ends: exit code, last words,
handlers of `atexit`. What a fork cannot show has to be tested by a true process, which `own=True` asks for: what is
imported or printed while a program starts, how long that takes, and launchers such as torchrun. It is a true process,
too, where the environment differs in what libraries read while they are imported, such as HF_HOME.
"""

from __future__ import annotations

import array
import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

LATE = {
    *("PAKA_CACHE", "PAKA_TRACEBACK", "HYDRA_FULL_ERROR", "WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"),
    *("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES", "TERM"),
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_CPUS_PER_TASK"),
    *("PYTHONPATH", "PYTHONIOENCODING"),  # the fork does with them what the interpreter does
}
"""Variables that are read when they are needed; any other may be read while libraries are imported."""
UNSET = ("PAKA_TRACEBACK", "RANK", "LOCAL_RANK", "SLURM_PROCID", "PYTEST_CURRENT_TEST")
"""Variables of whoever started the tests that would change what programs do."""
ROOT = Path(__file__).parents[1]
SERVER = Path(__file__).with_name("program_server.py")
TIMEOUT = 240.0


class Forked:
    """A command in a fork of the server; what it has in common with `subprocess.Popen` means the same."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> None:
        self.args = [sys.executable, *arguments]
        self.returncode: int | None = None
        self._output: tuple[str, str] | None = None
        self._streams = [
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed when read
            for _ in range(2)
        ]
        self._report, written = os.pipe()
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        socket.send_fds(_server(), [request], [written, *(stream.fileno() for stream in self._streams)])
        os.close(written)
        self.pid = self._number()

    def _number(self) -> int:
        return array.array("i", os.read(self._report, 4))[0]

    def _wait(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            self.returncode = self._number()
            os.close(self._report)
        return self.returncode

    def _said(self) -> tuple[str, str]:
        if self._output is None:
            for stream in self._streams:
                stream.seek(0)
            self._output = self._streams[0].read(), self._streams[1].read()
            for stream in self._streams:
                stream.close()
        return self._output

    def poll(self) -> int | None:
        return self._wait(0)

    def communicate(self, timeout: float = TIMEOUT) -> tuple[str, str]:
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._said()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Forked | subprocess.Popen[str]


def run(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    own: bool = False,
    timeout: float = TIMEOUT,
) -> subprocess.CompletedProcess[str]:
    """Run `python` with arguments and return its exit code and what it wrote.

    Args:
        *arguments: As on the command line: `-m` and a module, or `-c` and code, and then their own arguments.
        cwd: Working folder.
        env: Variables beside those of the tests.
        own: Whether it has to be a true process.
        timeout: Seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: It was killed.
    """
    process = start(*arguments, cwd=cwd, env=env, own=own)
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, own: bool = False) -> Process:
    """Start `python` with arguments, as the leader of a session; see `run`."""
    environment, base = _environment() | dict(env or {}), _environment_of_server()
    early = {name for name in environment | base if environment.get(name) != base.get(name)} - LATE
    if sys.platform.startswith("linux") and arguments[0] in ("-m", "-c") and not own and not early:
        return Forked(arguments, cwd, environment)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def run_ranks(work: Callable[[int, Path], None], folder: Path, count: int) -> None:
    """Run `work(rank, folder)`, a function of a test's module, in as many processes side by side."""
    code = f"import sys, pathlib; from {work.__module__} import {work.__name__} as work; work(int(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    processes = [start("-c", code, str(rank), str(folder), cwd=ROOT) for rank in range(count)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in UNSET}


_environment_of_server = functools.cache(_environment)


@functools.cache
def _server() -> socket.socket:
    """Start this process's server and return the socket that takes commands; the server ends with it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        process = subprocess.Popen(
            [sys.executable, SERVER, str(far.fileno())],
            env=_environment_of_server(),
            stdin=subprocess.DEVNULL,
            pass_fds=[far.fileno()],
            start_new_session=True,  # Ctrl-C is for the tests, which end it
        )
    atexit.register(process.wait)
    atexit.register(near.close)
    return near
