"""The loggers of a run, from its start to its end: what it was configured as, what it came to, how it ended."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from paka.evidence_tables import pictures, scalars
from paka.markdown_report import markdown
from paka.run_report import RunReport, document
from paka.wandb_run import WandbRun

FILES = ("report.html", "report.md", "results.csv", "per_class.csv", "harm.csv")
"""What is handed to MLflow, as far as it is in the run's folder."""
STOPPED = 130
"""Exit code after Ctrl-C."""


def mlflow_logger(
    *,
    experiment_name: str,
    run_name: str,
    tracking_uri: str | None,
    save_dir: str,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
) -> MLFlowLogger:
    """Return Lightning's logger for MLflow, which reports nothing about its use and needs no database.

    Args:
        experiment_name: Experiment of MLflow that the run belongs to.
        run_name: What it is called.
        tracking_uri: Address of a server or a database; None for files.
        save_dir: Folder of these files.
        group: Runs that belong together; None for no group.
        job_type: `train` or `evaluate`.
        tags: Words to find it by.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(
        logging.ERROR
    )  # it warns of a new experiment
    if tracking_uri is None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # databases take a package more
        tracking_uri = Path(save_dir).absolute().as_uri()
    facts = {"group": group, "job_type": job_type, "tags": ", ".join(tags)}
    known = {name: fact for name, fact in facts.items() if fact}
    return MLFlowLogger(experiment_name, run_name, tracking_uri, tags=known)


@contextmanager
def logged(loggers: Sequence[Logger], config: Mapping[str, Any]) -> Iterator[None]:
    """Open a run in its loggers, and close it as failed when the block raises, whatever it raises.

    Args:
        loggers: Where the run is logged.
        config: What it was configured as, of plain types.
    """
    exit_code = 1
    try:
        _start(loggers, config)
        yield
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except KeyboardInterrupt:
        exit_code = STOPPED
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, WandbRun):
                logger.finish(exit_code)
            elif not isinstance(logger, CSVLogger):
                logger.finalize("failed" if exit_code else "success")


def _start(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.start()
        if not isinstance(logger, CSVLogger):
            logger.log_hyperparams(dict(config))


@rank_zero_only
def publish(loggers: Sequence[Logger], folder: Path, report: RunReport) -> None:
    """Hand what a run came to, to the loggers that can hold more than curves.

    Args:
        loggers: Where the run is logged.
        folder: The run's folder, with its report and figures.
        report: What there is to report of it.
    """
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.publish(report)
        elif isinstance(logger, TensorBoardLogger):
            _show(logger, folder, report)
        elif isinstance(logger, MLFlowLogger):
            _hand_over(logger, folder, report)


def _show(logger: TensorBoardLogger, folder: Path, report: RunReport) -> None:
    """Write scores, report and pictures as TensorBoard shows them."""
    logger.log_metrics(scalars(report.scores))
    logger.experiment.add_text("report", markdown(document(report), folder))
    for name, figure in pictures(report).items():
        if figure.path.is_file():
            with Image.open(figure.path) as image:
                logger.experiment.add_image(f"figures/{name}", np.asarray(image), dataformats="HWC")


def _hand_over(logger: MLFlowLogger, folder: Path, report: RunReport) -> None:
    """Store scores, reports and pictures at MLflow."""
    logger.log_metrics(
        {re.sub(r"[^\w/. -]+", "-", name): one for name, one in scalars(report.scores).items()}
    )
    for path in (folder / name for name in FILES):
        if path.is_file():
            logger.experiment.log_artifact(logger.run_id, str(path))
    if (folder / "figures").is_dir():
        logger.experiment.log_artifacts(logger.run_id, str(folder / "figures"), "figures")
