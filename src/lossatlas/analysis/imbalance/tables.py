"""Tables of the report on a study of imbalance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossatlas.analysis.figures import Missing
from lossatlas.analysis.imbalance.checks import brief
from lossatlas.analysis.imbalance.figures import shared_scores
from lossatlas.analysis.imbalance.study import LEVEL, RULE_NAMES, Imbalance
from lossatlas.analysis.imbalance.training import sensitivity
from lossatlas.analysis.style import per_cent
from lossatlas.analysis.tables import Table
from lossatlas.statistics import paired, tasks
from lossatlas.statistics.intervals import number

#: What the table of equality says of a difference from the highest loss.
SAID = {"equivalent": "=", "better": "<", "undecided": "?"}


def fractions(study: Imbalance) -> Table:
    """One row a data set: its fraction as measured, its test images, and its runs."""
    rows = {}
    for at in study.fractions:
        asked = len(study.records.study["seeds"]) * len(study.records.losses)
        rows[at.text] = {
            "data set": at.part.dataset,
            "measured": per_cent(at.value),
            "test images": str(at.images),
            "with foreground": str(at.images_with_foreground),
            "Dice of the best constant": number(at.part.constant_dice),
            "runs": f"{len(at.part.runs)} of {asked}",
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "foreground"
    return Table(frame, "The study's data sets.", {})


def dice(study: Imbalance) -> Table:
    """Loss × fraction: mean test Dice at ½, tuned and by theory; bold where one is highest at ½."""
    columns: dict[str, dict[str, str]] = {}
    bold = set()
    for at in study.fractions:
        cells = dict.fromkeys(study.losses, "–")
        for loss in at.part.losses:
            means = [study.mean(loss, at, rule=rule) for rule in ("argmax", "tuned", "theory")]
            fewer = len(at.part.seeds[loss])
            few = f" (n = {fewer})" if fewer != len(study.records.study["seeds"]) else ""
            cells[loss] = " / ".join("–" if np.isnan(m) else number(m) for m in means) + few
        bold.add((study.leader(at, "argmax").loss, at.text))
        columns[at.text] = cells
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        "Test Dice at ½ / at the tuned threshold / at theory's threshold, mean over the seeds. Bold: "
        "the highest of a column at ½. Intervals are in the figures."
    )
    return Table(frame, caption, _swatches(study), frozenset(bold))


def thresholds(study: Imbalance) -> Table | Missing:
    """Loss × fraction: the tuned threshold as a logit, its median over the seeds, the lowest and the highest."""
    columns: dict[str, dict[str, str]] = {}
    for at in study.fractions:
        columns[at.text] = dict.fromkeys(study.losses, "–")
        for loss in at.part.losses:
            logits = study.tuned_logits(loss, at)
            if len(logits):
                middle, low, high = (
                    f"{round(float(each), 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
                    for each in (np.median(logits), logits.min(), logits.max())
                )
                columns[at.text][loss] = f"{middle} ({low}, {high})"
    if all(cell == "–" for column in columns.values() for cell in column.values()):
        return Missing("The records do not have the thresholds that were tuned.")
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        "The logit above which a pixel is foreground, tuned on validation: median over the seeds (lowest, highest). "
        "0 is the threshold ½; cross-entropy with the best Dice D needs ln(D/(2 − D))."
    )
    return Table(frame, caption, _swatches(study))


def equality(study: Imbalance) -> Table:
    """Loss × fraction: the highest tuned loss minus each, and whether that is shown to be nothing."""
    columns: dict[str, dict[str, str]] = {}
    bold = set()
    for at in study.fractions:
        leader = study.leader(at, "tuned").loss
        cells = dict.fromkeys(study.losses, "–") | {leader: "highest"}
        others = [loss for loss in at.part.losses if loss != leader]
        found = {loss: study.difference(leader, loss, at, rule="tuned") for loss in others}
        known = {loss: each for loss, each in found.items() if each is not None}
        if known:
            compared = paired.compare(list(known.values()), study.margin, alpha=1 - LEVEL)
            for (loss, difference), each in zip(known.items(), compared, strict=True):
                cells[loss] = f"{brief(difference)} {SAID.get(each.outcome, '?')}"
        bold.add((leader, at.text))
        columns[at.text] = cells
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        f"At tuned thresholds: Dice of the highest loss minus that of each, with its 95 % interval. "
        f"= shown to be smaller than {study.margin:g} (two one-sided tests); < behind; ? open; the tests "
        f"after Holm's correction for the losses of a column, the intervals without."
    )
    return Table(frame, caption, _swatches(study), frozenset(bold))


def collapses(study: Imbalance) -> Table:
    """Loss × fraction: how many runs are no better than a constant, at ½ and tuned."""
    columns: dict[str, dict[str, str]] = {}
    for at in study.fractions:
        cells = dict.fromkeys(study.losses, "–")
        for loss in at.part.losses:
            half, tuned = (len(study.collapsed(loss, at, rule)) for rule in ("argmax", "tuned"))
            cells[loss] = f"{half} / {tuned} of {len(at.part.seeds[loss])}"
        columns[at.text] = cells
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        f"Runs whose test Dice is less than {study.margin:g} above that of the best constant prediction, at ½ / "
        f"at the tuned threshold, of all seeds. At ½ a network may predict nothing and yet have learnt; at the "
        f"tuned threshold it has not."
    )
    return Table(frame, caption, _swatches(study))


def interquartile(study: Imbalance) -> Table | Missing:
    """Loss × rule: interquartile mean of the test Dice over all seeds and fractions."""
    columns: dict[str, dict[str, str]] = {}
    for rule, title in RULE_NAMES.items():
        scores = shared_scores(study, study.losses, rule)
        if scores:
            found = tasks.aggregate(scores)
            columns[title] = {
                loss: found[loss].text() if loss in found else "–" for loss in study.losses
            }
    if not columns:
        return Missing("An interquartile mean needs two seeds or more of two losses everywhere.")
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        "Interquartile mean of the test Dice: the mean of the middle half of all runs of a loss, over "
        "seeds and fractions, with its 95 % interval over the seeds. A few collapsed runs move it little."
    )
    return Table(frame, caption, _swatches(study))


def agreement(study: Imbalance) -> Table | Missing:
    """Fraction × fraction: Kendall's τ between the orders of the losses, at ½ and tuned."""
    rows: dict[str, dict[str, str]] = {}
    for one, two in itertools.combinations(range(len(study.fractions)), 2):
        pair = f"{study.fractions[one].text}, {study.fractions[two].text}"
        for rule in ("argmax", "tuned"):
            found = order_agreement(study, one, two, rule)
            if found is not None:
                rows.setdefault(pair, {})[RULE_NAMES[rule]] = (
                    f"{number(found.tau)} [{number(found.low)}, {number(found.high)}], "
                    f"own {number(found.ceiling)}"
                )
    if not rows:
        return Missing("Orders can be compared from three losses, two fractions and two seeds on.")
    frame = pd.DataFrame.from_dict(rows, orient="index").fillna("–")
    frame.index.name = "fractions"
    caption = (
        "Kendall's τ between the orders of the losses at two fractions (1: the same order, 0: unrelated, "
        "−1: reversed), with its 95 % interval over the seeds. Own: τ between two halves of a fraction's own "
        "seeds, the geometric mean of both fractions; where it is low, the seeds do not fix an order that "
        "another fraction could share."
    )
    return Table(frame, caption, {})


