"""Figures of the theory chapters. Colours come in from outside: one loss, one colour."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

Colour = Callable[[str], str]

_DASHES = ("-", "--", ":", "-.")


def two_coordinates(curves: pd.DataFrame, colour: Colour) -> Figure:
    """The same losses in p (left) and in z (right), logarithmic axes, equal scales.

    Args:
        curves: the table of :func:`lossatlas.theory.two_gradients.curves`.
        colour: a loss's colour by its name.
    """
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 4.2), sharey=True, layout="constrained")
    titles = ("by the probability p", "by the logit z")
    for panel, column, title in zip(panels, ("by p", "by z"), titles, strict=True):
        seen: dict[str, int] = {}
        for (name, label), part in curves.groupby(["loss", "label"], sort=False):
            dash = _DASHES[seen.setdefault(name, 0) % len(_DASHES)]
            seen[name] += 1
            panel.loglog(
                part["p"], part[column], color=colour(name), linestyle=dash, lw=2, label=label
            )
        panel.set_title(title)
        panel.set_xlabel("probability p of the pixel")
        panel.set_ylim(1e-5, 3e4)
        panel.grid(True, which="major", alpha=0.3)
    panels[0].set_ylabel("size of the gradient")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
