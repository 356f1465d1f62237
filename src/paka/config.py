"""Where the configuration is, how nodes of it become objects, and how a program starts from it."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from paka import schema
from paka.command_line import RANKS, check
from paka.rules import listed, validate
from paka.run_folder import recorded
from paka.sources.cache import default_cache

__all__ = ["CONF_DIR", "build", "entry", "explain", "validate"]

_PACKAGE = Path(__file__).parent
CONF_DIR = next(path for path in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if path.is_dir())
"""The configuration's folder: inside an installed wheel, beside `src` in a checkout."""

USER_ERRORS = (ValueError, FileNotFoundError, LookupError, MemoryError)
"""What this package raises when its input is at fault; a subclass such as KeyError is a bug."""

Run = Callable[[DictConfig], float | None]


def sweep() -> str | None:
    """Return the name of the folder of the sweep that this run is a job of, or None."""
    return Path(HydraConfig.get().sweep.dir).name if _in_sweep() else None


def numbered(name: str) -> str:
    """Return a run's name, in a sweep with the number of the job before it."""
    return f"{HydraConfig.get().job.num}_{name}" if _in_sweep() else name


def job() -> str | None:
    """Return the name of the program, such as `train`; None where Hydra has not started one."""
    return HydraConfig.get().job.name if HydraConfig.initialized() else None


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


schema.register()
OmegaConf.register_new_resolver("paka.pid", os.getpid, replace=True)
OmegaConf.register_new_resolver("paka.cache", lambda name: str(default_cache() / name), replace=True)
for resolver in (sweep, numbered, job):
    OmegaConf.register_new_resolver(f"paka.{resolver.__name__}", resolver, replace=True)


def build(node: DictConfig | Mapping[str, Any], **arguments: Any) -> Any:
    """Return the object that a node's `_target_` makes of its other keys and `arguments`.

    Configuration types stay behind: the object sees plain dictionaries and lists.

    Raises:
        ValueError: The object refuses its arguments; likewise FileNotFoundError and LookupError.
    """
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    try:
        return instantiate(plain, _convert_="all", **arguments)
    except InstantiationException as error:
        if type(error.__cause__) in USER_ERRORS and error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def entry(config_name: str, run: Run) -> Callable[[], None]:
    """Return the `main` of a program that runs `run` on the configuration `config_name`.

    Mistakes on the command line end the program with exit code 2 and one sentence each, before `run` may
    import anything heavy. What this package raises about its input ends it with exit code 1 and one sentence;
    `PAKA_TRACEBACK=1` shows where it came from.
    """

    def main() -> None:
        _refuse_mistakes(config_name)
        # timm imports wandb wherever there is one, which takes a second; `paka.wandb_run` lifts this.
        sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
        if _rank() > 0:
            sys.argv += _follower(sys.argv)
        failures: list[str] = []

        def task(cfg: DictConfig) -> float | None:
            try:
                return run(cfg) if _rank() > 0 else recorded(Path(cfg.output_dir), lambda: run(cfg))
            except (*USER_ERRORS, OSError) as error:
                sentence = None if _wants_traceback() else explain(error)
                if sentence is None:
                    raise
                sys.stderr.write(f"error: {sentence}\n")
                failures.append(sentence)
                return None

        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(task)()
        if failures:
            sys.exit(1)

    return main


def _refuse_mistakes(config_name: str) -> None:
    """End the program if its command line cannot be run."""
    arguments, unknown = get_args_parser().parse_known_args()
    shows = (arguments.help, arguments.hydra_help, arguments.shell_completion, arguments.info)
    if any(shows) or arguments.config_path or arguments.experimental_rerun:
        return
    problems = [
        f"{flag}: no such option; settings are written name=value, as in backbone=vitb" for flag in unknown
    ]
    problems = problems or check(CONF_DIR, arguments.config_name or config_name, arguments)
    if problems:
        if _rank() == 0:
            sys.stderr.write(f"{listed(problems)}\n")
        sys.exit(2)


def _rank() -> int:
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def _follower(arguments: list[str]) -> list[str]:
    """Return overrides by which processes other than the first leave no folders and no logs of their own."""
    if any(argument.startswith("hydra.run.dir=") for argument in arguments):
        return []
    folder = tempfile.gettempdir()
    quiet = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    return [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", *quiet]


def _wants_traceback() -> bool:
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("PAKA_TRACEBACK", "HYDRA_FULL_ERROR"))


def explain(error: BaseException) -> str | None:
    """Return the sentence of an error that this package raised for its user, or of a full disk, or None for any other."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"expected room on the disk{where}, found none: free some, or choose another folder by hydra.run.dir=PATH"
    if type(error) not in USER_ERRORS:
        return None
    text = str(error)
    if "in DataLoader worker process" in text:
        return _explain_worker(text)
    return text if _raised_in(error.__traceback__).split(".")[0] == "paka" else None


def _explain_worker(text: str) -> str | None:
    """Return the last line of a loader process's traceback if it ends in this package."""
    frames, _, last = text.strip().rpartition("\n")
    origin = frames.rpartition('  File "')[2].partition('"')[0]
    return last.partition(": ")[2] if Path(origin).is_relative_to(_PACKAGE) else None


def _raised_in(traceback: TracebackType | None) -> str:
    """Return the module of the innermost frame."""
    name = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return name
