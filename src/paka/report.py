"""Report over runs: `python -m paka.report multirun/2026-11-25/18-45-51_28939`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Report over runs of paka.train and paka.evaluate: scores by configuration with intervals over seeds, curves against what was
swept, the best run, which differences are significant, gains of classes and learning curves. Reads their folders only.
"""
WRITTEN = (
    "report.html, report.md, figures/, runs.csv, configurations.csv, comparisons.csv and class_gains.csv"
)


def main() -> None:
    """Report as the command line says.

    Raises:
        SystemExit: With 1 and a sentence where there is nothing to report, with 2 for a wrong command line.
    """
    arguments = _parser().parse_args()
    folders = [Path(text).expanduser() for text in arguments.folders]
    output_dir = _output(arguments.output, folders)
    try:
        run(folders, output_dir, arguments.reference)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the report is not whole\n")
        sys.exit(130)
    except (ValueError, LookupError, OSError) as error:
        _refuse(error, output_dir)


def _refuse(error: Exception, output_dir: Path) -> None:
    """End with what an error says, where it is one of this package or of the system, such as a full disk."""
    from paka.config import explain, wants_traceback  # brings Hydra
    from paka.disk import full_disk

    told: object = full_disk(error, output_dir, then="report again")
    if told is None and isinstance(error, OSError) and error.strerror is not None:
        told = f"{error.strerror}: {error.filename or output_dir}"
    told = told or explain(error)
    if told is None or wants_traceback():
        raise error
    sys.stderr.write(f"error: {told}\n")
    sys.exit(1)


def run(folders: Sequence[Path], output_dir: Path, reference: str | None) -> None:
    """Write the report of the runs in folders, and print its tables; see `paka.sweep_report.report_over`."""
    from paka.runs import find, refuse_run

    find(folders)  # before what draws is imported, which takes a second
    refuse_run(output_dir)
    from paka import sweep_terminal
    from paka.sweep_report import overview, write_overview

    found = overview(folders, output_dir, reference)
    sweep_terminal.closing(found, write_overview(found, output_dir))


def _output(chosen: str | None, folders: Sequence[Path]) -> Path:
    """Return where the report goes: into the one folder that is searched, unless that is itself a run, else into `report`."""
    if chosen is not None:
        return Path(chosen).expanduser()
    from paka.runs import is_run

    return folders[0] if len(folders) == 1 and not is_run(folders[0]) else Path("report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paka-report", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folder of a run, or one that holds runs at any depth, as outputs/ or multirun/...",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help=f"where {WRITTEN} go; by default into DIR, or into report/ if there are several or DIR is a run",
    )
    parser.add_argument(
        "--reference",
        metavar="CONFIGURATION",
        help="compare all others with this one, named as in the table, as bandwidth=1; by default every pair is compared",
    )
    return parser


if __name__ == "__main__":
    main()
