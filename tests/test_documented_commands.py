"""README and docs name what exists; every command and every block of Python in them is run, or says why not.

Commands run as they are written, with overrides appended that make them small, on miniatures of the data sets they name.
Capitals stand for what earlier commands left: `RUN` for the folder of a run, `SWEEP` for that of a sweep.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra._internal.utils import get_args_parser
from tests.configurations import OPTIONS, choosing, composed
from tests.documents import DOCUMENTS, ROOT, Block, blocks
from tests.programs import run
from tests.test_every_option import ARCH, SCENES, SMALL

import paka
from paka.command_line import check
from paka.config import CONF_DIR, build

NOT_RUN = {
    r"^make |^pip install|^\. \.venv": "sets up an environment; continuous integration does it",
    r"^torchrun": "starts processes of its own; tests/test_training.py and tests/test_shared_evaluation.py do it",
    r"^srun|sweep=\[bandwidth,submitit_slurm\]": "needs a SLURM cluster",
    r"sweep=\[bandwidth,submitit_local\]": "starts processes of its own, each with seconds of imports",
    r"backbone\.weights=FILE": "needs DINOv3's weights, whose licence has to be accepted",
    r"to=dinov2_hub": "needs a run of DINOv2's architecture; the tests of the formats have one",
    r"-sc install=|^mkdir|^autoload": "set up a shell; tests/test_completion.py does it",
    r"^python experiments/": "needs an account",
    r"vit_base_patch14_reg4_dinov2": "needs a run of a ViT-B; tests/test_presets.py does it with every backbone",
}
"""Commands and blocks that are not run, by what they match, with the reason."""

EVALUATED = [one for one in SMALL if one.startswith(("backbone.", "profile."))]
SWEPT = {
    "sweep=bandwidth": ["kernel.bandwidth=0.5,1", "seed=0"],
    "sweep=kernel": ["kernel=linear,rbf", "seed=0"],
    "sweep=augmentation": ["augmentation=paka,neco", "seed=0"],
    "sweep=containment": ["augmentation.containment=0.5,0.9"],
    "sweep=optuna": ["hydra.sweeper.n_trials=2", "eval.every=1", "eval.subset=2"],
}
"""How sweeps are shortened."""

BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
COMMANDS = [(block.document, command) for block in BLOCKS for command in block.commands]
OURS = [
    command
    for _, command in COMMANDS
    if re.search(r"^[^\"]*paka[.-](train|evaluate|doctor|export)\b", command)
]
PYTHON = [block for block in BLOCKS if block.language == "python" and block.file is None]


def reason(text: str) -> str | None:
    """Return why a command or a block is not run; None if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, text, re.MULTILINE)), None)


class Typed(NamedTuple):
    """A command: the program, and what is typed after it."""

    program: str
    words: list[str]


def parsed(command: str) -> Typed:
    """Return a command of ours in parts, whether it is a module or a console script."""
    words = shlex.split(command)
    place = next(n for n, word in enumerate(words) if re.match(r"paka[.-]", word))
    return Typed(re.split(r"[.-]", words[place])[1], words[place + 1 :])


@pytest.mark.parametrize("command", [*dict.fromkeys(OURS)])
def test_commands_are_accepted(command: str) -> None:
    program, words = parsed(command)
    arguments, unknown = get_args_parser().parse_known_args(words)
    assert unknown == []
    if arguments.config_dir or arguments.help or arguments.info or arguments.shell_completion:
        return  # files of the example's own are written where it is run
    assert check(CONF_DIR, program, arguments) == []


def test_every_command_is_run_or_says_why_not() -> None:
    known = r"^(python -m paka\.|paka-)(train|evaluate|doctor|export|report)\b"
    unknown = [command for _, command in COMMANDS if not re.match(known, command) and reason(command) is None]
    assert unknown == []
    assert len(COMMANDS) > 50, "the documents are found, and read"
    idle = [
        pattern
        for pattern in NOT_RUN
        if not any(re.search(pattern, text, re.MULTILINE) for text in [*(c for _, c in COMMANDS), *(b.text for b in PYTHON)])
    ]  # fmt: skip
    assert {*idle} <= {r"^python experiments/"}


@pytest.mark.parametrize("group", ["kernel", "objective", "augmentation", "tuning"])
def test_options_are_those_of_the_group(group: str) -> None:
    text = (ROOT / "docs/reference/parts.md").read_text()
    (listed,) = re.findall(rf"`{group}=`\[`([a-z_ ]+)`\]\(../../conf/{group}\)", text)
    own = {option for name, option in OPTIONS if name == group}
    elsewhere = {
        "objective": {"paka", "paka_deconfounded", "paka_batch", "paka_gram", "paka_image_level"}
        | {"image_tags", "masked_features"},
        "augmentation": {"image_level", "masked"},
    }
    assert {*listed.split()} == own - elsewhere.get(group, set())


