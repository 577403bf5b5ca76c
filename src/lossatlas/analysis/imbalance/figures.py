"""Figures of the report on a study of imbalance: five inches wide, one colour a loss.

The foreground's part of the pixels is the horizontal axis, logarithmic, rarer to the right: one
reads what becomes of a loss "as the foreground falls". A mean stands with its interval where the
records have two seeds or more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from lossatlas.analysis.figures import Drawing, Missing, _figure
from lossatlas.analysis.imbalance.share import explained, gap_to_best
from lossatlas.analysis.imbalance.study import (
    CALIBRATION,
    CONSTANT,
    RULE_NAMES,
    Fraction,
    Imbalance,
)
from lossatlas.analysis.imbalance.training import early_share, sensitivity, shares, student
from lossatlas.statistics.intervals import Interval, number
from lossatlas.statistics.paired import Difference
from lossatlas.statistics.tasks import probability_of_improvement

#: Titles of the panels of decision rules.
RULE_TITLES = {
    "argmax": "at ½",
    "tuned": "at the threshold tuned on validation",
    "theory": "at the threshold that theory gives",
}
_GREY = "0.55"
#: Volume ratios below are drawn there: a logarithmic axis has no 0.
FLOOR = 0.05


def dice_by_rule(study: Imbalance) -> Drawing:
    """Test Dice against the fraction: a panel a decision rule, a line a loss."""
    figure = _figure(8.6)
    axes = figure.subplots(3, 1, sharex=True, sharey=True)
    words = []
    for axis, (rule, title) in zip(axes, RULE_TITLES.items(), strict=True):
        words.append(f"{title}: {_lines(axis, study, partial(study.value, rule=rule))}")
        axis.set_title(title)
        axis.set_ylabel("test Dice")
    means = [
        study.mean(loss, at, rule=rule)
        for rule in RULE_NAMES
        for at in study.fractions
        for loss in at.part.losses
    ]
    axes[0].set_ylim(max(0.0, np.nanmin(means) - 0.08), min(1.0, np.nanmax(means) + 0.08))
    _fraction_axis(axes[-1], study)
    _legend(figure, study)
    caption = (
        f"Test Dice of each loss against the foreground's part of the pixels; bars: {_interval(study)}. "
        f"Neighbouring losses are set a little apart."
    )
    return Drawing(figure, caption, f"Test Dice by decision rule. {' '.join(words)}")


def dice_by_loss(study: Imbalance) -> Drawing:
    """Test Dice against the fraction: a small panel a loss, a line a decision rule."""
    columns = 2
    rows = -(-len(study.losses) // columns)
    figure = _figure(0.9 + 1.45 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    looks: dict[str, tuple[Any, str]] = {
        "argmax": ("-", "o"),
        "tuned": ("--", "s"),
        "theory": (":", "^"),
    }
    x = [at.value for at in study.fractions]
    words = []
    for axis, loss in zip(axes.flat, study.losses, strict=False):
        colour = study.styles[loss]["color"]
        for other in study.losses:
            half = [study.mean(other, at) for at in study.fractions]
            axis.plot(x, half, color="0.85", lw=0.8, zorder=1)
        for rule, (line, marker) in looks.items():
            means = [study.mean(loss, at, rule=rule) for at in study.fractions]
            if np.isnan(means).all():  # no threshold of theory
                continue
            axis.plot(x, means, color=colour, linestyle=line, marker=marker, mfc="white", zorder=3)
            if rule == "tuned":
                for at in study.fractions:
                    each = study.per_seed(loss, at, rule=rule)
                    axis.plot([at.value] * len(each), each, ".", color=colour, ms=3, alpha=0.6)
            words.append(f"{loss} {RULE_NAMES[rule]} {', '.join(number(m) for m in means)}")
        axis.set_title(loss, pad=3)
    for axis in axes.flat[len(study.losses) :]:
        axis.set_visible(False)
    axes[0, 0].set_ylim(0, 1)
    for axis in axes[-1]:
        _fraction_axis(axis, study, few=True)
    figure.supylabel("test Dice", fontsize="medium")
    handles = [
        Line2D([], [], color="black", linestyle=line, marker=marker, mfc="white", label=label)
        for (line, marker), label in zip(looks.values(), ("½", "tuned", "theory"), strict=True)
    ]
    handles.append(Line2D([], [], color="0.8", label="other losses at ½"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.2)
    caption = (
        f"Test Dice of each loss under its three thresholds, mean over {_seeds(study)}; dots: each "
        f"seed at the tuned threshold; grey: all losses at ½."
    )
    return Drawing(figure, caption, f"Test Dice by loss. {'; '.join(words)}.")


def gaps(study: Imbalance) -> Drawing | Missing:
    """How far each loss is behind the highest one at ½, and what tuned thresholds leave of it."""
    rows: list[tuple[Fraction, str, list[tuple[str, Difference, Difference]]]] = []
    for at in study.fractions:
        _, best, others = gap_to_best(study, at)
        found = [(loss, explained(study, at, best, [loss])) for loss in others]
        pairs = [(loss, each.half, each.tuned) for loss, each in found if each is not None]
        if pairs:
            rows.append((at, best, pairs))
    if not rows:
        return Missing("Gaps need two seeds or more of two losses at one fraction.")
    heights = [len(pairs) for *_, pairs in rows]
    figure = _figure(1.0 + 0.36 * len(rows) + 0.17 * sum(heights))
    axes = figure.subplots(
        len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    words = []
    for axis, (at, best, pairs) in zip(axes, rows, strict=True):
        for place, (loss, half, tuned) in enumerate(pairs):
            colour = study.styles[loss]["color"]
            axis.plot(
                [half.estimate, tuned.estimate], [place, place], color=colour, lw=1, alpha=0.5
            )
            _bar(axis, half, place - 0.14, colour, "o", "white")
            _bar(axis, tuned, place + 0.14, colour, "o", colour)
            words.append(f"{at.text}, {loss} {half.text()}, tuned {tuned.text()}")
        axis.axvline(0, color="black", lw=0.8)
        axis.axvspan(-study.margin, study.margin, color="0.9", zorder=0, lw=0)
        axis.set_yticks(range(len(pairs)), [loss for loss, *_ in pairs], fontsize=9)
        axis.set_ylim(len(pairs) - 0.4, -0.6)
        axis.set_title(f"{at.text}: behind {best}", pad=3)
        axis.grid(axis="x")
        axis.grid(visible=False, axis="y")
    ends = [end for *_, pairs in rows for _, *two in pairs for d in two for end in (d.low, d.high)]
    axes[-1].set_xlim(max(-1.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02))
    axes[-1].set_xlabel("Dice of the loss that is highest at ½, minus Dice")
    handles = [
        Line2D([], [], color="black", marker="o", mfc="white", ls="", label="both at ½"),
        Line2D([], [], color="black", marker="o", ls="", label="both at tuned thresholds"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    caption = (
        f"How far each loss is behind the one that is highest at ½. Grey: less than the smallest effect "
        f"of interest, {study.margin:g}. Left of 0: ahead. Bars: {_interval(study)}, paired."
    )
    return Drawing(figure, caption, f"Gaps to the highest loss. {'; '.join(words)}.")


def explained_share(study: Imbalance) -> Drawing | Missing:
    """Share of each loss's gap at ½ that the threshold explains, where there is a gap."""
    rows = []
    for at in study.fractions:
        _, best, others = gap_to_best(study, at)
        for loss in others:
            each = explained(study, at, best, [loss])
            if each is not None and each.share is not None:
                rows.append((at, loss, each.share))
    if not rows:
        return Missing(
            f"No loss is shown to be {study.margin:g} or more behind the highest one at ½: there is no "
            f"gap to explain."
        )
    present = [at for at in study.fractions if any(row[0] is at for row in rows)]
    heights = [sum(row[0] is at for row in rows) for at in present]
    figure = _figure(0.8 + 0.36 * len(present) + 0.2 * len(rows))
    axes = figure.subplots(
        len(present), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axis, at in zip(axes, present, strict=True):
        mine = [(loss, share) for each, loss, share in rows if each is at]
        for place, (loss, share) in enumerate(mine):
            _bar(axis, share, place, study.styles[loss]["color"], study.styles[loss]["marker"])
        axis.set_yticks(range(len(mine)), [loss for loss, _ in mine], fontsize=9)
        axis.set_ylim(len(mine) - 0.4, -0.6)
        axis.set_title(at.text, pad=3)
        for line, colour in ((0.0, "black"), (0.5, _GREY), (1.0, "black")):
            axis.axvline(line, color=colour, lw=0.8, ls="-" if line != 0.5 else ":")
        axis.grid(visible=False)
    low = min(share.estimate for *_, share in rows)
    high = max(share.estimate for *_, share in rows)
    axes[-1].set_xlim(min(-0.25, low - 0.2), max(1.25, high + 0.2))
    axes[-1].set_xlabel("share of the gap at ½ that tuned thresholds close")
    caption = (
        f"1: nothing of the gap is left; 0: tuning changes nothing; above 1: the loss overtakes. Only "
        f"gaps of {study.margin:g} or more that are told apart from 0. Bars: 95 % intervals (Fieller)."
    )
    words = [f"{at.text}, {loss} {number(share.estimate)}" for at, loss, share in rows]
    return Drawing(figure, caption, f"Share of the gap that is a threshold. {'; '.join(words)}.")


def precision_recall(study: Imbalance) -> Drawing:
    """Precision and recall against the fraction, at ½ and tuned."""
    panels = [
        (f"{metric.removeprefix('mean_')} {RULE_NAMES[rule]}", metric, rule)
        for metric in ("mean_precision", "mean_recall")
        for rule in ("argmax", "tuned")
    ]
    return _panels(
        study,
        [(title, partial(study.value, metric=metric, rule=rule)) for title, metric, rule in panels],
        f"Precision and recall of the foreground; bars: {_interval(study)}.",
        "Precision and recall",
        limits=(0, 1),
    )


def volume_ratio(study: Imbalance) -> Drawing:
    """Predicted over true volume against the fraction, for every rule."""
    return _panels(
        study,
        [
            (
                RULE_NAMES[rule],
                partial(
                    study.column_mean,
                    name="volume_ratio" + ("" if rule == "argmax" else f"_{rule}"),
                ),
            )
            for rule in RULE_NAMES
        ],
        f"Predicted over true foreground pixels of the test set, logarithmic; 1 is right. Less than "
        f"{FLOOR:g} is drawn there. Mean over {_seeds(study)}; bars: 95 % intervals over the seeds.",
        "Volume ratio",
        log=True,
        line=1.0,
        floor=FLOOR,
    )


def calibration(study: Imbalance) -> Drawing:
    """Calibration errors of the probabilities against the fraction; no rule changes them."""
    return _panels(
        study,
        [(title, partial(study.column_mean, name=name)) for name, title in CALIBRATION.items()],
        "Less is better; logarithmic. The whole picture's ECE is dominated by the background; "
        "“foreground” is over the pixels that the network gives a foreground probability above 0.01, other "
        "pixels for each loss. "
        "The Lovász hinge's scores are no probabilities: their sigmoid is taken for one. Mean over "
        f"{_seeds(study)}; bars: 95 % intervals over the seeds. Dotted: a network that gives every pixel the "
        "foreground's fraction; its ECE is 0.",
        "Calibration",
        log=True,
        reference={CALIBRATION[name]: value for name, value in CONSTANT.items()},
    )


def rate_sensitivity(study: Imbalance) -> Drawing | Missing:
    """Validation Dice against the learning rate: a small panel a loss, a line a fraction."""
    columns = 2
    rows = -(-len(study.losses) // columns)
    shades = [str(shade) for shade in np.linspace(0.0, 0.72, len(study.fractions))]
    lines: list[Any] = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    figure = _figure(0.9 + 1.45 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    words, some = [], None
    for axis, loss in zip(axes.flat, study.losses, strict=False):
        for index, at in enumerate(study.fractions):
            found = sensitivity(study, loss, at)
            if found is None:
                continue
            some = found
            line = lines[index % len(lines)]
            axis.plot(found.rates, found.mean, color=shades[index], linestyle=line, lw=1.2)
            for place, rate in enumerate(found.rates):
                each = found.scores[place]
                axis.plot([rate] * len(each), each, ".", color=shades[index], ms=2.5)
            if found.chosen is not None:
                at_chosen = found.mean[found.rates.index(found.chosen)]
                axis.plot(found.chosen, at_chosen, "o", ms=5, color=study.styles[loss]["color"])
                words.append(f"{loss} at {at.text}: {found.chosen:g}")
        axis.set_title(loss, pad=3)
        axis.set_xscale("log")
    if some is None:
        return Missing("The study tuned no learning rate.")
    for axis in axes.flat[len(study.losses) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xticks(some.rates, [f"{rate:g}" for rate in some.rates])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("learning rate")
    axes[0, 0].set_ylim(0, 1)
    figure.supylabel("validation Dice, tuned threshold", fontsize="medium")
    handles = [
        Line2D([], [], color=shade, linestyle=lines[i % len(lines)], label=at.text)
        for i, (shade, at) in enumerate(zip(shades, study.fractions, strict=True))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, handlelength=2)
    caption = (
        f"Validation Dice at the threshold tuned there, mean over {some.scores.shape[1]} tuning seeds "
        f"(points: each); a run that diverged counts 0. Large dot: the rate that the reporting runs have."
    )
    return Drawing(figure, caption, f"Chosen learning rates: {'; '.join(words)}.")


def curves(study: Imbalance, at: Fraction) -> Drawing:
    """Training loss and validation Dice at ½ against the step at one fraction."""
    figure = _figure(5.6)
    axes = figure.subplots(2, 1, sharex=True)
    words = []
    for loss in at.part.losses:
        rows = at.part.curves[at.part.curves.loss == loss]
        if rows.empty:
            continue
        style = study.styles[loss]
        line = {"color": style["color"], "linestyle": style["linestyle"], "lw": 1.2}
        table = rows.pivot_table(index="step", columns="seed", values="loss_value")
        window = max(1, len(table) // 20)
        # the losses have different units: each begins at 1
        table = table / abs(table.iloc[:window].to_numpy()).mean()
        smooth = table.rolling(window, min_periods=1).mean().mean(axis=1)
        axes[0].plot(smooth.index, smooth, **line)
        validated = rows.dropna(subset=["val_mean_dice"])
        if not validated.empty:
            mean = validated.groupby("step").val_mean_dice.mean()
            axes[1].plot(mean.index, mean, marker=style["marker"], **line)
            words.append(f"{loss} {', '.join(number(value) for value in mean)}")
    axes[0].set_title(f"{at.text}: training loss, divided by its first values")
    axes[0].set_ylim(bottom=0)
    axes[1].set_title("validation Dice at ½")
    axes[1].set_ylim(0, 1)
    axes[1].set_xlabel("step")
    _legend(figure, study)
    caption = (
        f"Training at {at.text} of foreground: running mean over a twentieth of the steps, mean over "
        f"{_seeds(study)}."
    )
    return Drawing(figure, caption, f"Validation Dice at {at.text}: {'; '.join(words)}.")


def gradient_share(study: Imbalance) -> Drawing | Missing:
    """The foreground's share of the gradient: early against the fraction, and over the training."""
    tables = {at: shares(at) for at in study.fractions}
    if all(table.empty for table in tables.values()):
        return Missing("The runs did not measure the foreground's share of the gradient.")
    shown = [at for at in study.fractions if not tables[at].empty]
    shown = list(dict.fromkeys((shown[0], shown[len(shown) // 2], shown[-1])))
    figure = _figure(2.2 * (1 + len(shown)) + 0.9)
    axes = figure.subplots(1 + len(shown), 1, squeeze=False)[:, 0]
    words = _lines(axes[0], study, lambda loss, at: student(early_share(study, loss, at)))
    axes[0].set_title("early: the first batch with foreground (logarithmic)")
    _log(axes[0])
    _fraction_axis(axes[0], study)
    for axis, at in zip(axes[1:], shown, strict=True):
        for loss, rows in tables[at].groupby("loss"):
            style = study.styles[str(loss)]
            mean = rows.groupby("step").share.mean()
            smooth = mean.rolling(max(1, len(mean) // 8), min_periods=1).mean()
            # few batches have foreground where it is rare: a line of one point shows nothing
            marker = style["marker"] if len(mean) < 12 else None
            axis.plot(smooth.index, smooth, **(style | {"marker": marker}))
        axis.set_xlim(0, study.records.study["steps"])
        axis.set_title(f"over the training, {at.text}")
    axes[-1].set_xlabel("step")
    for axis in axes[1:]:
        axis.set_ylim(0, 1.02)
    axes[0].set_ylim(top=1.3)
    figure.supylabel("foreground's share of the gradient", fontsize="medium")
    _legend(figure, study)
    caption = (
        "Share of the ℓ1 norm of the gradient at the logits that falls on foreground pixels, on the "
        f"batches that have any. Mean over {_seeds(study)}; bars: 95 % intervals over the seeds."
    )
    return Drawing(figure, caption, f"Early share of the foreground. {words}")


def improvement(study: Imbalance, baseline: str | None) -> Drawing | Missing:
    """Probability that a run of a loss scores higher than one of `baseline`, over all fractions."""
    if baseline is None:
        return Missing("There is no run of the loss that the others are compared with.")
    found = {
        loss: {rule: improvement_over(study, loss, baseline, rule) for rule in RULE_NAMES}
        for loss in study.losses
        if loss != baseline
    }
    known = {loss: rules for loss, rules in found.items() if all(rules.values())}
    if not known:
        return Missing(
            f"Two seeds or more of {baseline} and of another loss are needed everywhere."
        )
    figure = _figure(1.0 + 0.46 * len(known))
    axis = figure.subplots()
    looks = {"argmax": (-0.2, "white", "o"), "tuned": (0.0, None, "o"), "theory": (0.2, None, "^")}
    words = []
    for place, (loss, rules) in enumerate(known.items()):
        colour = study.styles[loss]["color"]
        for rule, (shift, face, marker) in looks.items():
            interval = rules[rule]
            assert interval is not None
            _bar(axis, interval, place + shift, colour, marker, face or colour)
            words.append(f"{loss} {RULE_NAMES[rule]} {interval.text()}")
    axis.axvline(0.5, color="black", lw=0.8)
    axis.set_yticks(range(len(known)), list(known))
    axis.set_ylim(len(known) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(f"probability that a run scores higher than one of {baseline}")
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    handles = [
        Line2D([], [], color="black", ls="", marker=marker, mfc=face or "black", label=label)
        for (_, face, marker), label in zip(looks.values(), ("½", "tuned", "theory"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    caption = (
        f"{_mean_over_fractions(study)}½: neither wins more often. It says how often, not "
        f"by how much. Paired runs, {_seeds(study)}; bars: 95 % bootstrap intervals over the seeds."
    )
    return Drawing(figure, caption, f"Probability of improvement. {'; '.join(words)}.")


def _mean_over_fractions(study: Imbalance) -> str:
    count = len(study.fractions)
    return f"Mean over {count} fractions; " if count > 1 else ""


def improvement_over(study: Imbalance, loss: str, baseline: str, rule: str) -> Interval | None:
    """Probability of improvement over all fractions; None where seeds are missing."""
    scores = shared_scores(study, [loss, baseline], rule)
    if len(scores) < 2:
        return None
    return probability_of_improvement(scores[loss], scores[baseline], paired=True)


def shared_scores(study: Imbalance, losses: Sequence[str], rule: str) -> dict[str, np.ndarray]:
    """(seeds, fractions) test Dice of each loss that every fraction has, on the seeds that all of them have.

    Empty below two such seeds.
    """
    column = "foreground_dice" if rule == "argmax" else f"foreground_dice_{rule}"
    if not all(column in at.part.runs for at in study.fractions):
        return {}
    tables = {
        loss: pd.concat([study.column(loss, at, column) for at in study.fractions], axis=1).dropna()
        for loss in losses
        if all(loss in at.part.losses for at in study.fractions)
    }
    tables = {loss: table for loss, table in tables.items() if len(table)}
    seeds = (
        sorted(set.intersection(*(set(table.index) for table in tables.values()))) if tables else []
    )
    return (
        {loss: table.loc[seeds].to_numpy() for loss, table in tables.items()}
        if len(seeds) > 1
        else {}
    )


# ---------------------------------------------------------------- parts of them


def _panels(
    study: Imbalance,
    panels: Sequence[tuple[str, Callable[[str, Fraction], Interval]]],
    caption: str,
    alt: str,
    *,
    limits: tuple[float, float] | None = None,
    log: bool = False,
    line: float | None = None,
    floor: float | None = None,
    reference: Mapping[str, Callable[[float], float]] | None = None,
) -> Drawing:
    """Small panels of lines against the fraction, two in a row where there are four.

    Panels with a `floor` share an axis that reaches from there to the largest mean. `reference` is, by a panel's
    title, a curve in the fraction.
    """
    columns = 2 if len(panels) == 4 else 1
    rows = len(panels) // columns
    figure = _figure(1.3 + 2.3 * rows)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    words: list[str] = []
    tops: list[float] = []
    for axis, (title, value) in zip(axes.flat, panels, strict=True):
        words.append(f"{title}: {_lines(axis, study, value, floor)}")
        axis.set_title(title)
        if log:
            _log(axis)
        if floor is not None:
            means = [value(loss, at).estimate for at in study.fractions for loss in study.losses]
            tops.append(max([2.0, *(mean for mean in means if np.isfinite(mean))]))
        if limits:
            axis.set_ylim(*limits)
        if line is not None:
            axis.axhline(line, color="black", lw=0.8)
        if reference and title in reference:
            values = [at.value for at in study.fractions]
            constant = [reference[title](value) for value in values]
            axis.plot(values, constant, color="black", lw=1.0, ls=":", zorder=1)
            words.append(f"A constant {', '.join(number(value) for value in constant)}.")
    if floor is not None:
        for axis in axes.flat:
            axis.set_ylim(0.85 * floor, 1.5 * max(tops))
    for axis in axes[-1]:
        _fraction_axis(axis, study, few=columns > 1)
    _legend(figure, study)
    return Drawing(figure, caption, f"{alt}. {' '.join(words)}")


def _lines(
    axis: Axes,
    study: Imbalance,
    value: Callable[[str, Fraction], Interval],
    floor: float | None = None,
) -> str:
    """A line a loss with its intervals, and the numbers in words; what is below `floor` is drawn there."""
    bottom = -np.inf if floor is None else floor
    words = []
    for place, loss in enumerate(study.losses):
        # a few per cent apart, so that equal losses do not hide each other
        apart = 1.02 ** (place - (len(study.losses) - 1) / 2)
        found = [(at.value * apart, value(loss, at)) for at in study.fractions]
        found = [(x, interval) for x, interval in found if np.isfinite(interval.estimate)]
        if not found:
            continue
        style = study.styles[loss]
        y = [max(i.estimate, bottom) for _, i in found]
        axis.plot([x for x, _ in found], y, **style)
        for x, interval in found:
            if np.isfinite([interval.low, interval.high]).all():
                ends = [max(interval.low, bottom), max(interval.high, bottom)]
                axis.plot([x, x], ends, color=style["color"], lw=0.9)
        words.append(f"{loss} {', '.join(number(i.estimate) for _, i in found)}")
    return f"{'; '.join(words)}."


def _bar(
    axis: Axes,
    value: Interval | Difference,
    place: float,
    colour: str,
    marker: str,
    face: str | None = None,
) -> None:
    """A horizontal interval with its estimate."""
    if np.isfinite([value.low, value.high]).all():
        axis.plot([value.low, value.high], [place, place], color=colour, lw=1.6)
    axis.plot(value.estimate, place, marker=marker, color=colour, mfc=face or colour, ms=5)


def _log(axis: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0,), numticks=6))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _fraction_axis(axis: Axes, study: Imbalance, *, few: bool = False) -> None:
    """The fractions, rarer to the right; every second name where there is little room."""
    axis.set_xscale("log")
    x = [at.value for at in study.fractions]
    every = 2 if few and len(x) > 3 else 1
    names = [at.text if i % every == 0 else "" for i, at in enumerate(study.fractions)]
    axis.set_xticks(x, names)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(max(x) * 1.5, min(x) / 1.5)
    axis.set_xlabel("foreground, part of the pixels")


def _legend(figure: Figure, study: Imbalance) -> None:
    handles = [Line2D([], [], label=loss, **study.styles[loss]) for loss in study.losses]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, handlelength=2.6, columnspacing=1.0
    )


def _seeds(study: Imbalance) -> str:
    counts = sorted({len(s) for at in study.fractions for s in at.part.seeds.values()})
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _interval(study: Imbalance) -> str:
    images = sorted({at.images for at in study.fractions})
    of = f"{images[0]}" if len(images) == 1 else f"{images[0]} to {images[-1]}"
    return f"95 % intervals over {_seeds(study)} and {of} test images"
