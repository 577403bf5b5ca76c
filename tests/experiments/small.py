"""The smallest runs that the tests of the experiments train."""

from __future__ import annotations

import hashlib
import json
import os

import torch

from lossatlas.experiments import Study, distributed, record
from lossatlas.experiments.training import train_run

SMALL_DIGITS = {"image_size": 32, "train_size": 24, "val_size": 6, "test_size": 6}
QUICK = {
    "dataset_params": SMALL_DIGITS, "model_params": {"width": 4, "depth": 2}, "steps": 4, "batch_size": 4,
    "evaluations": 2,
}  # fmt: skip


def tiny(**changes):
    """A study of two losses and one seed; ``changes`` replace its keys."""
    study = {
        "study": "tiny", "question": "does it work?", "datasets": [{"name": "digits", "params": SMALL_DIGITS}],
        "models": [{"name": "unet", "params": QUICK["model_params"]}], "losses": ["ce", "dice"], "seeds": [0],
        "training": {"steps": 2, "batch_size": 4, "evaluations": 1},
    }  # fmt: skip
    return Study.model_validate(study | changes)


def pretend(runs_dir, config, score=0.5, status="completed", wall_s=10.0):
    """A run folder with the record of a run that reached ``score`` on the validation split."""
    folder = record.run_path(runs_dir, config)
    folder.mkdir(parents=True)
    for name in record._FILES:
        (folder / name).touch()
    content = {
        "schema": record.SCHEMA,
        "run_id": config.run_id,
        "status": status,
        "wall_s": wall_s,
        "validation": {"foreground_dice": 0.0, "foreground_dice_tuned": score},
    }
    (folder / "run.json").write_text(json.dumps(content))


def change_record(folder, **changes):
    """Replace keys of a run's record."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def train(config, datasets, runs_dir):
    """Train a run on the processor; its folder."""
    return train_run(config, datasets, runs_dir=runs_dir, accelerator="cpu")


def file_hashes(folder):
    """Of the files of a run folder that hold nothing but numbers."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("curves.parquet", "per_image.parquet", "predictions.npz")
    }


def weights(folder):
    """Of the network that a run folder holds."""
    return torch.load(folder / "last.ckpt", weights_only=True)["model"]


def train_as(rank, port, arguments):
    """What torch's launcher does for one of two processes."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    distributed.main(arguments)
