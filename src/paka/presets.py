"""Options of the configuration as objects, by name and without a program: for notebooks and scripts of one's own."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.errors import InstantiationException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from paka.config import CONF_DIR, build

OBJECTS: Mapping[str, str] = {
    "augmentation": "augmentation",
    "backbone": "backbone.encoder",
    "data": "data.source",
    "kernel": "kernel",
    "objective": "objective.loss",
    "profile": "profile",
    "tuning": "tuning",
}
"""Groups whose options are objects, and where in the configuration."""


def preset(group: str, option: str, **changes: Any) -> Any:
    """Return what an option of a group of the configuration stands for, such as `conf/profile/compact.yaml`.

        >>> preset("profile", "compact", memory=1000).memory
        1000
        >>> preset("augmentation", "paka", global_size=128, local_size=56).locals
        4

    Args:
        group: One of these: `augmentation` gives a `MultiCrop`, `backbone` an `Encoder` with its weights, `kernel` a
            function of tokens, `objective` a module, `profile` a `Profile`, `tuning` a `Tuning`, and `data` a function
            that opens a split, as in `preset("data", "scenes")(split="test")`.
        option: Name of a file in `conf/GROUP`.
        **changes: Arguments that differ from the file, or that it leaves open, as the sizes of views, the `root` of data or the
            `weights` of a backbone.

    Raises:
        ValueError: There is no such group, option or argument; or its value is refused.
        FileNotFoundError: Weights or images are not there.
    """
    if group not in OBJECTS:
        raise ValueError(f"expected one of the groups {', '.join(OBJECTS)}, got {group!r}")
    cfg: Any = copy.deepcopy(_composed(group, option))
    owner, node = cfg, cfg[group]
    for name in OBJECTS[group].split(".")[1:]:
        owner, node = node, node[name]
    for name in _referred(node) & changes.keys():
        owner[name] = changes.pop(name)
    try:
        return build(node, **changes)
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        raise ValueError(
            f"{group}={option}: expected more arguments, got {', '.join(changes) or 'none'}: {error.msg}"
        ) from error
    except InstantiationException as error:
        if not isinstance(error.__cause__, TypeError):
            raise
        raise ValueError(f"{group}={option}: {error.__cause__}") from error


def _referred(node: DictConfig) -> set[str]:
    """Return the keys beside an object that its own keys refer to, as `root` of data."""
    plain = OmegaConf.to_container(node, resolve=False)
    values = plain.values() if isinstance(plain, dict) else ()
    return {name for value in values for name in re.findall(r"\$\{\.\.(\w+)\}", str(value))}


def protocols(*options: str) -> dict[str, Any]:
    """Return evaluation protocols by name, as `paka.protocols.Entry`, of options of `conf/eval` such as `in_context`.

    Raises:
        ValueError: There is no such option.
    """
    return {
        name: build(node)
        for option in options
        for name, node in _composed("eval", option).eval.protocols.items()
    }


@cache
def _composed(group: str, option: str) -> DictConfig:
    """Return the training configuration with one option chosen; nothing of it is resolved yet."""
    known = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    if option not in known:
        raise ValueError(f"expected an option of {group}, one of {', '.join(known)}, got {option!r}")
    name = JobRuntime.instance().get("name")  # stays that of the job
    with _set_aside(), initialize_config_dir(str(CONF_DIR), job_name=name, version_base="1.3"):
        return compose("train", overrides=[f"{group}={option}"])


@contextmanager
def _set_aside() -> Iterator[None]:
    """Leave room for a Hydra of our own: a process has but one, and a script or notebook may be in it already."""
    theirs, version = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, VersionBase.instance().version_base = theirs, version
