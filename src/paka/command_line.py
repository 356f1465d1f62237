"""Reading the command line: every mistake in it becomes a sentence, before anything heavy is imported."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import AnyNode, DictConfig, ListConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from paka.relations import get
from paka.rules import RULED, keys, shown, validate
from paka.sweep_rules import missing_plugin, sweep_problems

USER_ERRORS = (ValueError, FileNotFoundError, LookupError, MemoryError)
"""What this package raises when its input is at fault; a subclass such as KeyError is a bug."""

LISTED = 24
"""Options of a group that a message still lists."""

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str, int, float, bool),
}


def check(config_dir: Path, config_name: str, arguments: argparse.Namespace) -> list[str]:
    """Return every problem with a command line, one sentence each.

    Each value of a sweep is tried with the first value of the others.

    Args:
        config_dir: Folder of the configuration.
        config_name: Name of the primary configuration in it.
        arguments: What Hydra's own parser made of the command line.
    """
    search_path = create_config_search_path(str(config_dir))
    if arguments.config_dir:
        folder = Path(arguments.config_dir).absolute()
        if not folder.is_dir():
            return [f"--config-dir: expected a folder, found none at {folder}"]
        # Hydra's own place for it: before the schemas, which have to come last.
        search_path.prepend("command-line", folder.as_uri(), anchor=SearchPathQuery(provider="schema"))
    hydra = Hydra.create_main_hydra2(task_name=config_name, config_search_path=search_path)
    try:
        checker = Checker(hydra, config_name, is_run=not arguments.cfg)
        return checker.check(arguments.overrides, multirun=arguments.multirun)
    except OverrideParseException as error:
        return [
            f"{error.override}: expected NAME=VALUE, with quotes around a value that has =,[]{{}}() in it"
        ]
    except MissingConfigException as error:
        return [missing_plugin(str(error.missing_cfg_file)) or _first_line(error)]
    except (HydraException, OmegaConfBaseException) as error:
        return [_first_line(error)]
    finally:
        GlobalHydra.instance().clear()


def _first_line(error: BaseException) -> str:
    """Return what an error of Hydra's says, without its advice to append unknown keys with `+`."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    first, *rest = str(cause).strip().splitlines()
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first


