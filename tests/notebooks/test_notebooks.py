"""The source notebooks: small cells, no outputs, and papermill's way through ``train.ipynb``."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from PIL import Image

from lossatlas import cli
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


def execute(folder, **parameters):
    """Run the training notebook in ``folder`` as papermill does; what the cells have put out."""
    done = papermill.execute_notebook(
        TRAIN,
        folder / "out.ipynb",
        parameters,
        kernel_name="python3",
        cwd=folder,
        progress_bar=False,
    )
    return [output for cell in done.cells for output in cell.get("outputs", [])]


def test_papermill_trains_every_seed_on_a_folder_of_one_s_own_and_shows_the_runs(tmp_path, capsys):
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
    assert cli.main(["data", "check", str(root)]) == 0, capsys.readouterr()
    outputs = execute(
        tmp_path,
        dataset="folder",
        dataset_params={"root": str(root)},
        model="segnet",
        model_params={"width": 4, "depth": 2},
        loss="lovasz_softmax",
        seeds=[0, 1],
        steps=2,
        batch_size=4,
        evaluations=1,
    )
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json")]
    assert [record["status"] for record in records] == ["completed"] * 2
    assert all(record["classes"] == ["background", "thing"] for record in records)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert "mean test Dice of" in str(outputs[-1])


def test_a_wrong_parameter_stops_papermill_before_any_training(tmp_path):
    wrong = r"ConfigError: unknown parameter 'los' \(got 'dice'\): did you mean loss"
    with pytest.raises(papermill.PapermillExecutionError, match=wrong):
        execute(tmp_path, los="dice")
    assert not (tmp_path / "runs").exists()


def test_the_notebook_for_colab_runs_another_from_its_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    names, commands = {}, []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **given: commands.append((command, given))
    )
    for cell in nbformat.read(ROOT / "notebooks/colab.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    ((command, given),) = commands
    assert command[1:4] == ["-m", "papermill", names["notebook"]] and given["check"]
    known = papermill.inspect_notebook(given["cwd"] / names["notebook"])
    asked = [command[k + 1] for k, word in enumerate(command) if word == "-p"]
    assert asked and set(asked) <= set(known)
