"""The README names what exists, and its commands are accepted."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra._internal.utils import get_args_parser
from tests.configurations import OPTIONS

from paka.command_line import check
from paka.config import CONF_DIR

README = (CONF_DIR.parent / "README.md").read_text()
COMMANDS = [
    line.partition(" #")[0].strip()
    for line in README.splitlines()
    if re.match(r"    (python|torchrun) .*-m paka\.", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command: str) -> None:
    program, _, rest = command.partition("-m paka.")[2].partition(" ")
    arguments = get_args_parser().parse_args(shlex.split(rest))
    if arguments.config_dir is None:  # the example's own kernel has a test of its own
        assert check(CONF_DIR, program, arguments) == []


@pytest.mark.parametrize("group", ["kernel", "objective", "augmentation", "tuning"])
def test_options_are_those_of_the_group(group: str) -> None:
    (listed,) = re.findall(rf"`{group}=`\[`([a-z_ ]+)`\]\(conf/{group}\)", README)
    own = {option for name, option in OPTIONS if name == group}
    elsewhere = {
        "objective": {"paka", "paka_deconfounded", "paka_batch", "paka_gram", "paka_image_level"}
        | {"image_tags", "masked_features"},
        "augmentation": {"image_level", "masked"},
    }
    assert {*listed.split()} == own - elsewhere.get(group, set())


@pytest.mark.parametrize("group", ["eval", "profile"])
def test_evaluations_are_all_named(group: str) -> None:
    start = README.index("### Score only")
    named = {*re.findall(r"`([a-z0-9_]+)`", README[start : README.index("### Your own kernel")])}
    own = {option for name, option in OPTIONS if name == group}
    assert own - {"none"} <= named
