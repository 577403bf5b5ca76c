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
    share: bool = False,
    label: str = "test Dice at the threshold of validation",
) -> Figure:
    """A panel for each task, a labelled row for each kind of training that it has, a point a training.

    Args:
        trainings: a row a training; panels and rows come in the order in which they first appear.
        x: column of the value that is drawn.
        panel: column of the panels' titles.
        row: column of the rows' labels.
        loss: column of the losses' registry names: colour and marker are the loss's.
        hollow: labels of rows whose markers are outlines.
        share: whether the panels share one axis of the value.
        label: of the value, below the last panel.
    """
    order = list(dict.fromkeys(trainings[row]))
    panels = list(trainings.groupby(panel, sort=False))
    rows = [[name for name in order if name in set(inside[row])] for _, inside in panels]
    heights = [_REST + _ROW * len(names) for names in rows]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(FIGURE_WIDTH, sum(heights)),
        height_ratios=heights,
        sharex=share,
        squeeze=False,
        constrained_layout=True,
    )
    for axis, (title, inside), names in zip(axes[:, 0], panels, rows, strict=True):
        for (name, each), points in inside.groupby([row, loss], sort=False):
            look = loss_style(str(each))
            axis.scatter(
                points[x],
                [names.index(name)] * len(points),
                _AREA,
                marker=look["marker"],
                facecolors="none" if name in hollow else look["color"],
                edgecolors=look["color"],
                alpha=0.8,
            )
        axis.set_yticks(range(len(names)), names)
        axis.set_title(title, loc="left")
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.grid(axis="x")
    axes[-1, 0].set_xlabel(label)
    return figure
