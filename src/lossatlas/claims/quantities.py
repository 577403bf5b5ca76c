"""What a prediction can speak of: one table of named quantities.

A quantity of two losses is the first's less the second's, paired by seed; of one loss it is its own. Those of the
test images (Dice, IoU, precision, recall) come with the studentised interval over seeds and images; those of a run
(its calibration, its area under the precision-recall curve …) with Student's interval over the seeds; shares of
runs with the exact binomial interval.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lossatlas.report.records import Part, Records
from lossatlas.report.scores import Scores
from lossatlas.statistics.paired import Difference

#: Of the test images, by the name that `Scores` has for it.
OF_IMAGES = {
    "dice": "foreground_dice",
    "iou": "foreground_iou",
    "precision": "mean_precision",
    "recall": "mean_recall",
    "dice per image": "mean_dice_per_image",
}
#: Of a run, by its column in ``runs.parquet``; with a rule other than ½ the column has the rule's name behind it.
OF_RUNS = {
    "volume ratio": "volume_ratio",
    "calibration error": "ece",
    "foreground calibration error": "ece_foreground",
    "negative log-likelihood": "nll",
    "Brier score": "brier",
    "best Dice": "oracle_dice",
    "area under precision-recall": "auprc",
    "largest logit": "logit_max",
    "initial loss": "initial_loss",
    "steps with a gradient": "effective_steps",
    "empty batches": "empty_batches",
    "training seconds": "train_s",
}
#: Shares of runs, by a column of true and false.
SHARES = {"share that began": "began"}
QUANTITIES = (*OF_IMAGES, *OF_RUNS, *SHARES)
#: Decision rules, by the name that the records have for them.
RULES = {"half": "argmax", "tuned": "tuned", "theory": "theory"}

_COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Share:
    """A share of runs with its exact binomial (Clopper–Pearson) tails."""

    successes: int
    trials: int

    @property
    def estimate(self) -> float:
        """Successes over trials."""
        return self.successes / self.trials

    def p_above(self, bound: float) -> float:
        """One-sided p-value: small where the share is larger than `bound`."""
        return float(stats.binom.sf(self.successes - 1, self.trials, bound))

    def p_below(self, bound: float) -> float:
        """One-sided p-value: small where the share is smaller than `bound`."""
        return float(stats.binom.cdf(self.successes, self.trials, bound))

    def text(self) -> str:
        """``38 of 40``."""
        return f"{self.successes} of {self.trials}"


@dataclass(frozen=True)
class Entry:
    """A quantity at one place of a study: its value, or why there is none (`awaits`: runs are missing)."""

    place: str
    value: Difference | Share | None
    why: str = ""
    awaits: bool = False


def entries(
    records: Records,
    quantity: str,
    losses: Sequence[str],
    rule: str = "half",
    where: Mapping[str, Any] | None = None,
) -> list[Entry]:
    """A quantity at every place of a study that `where` names.

    Parameters
    ----------
    records
        of the study.
    quantity
        one of `QUANTITIES`.
    losses
        labels: of two the first less the second; of a share of runs as many as count together.
    rule
        one of `RULES`.
    where
        by factor (a column of ``runs.parquet``, ``dataset`` and ``model`` among them) the level, a list of levels, or
        a condition such as ``"< 0.02"``.

    Raises
    ------
    ValueError
        there is no such quantity, rule, loss or factor; or `where` matches no place.
    """
    _known("quantity", quantity, QUANTITIES)
    _known("rule", rule, RULES)
    for loss in losses:
        _known("loss", loss, records.losses)
    parts = [part for part in records.parts if _matches(part.runs.iloc[0], where or {})]
    absent = [place for place in _without_runs(records) if _matches(place, where or {})]
    if not parts and not absent:
        raise ValueError(f"expected a place with {dict(where or {})}, the study has none")
    found = []
    for place, part in zip(_places(parts), parts, strict=True):
        wanted = len(losses) * len(records.study["seeds"])
        missing = wanted - int(part.runs.loss.isin(losses).sum())
        if missing > 0:
            why = f"{missing} of the {wanted} runs that it needs are missing"
            found.append(Entry(place, None, why, awaits=True))
        else:
            found.append(Entry(place, *_value(part, quantity, losses, rule)))
    several = len(records.study["models"]) > 1
    for gap in absent:
        name = f"{gap['dataset']}, {gap['model']}" if several else str(gap["dataset"])
        found.append(Entry(name, None, "none of its runs is there yet", awaits=True))
    return found


def _without_runs(records: Records) -> list[Mapping[str, Any]]:
    """The places that the study asks for and that have no run yet: a prediction for all of them is not met."""
    there = {(part.dataset, part.model) for part in records.parts}
    places: list[Mapping[str, Any]] = records.study.get("places", [])
    return [place for place in places if (place["dataset"], place["model"]) not in there]


def _value(
    part: Part, quantity: str, losses: Sequence[str], rule: str
) -> tuple[Difference | Share | None, str]:
    if quantity in SHARES:
        column = part.runs[part.runs.loss.isin(losses)][SHARES[quantity]]
        return Share(int(column.astype(bool).sum()), len(column)), ""
    if quantity in OF_IMAGES:
        counts = part.by_rule.get(RULES[rule])
        if counts is None:
            return None, f"the records have no counts by the rule {rule!r}"
        scores = Scores(replace(part, counts=counts))
        metric = OF_IMAGES[quantity]
        first, *rest = losses
        return scores.difference(first, rest[0], metric) if rest else scores.own(first, metric), ""
    column_name = OF_RUNS[quantity]
    if rule != "half" and f"{column_name}_{rule}" in part.runs:
        column_name += f"_{rule}"
    values = part.runs.pivot(index="seed", columns="loss", values=column_name).astype(float)
    found = values[losses[0]] - (values[losses[1]] if len(losses) > 1 else 0.0)
    if found.isna().any():
        return None, f"{int(found.isna().sum())} of {len(found)} runs have no {quantity}"
    return _of_seeds(found.to_numpy(), losses), ""


def _of_seeds(values: np.ndarray, losses: Sequence[str]) -> Difference:
    """A difference whose only sample is the seeds."""
    first, second = (*losses, "")[:2]
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Difference(
        first=first,
        second=second,
        estimate=float(values.mean()),
        standard_error=error,
        df=max(1, len(values) - 1),
        stretch=(1.0, 1.0),
        level=0.95,
        per_seed=tuple(map(float, values)),
        images=0,
        clusters=0,
    )


def _matches(place: Any, where: Mapping[str, Any]) -> bool:
    for factor, wanted in where.items():
        _known("factor", factor, place.keys())
        if not _is_level(place[factor], wanted):
            return False
    return True


def _is_level(level: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_is_level(level, each) for each in wanted)
    condition = re.fullmatch(r"(>=|<=|>|<)\s*(\S+)", wanted) if isinstance(wanted, str) else None
    if condition:
        return _COMPARES[condition[1]](float(level), float(condition[2]))
    return bool(level == wanted)


def _places(parts: Sequence[Part]) -> list[str]:
    """Names of places that say in what they differ: ``3 %, 533 objects``; else the data set."""
    levels = pd.DataFrame([part.runs.iloc[0] for part in parts])
    factors = [
        name
        for name in levels.columns
        if name in _FACTOR_WORDS and (len(parts) == 1 or levels[name].nunique() > 1)
    ]
    if factors:
        return [
            ", ".join(_FACTOR_WORDS[f](row[f]) for f in factors) for _, row in levels.iterrows()
        ]
    one_model = len({part.model for part in parts}) == 1
    return [part.dataset if one_model else f"{part.dataset}, {part.model}" for part in parts]


_FACTOR_WORDS: dict[str, Callable[[Any], str]] = {
    "foreground": lambda level: f"{100 * float(level):g} %",
    "objects": lambda level: f"{level:,} objects",
    "batch": lambda level: f"batches of {level}",
    "draw": lambda level: f"draw {level}",
    "head": lambda level: {"none": "no activation"}.get(level, str(level)),
    "channels": lambda level: f"{level} channels",
    "bias": lambda level: f"{level} bias",
    "optimiser": lambda level: {"sgd": "SGD", "adamw": "AdamW"}.get(level, str(level)),
    "rate": lambda level: f"rate {level:g}",
}


def _known(what: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}, expected one of {', '.join(map(str, known))}")
