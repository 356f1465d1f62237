from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

# Small tensors gain nothing from threads, and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # as paka.wandb_run does when it is imported


@pytest.fixture(autouse=True)
def the_environment_is_as_it_was() -> Iterator[None]:
    """Take back what a test, or a library in it, has set: a program that is started later would find it."""
    before = {**os.environ}
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def configurations_are_composed_once() -> Iterator[None]:
    """Keep what Hydra reads and what the command line composes: files in conf/ do not change while tests run.

    Each gets a copy of its own; unpickling one is several times as fast as copy.deepcopy.
    """
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    from paka.command_line import Checker
    from paka.config import CONF_DIR

    Plugins.instance()  # registers what reads files
    files = SourcesRegistry.instance().resolve("file")
    load, shared, compose = files.load_config, files("main", CONF_DIR.as_uri()), Checker._compose
    read = functools.cache(lambda path: pickle.dumps(load(shared, path)))
    composed: dict[tuple[str, ...], bytes] = {}

    def load_once(self: Any, config_path: str) -> Any:
        return pickle.loads(read(config_path)) if self.path == str(CONF_DIR) else load(self, config_path)

    def compose_once(self: Checker, *overrides: str) -> Any:
        folders = str(self.hydra.config_loader.get_search_path())
        if "command-line" in folders:  # files of the test
            return compose(self, *overrides)
        key = (folders, self.config_name, *overrides)
        if key not in composed:
            composed[key] = pickle.dumps(compose(self, *overrides))
        return pickle.loads(composed[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "load_config", load_once)
        patch.setattr(Checker, "_compose", compose_once)
        yield
