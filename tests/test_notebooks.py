"""Every notebook runs from its first cell to its last, which asserts what its first cell says."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_claim_holds(path, monkeypatch):
    monkeypatch.setenv("FAST", "1")  # cheaper, and the same claim
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_shape_and_its_evidence(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    first = cells[0].source
    assert all(part in first for part in ("**Question.**", "**Answer.**", "**Needs.**"))
    assert "assert " in code[-1].source
    assert not any(line.startswith("def ") for cell in code for line in cell.source.split("\n"))
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), "run as a whole, in order, and kept so"
    assert all(o.output_type != "error" for cell in code for o in cell.outputs)
    assert sum(bool(cell.outputs) for cell in code) > len(code) // 2, "outputs are the evidence"


def test_there_are_notebooks():
    assert NOTEBOOKS
