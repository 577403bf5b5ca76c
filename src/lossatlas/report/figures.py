"""Figures of a page. Each is a `Drawing`: the picture, its caption, and words for who cannot see it.

Everything is five inches wide with type of 9.5 points or more, so that a page 400 pixels wide still shows it
legibly. A picture has twice the pixels of its place on the page. No figure trains or samples: it draws what the
records say.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lossatlas.report.findings import too_few
from lossatlas.report.page import with_palette
from lossatlas.report.records import Part
from lossatlas.report.scores import Scores
from lossatlas.report.style import (
    CAPTION_STYLE,
    DPI,
    FIGURE_WIDTH,
    class_colourmap,
    class_colours,
    per_cent,
)
from lossatlas.statistics.counts import class_metric
from lossatlas.statistics.intervals import number

#: Images shown with the predictions.
SHOWN = 4


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption and its alternative text."""

    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The picture, with twice the pixels that a page shows."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=2 * DPI, metadata={"Software": None})
        return with_palette(buffer.getvalue())

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self.png()).decode()
        width = round(self.figure.get_figwidth() * DPI)
        return (
            '<figure style="margin:1rem 0;padding:0;max-width:none">'
            f'<img src="data:image/png;base64,{picture}" alt="{html.escape(self.alt)}" '
            f'width="{width}" style="max-width:100%;height:auto;background:#fff">'
            f'<figcaption style="{CAPTION_STYLE}">{html.escape(self.caption)}</figcaption></figure>'
        )


@dataclass(frozen=True)
class Missing:
    """What stands in a figure's place when the records do not have it."""

    text: str

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.text)}</p>"


def _figure(height: float) -> Figure:
    """An empty figure of the book's width that no global state holds on to."""
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def intervals(several: Sequence[Scores]) -> Drawing:
    """Mean Dice of every loss with its interval, a small dot a seed; a panel a model."""
    losses = list(dict.fromkeys(loss for s in several for loss in s.part.losses))
    figure = _figure(0.7 + len(several) * (0.55 + 0.24 * len(losses)))
    axes = figure.subplots(len(several), 1, sharex=True, squeeze=False)[:, 0]
    words = []
    for axis, scores in zip(axes, several, strict=True):
        part = scores.part
        means = (f"{loss} {number(scores.mean(loss))}" for loss in part.losses)
        words.append(f"{part.model} on {part.dataset}: {', '.join(means)}")
        for row, loss in enumerate(part.losses):
            interval = scores.interval(loss)
            colour = part.styles[loss]["color"]
            seeds, marker = scores.per_seed(loss), part.styles[loss]["marker"]
            axis.plot([interval.low, interval.high], [row, row], color=colour, lw=2.5, alpha=0.6)
            axis.plot(seeds, [row] * len(seeds), "|", color=colour, ms=8, mew=1.2)
            axis.plot(interval.estimate, row, color=colour, marker=marker, ms=6)
        axis.axvline(part.constant_dice, color="0.35", lw=1, ls=":")
        axis.set_yticks(range(len(part.losses)), part.losses)
        axis.set_ylim(len(part.losses) - 0.4, -0.6)
        axis.set_title(f"{part.model}, {part.dataset}")
        axis.grid(axis="x")
        axis.grid(visible=False, axis="y")
    axes[-1].set_xlabel("test Dice, mean over the foreground classes")
    axes[-1].set_xlim(left=0)
    caption = f"A stroke is a training, the marker the mean (n = {_seeds(several)}). "
    if not any(map(too_few, several)):
        caption += "Band: its 95 % interval. Look at how far the seeds of one loss lie apart, beside the distance "
        caption += "between losses. "
    caption += "Dotted: the best constant prediction."
    return Drawing(figure, caption, f"A row a loss. Mean test Dice: {'; '.join(words)}.")


def _seeds(several: Sequence[Scores]) -> str:
    """``3 seeds``, or ``2 to 3 seeds`` where losses have different numbers of them."""
    counts = sorted({len(seeds) for scores in several for seeds in scores.part.seeds.values()})
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def training_curves(part: Part) -> Drawing | Missing:
    """Validation Dice against the step: a panel a loss, a line a seed, the other losses in grey."""
    curves = part.curves.dropna(subset=["val_mean_dice"])
    if curves.empty:
        return Missing(f"The records have no validation of {part.model} on {part.dataset}.")
    tables = {
        loss: curves[curves.loss == loss].pivot(
            index="step", columns="seed", values="val_mean_dice"
        )
        for loss in part.losses
    }
    across = 2 if len(tables) == 4 else min(3, len(tables))
    down = -(-len(tables) // across)
    figure = _figure(0.5 + 1.35 * down)
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axis in axes[len(tables) :]:
        axis.remove()
    for place, (axis, loss) in enumerate(zip(axes, tables, strict=False)):
        for other, table in tables.items():
            mine = other == loss
            colour = part.styles[loss]["color"] if mine else "0.85"
            axis.plot(table.index, table, color=colour, lw=1.2 if mine else 0.8, zorder=2 + mine)
        axis.set_title(loss, fontsize=9.5)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelbottom=place + across >= len(tables))
    figure.supxlabel("step", fontsize="medium")
    figure.supylabel("validation Dice", fontsize="medium")
    seeds = max(len(s) for s in part.seeds.values())
    caption = (
        f"{part.model} on {part.dataset}: Dice on validation images, mean over the foreground classes; a line a "
        f"training (n = {seeds} a loss), the other losses in grey. A line that still rises at the last step has not "
        "shown where its loss ends."
    )
    ends = (
        f"{loss} {number(table.iloc[-1].mean())}" for loss, table in tables.items() if len(table)
    )
    alt = f"A panel a loss. Last validation Dice, mean over the seeds: {', '.join(ends)}."
    return Drawing(figure, caption, alt)


