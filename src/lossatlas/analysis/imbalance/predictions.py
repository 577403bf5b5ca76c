"""The predictions of the study ``imbalance``, written down before it ran, and what its records say.

Each prediction is turned into checks that could go either way. The text for which a check was
written is kept with it: a study whose prediction reads otherwise is not judged by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from lossatlas.analysis.imbalance.checks import (
    Check,
    Entry,
    ahead,
    larger,
    negated,
    smaller,
    within,
)
from lossatlas.analysis.imbalance.share import mostly_closed
from lossatlas.analysis.imbalance.study import Fraction, Imbalance, welch
from lossatlas.analysis.imbalance.training import early_share, early_share_interval

#: "Below 2 %" and "at 1 % and below" of the predictions.
RARE = 0.02
#: "About half" of the gradient.
ABOUT_HALF = (0.3, 0.7)


@dataclass(frozen=True)
class Part:
    """One statement of a prediction with its checks, one a fraction."""

    statement: str
    checks: list[Check]


@dataclass(frozen=True)
class Outcome:
    """A prediction and what became of it.

    Attributes
    ----------
    claim
        The entry of the ledger that it speaks of.
    text
        As it was written down.
    outcome
        "held" (every statement holds everywhere), "contradicted" (one fails somewhere), "open", or
        "not judged".
    parts
        Its statements as they were judged; none where it was not.
    reason
        Why it was not judged.
    """

    claim: str
    text: str
    outcome: str
    parts: tuple[Part, ...] = ()
    reason: str = ""


class NotThere(Exception):
    """A prediction needs losses or fractions that the records do not have."""


def judge(study: Imbalance) -> list[Outcome]:
    """Every prediction of the study with what its records say, in the study's order."""
    return [
        _judge(study, p["claim"], p["text"]) for p in study.records.study.get("predictions", [])
    ]


def _judge(study: Imbalance, claim: str, text: str) -> Outcome:
    if (claim, text) not in _JUDGED:
        reason = "no check was written for a prediction of this wording"
        return Outcome(claim, text, "not judged", reason=reason)
    names, function = _JUDGED[claim, text]
    try:
        labels = _labels(study, names)
        parts = tuple(function(study, *labels))
    except NotThere as error:
        return Outcome(claim, text, "not judged", reason=str(error))
    outcomes = [check.holds for part in parts for check in part.checks if check.applies]
    open_parts = any(not any(check.applies for check in part.checks) for part in parts)
    said = "open" if None in outcomes or open_parts else "held"
    said = "contradicted" if False in outcomes else said
    return Outcome(claim, text, said, parts)


def _labels(study: Imbalance, names: Iterable[str]) -> list[str]:
    """Labels of the losses by their names here; all their runs must be there."""
    labels = []
    for name in names:
        label = study.named(name.removesuffix("+weights"), weighted=name.endswith("+weights"))
        if label is None:
            raise NotThere(f"there is no run of {name.replace('+', ' with ')}")
        labels.append(label)
    missing = study.missing(labels)
    if missing:
        raise NotThere(f"{missing} of the runs that it needs are missing")
    return labels


def rare(study: Imbalance) -> list[Fraction]:
    """The fractions below 2 %."""
    found = [at for at in study.fractions if at.value < RARE]
    if not found:
        raise NotThere("the study has no fraction below 2 %")
    return found


def entries(
    study: Imbalance,
    fractions: Iterable[Fraction],
    loss: str,
    other: str,
    rule: str,
    metric: str = "foreground_dice",
) -> list[Entry]:
    """`loss` minus `other` under one rule at every fraction."""
    return [
        (at.text, study.difference(loss, other, at, rule=rule, metric=metric)) for at in fractions
    ]


# ---------------------------------------------------------------- the predictions, one by one


def _half_of_the_gradient(study: Imbalance, dice: str, ce: str) -> list[Part]:
    low, high = ABOUT_HALF
    about_half = []
    for at in study.fractions:
        mean = early_share_interval(study, dice, at)
        if not np.isfinite([mean.low, mean.high]).all():
            raise NotThere(
                f"the share was measured on too few batches with foreground at {at.text}"
            )
        inside = low <= mean.low and mean.high <= high
        outside = mean.high < low or mean.low > high
        about_half.append(
            Check(at.text, True if inside else (False if outside else None), mean.text())
        )
    steps = []
    for more, less in zip(study.fractions, study.fractions[1:], strict=False):
        fall = welch(early_share(study, ce, more), early_share(study, ce, less), less)
        steps.append((f"{more.text} → {less.text}", fall))
    return [
        Part(
            f"early in training `{dice}` gives the foreground {low:g} to {high:g} of its gradient",
            about_half,
        ),
        Part(f"the early share of `{ce}` falls from each fraction to the next", larger(steps)),
    ]


