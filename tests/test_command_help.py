"""What the programs say of themselves: help by groups, versions, folders; at once, and into pipes of any length."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace

import pytest
from hydra._internal.utils import get_args_parser
from tests.configurations import GROUPS, OPTIONS

from paka import option_files
from paka.command_help import WIDTH, answer
from paka.config import CONF_DIR

PROGRAMS = sorted(path.stem for path in CONF_DIR.glob("*.yaml") if f"{path.stem}_schema" in path.read_text())


def asked(line: str, program: str = "train") -> str:
    words = line.split()
    arguments: Namespace = get_args_parser().parse_args(words)
    told = answer(CONF_DIR, program, arguments, words)
    assert told is not None
    return told


def test_each_group_has_its_line() -> None:
    assert {*option_files.GROUPS} == {*GROUPS}
    assert all(line and len(line) <= 75 for line in option_files.GROUPS.values())


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_each_option_says_what_it_is(group: str, option: str) -> None:
    assert len(option_files.summary(CONF_DIR / group / f"{option}.yaml")) >= 10


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_a_screen_and_names_everything(program: str) -> None:
    text = asked("--help", program)
    lines = text.splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith(f"paka-{program}: ")
    parts = ["Used most", *(["Groups"] if program != "export" else []), "Keys"]  # export has no groups
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    own = {line.split("=")[0].strip() for line in lines if line.startswith("  ") and "=" in line}
    keys = {key for key, one in option_files.settings(CONF_DIR, "", program).items() if "." not in key}
    assert {key for key in keys if key not in ("head", "image_head")} <= own


def test_help_of_many_options_counts_families_and_of_few_lists_them() -> None:
    text = asked("--help")
    assert "dino_*(4)" in text
    assert "vitb" in text
    assert "arc_cosine cosine laplacian linear polynomial" in text
    assert asked("--help backbone").count("ViT-B/14") >= 4


def test_help_of_a_group_explains_its_options_and_the_keys_of_the_chosen_one() -> None:
    text = asked("--help kernel kernel=rbf kernel.bandwidth=0.3")
    assert "* rbf " in text
    assert "  linear " in text
    assert "kernel.bandwidth=0.3" in text
    assert "sigma, in the unit of the rule; assumed" in text
    assert "backbone" not in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--help nonsense", "--help nonsense: expected one of the groups experiment, backbone, data"),
        ("--help kernel=nope", "kernel: expected one of arc_cosine"),
    ],
)
def test_help_of_what_is_not_there(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        asked(line)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_info_alone_names_versions_and_folders() -> None:
    text = asked("--info")
    for name in ("paka", "python", "torch", "lightning", "extras", "cache"):
        assert f"\n  {name} " in f"\n{text}"
    assert str(CONF_DIR) in text


def test_what_is_inherited_is_the_meaning_and_not_the_source() -> None:
    found = option_files.settings(CONF_DIR, "objective", "paka_deconfounded")
    assert found["loss.deconfound"].value == "true"
    assert found["loss.deconfound"].comment.startswith("regress the other images' mean kernel")
    muon = option_files.settings(CONF_DIR, "optim", "muon")
    assert "assumed" not in muon["optimizer.betas"].comment


def paka(line: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import atexit, sys; from paka.train import main; "
        "atexit.register(lambda: 'torch' in sys.modules and print('torch was imported')); main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *line.split()],
        check=False,
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize("line", ["--version", "--info", "--info plugins", "--help", "--hydra-help"])
def test_questions_are_answered_without_torch(line: str) -> None:
    told = paka(line)
    assert told.returncode == 0
    assert told.stdout
    assert "torch was imported" not in told.stdout
    assert told.stderr == ""
    assert line != "--version" or told.stdout.startswith("paka 0.")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m paka.train --info all | head -1"
    told = subprocess.run(["bash", "-c", command], check=False, text=True, capture_output=True)
    assert (told.stdout, told.stderr) == ("Hydra 1.3.8\n", "")
