"""Points of trainings in labelled rows: who is who needs neither colour nor legend."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.report.style import FIGURE_WIDTH, loss_style

#: Area of a marker in square points, and inches of a row and of the rest of a panel.
_AREA, _ROW, _REST = 24, 0.2, 0.55


def strips(
    trainings: pd.DataFrame,
    x: str,
    *,
    panel: str,
    row: str,
    loss: str = "loss",
    hollow: Collection[str] = (),
    label: str = "test Dice at the threshold of validation",
) -> Figure:
    """A panel for each task, a labelled row for each kind of training, a point a training.

    Args:
        trainings: a row a training; panels and rows come in the order in which they first appear.
        x: column of the value that is drawn.
        panel: column of the panels' titles; each panel has its own axis.
        row: column of the rows' labels.
        loss: column of the losses' registry names: colour and marker are the loss's.
        hollow: labels of rows whose markers are outlines.
        label: of the value, below the last panel.

    Returns:
        The figure; a row that a panel does not have stays empty.
    """
    rows = list(dict.fromkeys(trainings[row]))
    panels = list(trainings.groupby(panel, sort=False))
    high = len(panels) * (_REST + _ROW * len(rows))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(FIGURE_WIDTH, high), squeeze=False, constrained_layout=True
    )
    for axis, (title, inside) in zip(axes[:, 0], panels, strict=True):
        for (name, each), points in inside.groupby([row, loss], sort=False):
            look = loss_style(str(each))
            axis.scatter(
                points[x],
                [rows.index(name)] * len(points),
                _AREA,
                marker=look["marker"],
                facecolors="none" if name in hollow else look["color"],
                edgecolors=look["color"],
                alpha=0.8,
            )
        axis.set_yticks(range(len(rows)), rows)
        axis.set_title(title, loc="left")
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="x")
    axes[-1, 0].set_xlabel(label)
    return figure
