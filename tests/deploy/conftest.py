"""One small run for the tests of this folder."""

from __future__ import annotations

import pytest

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
