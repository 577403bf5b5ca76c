"""One small run for the tests of this folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lossatlas.experiments import TrainParameters
from lossatlas.experiments.training import train_cell


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a finished binary run on digits."""
    digits = {"image_size": 32, "train_size": 24, "val_size": 6, "test_size": 6}
    parameters = TrainParameters(
        dataset_params=digits | {"task": "binary", "foreground": 0.1},
        model_params={"width": 4, "depth": 2},
        steps=12,
        batch_size=4,
        evaluations=1,
        runs_dir=str(tmp_path_factory.mktemp("runs")),
        accelerator="cpu",
    )
    (folder,) = train_cell(parameters)
    return folder


@pytest.fixture
def another(run, tmp_path):
    """The run with other weights, under another name."""
    folder = Path(shutil.copytree(run, tmp_path / "another"))
    content = torch.load(folder / "last.ckpt", weights_only=True)
    content["model"] = {name: 0.9 * value for name, value in content["model"].items()}
    torch.save(content, folder / "last.ckpt")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"run_id": "another"}))
    return folder
