"""The smallest runs that the tests of the experiments train."""

from __future__ import annotations

import hashlib

SMALL_DIGITS = {"image_size": 32, "train_size": 24, "val_size": 6, "test_size": 6}
QUICK = {
    "dataset_params": SMALL_DIGITS,
    "model_params": {"width": 4, "depth": 2},
    "steps": 4,
    "batch_size": 4,
    "evaluations": 2,
}


def file_hashes(folder):
    """Of the files of a run folder that hold nothing but numbers."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("curves.parquet", "per_image.parquet", "predictions.npz")
    }