def _foreground_dice_leads(study: Imbalance, dice: str, ce: str) -> list[Part]:
    found = ahead(entries(study, rare(study), dice, ce, "argmax"), study.margin)
    return [Part(f"`{dice}` is ahead of `{ce}` at ½", found)]


def _gap_is_a_threshold(study: Imbalance, ce: str, dice: str) -> list[Part]:
    tuned = smaller(entries(study, study.fractions, dice, ce, "tuned"), 0.02)
    half = larger(entries(study, rare(study), dice, ce, "argmax"), 0.10)
    return [
        Part(f"tuned, `{ce}` is less than 0.02 behind `{dice}`", tuned),
        Part(f"at ½ `{ce}` is more than 0.10 behind `{dice}`", half),
    ]


def _dice_beats_ce_at_half(study: Imbalance, dice: str, ce: str) -> list[Part]:
    half = ahead(entries(study, rare(study), dice, ce, "argmax"), study.margin)
    return [
        Part(f"`{dice}` is ahead of `{ce}` at ½", half),
        Part(
            "tuned thresholds close more than half of that gap",
            mostly_closed(study, [(at, dice, [ce]) for at in rare(study)]),
        ),
    ]


def _weights_raise_recall(study: Imbalance, weighted: str, ce: str) -> list[Part]:
    recall = entries(study, study.fractions, weighted, ce, "argmax", "mean_recall")
    volume = [(at.text, study.column_above(weighted, at, "volume_ratio")) for at in study.fractions]
    same = within(entries(study, study.fractions, weighted, ce, "tuned"), study.margin)
    return [
        Part(f"at ½ `{weighted}` has more recall than `{ce}`", larger(recall)),
        Part(f"at ½ the volume ratio of `{weighted}` is above 1", larger(volume, 1.0)),
        Part(f"tuned, `{weighted}` and `{ce}` are equal within {study.margin:g}", same),
    ]


def _inverse_frequency_is_not_better(study: Imbalance, inverse: str, focal: str) -> list[Part]:
    better = ahead(entries(study, study.fractions, inverse, focal, "tuned"), study.margin)
    return [Part(f"tuned, `{inverse}` is not ahead of `{focal}`", negated(better))]


def _dice_still_falls(study: Imbalance, dice: str) -> list[Part]:
    first, last = study.fractions[0], study.fractions[-1]
    if first is last:
        raise NotThere("the study has one fraction only")
    falls = [
        (words, study.fall(dice, first, last, rule))
        for rule, words in (("argmax", "½"), ("tuned", "the tuned threshold"))
    ]
    statement = f"the Dice of `{dice}` at {first.text} is above that at {last.text}"
    return [Part(statement, larger(falls))]


_Judge = Callable[..., list[Part]]

#: (claim, text) → the losses that it needs, as registry names, and what judges it.
_JUDGED: dict[tuple[str, str], tuple[tuple[str, ...], _Judge]] = {
    (
        "H2",
        "Dice gives the foreground about half of its gradient at every fraction; cross-entropy's "
        "share falls with the fraction while nothing is learnt yet.",
    ): (("dice", "ce"), _half_of_the_gradient),
    (
        "H3",
        "Dice of the foreground alone, as here, keeps its lead at 1 % and below; the mean over both "
        "classes is not part of this study.",
    ): (("dice", "ce"), _foreground_dice_leads),
    (
        "H4",
        "Tuned on validation, cross-entropy comes within 2 points of Dice's tuned Dice; at ½ it is "
        "more than 10 points behind at a foreground below 2 %.",
    ): (("ce", "dice"), _gap_is_a_threshold),
    (
        "7",
        "Dice beats cross-entropy at ½ below 2 % of foreground; with a tuned threshold the gap "
        "mostly closes.",
    ): (("dice", "ce"), _dice_beats_ce_at_half),
    (
        "8",
        "Inverse-frequency weights raise recall and volume above 1 at ½; a threshold on plain "
        "cross-entropy gives the same Dice within a point.",
    ): (("weighted_ce", "ce"), _weights_raise_recall),
    (
        "18",
        "Focal loss with the inverse class frequency as weight is not better than focal loss "
        "without, at a tuned threshold.",
    ): (("focal+weights", "focal"), _inverse_frequency_is_not_better),
    (
        "23",
        "Dice's own Dice still falls as the foreground gets rare: imbalance is not solved by it.",
    ): (("dice",), _dice_still_falls),
}
