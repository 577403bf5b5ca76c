"""Run folders become a study's records, and only finished runs count."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lossatlas.experiments import Study
from lossatlas.experiments.collect import collect, disagreement
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.record import run_path
from lossatlas.experiments.training import train_run

STUDY = Study.model_validate(
    {
        "study": "tiny",
        "question": "does it collect?",
        "datasets": [
            {
                "name": "digits",
                "params": {"image_size": 32, "train_size": 12, "val_size": 4, "test_size": 8},
            }
        ],
        "models": [{"name": "unet", "params": {"width": 4, "depth": 2}}],
        "losses": ["ce", {"name": "dice", "label": "dice_again"}],
        "seeds": [0, 1],
        "training": {"steps": 2, "batch_size": 4, "evaluations": 1},
    }
)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    datasets = load_datasets(next(STUDY.cells()).runs()[0])
    for cell in STUDY.cells():
        for run in cell.runs():
            train_run(run, datasets, runs_dir=folder, accelerator="cpu")
    return folder


def test_the_records_have_one_row_a_run_and_the_study_s_labels(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    runs = pd.read_parquet(folder / "runs.parquet")
    assert list(zip(runs.loss, runs.seed, strict=True)) == [
        ("ce", 0), ("ce", 1), ("dice_again", 0), ("dice_again", 1),
    ]  # fmt: skip
    assert list(runs.loss_name) == ["ce", "ce", "dice", "dice"]
    assert pd.read_parquet(folder / "per_class.parquet").shape[0] == 4 * 11
    assert pd.read_parquet(folder / "per_image.parquet").shape[0] == 4 * 11 * 8
    assert pd.read_parquet(folder / "curves.parquet").shape[0] == 4 * 2
    described = json.loads((folder / "study.json").read_text())
    assert described["missing_runs"] == 0
    assert described["classes"]["digits"][0] == "background"
    with np.load(folder / "predictions.npz", allow_pickle=False) as shown:
        assert shown["digits/unet/images"].shape[1:3] == shown["digits/unet/dice_again"].shape[1:3]


def test_the_records_are_not_written_again_while_the_runs_are_the_same(runs_dir, tmp_path):
    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    before = (folder / "study.json").stat().st_mtime_ns
    collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    assert (folder / "study.json").stat().st_mtime_ns == before


def test_a_missing_run_is_left_out_and_counted(runs_dir, tmp_path):
    fewer = tmp_path / "runs"
    shutil.copytree(runs_dir, fewer)
    last = [run for cell in STUDY.cells() for run in cell.runs()][-1]
    shutil.rmtree(run_path(fewer, last))
    folder = collect(STUDY, runs_dir=fewer, results_dir=tmp_path)
    assert json.loads((folder / "study.json").read_text())["missing_runs"] == 1
    assert len(pd.read_parquet(folder / "runs.parquet")) == 3


def test_without_any_run_the_error_says_which_command_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="lossatlas run tiny"):
        collect(STUDY, runs_dir=tmp_path, results_dir=tmp_path)


def test_runs_of_other_code_are_counted_and_the_records_made_anew(runs_dir, tmp_path, monkeypatch):
    from lossatlas.experiments import collect as module

    folder = collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    described = json.loads((folder / "study.json").read_text())
    assert described["provenance"]["outdated_runs"] == 0
    monkeypatch.setattr(module, "code_version", lambda: "another")
    collect(STUDY, runs_dir=runs_dir, results_dir=tmp_path)
    described = json.loads((folder / "study.json").read_text())
    assert described["provenance"]["outdated_runs"] == 4


def test_predictions_are_never_laid_over_other_images(runs_dir, tmp_path):
    changed = tmp_path / "runs"
    shutil.copytree(runs_dir, changed)
    path = run_path(changed, next(STUDY.cells()).runs()[0]) / "run.json"
    record = json.loads(path.read_text())
    record["data_checksums"]["test"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="expected the test set of today"):
        collect(STUDY, runs_dir=changed, results_dir=tmp_path)


def test_the_most_contested_image_comes_first():
    # two losses agree on image a (both Dice 1) and not on image b (Dice 1 against 0)
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "a", "b"],
            "loss": ["ce", "ce", "dice", "dice"],
            "class_index": 1,
            "tp": [4, 4, 4, 0],
            "fp": 0,
            "fn": [0, 0, 0, 4],
        }
    )
    assert list(disagreement(table, ["a", "b"], foreground_only=True)) == [1, 0]


def test_each_combination_of_classes_is_shown_once_before_any_twice():
    # a, b and c hold class 1 and are contested in this order; d holds class 2 and is contested least
    table = pd.DataFrame(
        {
            "image_id": list("abcd") * 2,
            "loss": ["ce"] * 4 + ["dice"] * 4,
            "class_index": [1, 1, 1, 2] * 2,
            "tp": [4, 4, 4, 4, 0, 1, 2, 3],
            "fp": 0,
            "fn": [0, 0, 0, 0, 4, 3, 2, 1],
        }
    )
    assert list(disagreement(table, list("abcd"), foreground_only=True)) == [0, 3, 1, 2]