@pytest.mark.parametrize("group", ["eval", "profile"])
def test_evaluations_are_all_named(group: str) -> None:
    named = {*re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs/reference/protocols.md").read_text())}
    own = {option for name, option in OPTIONS if name == group}
    assert own - {"none"} <= named


def test_encoders_are_counted_right() -> None:
    named = {option for group, option in OPTIONS if group == "backbone"} - {"timm"}
    assert f"- {len(named)} encoders by name" in (ROOT / "CHANGELOG.md").read_text()


def test_whatever_python_is_promised_is_in_the_reference() -> None:
    pages = (ROOT / "docs/reference/modules").glob("*.md")
    listed = {line for page in pages for line in page.read_text().splitlines()}
    homes = {*paka._HOME.values()}
    assert {home for home in homes if not {home, f"{home.rpartition('.')[0]}.*"} & listed} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)[^)]*\)", text)
    missing = [link for link in links if not (path.parent / link).exists()]
    assert missing == []


class World:
    """Where documented commands are run: data sets that are miniatures, a run, a sweep.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"PAKA_CACHE": str(root / "cache"), "WANDB_MODE": "offline"}
        self.run_folder, self.sweep_folder = root / "run", root / "sweep"

    def data(self, name: str) -> Path:
        """Return the folder of a miniature."""
        folder = self.root / "trees" / name
        if not folder.exists():
            build(composed(*choosing("data", name)).data.miniature)(folder, images=20)
        return folder

    def need(self, text: str) -> None:
        """Run what has to be there before a text that names it."""
        if "RUN" in text and not self.run_folder.exists():
            self.execute("python -m paka.train", self.root, f"hydra.run.dir={self.run_folder}")
        if "SWEEP" in text and not self.sweep_folder.exists():
            self.execute("python -m paka.train sweep=bandwidth", self.root, f"sweep_dir={self.sweep_folder}")
        photos = self.root / "photos"
        if "photos" in text and "miniature" not in text and not photos.exists():
            photos.symlink_to(self.data("folder"))

    def filled(self, words: list[str]) -> list[str]:
        """Return what is typed with real values for capitals."""
        chosen = dict(word.split("=", 1) for word in words if "=" in word)
        filled = []
        for word in words:
            group, is_root, _ = word.partition(".root=PATH")
            named = f"{group}.root={self.data(chosen[group])}" if is_root else word
            named = "miniature=DIR" if word.startswith("miniature=") else named
            named = named.replace("RUN", str(self.run_folder)).replace("SWEEP", str(self.sweep_folder))
            filled.append(named.replace("DIR", str(self.root / f"new-{len([*self.root.iterdir()])}")))
        return filled

    def execute(self, command: str, cwd: Path, *more: str) -> str:
        """Run a command and return what it prints."""
        self.need(command)
        program, words = parsed(command)
        words = self.filled(words)
        if program in ("train", "evaluate") and not {"--help", "--info", "--cfg"} & {*words}:
            words += [*small(program, words), *more]
        words += ["overwrite=true"] if program == "export" else []  # of what another command has written
        # W&B has a folder for its files from its import on, which forks would share and the first to end removes.
        own = "wandb" in command or "resume=last" in command
        done = run("-m", f"paka.{program}", *words, cwd=cwd, env=self.env, own=own)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def small(program: str, words: list[str]) -> list[str]:
    """Return overrides by which a command takes seconds."""
    chosen = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    patch = "patch_size: 8, " if chosen.get("backbone", "tiny") == "tiny" else ""
    arch = ARCH.replace("depth: 3", "depth: 4")  # of which the documents join the last four
    more = [f"backbone.encoder.arch={{{patch}{arch[1:]}"]
    more += [*SMALL, "trainer.max_steps=2"] if program == "train" else EVALUATED
    groups = {"data": "scenes", "benchmark": "same"} if program == "train" else {"benchmark": "scenes"}
    for group, usual in groups.items():
        if chosen.get(group, usual) == "scenes":
            more += [f"{group}.source.{key}={value}" for key, value in SCENES.items()]
    if "eval" in chosen and "few" in chosen["eval"]:
        more += ["profile.train_images=null"]
    if "resume" in chosen:
        more += ["trainer.max_steps=3"]  # the run to go on with is finished
    for preset, shortened in SWEPT.items():
        more += shortened if preset in words else []
    return [
        one
        for one in more
        if not (one.startswith("eval.every") and "sweep=optuna" in words and "null" in one)
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def write_files(document: str, folder: Path) -> None:
    """Write the files that a document shows."""
    for block in BLOCKS:
        if block.document == document and (name := block.file):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(block.text + "\n")


RUNNABLE = [(document, command) for document, command in COMMANDS if reason(command) is None]
QUICK = {"docs/howto/kernel.md", "docs/howto/objective.md", "docs/howto/shell.md"}
"""Documents whose commands are run each time; those of the others take minutes together, and are run by `make test-slow`."""


@pytest.mark.parametrize(
    ("document", "command"),
    [
        pytest.param(document, command, marks=[] if document in QUICK else pytest.mark.slow)
        for document, command in dict.fromkeys(RUNNABLE)
    ],
)
def test_commands_run(document: str, command: str, world: World) -> None:
    write_files(document, world.root)
    assert world.execute(command, world.root)


@pytest.mark.parametrize(
    "block", [block for block in PYTHON if reason(block.text) is None], ids=lambda block: block.document
)
def test_python_runs(block: Block, world: World) -> None:
    world.need(block.text)
    code = block.text.replace("RUN", str(world.run_folder))
    done = run("-c", code, cwd=world.root, env=world.env)
    assert done.returncode == 0, done.stderr[-4000:]
