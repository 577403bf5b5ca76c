"""One notebook's runs: tables and figures from their run folders, for ``notebooks/train.ipynb``.

Nothing here trains: a figure shows what ``run.json``, ``curves.parquet`` and ``predictions.npz`` say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.report.style import FIGURE_WIDTH, class_colourmap, loss_style, set_theme

__all__ = [
    "Run",
    "class_table",
    "finding",
    "load_run",
    "metrics_table",
    "plot_classes",
    "plot_curves",
    "plot_predictions",
    "set_theme",
]

_COLUMNS = {
    "foreground_dice": "Dice",
    "foreground_iou": "IoU",
    "mean_precision": "precision",
    "mean_recall": "recall",
    "pixel_accuracy": "pixel accuracy",
    "constant_dice": "Dice of the best constant",
}


@dataclass(frozen=True)
class Run:
    """A run folder's content: ``record`` is its run.json."""

    folder: Path
    record: dict[str, Any]
    curves: pd.DataFrame

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.record["config"]["seed"])

    @property
    def loss(self) -> str:
        """The registry name of the run's loss."""
        return str(self.record["config"]["loss"])


def load_run(folder: str | Path) -> Run:
    """Read a run folder; the predictions stay on disk until they are drawn."""
    folder = Path(folder)
    record = json.loads((folder / "run.json").read_text())
    return Run(folder, record, pd.read_parquet(folder / "curves.parquet"))


def class_table(datasets: Mapping[str, Any]) -> pd.DataFrame:
    """Per cent of the labelled pixels that each class has, one column a split, and the number of images.

    Args:
        datasets: by split; each has ``classes`` and ``image_counts()`` (images, classes).
    """
    columns = {}
    for split, dataset in datasets.items():
        counts = np.asarray(dataset.image_counts()).sum(0)
        columns[f"{split} ({len(dataset)} images)"] = pd.Series(
            100 * counts / max(counts.sum(), 1), index=list(dataset.classes)
        )
    table = pd.DataFrame(columns).round(3)
    table.index.name = "class (% of pixels)"
    return table


