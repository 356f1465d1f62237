"""What a program answers about itself, without running: `--help`, `--help GROUP`, `--version`, `--info`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from string import Template

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from paka.command_line import check
from paka.option_files import GROUPS, Setting, settings, summary
from paka.provenance import git_revision, provenance
from paka.rules import listed
from paka.sources.cache import default_cache

GROUPED = 40
"""More options than this are shown as families, with the number of each."""
WIDTH = 110
"""Most characters of a line."""
KEY_WIDTH = 36
"""Most characters of a key and its value before its comment moves to the right."""
HYDRA_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""What follows `--info` to ask for what Hydra knows."""
EXTRAS = {
    "infomap": "infomap",
    "zeroshot": "open_clip_torch",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny",
    "optuna": "hydra-optuna-sweeper",
    "slurm": "hydra-submitit-launcher",
    "onnx": "onnxruntime",
}
"""What is installed only where it is asked for, by the distribution that shows it."""


def answer(config_dir: Path, config_name: str, arguments: argparse.Namespace, typed: list[str]) -> str | None:
    """Return what answers a command line that asks about the program; None where it asks for something else.

    Args:
        config_dir: Folder of the configuration.
        config_name: Name of the primary configuration in it.
        arguments: What Hydra's own parser made of the command line.
        typed: The command line itself.

    Raises:
        SystemExit: With 2 and a sentence on stderr, if it asks for the help of what does not exist.
    """
    if arguments.info and not {*HYDRA_INFO} & {*typed}:
        return about(config_dir)
    if not arguments.help:
        return None
    topics = [word for word in arguments.overrides if "=" not in word]
    overrides = [word for word in arguments.overrides if "=" in word]
    name = arguments.config_name or config_name
    shown = argparse.Namespace(**{**vars(arguments), "overrides": overrides, "cfg": "job"})
    if problems := check(config_dir, name, shown):
        sys.stderr.write(f"{listed(problems)}\n")
        sys.exit(2)
    cfg = _composed(config_dir, name, overrides)
    known = _options(config_dir, cfg)
    if wrong := [topic for topic in topics if topic not in known]:
        sys.stderr.write(f"--help {wrong[0]}: expected one of the groups {', '.join(known)}\n")
        sys.exit(2)
    if topics:
        return "\n\n".join(_group_page(config_dir, cfg, topic, known[topic]) for topic in topics)
    return _overview(config_dir, name, cfg, known)


def version() -> str:
    """Return name and version of this package, with the commit of a checkout."""
    commit = git_revision()
    return f"paka {provenance()['packages']['paka-ssl']}" + (f" ({commit})" if commit else "")


def about(config_dir: Path) -> str:
    """Return versions, folders and extras, for a report of a problem and for finding out what is where."""
    found = provenance()
    extras = [name for name, package in EXTRAS.items() if _is_installed(package)]
    facts = {
        "paka": version().removeprefix("paka "),
        "python": f"{found['python']}, {sys.executable}",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **{name: value or "not installed" for name, value in found["packages"].items() if name != "paka-ssl"},
        "extras": ", ".join(extras) or "none",
        "package": str(Path(__file__).parent),
        "configuration": str(config_dir),
        "cache": str(default_cache()),
    }
    width = max(map(len, facts))
    lines = [f"  {name.ljust(width)}  {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", f"  --info {'|'.join(HYDRA_INFO)} shows what Hydra knows"])


def end_with_the_pipe() -> None:
    """Let what only prints end without a word when its reader does, as `head` does."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _composed(config_dir: Path, name: str, overrides: list[str]) -> DictConfig:
    hydra = Hydra.create_main_hydra2(
        task_name=name, config_search_path=create_config_search_path(str(config_dir))
    )
    try:
        return hydra.compose_config(name, overrides, RunMode.RUN, from_shell=False)
    finally:
        GlobalHydra.instance().clear()


def _options(config_dir: Path, cfg: DictConfig) -> dict[str, list[str]]:
    """Return the options of this program's groups, the groups in the order of `GROUPS`."""
    own = [group for group in cfg.hydra.runtime.choices if "/" not in group and "@" not in group]
    ordered = [*filter(own.__contains__, GROUPS), *(group for group in own if group not in GROUPS)]
    return {group: sorted(path.stem for path in (config_dir / group).glob("*.yaml")) for group in ordered}