def order_agreement(
    study: Imbalance, one: int, two: int, rule: str
) -> tasks.RankCorrelation | None:
    """Rank correlation of the losses between two fractions, by their place; None where it is undefined."""
    scores = shared_scores(study, study.losses, rule)
    if len(scores) < 3 or one == two:
        return None
    first, second = (np.array([table[:, at] for table in scores.values()]) for at in (one, two))
    if any(len(set(values.mean(1))) == 1 for values in (first, second)):
        return None  # every loss the same: no order
    return tasks.rank_correlation(first, second, over="seeds")


def rates(study: Imbalance) -> Table | Missing:
    """Loss × fraction: the learning rate chosen, marked where it is at the edge of the grid."""
    columns: dict[str, dict[str, str]] = {}
    for at in study.fractions:
        cells = dict.fromkeys(study.losses, "–")
        for loss in study.losses:
            found = sensitivity(study, loss, at)
            if found is not None and found.chosen is not None:
                edge = " (edge)" if found.at_edge else ""
                cells[loss] = f"{found.chosen:g}{edge}"
        columns[at.text] = cells
    if all(cell == "–" for cells in columns.values() for cell in cells.values()):
        return Missing("No learning rate has been chosen by tuning.")
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = "Learning rate of the reporting runs; edge: the lowest or highest tried."
    return Table(frame, caption, _swatches(study))


def _swatches(study: Imbalance) -> Mapping[str, str]:
    return {loss: study.styles[loss]["color"] for loss in study.losses}
