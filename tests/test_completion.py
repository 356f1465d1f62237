"""TAB in a shell: bash completes the console script as it is installed, whatever else stands on the line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paka.completion import readable

DRIVER = """
eval "$(paka-train -sc install=bash)"
press() {
    COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=(); hydra_bash_completion; echo "${COMPREPLY[@]}"
}
complete -p paka-train
press "paka-train kern"
press "paka-train kernel="
press "paka-train 'backbone.layers=[-4,-1]' --nothing kernel=rbf kernel.bandw"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A folder with the console script, as an installer writes it."""
    script = tmp_path / "paka-train"
    script.write_text(f"#!{sys.executable}\nfrom paka.train import main\nmain()\n")
    script.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_groups_options_and_keys(script: Path) -> None:
    environment = {**os.environ, "PATH": f"{script}:{os.environ['PATH']}"}
    told = subprocess.run(
        ["bash", "-c", DRIVER], check=False, env=environment, text=True, capture_output=True
    )
    rule, group, options, keys = told.stdout.splitlines()
    assert told.stderr == ""
    assert rule.endswith("-F hydra_bash_completion paka-train")
    assert group == "kernel. kernel="
    assert {"kernel=linear", "kernel=rbf", "kernel=rbf_mixture"} <= {*options.split()}
    assert keys == "kernel.bandwidth= kernel.bandwidth_rule="


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("kern", "kern"),
        ("", ""),
        ("kernel=rbf ", "kernel=rbf "),
        ("'backbone.layers=[-4,-1]' kern", "backbone.layers=[-4,-1] kern"),
        ("-m kernel=rbf,linear se", "-m kernel=rbf,linear se"),
        ("nonsense --flag kernel=", "kernel="),
        ('data.root="my im', "im"),
        ("'run_name=a b' ker", "ker"),
        ("'compare=[a", "'compare=[a"),
    ],
)
def test_what_hydra_cannot_read_is_left_out(line: str, left: str) -> None:
    assert readable(line).strip() == left.strip()
