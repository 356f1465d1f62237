"""A run at Weights & Biases: online where a server takes it, else in the run's folder; its tables, pictures, end."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from paka import wandb_server
from paka.document import Figure
from paka.evidence_tables import Cells, pictures, scalars, tables
from paka.loading import ENCODER
from paka.model_card import FILE as CARD
from paka.provenance import git_revision
from paka.run_report import RunReport

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reports how it is used to its makers

ATTACHED = (ENCODER, "report.md", CARD)
"""Files of a run's folder that make up the artifact, those of them that are there."""
RECORD = "wandb.json"
"""File of a run's folder that says which run at Weights & Biases it is."""
LONGEST_TAG = 64
"""Characters that the server takes."""


class WandbRun(WandbLogger):
    """Lightning's logger for Weights & Biases, which decides at `start` where the run goes, and is ended by `finish`.

    `wandb` itself is imported by `start`.

    Args:
        save_dir: The run's folder.
        tags: Words to find it by.
        resumed: Checkpoint that the run goes on from; one of `save_dir` makes it the run at Weights & Biases that began there.
        mode: `online` or `offline`; None for online if there is a key and a server that takes it.
        artifact: Whether weights and their report are uploaded.
        images: Figures that are uploaded, at most.
        patience: Seconds within which the server has to answer at the start.
        settings: Arguments of `wandb.Settings`.
        run: What else `wandb.init` takes, such as `project`, `entity`, `name`, `group` and `job_type`.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        tags: Sequence[str] = (),
        resumed: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        artifact: bool = False,
        images: int = 8,
        patience: float = 5,
        settings: Mapping[str, Any] | None = None,
        **run: Any,
    ) -> None:
        if sys.modules.get("wandb", sys) is None:  # shut out by `paka.config.entry`
            del sys.modules["wandb"]
        super().__init__(
            save_dir=save_dir,
            id=recorded_id(Path(save_dir), resumed),
            **run,
            tags=[*dict.fromkeys(tag[:LONGEST_TAG] for tag in tags)],
        )
        del self._wandb_init["anonymous"]  # Lightning passes what W&B has given up
        self.folder = Path(save_dir)
        self.mode, self.artifact, self.images, self.patience = mode, artifact, images, patience
        self.settings = dict(settings or {})

    @rank_zero_only
    def start(self) -> None:
        """Open the run, and say where it goes."""
        import wandb

        if wandb.run is not None:  # of an earlier job in this process, which would be written to instead
            with _spared():
                wandb.finish(exit_code=1)
        mode, reason = self._decided()
        if mode == "online":
            try:
                self._open(mode)
            except wandb.errors.Error as error:
                mode, reason = "offline", " ".join(str(error).split()).partition(" Consider increasing")[0]
        if mode != "online":
            self._open(mode)
        self._record()
        self._say(mode, reason)

    def _decided(self) -> tuple[str, str]:
        """Return `online` or another mode, and if nobody asked for it the reason."""
        import wandb

        if asked := self.mode or os.environ.get("WANDB_MODE"):
            return asked, ""
        settings = wandb.setup().settings
        if settings.mode not in ("online", "run"):  # by `wandb offline` or `wandb disabled`
            return settings.mode, ""
        url = str(settings.base_url)
        key = wandb_server.key_for(url) or settings.api_key
        if not key and not wandb_server.has_token():
            return "offline", f"there is no key for {url}"
        reason = wandb_server.refusal(url, key, self.patience)
        return ("offline", reason) if reason else ("online", "")

    def _open(self, mode: str) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        revision = (git_revision() or "").removesuffix("-dirty") or None
        quiet = {"silent": mode != "online", "git_commit": revision, "finish_timeout_raises": True}
        self._wandb_init |= {"mode": mode, "settings": wandb.Settings(**{**quiet, **self.settings})}
        _ = self.experiment

    def _record(self) -> None:
        """Keep which run it is, for those who go on with it."""
        run = self.experiment
        known = {"id": run.id, "project": run.project, "entity": run.entity, "mode": run.settings.mode}
        (self.folder / RECORD).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")

    def _say(self, mode: str, reason: str) -> None:
        if reason:
            advice = (
                "" if "cannot be reached" in reason or "answer" in reason else "; `wandb login` sets a key"
            )
            sys.stderr.write(f"W&B: {reason}, so the run is logged offline, into its own folder{advice}\n")
        elif mode == "online":
            sys.stderr.write(f"W&B: {self.experiment.url}\n")

    @rank_zero_only
    def publish(self, report: RunReport) -> None:
        """Log the scores as scalars and tables, the pictures, and the artifact if that is asked for."""
        import wandb

        with _spared():
            logged: dict[str, Any] = {**scalars(report.scores)}
            logged |= {name: _table(cells) for name, cells in tables(report).items()}
            logged |= {
                f"figures/{name}": wandb.Image(str(figure.path), caption=figure.caption)
                for name, figure in islice(_existing(pictures(report)), self.images)
            }
            self.experiment.log(logged)
            if self.artifact:
                self._attach()

    def _attach(self) -> None:
        """Upload the weights and what is said of them, straight from the run's folder."""
        import wandb

        files = [self.folder / name for name in ATTACHED if (self.folder / name).is_file()]
        if files:
            bundle = wandb.Artifact(f"encoder-{self.experiment.id}", type="model")
            for file in files:
                bundle.add_file(str(file), policy="immutable")
            self.experiment.log_artifact(bundle)

    @rank_zero_only
    def finish(self, exit_code: int) -> None:
        """End the run, and say how to send it if it was not sent."""
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        waits = run.offline and not run.disabled
        with _spared():
            try:
                run.finish(exit_code=exit_code)
            except TimeoutError:
                waits = True
        if waits:
            sys.stdout.write(f"  wandb sync {shlex.quote(str(Path(run.dir).parent))}\n")


@contextmanager
def _spared() -> Iterator[None]:
    """Say that something could not be written, such as on a full disk: the run does not depend on it."""
    try:
        yield
    except OSError as error:
        sys.stderr.write(f"W&B: not everything could be logged: {error.strerror or error}\n")


def recorded_id(folder: Path, resumed: str | None) -> str | None:
    """Return the id of the run at Weights & Biases that a run in `folder` goes on with; None for one that begins there.

    A checkpoint of another folder is the beginning of several runs, if need be: each is a run of its own.
    """
    if resumed is None or Path(resumed).parent.parent.resolve() != folder.resolve():
        return None
    try:
        return str(json.loads((folder / RECORD).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _table(cells: Cells) -> Any:
    import wandb

    return wandb.Table(columns=[*cells.columns], data=[[*row] for row in cells.rows], allow_mixed_types=True)


def _existing(figures: Mapping[str, Figure]) -> Iterator[tuple[str, Figure]]:
    return ((name, figure) for name, figure in figures.items() if figure.path.is_file())
