"""Every derivation notebook: its form, and that it runs with other parameters than its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lossatlas import theory
from lossatlas.theory import ClosedFormError

DERIVATIONS = Path(__file__).resolve().parents[2] / "notebooks" / "derivations"
NOTEBOOKS = sorted(path.stem for path in DERIVATIONS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_clean_and_its_cells_are_short(name: str) -> None:
    notebook = nbformat.read(DERIVATIONS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) < 10
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    # Each parameter: typed, with a default and a comment, as `papermill --help-notebook` shows them.
    for line in tagged[0].source.splitlines():
        name_and_type, rest = line.split("=", 1)
        assert ":" in name_and_type and "#" in rest, line


@pytest.mark.parametrize("name", ["information", "weights", "focal", "lovasz", "metrics"])
def test_a_chapter_runs_with_another_seed(name: str, run_notebook: Any) -> None:
    smaller = {"pixels": 50_000} if name == "lovasz" else {}
    run_notebook(name, seed=3, **smaller)


def test_a_wrong_formula_stops_the_chapter_that_prints_it(
    run_notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = theory.FORMS["focal"]
    wrong = dataclasses.replace(right, gradient=right.gradient * 1.001)
    monkeypatch.setitem(theory.FORMS, "focal", wrong)
    with pytest.raises(ClosedFormError):
        run_notebook("focal")
