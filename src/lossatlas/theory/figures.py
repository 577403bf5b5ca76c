"""Figures of the theory chapters. Colours come in from outside: one loss, one colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossatlas import losses
from lossatlas.theory.atlas import (
    library_loss,
    profile,
    share_by_autograd,
    share_values,
)

Colour = Callable[[str], str]
Style = Callable[[str], Mapping[str, Any]]

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
    _legend_below(figure, panels[0], 2)
    return figure


def _legend_below(figure: Figure, panel: Axes, ncols: int) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols)


def family(
    names: Sequence[str], style: Style, targets: Sequence[float] = (1.0, 0.0, 0.3)
) -> Figure:
    """A family of losses at one pixel: value and gradient, by p and by z, for each target.

    Rows are targets (hard 1, hard 0, soft), columns are the loss, its derivative by p, and its
    derivative at the logit, multiplied by the number of pixels so that families compare.
    """
    probs = np.linspace(0.004, 0.996, 249)
    titles = ("loss against p", "∂/∂p against p", "∂/∂z against z")
    figure, panels = plt.subplots(
        *(len(targets), 3),
        figsize=(6.6, 1.75 * len(targets) + 0.9),
        layout="constrained",
        squeeze=False,
    )
    for row, target in zip(panels, targets, strict=True):
        for name in names:
            curve = profile(name, target, probs)
            line = {**style(name), "marker": "", "lw": 1.8}
            for panel, across, up in zip(row, "ppz", ("value", "by p", "by z"), strict=True):
                values = curve[up] - (curve[up].min() if up == "value" else 0.0)
                panel.plot(curve[across], 400 * values, label=name, **line)
        for panel in row:
            panel.axhline(0, color="#999999", lw=0.6)
        row[0].set_ylabel(f"t = {target:g}")
        row[1].set_ylim(-12, 12)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)
    _legend_below(figure, panels[0][0], min(4, len(names)))
    return figure


def share_curves(
    names: Sequence[str],
    style: Style,
    probs: Sequence[float] = (0.5, 0.1, 0.01),
    fractions: Sequence[float] = (0.5, 0.1, 0.01, 0.002),
    pixels: int = 10_000,
    dots_pixels: int = 500,
) -> Figure:
    """The foreground's share against π: lines from the closed forms, dots from autograd."""
    figure, (panels,) = plt.subplots(
        1, len(probs), figsize=(6.6, 3.6), sharey=True, layout="constrained", squeeze=False
    )
    line = np.logspace(np.log10(0.5), -4, 120)
    for panel, prob in zip(panels, probs, strict=True):
        for name in names:
            chosen = style(name if name != "mean_dice" else "mean of both classes")
            values = share_values(name, line, prob, pixels)
            panel.semilogx(line, values, label=name, lw=1.6, **{**chosen, "marker": ""})
            dots = [
                share_by_autograd(library_loss(name, part), part, prob, dots_pixels)
                for part in fractions
            ]
            panel.plot(fractions, dots, markersize=4, **{**chosen, "linestyle": "none"})
        panel.set_title(f"q = {prob:g}")
        panel.set_xlabel("foreground fraction π")
        panel.invert_xaxis()
        panel.set_ylim(-0.02, 1.02)
    panels[0].set_ylabel("foreground's share")
    _legend_below(figure, panels[0], 4)
    return figure


def sorted_shares(fraction: float, probs: Sequence[float], pixels: int = 1000) -> pd.DataFrame:
    """The share of the losses that sort, by autograd.

    At q = ½ both classes have the same error and the order is arbitrary: it is taken just below.
    """
    sorting = {
        "ohem_ce": losses.build("ohem_ce", mode="binary"),
        "topk_ce": losses.build("topk_ce", mode="binary", k=0.1),
        "lovasz_softmax": losses.build("lovasz_softmax", mode="binary"),
        "lovasz_hinge": losses.build("lovasz_hinge"),
    }
    columns = {
        f"q = {prob:g}" if prob != 0.5 else "q just below 0.5": prob if prob != 0.5 else 0.499
        for prob in probs
    }
    rows = [
        {"loss": name}
        | {
            title: share_by_autograd(loss, fraction, prob, pixels)
            for title, prob in columns.items()
        }
        for name, loss in sorting.items()
    ]
    return pd.DataFrame(rows)


