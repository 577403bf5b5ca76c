"""The source notebooks: small cells, no outputs, and papermill's way through ``train.ipynb``."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from PIL import Image

from lossatlas.experiments import TrainParameters

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(
    path for room in ("notebooks", "studies") for path in (ROOT / room).rglob("*.ipynb")
)
TRAIN = ROOT / "notebooks" / "train.ipynb"


def by_name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_a_source_notebook_carries_no_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_a_cell_stays_at_ten_lines(path):
    """The parameters cell is the notebook's manual, a line a parameter, and may be longer."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 10, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_every_parameter_has_a_type_a_default_and_a_comment_that_papermill_shows(path):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = (c for c in cells if "parameters" in c.metadata.get("tags", []))
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.AnnAssign) and line.value is not None, ast.unparse(line)
    for parameter in papermill.inspect_notebook(path).values():
        assert parameter["help"], parameter["name"]


def test_the_training_notebook_s_defaults_are_those_of_the_configuration():
    parameters = papermill.inspect_notebook(TRAIN)
    assert set(parameters) == set(TrainParameters.model_fields)
    namespace: dict = {}
    for name, parameter in parameters.items():
        namespace[name] = eval(parameter["default"])
    assert TrainParameters.parse(namespace) == TrainParameters()


def run_papermill(tmp_path, *arguments):
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(TRAIN),
        str(tmp_path / "out.ipynb"),
        "-k",
        "python3",
    ]
    return subprocess.run(
        [*command, "--no-progress-bar", *arguments], cwd=tmp_path, capture_output=True, text=True
    )


def test_papermill_trains_every_seed_and_the_notebook_shows_the_runs(tmp_path):
    done = run_papermill(
        tmp_path,
        *("-p", "dataset", "digits", "-p", "model", "segnet", "-p", "loss", "lovasz_softmax"),
        *(
            "-p",
            "seeds",
            "[0,1]",
            "-p",
            "steps",
            "2",
            "-p",
            "batch_size",
            "4",
            "-p",
            "evaluations",
            "1",
        ),
        *("-p", "dataset_params", "{image_size: 32, train_size: 12, val_size: 4, test_size: 4}"),
        *("-p", "model_params", "{width: 4, depth: 2}"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 2
    outputs = [
        output
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert "mean test Dice of" in str(outputs[-1])


def test_a_wrong_parameter_stops_papermill_before_any_training(tmp_path):
    done = run_papermill(tmp_path, "-p", "los", "dice")
    assert done.returncode != 0
    assert "ConfigError: unknown parameter 'los' (got 'dice'): did you mean loss" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_training_notebook_takes_a_folder_of_one_s_own(tmp_path):
    """Pairs of images and masks by stem, names with spaces and accents, a palette and void: straight in."""
    root = tmp_path / "my data"
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for k in range(12):
        mask = np.zeros((40, 48), np.uint8)
        mask[5 : 20 + k, 8:30] = 1
        mask[:2] = 255  # void
        image = (mask == 1) * 90 + generator.integers(0, 90, mask.shape)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"scène {k:02d}.png")
        Image.fromarray(mask).save(root / "masks" / f"scène {k:02d}.png")
    (root / "classes.yaml").write_text("classes: [background, thing]\nignore_index: 255\n")
    checked = subprocess.run(
        [sys.executable, "-m", "lossatlas.cli", "data", "check", str(root)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = run_papermill(
        tmp_path,
        *("-p", "dataset", "folder", "-p", "dataset_params", f"{{root: {str(root)!r}}}"),
        *("-p", "loss", "dice", "-p", "model_params", "{width: 4, depth: 2}"),
        *(
            "-p",
            "steps",
            "30",
            "-p",
            "batch_size",
            "4",
            "-p",
            "evaluations",
            "1",
            "-p",
            "lr",
            "0.01",
        ),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = (tmp_path / "runs").glob("*/run.json")
    run = json.loads(record.read_text())
    assert run["classes"] == ["background", "thing"]
    assert run["status"] == "completed"
