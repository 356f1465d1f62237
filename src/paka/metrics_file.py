"""`metrics.csv`: a row per logged step, on disk at once, and gone on with when its run is."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from paka.disk import whole

NAME = "metrics.csv"
"""The file in a run's folder."""


class MetricsFile(CSVLogger):
    """Lightning's CSV logger that writes every row at once, and does not delete the rows of a run that goes on.

    Args:
        folder: The run's folder.
        before: Rows that the file begins with.
    """

    def __init__(self, folder: str | Path, before: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self.before = before

    @property
    def experiment(self) -> Any:
        """The writer; on the first process it has written the rows before."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning sets it
            self._experiment = _Writer(self.log_dir, self.before)
        return super().experiment


class _Writer(ExperimentWriter):
    """Lightning's writer, which starts with some rows and whose file is always whole."""

    def __init__(self, log_dir: str, before: Sequence[Mapping[str, str]]) -> None:
        super().__init__(log_dir)
        self.metrics_keys = sorted({key for row in before for key in row})
        self._replace(before)

    def _check_log_dir_exists(self) -> None:
        """Leave what is there: it is replaced right away."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        del fieldnames  # the keys so far
        self._replace(rows(Path(self.metrics_file_path)))

    def _replace(self, written: Sequence[Mapping[str, str]]) -> None:
        path = Path(self.metrics_file_path)
        if not written:
            path.unlink(missing_ok=True)
            return
        with whole(path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(written)


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of metrics; none without the file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_until(path: Path, step: int) -> list[dict[str, str]]:
    """Return the rows of the first `step` optimizer steps.

    Steps are logged by their number from 0, scores on the way by the number of steps that were done.
    """
    return [row for row in rows(path) if _is_whole(row) and int(row["step"]) < step + (not row.get("loss"))]


def _is_whole(row: Mapping[str, str | None]) -> bool:
    """Return whether a row is not the last one of a process that was killed while it wrote."""
    return None not in row.values() and str(row.get("step", "")).isdigit()
