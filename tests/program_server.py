"""The process that imports everything once and becomes, in forks, what `tests.programs` is asked to start."""

from __future__ import annotations

import array
import atexit
import codecs
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import sys
from typing import Any

END: dict[str, int | None] = {"code": None}


@atexit.register  # before any other, and so it is called after all others
def leave() -> None:
    """End a fork when all has been said: taking torch apart would take longer than many a command."""
    if (code := END["code"]) is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


IMPORTED = ("paka.config", "paka.posttraining", "paka.evaluation", "paka.checkup")
"""What takes time; not the programs themselves, which are run as `__main__`."""


def serve(commands: socket.socket) -> list[str]:
    """Fork for every command until there can be no more; return each command's arguments, each in its fork."""
    paths = [path for path in sys.path[1:] if path not in folders()]
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or collecting in a fork would copy all memory
    while True:
        message, handles, *_ = socket.recv_fds(commands, 2**20, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            commands.close()
            command = os.fork()
            if command == 0:
                return become(json.loads(message), handles, paths)
            keep(command, handles[0])
        for handle in handles:
            os.close(handle)
        reap()


def folders() -> list[str]:
    """Return what PYTHONPATH adds to the path."""
    return [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]  # noqa: PTH100


def reap() -> None:
    """Take leave of those of the keepers that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def keep(command: int, report: int) -> None:
    """Report the number of a process, and its exit code when it has ended; this process ends with it."""
    os.write(report, array.array("i", [command]))
    _, status = os.waitpid(command, 0)
    os.write(report, array.array("i", [os.waitstatus_to_exitcode(status)]))
    os._exit(0)


def become(request: dict[str, Any], handles: list[int], paths: list[str]) -> list[str]:
    """Make this process what a new one would be, and return its arguments."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handle in enumerate(handles[1:], start=1):
        os.dup2(handle, number)
    for handle in handles:
        os.close(handle)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if encoding := os.environ.get("PYTHONIOENCODING"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=codecs.lookup(encoding).name)
    arguments: list[str] = request["arguments"]
    kind, _, *rest = arguments
    sys.path[:] = [request["cwd"] if kind == "-m" else "", *folders(), *paths]
    sys.argv[:] = [kind, *rest]
    sys.orig_argv[:] = [sys.executable, *arguments]
    import numpy as np
    import torch

    random.seed()
    np.random.seed()  # noqa: NPY002 - the state that libraries share
    torch.seed()
    return arguments


def code_of(error: BaseException) -> int | None:
    """Return the exit code that the interpreter gives to what ends a program; None where it takes a signal."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return None if isinstance(error, KeyboardInterrupt) else 1


if __name__ == "__main__":
    # At the outermost level, so that it is the interpreter that answers what a command raises.
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        kind, what, *_ = serve(channel)
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
        END["code"] = 0
    except BaseException as error:
        END["code"] = code_of(error)
        raise
