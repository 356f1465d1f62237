"""The notebook runs from top to bottom, and holds what it printed and drew."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from paka.config import CONF_DIR

NOTEBOOK = CONF_DIR.parent / "experiments" / "notebook" / "paka_in_a_notebook.ipynb"
FAST = "STEPS, BATCH = 2, 2\nTRAIN, TEST = 8, 4\nHIDDEN, OUT = 16, 8\nSEED = 0\n"


def printed(notebook: nbformat.NotebookNode) -> str:
    """Return what the cells printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_it_holds_true_outputs_in_order() -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run from top to bottom, once"
    assert "in_context" in printed(stored)
    assert pictures(stored) >= 7
    assert NOTEBOOK.stat().st_size < 1_000_000


@pytest.mark.filterwarnings("default")  # of the notebook's own machinery
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAKA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(CONF_DIR.parent / "src"), os.environ.get("PYTHONPATH", "")])
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [line.split("=")[0] for line in FAST.splitlines()] == [
        line.split("=")[0] for line in parameters.source.splitlines()
    ]
    parameters.source = FAST
    stored = pictures(notebook)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "in_context" in printed(notebook)
    assert pictures(notebook) == stored, "a stored picture is missing, or one is not stored"