def lines(
    table: pd.DataFrame,
    across: str,
    labels: Mapping[str, str],
    style: Style,
    *,
    up: str,
    logx: bool = False,
    logy: bool = False,
) -> Figure:
    """Columns of a table against one of them; ``labels`` maps a column to the loss whose style it has."""
    figure, panel = plt.subplots(layout="constrained")
    for column, name in labels.items():
        panel.plot(table[across], table[column], label=column, markersize=4, **style(name))
    scales = {"xscale": "log"} if logx else {}
    scales |= {"yscale": "log"} if logy else {}
    panel.set(xlabel=across, ylabel=up, **scales)
    panel.legend()
    return figure


def increments(
    of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    style: Style,
    *,
    foreground: int,
    pixels: int,
    seed: int = 0,
) -> Figure:
    """The weight of each pixel in the order of its error: foreground pixels as bars, background as dots.

    Args:
        of: :func:`lossatlas.theory.lovasz.increments`.
        style: a loss's style by its name.
        foreground: foreground pixels of the image.
        pixels: its pixels.
        seed: of the errors.
    """
    truth = np.arange(pixels) < foreground
    errors = np.random.default_rng(seed).uniform(size=pixels)
    order = np.argsort(-errors)
    weights, missed = of(errors, truth)[order], truth[order]
    figure, panel = plt.subplots(layout="constrained", figsize=(5.0, 2.6))
    places = np.arange(1, pixels + 1)
    colour = style("lovasz_softmax")["color"]
    panel.bar(places[missed], weights[missed], color=colour, label="foreground")
    panel.plot(places[~missed], weights[~missed], "o", ms=3, color="#555555", label="background")
    panel.set(xlabel="place in the order, largest error first", ylabel="weight of the error")
    panel.legend()
    return figure


def distance_map(signed_distance: Callable[..., Any], side: int = 64) -> Figure:
    """The signed distance to the boundary of a disc and a small square; the boundary is drawn in black.

    Args:
        signed_distance: :func:`lossatlas.losses.distance.signed_distance`.
        side: pixels of the picture's side.
    """
    import torch

    rows, columns = np.mgrid[:side, :side] / side
    mask = (rows - 0.55) ** 2 + (columns - 0.35) ** 2 < 0.22**2
    mask |= (abs(rows - 0.2) < 0.06) & (abs(columns - 0.8) < 0.06)
    phi = signed_distance(torch.as_tensor(mask)[None, None])[0, 0].numpy()
    figure, panel = plt.subplots(layout="constrained", figsize=(5.0, 3.6))
    drawn = panel.imshow(phi, cmap="PuOr", vmin=-abs(phi).max(), vmax=abs(phi).max())
    panel.contour(mask, [0.5], colors="black", linewidths=1.2)
    panel.set_axis_off()
    figure.colorbar(drawn, label="φ in pixels, negative inside")
    return figure


def skeletons(masks: Mapping[str, Any], skeleton: Callable[[Any], Any]) -> Figure:
    """Each mask in grey, a row each, with its soft skeleton in black.

    Args:
        masks: tensors (1, 1, H, W) by title.
        skeleton: what draws the soft skeleton of such a tensor.
    """
    figure, panels = plt.subplots(len(masks), 1, layout="constrained", figsize=(5.0, 4.4))
    for panel, (title, mask) in zip(panels, masks.items(), strict=True):
        shown = 0.3 * mask + 0.7 * skeleton(mask)
        panel.imshow(shown[0, 0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()
    return figure
