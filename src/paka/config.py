"""Where the configuration is, how nodes of it become objects, and how a program starts from it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from paka import command_help, completion, resuming, schema
from paka.command_line import USER_ERRORS, check
from paka.disk import full_disk
from paka.launch import rank
from paka.rules import listed, validate
from paka.run_folder import recorded
from paka.sources.cache import default_cache
from paka.sweep_job import as_job, in_sweep, places_at_once
from paka.sweep_names import folder_name, job, job_folder, numbered, sweep
from paka.sweeping import concluding

__all__ = ["CONF_DIR", "build", "entry", "explain", "validate"]

_PACKAGE = Path(__file__).parent
CONF_DIR = next(path for path in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if path.is_dir())
"""The configuration's folder: inside an installed wheel, beside `src` in a checkout."""

Run = Callable[[DictConfig], float | None]


schema.register()
# Kept, so that a sweep's jobs in other processes mean the folder of the process that started them.
OmegaConf.register_new_resolver("paka.pid", os.getpid, use_cache=True, replace=True)
OmegaConf.register_new_resolver("paka.cache", lambda name: str(default_cache() / name), replace=True)
for resolver in (resuming.folder, folder_name, job, job_folder, numbered, sweep):
    OmegaConf.register_new_resolver(f"paka.{resolver.__name__}", resolver, replace=True)
OmegaConf.register_new_resolver("paka.places_at_once", places_at_once, use_cache=True, replace=True)


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


def entry(
    config_name: str, run: Run, prepare: Callable[[Sequence[str]], list[str]] = list
) -> Callable[[], None]:
    """Return the `main` of a program that runs `run` on the configuration `config_name`.

    Mistakes on the command line end the program with exit code 2 and one sentence each, before `run` may
    import anything heavy. What this package raises about its input ends it with exit code 1 and one sentence;
    `PAKA_TRACEBACK=1` shows where it came from.

    Args:
        config_name: Name of the primary configuration.
        run: What is run.
        prepare: Returns the command line as it is run of the one that was typed; its errors are mistakes on it.
    """

    def main() -> None:
        _answer_questions(config_name)
        slurm = resuming.job(sys.argv[1:])
        _prepare(prepare)
        _refuse_mistakes(config_name)
        # timm imports wandb wherever there is one, which takes a second; `paka.wandb_run` lifts this.
        sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
        if rank() > 0:
            sys.argv += _follower(sys.argv)
        task = Job(run, slurm)
        with concluding():
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(task)()
        if task.failed:
            sys.exit(1)

    return main


class Job:
    """What Hydra calls with each configuration; a class of this module, so that it can be sent to other processes.

    Args:
        run: What is run.
        slurm: The job of SLURM that this is, see `paka.resuming.job`.

    Attributes:
        failed: Whether it failed in this process.
    """

    def __init__(self, run: Run, slurm: str) -> None:
        self.run, self.slurm, self.failed, self.arguments = run, slurm, False, [*sys.argv]

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run, and print why it failed; in a sweep the other jobs go on whatever happened."""
        sys.argv[:] = self.arguments  # as they were typed, whichever process this is
        try:
            return as_job(cfg, self._recorded, first=rank() == 0) if in_sweep(cfg) else self._recorded(cfg)
        except Exception as error:
            # The edge of the program: any error is told or raised again, and in a sweep the other jobs go on.
            sentence = None if wants_traceback() else _sentence(error, cfg)
            if sentence is None and not in_sweep(cfg):
                raise
            sys.stderr.write(f"error: {sentence}\n" if sentence else traceback.format_exc())
            self.failed = rank() == 0 or not in_sweep(cfg)  # the first process speaks for a sweep
            return None

    def _recorded(self, cfg: DictConfig) -> float | None:
        if rank() > 0 or "output_dir" not in cfg:  # a program without a folder of its own leaves no record
            return self.run(cfg)
        return recorded(Path(cfg.output_dir), lambda: self.run(cfg), job=self.slurm)


def _sentence(error: Exception, cfg: DictConfig) -> str | None:
    """Return the sentence of an error that is the input's fault, or the disk's; None for any other."""
    full = full_disk(error, Path(cfg.output_dir)) if "output_dir" in cfg else None
    return str(full) if full else explain(error)


def _prepare(prepare: Callable[[Sequence[str]], list[str]]) -> None:
    """Put the command line as it is run into the place of the typed one, or end the program."""
    try:
        sys.argv[1:] = prepare(sys.argv[1:])
    except (ValueError, FileNotFoundError) as error:
        if rank() == 0:
            sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _answer_questions(config_name: str) -> None:
    """End the program with an answer if its command line asks for one; what is left to Hydra only prints, too."""
    if "--version" in sys.argv[1:]:
        _say(command_help.version())
    arguments, _ = get_args_parser().parse_known_args()
    if any((arguments.help, arguments.hydra_help, arguments.shell_completion, arguments.info, arguments.cfg)):
        command_help.end_with_the_pipe()
    if arguments.shell_completion:
        completion.prepare()
    answer = command_help.answer(CONF_DIR, config_name, arguments, sys.argv[1:])
    if answer is not None:
        _say(answer)


def _say(answer: str) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.exit()


def _refuse_mistakes(config_name: str) -> None:
    """End the program if its command line cannot be run."""
    arguments, unknown = get_args_parser().parse_known_args()
    shows = (arguments.help, arguments.hydra_help, arguments.shell_completion, arguments.info)
    if any(shows) or arguments.config_path or arguments.experimental_rerun:
        return
    problems = [
        f"{flag}: expected settings side by side; write options such as --multirun before or after all of them"
        if "=" in flag and not flag.startswith("-")
        else f"{flag}: no such option; settings are written name=value, as in backbone=vitb"
        for flag in unknown
    ]
    problems = problems or check(CONF_DIR, arguments.config_name or config_name, arguments)
    if problems:
        if rank() == 0:
            sys.stderr.write(f"{listed(problems)}\n")
        sys.exit(2)


def _follower(arguments: list[str]) -> list[str]:
    """Return overrides by which processes other than the first leave no folders and no logs of their own."""
    if any(argument.startswith("hydra.run.dir=") for argument in arguments):
        return []
    folder = tempfile.mkdtemp()  # Hydra wants one
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    quiet = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    return [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", *quiet]


def wants_traceback() -> bool:
    """Return whether the user asked to see where errors come from."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("PAKA_TRACEBACK", "HYDRA_FULL_ERROR"))


def explain(error: BaseException) -> str | None:
    """Return the sentence of an error that this package raised for its user, or None for any other."""
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