def class_bars(part: Part) -> Drawing:
    """Test Dice of each class, a row of bars a loss, from the most to the least frequent class."""
    order = part.by_rarity
    names = [f"{part.classes[c]} · {per_cent(part.fractions[c])}" for c in order]
    figure = _figure(1.5 + 0.76 * len(part.losses))
    axes = figure.subplots(len(part.losses), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    words = []
    for axis, loss in zip(axes, part.losses, strict=True):
        dice = class_metric(part.counts[loss].sum(1), "dice")[:, order]  # (seeds, classes)
        known = ~np.isnan(dice)
        mean = np.where(known, dice, 0).sum(0) / np.maximum(known.sum(0), 1)
        colour = part.styles[loss]["color"]
        axis.bar(range(len(order)), mean, color=colour, alpha=0.65, width=0.75)
        for values in dice:
            axis.plot(range(len(order)), values, "_", color="black", ms=6, mew=1)
        axis.set_title(loss, color="black", pad=2)
        axis.set_ylim(0, 1.03)
        axis.set_yticks([0, 0.5, 1])
        worst, best = int(mean.argmin()), int(mean.argmax())
        words.append(
            f"{loss} from {number(mean[worst])} ({part.classes[order[worst]]}) to {number(mean[best])} "
            f"({part.classes[order[best]]})"
        )
    axes[-1].set_xticks(range(len(order)), names, rotation=55, ha="right", rotation_mode="anchor")
    figure.supylabel("test Dice", fontsize="medium")
    seeds = max(len(s) for s in part.seeds.values())
    caption = (
        f"{part.model} on {part.dataset}: Dice of each class, pooled over the test set; bar: mean "
        f"over the seeds, stroke: each seed (n = {seeds}). Below: the class and its part of the "
        f"test pixels, from the most to the least frequent. Look at the rare classes on the right."
    )
    alt = f"Bars, a row a loss. Mean Dice of its lowest and its highest class: {'; '.join(words)}."
    return Drawing(figure, caption, alt)


def predictions(part: Part) -> Drawing | Missing:
    """Contested test images, the truth, and what each loss's network says."""
    shown = min(SHOWN, len(part.images))
    losses = [loss for loss in part.losses if loss in part.predictions]
    if not shown or not losses:
        return Missing(f"The records have no predictions of {part.model} on {part.dataset}.")
    rows = ["image", "truth", *losses]
    height, width = part.images.shape[1:3]
    label_width = 1.05
    side = (FIGURE_WIDTH - label_width) / shown
    present = set(np.unique(part.targets[:shown]))
    present |= {int(c) for loss in losses for c in np.unique(part.predictions[loss][:shown])}
    legend = [c for c in range(len(part.classes)) if c in present]
    void = part.targets[:shown] >= len(part.classes)
    legend_height = 0.3 + 0.21 * -(-(len(legend) + void.any()) // 3)
    figure = _figure(side * height / width * len(rows) * 1.02 + legend_height + 0.1)
    axes = figure.subplots(len(rows), shown, squeeze=False)
    colours = class_colourmap(part.classes)
    for column in range(shown):
        image = part.images[column]
        grey = image.shape[-1] == 1
        axes[0, column].imshow(image[..., 0] if grey else image, cmap="gray" if grey else None)
        for row, name in enumerate(rows[1:], start=1):
            labels = part.targets if name == "truth" else part.predictions[name]
            axes[row, column].imshow(
                np.ma.masked_array(labels[column], mask=void[column]),
                cmap=colours,
                vmin=-0.5,
                vmax=len(part.classes) - 0.5,
                interpolation="nearest",
            )
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(
            name.replace("_", "_\n"), rotation=0, ha="right", va="center", labelpad=4
        )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set(visible=True, color="0.6", linewidth=0.5)
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)
    palette = class_colours(part.classes)
    handles = [Patch(facecolor=palette[c], edgecolor="0.6", label=part.classes[c]) for c in legend]
    if void.any():
        handles.append(Patch(facecolor="white", edgecolor="0.6", label="no label"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.2)
    names = ", ".join(part.shown_ids[:shown])
    caption = (
        f"{part.model} on {part.dataset}, first seed: {shown} test images on which the losses differ "
        f"most in Dice, each combination of classes once ({names}). Compare each row with the truth."
    )
    return Drawing(figure, caption, f"{caption} {_agreement(part, losses, shown)}")


def _agreement(part: Part, losses: list[str], shown: int) -> str:
    """How much of the foreground of the shown images each loss has right, in words."""
    target = part.targets[:shown]
    labelled = target < len(part.classes)
    inside = labelled & (target >= part.foreground[0])
    parts = [
        f"{loss} {per_cent((part.predictions[loss][:shown] == target)[inside].mean())}"
        for loss in losses
    ]
    return f"Foreground pixels of these images with the right class: {', '.join(parts)}."
