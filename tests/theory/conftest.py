"""Runs derivation notebooks inside the test's process: starting a kernel would cost seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[2]
DERIVATIONS = ROOT / "notebooks" / "derivations"


def _run(name: str, **parameters: Any) -> dict[str, Any]:
    notebook = nbformat.read(DERIVATIONS / f"{name}.ipynb", as_version=4)
    namespace: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        exec(compile(cell.source, f"{name}.ipynb", "exec"), namespace)
        if "parameters" in cell.metadata.get("tags", []):
            namespace.update(parameters)
    return namespace


@pytest.fixture
def run_notebook() -> Iterator[Callable[..., dict[str, Any]]]:
    """``run_notebook(name, **parameters)`` executes every code cell and returns what they left."""
    import matplotlib.pyplot as plt

    yield _run
    plt.close("all")
