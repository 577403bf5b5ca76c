"""What the front page and the decision guide say of a foreground near 0.1 %: the studies of drawn digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy import stats

from lossatlas.claims import frames
from lossatlas.report import front
from lossatlas.report.records import Records

_PAGES = "book/intro.md, book/decision_guide.md, studies/imbalance/page.ipynb"
_PLACE = {"foreground": 0.001}


def more_images(few: Records, many: Records) -> pd.DataFrame:
    """What sixteen images a step bring beside four, at 0.1 %: a row a seed, a column a loss, in points of tuned Dice.

    Args:
        few: records of `imbalance`.
        many: records of `imbalance_batch`.
    """
    before, after = (
        known.runs[known.runs.foreground == _PLACE["foreground"]].pivot_table(
            "foreground_dice_tuned", "seed", "loss"
        )
        for known in (few, many)
    )
    return 100 * (after - before)[["ce", "dice"]]


def apart(sets: Sequence[Records]) -> pd.DataFrame:
    """Dice less cross-entropy at 0.1 %, less the same at 1 %: points of tuned Dice, a row for each draw of each study.

    Columns: ``estimate``, ``low``, ``high`` (95 %, other trainings and other images) and ``p``, uncorrected.

    Args:
        sets: records of studies that have both places with 533 objects.
    """
    rows = []
    for known in sets:
        for draw in sorted(known.runs.draw.unique()):
            where, one = {"draw": draw, "objects": 533} | _PLACE, {"foreground": 0.01}
            pair = ["dice", "ce"]
            found = frames.differences(known, "dice", pair, "tuned", where, against=where | one)
            rows.append(found[["estimate", "low", "high", "p"]].astype(float))
    return pd.concat(rows).mul([100, 100, 100, 1])


def numbers(results: str | Path) -> dict[str, str]:
    """Points of test Dice at 0.1 %, at thresholds of validation, as text.

    Returns:
        what sixteen images a step instead of four bring to ``ce`` and to ``dice`` in the mean; Dice less cross-entropy
        over the ``draws`` of the data, from ``low`` to ``high``; how many trainings of Lovász-softmax are recorded in
        `imbalance_losses` (``lovasz``); and :func:`sixteen`. Empty while a run of the first three studies is missing.

    Raises:
        FrontError: one of those began, a training loses by more images, a loss gains less than the losses differ,
            Dice is not behind in the mean of every draw, or :func:`sixteen` raises it.
    """
    known = frames.whole(results, "imbalance", "imbalance_draw", "imbalance_batch")
    if not known:
        return {}
    gain = more_images(known[0], known[2])
    gaps = 100 * pd.concat(
        frames.differences(each, "dice", ["dice", "ce"], "tuned", _PLACE).estimate
        for each in known[:2]
    ).astype(float)
    sentence = "more images a step help both losses at 0.1 %, and by more than the losses differ"
    holds = gain.min().min() > 0 and gain.mean().min() > gaps.abs().max()
    front.stands(results, sentence, holds, f"{gain.to_dict()}, {gaps.to_dict()}", _PAGES)
    sentence = "Dice is behind at 0.1 % in the mean of every draw"
    front.stands(results, sentence, (gaps < 0).all(), gaps.to_dict(), _PAGES)
    ends = {"ce": gain.ce.mean(), "dice": gain.dice.mean(), "low": gaps.min(), "high": gaps.max()}
    found = {name: f"{value:+.0f}".replace("-", "−") for name, value in ends.items()}
    found |= {"draws": str(len(gaps))} | _lovasz(Path(results) / "imbalance_losses")
    return found | sixteen(Path(results) / "imbalance_rare_batch")


def sixteen(folder: Path) -> dict[str, str]:
    """How far losses are behind cross-entropy at 0.1 % with sixteen images a step, in points of tuned Dice, as text.

    Args:
        folder: records of `imbalance_rare_batch`.

    Returns:
        ``weights``, the two losses with class weights, and ``overlap``, Dice and Dice + CE at the rates at which every
        training begins: from the least to the most. Empty while a run is missing.

    Raises:
        FrontError: a loss is shown ahead, OHEM or focal loss is shown behind, or one of the others is not.
    """
    sets = frames.whole(folder.parent, folder.name)
    if not sets:
        return {}
    groups = {
        "weights": ["weighted_ce", "focal_inverse"],
        "overlap": ["dice_low", "dice_ce_low", "dice_ce_high"],
        "open": ["focal", "ohem_ce"],
        "failing": ["dice_high"],
    }
    less = {
        loss: frames.differences(sets[0], "dice", [loss, "ce"], "tuned").iloc[0]
        for losses in groups.values()
        for loss in losses
    }
    table = pd.DataFrame(less).T
    shown = table.estimate[frames.shown(table.p)]
    holds = (shown < 0).all() and set(shown.index) == set(table.index) - set(groups["open"])
    sentence = (
        "with sixteen images at 0.1 % all but OHEM and focal loss are shown behind cross-entropy"
    )
    front.stands(folder, sentence, holds, table.estimate.to_dict(), _PAGES)
    ends = {
        name: -100 * table.estimate[groups[name]].astype(float) for name in ("weights", "overlap")
    }
    return {name: f"{gaps.min():.0f} to {gaps.max():.0f}" for name, gaps in ends.items()}


def few_objects(known: Records) -> pd.Series:
    """Dice less cross-entropy with 53 training objects at 1 %, less the same with 5,333, in points of tuned Dice.

    Returns ``estimate``, ``low`` and ``high``: paired by seed, the 95 % interval for other trainings on these test
    images, which both places share. :func:`frames.differences` adds the errors of two places instead.

    Args:
        known: records of `imbalance`.
    """
    scores = known.runs.pivot_table("foreground_dice_tuned", ["dataset", "seed"], "loss")
    gaps = 100 * (scores.dice - scores.ce).unstack("dataset")
    moved = gaps.n53 - gaps.n5333
    ends = stats.ttest_1samp(moved, 0).confidence_interval(0.95)
    return pd.Series({"estimate": moved.mean(), "low": ends.low, "high": ends.high})


def _lovasz(folder: Path) -> dict[str, str]:
    """How many trainings of Lovász-softmax at 0.1 % are recorded in `imbalance_losses` (``lovasz``), as text.

    Raises:
        FrontError: one of them began, against the decision guide.
    """
    known = frames.load_if_run(folder, folder.name)
    if known is None:
        return {}
    runs = known.runs[known.runs.foreground == _PLACE["foreground"]]
    began = runs.began[runs.loss.str.startswith("lovasz_softmax")].astype(bool)
    sentence = "no training of Lovász-softmax begins at 0.1 %"
    front.stands(folder, sentence, not began.any(), correct="book/decision_guide.md")
    return {"lovasz": str(len(began))}
