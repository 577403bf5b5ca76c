"""One notebook's runs, drawn from their run folders."""

from __future__ import annotations

import json
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lossatlas.report import run as show

matplotlib.use("Agg")

CLASSES = ("background", "a", "b")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def dataset():
    labels = np.zeros((3, 4, 4), dtype=np.uint8)
    labels[0, 0], labels[1, 1] = 1, 2
    labels[2, 3] = 255
    return SimpleNamespace(
        classes=CLASSES, ignore_index=255, ids=["x", "y", "z"], labels=labels,
        images=np.zeros((3, 4, 4, 1), dtype=np.uint8),
        image_counts=lambda: np.array([[12, 4, 0], [12, 0, 4], [12, 0, 0]]),
        __len__=lambda self: 3,
    )  # fmt: skip


def write_run(folder, seed, dice, status="completed"):
    folder.mkdir()
    metrics = dict.fromkeys(show._COLUMNS, 0.5) | {"foreground_dice": dice, "constant_dice": 0.1}
    per_class = [
        {"class_name": name, "dice": dice, "target_fraction": fraction}
        for name, fraction in zip(CLASSES, (0.9, 0.04, 0.06), strict=True)
    ]
    config = {"seed": seed, "loss": "dice", "model": "unet", "dataset": "digits"}
    record = {"config": config, "metrics": metrics, "per_class": per_class, "status": status}
    (folder / "run.json").write_text(json.dumps(record))
    pd.DataFrame(
        {
            "step": [1, 2],
            "loss_value": [1.0, 0.5],
            "grad_norm": [1.0, 2.0],
            "val_mean_dice": [np.nan, dice],
        }
    ).to_parquet(folder / "curves.parquet")
    # image x: class a found whole; y: class b missed; z: nothing there, nothing found
    pd.DataFrame(
        {
            "image_id": np.repeat(["x", "y", "z"], 3),
            "class_index": [0, 1, 2] * 3,
            "tp": [12, 4, 0, 12, 0, 0, 12, 0, 0],
            "fp": [0, 0, 0, 4, 0, 0, 0, 0, 0],
            "fn": [0, 0, 0, 0, 0, 4, 0, 0, 0],
        }
    ).to_parquet(folder / "per_image.parquet")
    np.savez(folder / "predictions.npz", predictions=np.zeros((3, 4, 4), dtype=np.uint8))
    return show.load_run(folder)


def test_the_table_has_a_row_a_seed_and_their_mean(tmp_path):
    runs = [write_run(tmp_path / str(s), s, dice) for s, dice in ((0, 0.4), (1, 0.6))]
    table = show.metrics_table(runs)
    assert list(table.index) == ["seed 0", "seed 1", "mean of 2"]
    assert table.loc["mean of 2", "Dice"] == pytest.approx(0.5)


def test_the_finding_gives_the_mean_its_range_and_the_constant(tmp_path):
    runs = [write_run(tmp_path / str(s), s, dice) for s, dice in ((0, 0.4), (1, 0.6))]
    sentence = show.finding(runs)
    assert "**0.500**, from 0.400 to 0.600 over 2 seeds" in sentence
    assert "the best constant prediction has 0.100" in sentence
    assert "completed" not in sentence


def test_a_run_that_diverged_is_said(tmp_path):
    run = write_run(tmp_path / "0", 0, 0.4, status="diverged at step 7")
    assert "seed 0 diverged at step 7" in show.finding([run])


def test_the_classes_are_drawn_from_the_most_to_the_least_frequent(tmp_path):
    figure = show.plot_classes([write_run(tmp_path / "0", 0, 0.4)])
    names = [label.get_text().split("\n")[0] for label in figure.axes[0].get_xticklabels()]
    assert names == ["background", "b", "a"]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.4] * 3


def test_the_predictions_go_from_the_worst_image_to_the_best(tmp_path, dataset):
    run = write_run(tmp_path / "0", 0, 0.4)
    figure = show.plot_predictions(run, dataset, count=3)
    titles = [axis.get_title(loc="left") for axis in figure.axes[:3]]
    # y has Dice 0; z has no foreground to score and counts as 0 after it; x is perfect
    assert titles == ["y\nDice 0.00", "z\nDice 0.00", "x\nDice 1.00"]


def test_the_curves_show_every_seed(tmp_path):
    runs = [write_run(tmp_path / str(s), s, 0.5) for s in range(3)]
    assert [len(axis.lines) for axis in show.plot_curves(runs).axes] == [3, 3, 3]