class Checker:
    """Checks overrides of one primary configuration.

    Args:
        hydra: Hydra, initialised with the folders of the configuration.
        config_name: Name of the primary configuration.
        is_run: False when the configuration is only to be printed, so that its values may be anything.
    """

    def __init__(self, hydra: Hydra, config_name: str, *, is_run: bool) -> None:
        self.hydra, self.config_name, self.is_run = hydra, config_name, is_run
        self.compose = functools.cache(self._compose)
        self.options = functools.cache(self._options)

    def check(self, texts: list[str], *, multirun: bool) -> list[str]:
        """Return the problems with overrides as they were typed."""
        overrides = self._parse(texts)
        if problems := [problem for one in overrides for problem in self._group_problems(one)]:
            return problems
        plan = self.compose(*self._groups(self._first(overrides)))
        multirun = multirun or plan.hydra.mode == RunMode.MULTIRUN
        overrides += self._parse(_sweep_of(plan, overrides))
        swept = [one for one in overrides if one.is_sweep_override()]
        if swept and not multirun:
            return [_ambiguous(one) for one in swept]
        if not multirun and any(one.key_or_group == "sweep_dir" for one in overrides) and self.is_run:
            return ["sweep_dir: expected a sweep to keep there, got one run; add --multirun or sweep=..."]
        runs = self._runs(overrides, swept)
        return [problem for run in runs for problem in self._problems(run, multirun=multirun)]

    def _parse(self, texts: list[str]) -> list[Override]:
        return OverridesParser.create(config_loader=self.hydra.config_loader).parse_overrides(texts)

    def _compose(self, *overrides: str) -> DictConfig:
        return self.hydra.compose_config(
            config_name=self.config_name, overrides=[*overrides], run_mode=RunMode.RUN, from_shell=False
        )

    def _options(self, group: str) -> list[str]:
        """Return the options of a group; none if this program has no such group."""
        options = self.hydra.config_loader.get_group_options(group)
        return options if options and group in self.compose().hydra.runtime.choices else []

    def _file(self, group: str, option: str) -> DictConfig:
        """Return what the file of an option holds by itself."""
        loader = cast(ConfigLoaderImpl, self.hydra.config_loader)
        loaded = loader.repository.load_config(f"{group}/{option}")
        return cast(DictConfig, loaded.config) if loaded else OmegaConf.create()

    def _first(self, overrides: list[Override]) -> list[Override]:
        """Return one run's overrides: sweeps at their first value, intervals at their default."""
        enumerable = [one for one in overrides if not one.is_interval_sweep()]
        return self._parse([next(_values(one)) for one in enumerable])

    def _runs(self, overrides: list[Override], swept: list[Override]) -> Iterator[list[Override]]:
        """Yield overrides of single runs in which every value of every sweep occurs."""
        yield self._first(overrides)
        for sweep in swept:
            rest = [one for one in overrides if one is not sweep]
            for value in [] if sweep.is_interval_sweep() else [*_values(sweep)][1:]:
                yield self._first([*rest, *self._parse([value])])

    def _is_value(self, override: Override) -> bool:
        """Return whether an override sets a value rather than choosing an option or configuring Hydra."""
        return not override.is_hydra_override() and not self.options(override.key_or_group)

    def _groups(self, overrides: Iterable[Override]) -> list[str]:
        return [str(one.input_line) for one in overrides if not self._is_value(one)]

    def _group_problems(self, override: Override) -> Iterator[str]:
        group = override.key_or_group
        if override.is_delete():
            yield f"{group}: cannot be removed; expected {group}=VALUE"
        elif not self._is_value(override) and not override.is_hydra_override():
            if override.is_add() or override.is_force_add():
                yield f"{group}: expected {_without_plus(override)}, without a plus"
            yield from self._option_problems(override)

    def _option_problems(self, override: Override) -> Iterator[str]:
        group, options = override.key_or_group, self.options(override.key_or_group)
        listed = ", ".join(options) if len(options) <= LISTED else f"the {len(options)} that --help lists"
        for name in _names(override):
            if name not in options:
                close = difflib.get_close_matches(name or "", options, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                yield f"{group}: expected one of {listed}, got {shown(name)}{hint}"

    def _problems(self, overrides: list[Override], *, multirun: bool) -> list[str]:
        """Return the problems of one run's overrides."""
        composed = self.compose(*self._groups(overrides))
        cfg = composed.copy()
        with open_dict(cfg):
            cfg.pop("hydra")
        problems: list[str] = []
        for override in filter(self._is_value, overrides):
            problems += self._value_problems(cfg, composed.hydra.runtime.choices, override)
        # What could not be applied has left a sound value in place, so the rest can still be judged.
        return (
            problems + self._nothing_to_do(cfg) + validate(cfg) + sweep_problems(cfg, composed.hydra)
            if self.is_run and multirun
            else problems + self._nothing_to_do(cfg) + validate(cfg)
            if self.is_run
            else problems
        )

    def _nothing_to_do(self, cfg: DictConfig) -> list[str]:
        """Refuse a program that takes data, a benchmark or both, but got neither."""
        if any(get(cfg, group) is not None for group in ("data", "benchmark")):
            return []
        names = {
            group: ", ".join(name for name in self.options(group) if name not in ("none", "same"))
            for group in ("data", "benchmark")
        }
        return [
            f"data: expected data={names['data']} or benchmark={names['benchmark']}, got neither; add one, as "
            "data=folder data.root=PATH"
        ]

    def _value_problems(self, cfg: DictConfig, choices: DictConfig, override: Override) -> Iterator[str]:
        """Apply one override to `cfg`; yield what keeps it from being applied."""
        key = override.key_or_group
        node = _find(cfg, key)
        if node is None:
            yield f"{key}: no such key{self._hint(cfg, choices, key)}"
        elif override.is_add():
            yield f"{key}: expected {_without_plus(override)}, without a plus"
        elif not _set(cfg, key, node, override.value()):
            yield f"{key}: expected {_describe(node)}, got {shown(override.value())}"

    def _hint(self, cfg: DictConfig, choices: DictConfig, key: str) -> str:
        """Return which keys may have been meant by `key`."""
        group, _, rest = key.partition(".")
        if _find(cfg, group) is not None and OmegaConf.is_interpolation(cfg, group):
            target = OmegaConf.to_container(cfg, resolve=False)[group].strip("${}")  # type: ignore[call-overload,index]
            return f"; {group} is the same as {target} here: set {target}.{rest} or choose another {group}"
        if close := _close(key, cfg):
            return f"; did you mean {' or '.join(close)}?"
        chosen = choices.get(group)
        for option in self.options(group):
            if option != chosen and (close := _close(rest, self._file(group, option))):
                return f" with {group}={chosen or 'null'}; {group}={option} has {group}.{close[0]}"
        return _siblings(cfg, key)


def _siblings(cfg: DictConfig, key: str) -> str:
    parent = key.rpartition(".")[0]
    node = _find(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return ""
    names = [str(name) for name in node.keys() if not str(name).startswith("_")]  # noqa: SIM118 - with missing ones
    return f"; expected one of {', '.join(sorted(names))}"


def _close(key: str, cfg: DictConfig) -> list[str]:
    known = [*keys(OmegaConf.to_container(cfg, resolve=False))]
    return difflib.get_close_matches(key, known, n=2, cutoff=0.8)


def _sweep_of(plan: DictConfig, overrides: list[Override]) -> list[str]:
    """Return the sweep that a configuration brings along, less the keys that were typed."""
    typed = {override.key_or_group for override in overrides}
    params = OmegaConf.select(plan, "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in params.items() if key not in typed]


def _values(override: Override) -> Iterator[str]:
    """Yield an override for each value that it lists."""
    if not override.is_sweep_override():
        yield str(override.input_line)
    else:
        for value in override.sweep_string_iterator():
            yield f"{override.get_key_element()}={value}"


def _names(override: Override) -> list[str | None]:
    """Return the options that a choice names."""
    if override.is_sweep_override():
        return [] if override.is_interval_sweep() else [*override.sweep_string_iterator()]
    value = override.value()
    values = value if isinstance(value, list) else [value]
    return [None if name is None else str(name) for name in values]


def _without_plus(override: Override) -> str:
    return str(override.input_line).lstrip("+")


def _ambiguous(override: Override) -> str:
    return (
        f"{override.key_or_group}: expected one value, got {override.get_value_string()}; "
        "add --multirun to run them all"
    )


def _find(cfg: DictConfig, key: str) -> Node | None:
    """Return the node at `key` without following references, or None."""
    node: Node | None = cfg
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node.keys():  # noqa: SIM118 - with missing ones
            return None
        node = node._get_node(name)
    return node


def _set(cfg: DictConfig, key: str, node: Node, value: Any) -> bool:
    """Set `key`, which holds `node`, unless `value` has another type."""
    if not _fits(key, node, value):
        return False
    try:
        OmegaConf.update(cfg, key, value)
    except OmegaConfBaseException:
        return False
    return True


def _fits(key: str, node: Node, value: Any) -> bool:
    """Return whether a value has the type of an untyped node's value.

    Typed nodes see to it themselves, and rules to the values of their keys.
    """
    if isinstance(value, str) and "${" in value:
        return True
    if isinstance(node, DictConfig):
        return value is None or isinstance(value, dict)
    if isinstance(node, ListConfig):
        return value is None or isinstance(value, list)
    if not isinstance(node, AnyNode) or key in RULED:
        return True
    known = type(node._value())
    return known not in _ACCEPTED or type(value) in _ACCEPTED[known]


def _describe(node: Node) -> str:
    """Return in words what a node takes."""
    if isinstance(node, DictConfig):
        return f"a mapping of {', '.join(map(str, node.keys()))}"
    if isinstance(node, ListConfig):
        return f"a list like {node}"
    kind = type(node._value()) if isinstance(node, AnyNode) else node._metadata.ref_type
    optional = " or null" if node._is_optional() and not isinstance(node, AnyNode) else ""
    return _WORDS.get(kind, "another value") + optional