def metrics_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Test metrics, one row a seed and their mean; Dice and IoU are means over the foreground classes."""
    rows = {
        f"seed {run.seed}": {title: run.record["metrics"][key] for key, title in _COLUMNS.items()}
        for run in runs
    }
    table = pd.DataFrame(rows).T
    if len(runs) > 1:
        table.loc[f"mean of {len(runs)}"] = table.mean()
    return table.round(4)


def plot_curves(runs: Sequence[Run]) -> Figure:
    """Loss, gradient norm and validation Dice against the step, one thin line a seed."""
    figure, axes = plt.subplots(
        3, 1, figsize=(FIGURE_WIDTH, 5.5), sharex=True, constrained_layout=True
    )
    look = {"color": loss_style(runs[0].loss)["color"], "lw": 1.2, "alpha": 0.8}
    for run in runs:
        smooth = run.curves.rolling(max(1, len(run.curves) // 20), min_periods=1).mean()
        validated = run.curves.dropna(subset="val_mean_dice")
        axes[0].plot(run.curves.step, smooth.loss_value, **look)
        axes[1].plot(run.curves.step, smooth.grad_norm, **look)
        axes[2].plot(validated.step, validated.val_mean_dice, marker="o", ms=3, **look)
    axes[1].set_yscale("log")
    axes[2].set_ylim(0, None)
    titles = ("training loss", "norm of the gradient", "validation Dice (mean over classes)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    axes[-1].set_xlabel("step")
    return figure


def plot_classes(runs: Sequence[Run]) -> Figure:
    """Test Dice of each class from the most to the least frequent: a dot a seed, a bar for their mean."""
    tables = [pd.DataFrame(run.record["per_class"]).set_index("class_name") for run in runs]
    order = tables[0].sort_values("target_fraction", ascending=False).index
    dice = pd.concat([table.dice.rename(i) for i, table in enumerate(tables)], axis=1).loc[order]
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH, 3.0), constrained_layout=True)
    places = np.arange(len(order))
    colour = loss_style(runs[0].loss)["color"]
    axis.bar(places, dice.mean(axis=1), color=colour, alpha=0.6, width=0.7)
    axis.plot(places, dice, "o", ms=3, color="black", alpha=0.7)
    fractions = tables[0].target_fraction.loc[order]
    names = [
        f"{name}\n{100 * fraction:.2g} %" for name, fraction in zip(order, fractions, strict=True)
    ]
    axis.set_xticks(places, names, fontsize="small")
    axis.set(ylabel="test Dice", ylim=(0, 1))
    axis.set_title("from the most to the least frequent class (% of the pixels)")
    return figure


def plot_predictions(run: Run, dataset: Any, count: int = 4) -> Figure:
    """Image, truth and prediction: the images with the lowest, two middle and the highest Dice of the run.

    Args:
        run: whose predictions are shown.
        dataset: the test split, with ``images``, ``labels``, ``ids``, ``classes`` and ``ignore_index``.
        count: number of images, evenly spaced from the worst to the best.
    """
    with np.load(run.folder / "predictions.npz") as saved:
        predictions = saved["predictions"]
    scores = _image_scores(run, dataset)
    ranked = np.argsort(scores, kind="stable")
    chosen = ranked[np.unique(np.linspace(0, len(ranked) - 1, count).round().astype(int))]
    colours = class_colourmap(dataset.classes)
    figure, axes = plt.subplots(
        3,
        len(chosen),
        figsize=(FIGURE_WIDTH, 0.8 + 3 * FIGURE_WIDTH / len(chosen)),
        squeeze=False,
        constrained_layout=True,
    )
    for column, index in enumerate(chosen):
        image = np.asarray(dataset.images[index])
        void = np.zeros(dataset.labels[index].shape, dtype=bool)
        if dataset.ignore_index is not None:
            void = np.asarray(dataset.labels[index] == dataset.ignore_index)
        axes[0, column].imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
        axes[0, column].set_title(
            f"{dataset.ids[index]}\nDice {scores[index]:.2f}", loc="left", fontsize="small"
        )
        for row, labels in ((1, dataset.labels[index]), (2, predictions[index])):
            shown = np.ma.masked_array(labels, mask=void)
            axes[row, column].imshow(
                shown, cmap=colours, vmin=0, vmax=len(dataset.classes) - 1, interpolation="nearest"
            )
    for row, title in enumerate(("image", "truth", "prediction")):
        axes[row, 0].set_ylabel(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def finding(runs: Sequence[Run]) -> str:
    """One sentence on the runs, from their records."""
    dice = np.array([run.record["metrics"]["foreground_dice"] for run in runs])
    constant = runs[0].record["metrics"]["constant_dice"]
    config = runs[0].record["config"]
    spread = (
        f", from {dice.min():.3f} to {dice.max():.3f} over {len(dice)} seeds"
        if len(dice) > 1
        else " (one seed)"
    )
    sentence = (
        f"`{config['model']}` under `{config['loss']}` on `{config['dataset']}` reaches a mean test Dice of "
        f"**{dice.mean():.3f}**{spread}; the best constant prediction has {constant:.3f}."
    )
    ended = [
        f"seed {run.seed} {run.record['status']}"
        for run in runs
        if run.record["status"] != "completed"
    ]
    return sentence + (f" Not every run was completed: {', '.join(ended)}." if ended else "")


def _image_scores(run: Run, dataset: Any) -> np.ndarray:
    """(N,) mean Dice over the classes of each image; 0 where an image has none to score."""
    table = pd.read_parquet(run.folder / "per_image.parquet")
    if dataset.classes[0] == "background":
        table = table[table.class_index > 0]
    size = 2 * table.tp + table.fp + table.fn
    dice = (2 * table.tp / size).where(size > 0)
    return dice.groupby(table.image_id).mean().reindex(dataset.ids).fillna(0.0).to_numpy()
