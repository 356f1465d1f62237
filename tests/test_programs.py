"""A fork of the server is what a new process is."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.programs import Forked, run, start

SHOWN = """
import os, signal, sys
print(sys.argv, os.getcwd(), os.environ["PAKA_CACHE"], "TERM" in os.environ, sys.path[:2], sys.stdout.encoding)
print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(sys.stdin.read() == "", os.stat("/proc/self/task").st_nlink - 2)
"""


def test_it_is_set_up_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERM", raising=False)
    env = {"PAKA_CACHE": "x", "PYTHONPATH": "somewhere", "PYTHONIOENCODING": "latin-1"}
    forked, own = (
        run("-c", SHOWN, "a", "b=c", cwd=tmp_path, env=env, own=own).stdout.splitlines()
        for own in (False, True)
    )
    assert forked == own
    assert forked[1:] == ["True True", "True 1"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit('a sentence')",
        "import os; os._exit(4)",
        "import atexit; atexit.register(print, 'last'); print('first')",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "raise KeyboardInterrupt",
        "1 / 0",
    ],
)
def test_it_ends_alike(code: str, tmp_path: Path) -> None:
    forked, own = (run("-c", code, cwd=tmp_path, own=own) for own in (False, True))
    assert forked.returncode == own.returncode
    assert forked.stdout == own.stdout
    assert forked.stderr.splitlines()[-1:] == own.stderr.splitlines()[-1:]


def test_it_is_a_fork(tmp_path: Path) -> None:
    code = "import sys, torch; print('paka.posttraining' in sys.modules, torch.get_num_threads())"
    process = start("-c", code, cwd=tmp_path)
    assert isinstance(process, Forked)
    assert process.communicate()[0] == "True 1\n"


def test_each_draws_its_own_numbers(tmp_path: Path) -> None:
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first, second = (run("-c", code, cwd=tmp_path).stdout.split() for _ in range(2))
    assert not {*first} & {*second}


def test_modules_are_run_as_the_interpreter_runs_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys; print(__name__, sys.argv[0] == __file__, sys.argv[1:])")
    for own in (False, True):
        assert run("-m", "mine", "a", cwd=tmp_path, own=own).stdout == "__main__ True ['a']\n"


def test_signals_and_time(tmp_path: Path) -> None:
    process = start("-c", "import time; open('on', 'w'); time.sleep(60)", cwd=tmp_path)
    while not (tmp_path / "on").exists():
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == process.poll() == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def test_what_is_read_at_import_takes_a_process_of_its_own(tmp_path: Path) -> None:
    process = start("-c", "import os; print(os.environ['HF_HOME'])", cwd=tmp_path, env={"HF_HOME": "there"})
    assert isinstance(process, subprocess.Popen)
    assert process.communicate()[0] == "there\n"