def _overview(config_dir: Path, name: str, cfg: DictConfig, known: Mapping[str, list[str]]) -> str:
    """Return the program's help template with groups and keys filled in."""
    groups = "\n".join(line for group, options in known.items() for line in _group_lines(cfg, group, options))
    top = [
        one
        for key, one in settings(config_dir, "", name).items()
        if "." not in key and key not in known and one.value
    ]
    filled = Template(cfg.hydra.help.template).safe_substitute(
        FLAGS_HELP="", APP_CONFIG_GROUPS=groups, CONFIG="\n".join(_setting_lines(top, cfg))
    )
    return filled.strip()


def _group_lines(cfg: DictConfig, group: str, options: list[str]) -> Iterator[str]:
    """Yield the lines of a group: what it decides and what is chosen, then the options."""
    chosen = cfg.hydra.runtime.choices[group]
    yield f"  {group}={chosen or ''}".ljust(34) + GROUPS.get(group, "")
    words = options if len(options) <= GROUPED else [*_families(options), f"(--help {group} lists all)"]
    text = " ".join(words)
    yield textwrap.fill(
        text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )


def _families(options: list[str]) -> Iterator[str]:
    counts = Counter(option.partition("_")[0] for option in options)
    for family, count in counts.items():
        yield family if count == 1 else f"{family}_*({count})"


def _group_page(config_dir: Path, cfg: DictConfig, group: str, options: list[str]) -> str:
    """Return what a group decides, each option in a sentence, and the keys of the chosen one."""
    chosen = cfg.hydra.runtime.choices[group]
    width = max(map(len, options))
    lines = [f"{group}: {GROUPS.get(group, '')}", ""]
    for option in options:
        mark = "*" if option == chosen else " "
        lines += _hanging(f"{mark} {option.ljust(width)}  ", summary(config_dir / group / f"{option}.yaml"))
    found = settings(config_dir, group, str(chosen)).values()
    keys = [Setting(f"{group}.{one.key}", one.value, one.comment) for one in found if one.value]
    if keys and isinstance(
        cfg._get_node(group), DictConfig
    ):  # not of a preset, whose keys are those of other groups
        lines += ["", f"Keys of {group}={chosen}", *_setting_lines(keys, cfg)]
    return "\n".join(lines)


def _setting_lines(found: list[Setting], cfg: DictConfig) -> Iterator[str]:
    """Yield `key=value` with the comment beside it, with the values of `cfg` where they are plain."""
    shown = [(f"  {one.key}={_value(one, cfg)}", one.comment.replace(" # ", "; ")) for one in found]
    width = min(max((len(text) for text, _ in shown), default=0), KEY_WIDTH)
    for text, comment in shown:
        yield from _hanging(text.ljust(width) + "  ", comment) if comment else [text]


def _value(one: Setting, cfg: DictConfig) -> str:
    """Return the value that a key has now: of `cfg`, or as its file writes it where that refers to others."""
    if "${hydra:" in one.value:
        return ""  # of the run
    parent, _, name = one.key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig) or name not in node or OmegaConf.is_interpolation(node, name):
        return one.value
    value = node[name]
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return one.value if OmegaConf.is_config(value) else str(value)


def _hanging(start: str, text: str) -> list[str]:
    """Return `text` after `start`, wrapped below itself."""
    width = max(min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns), len(start) + 40)
    lines = textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=" " * len(start), break_long_words=False
    )
    return lines or [start.rstrip()]
