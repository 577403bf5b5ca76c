"""A study of imbalance: one network, many losses, the same task with less and less foreground.

Every comparison is paired (the same seeds, the same test images) and made by
:mod:`lossatlas.statistics.paired`; a decision rule is treated as a loss is, so that "cross-entropy at a
tuned threshold minus Dice at ½" is a paired difference like any other.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from lossatlas.analysis.records import RULES, Part, Records, RecordsError, followers, load
from lossatlas.analysis.style import per_cent
from lossatlas.statistics import paired
from lossatlas.statistics.counts import pooled_metric
from lossatlas.statistics.intervals import Interval
from lossatlas.statistics.paired import Difference

#: What pages call the decision rules.
RULE_NAMES = {"argmax": "at ½", "tuned": "tuned", "theory": "theory"}
#: Metrics that a run has once, so that only seeds are a sample.
CALIBRATION = {
    "ece": "ECE",
    "ece_foreground": "ECE, foreground",
    "nll": "NLL",
    "brier": "Brier score",
}
#: The same of a network that gives every pixel the foreground's fraction π; its ECE is 0.
CONSTANT: dict[str, Callable[[float], float]] = {
    "nll": lambda pi: -pi * math.log(pi) - (1 - pi) * math.log1p(-pi),
    "brier": lambda pi: pi * (1 - pi),
}
#: Smallest difference of interest where a study names none: one point of Dice.
SMALLEST_EFFECT = 0.01
#: Level of every interval, and 1 minus the chance of a false statement in a family of tests.
LEVEL = 0.95

#: Losses of the hardest pixels: no threshold follows from their minimiser.
_NO_THEORY = ("ohem_ce", "topk_ce")
#: Losses that bend the probability, which runs know from the second version of theory's rule on.
_BENT = ("focal", "poly1")

#: Second of a difference that is a level: nothing is subtracted.
ZERO = "0"
#: A loss and a decision rule.
Cell = tuple[str, str]
#: A network that predicts nothing: its Dice is 0, so that a loss's difference from it is the loss's own.
_NOTHING: Cell = ("", "argmax")


@dataclass(frozen=True, eq=False)
class Fraction:
    """One data set of the study.

    Attributes
    ----------
    value
        The foreground's part of the labelled test pixels, measured.
    part
        The runs on it.
    asked
        The part that the data set was asked for, where the study says so.
    """

    value: float
    part: Part
    asked: float | None = None

    @property
    def text(self) -> str:
        """``0.1 %``: what was asked for where the canvases are near it, else what was measured."""
        near = self.asked is not None and abs(self.value / self.asked - 1) < 0.25
        return per_cent(self.asked if near and self.asked else self.value)

    @property
    def images(self) -> int:
        """Test images."""
        return len(self.part.image_ids)

    @property
    def images_with_foreground(self) -> int:
        """Test images that have any foreground: at small fractions few."""
        counts = next(iter(self.part.counts.values()))[0][:, self.part.foreground]
        return int((counts[..., [0, 2]].sum((-1, -2)) > 0).sum())


@dataclass(frozen=True)
class Leader:
    """The loss with the highest mean at one fraction and rule, and who is not told apart from it.

    Attributes
    ----------
    loss
        Its label.
    level
        The losses that are not behind: their difference from it is not significant at 5 %, or is
        shown to be smaller than the smallest effect of interest, both after Holm's correction for
        the number of losses.
    equal
        Those of them whose difference is shown to be smaller than that.
    runner_up
        The loss with the second highest mean, None where there is one loss.
    tested
        How many of the others share seeds enough with it for a difference to be tested.
    """

    loss: str
    level: tuple[str, ...]
    equal: tuple[str, ...]
    runner_up: str | None
    tested: int

    @property
    def alone(self) -> bool:
        """Whether it is told apart from every other loss."""
        return not self.level and self.runner_up is not None


class Imbalance:
    """The records of a study of imbalance, its fractions from the largest to the smallest.

    Parameters
    ----------
    records
        Of a binary study of one model, with decision rules (schema 2).
    draws
        Resamples behind every interval.

    Raises
    ------
    RecordsError
        The study is of another kind.
    """

    def __init__(self, records: Records, *, draws: int = 1000) -> None:
        _check(records)
        records, self.without_theory = _theory_where_there_is_one(records)
        self.records = records
        self.draws = draws
        self.fractions = sorted((_fraction(records, part) for part in records.parts), key=_rarity)
        self._contrasts: dict[tuple, Difference | None] = {}
        self._tables: dict[tuple[str, str], dict[tuple[Cell, Cell], Difference]] = {}

    # ------------------------------------------------------------ what there is

    def followups(self) -> list[Imbalance]:
        """The studies that ask this one's question again, of the records beside these, by name."""
        return [
            Imbalance(load(folder), draws=self.draws) for folder in followers(self.records.folder)
        ]

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.records.name

    @property
    def losses(self) -> list[str]:
        """Labels of the losses that have a run anywhere, in the book's order."""
        there = {loss for fraction in self.fractions for loss in fraction.part.losses}
        return [loss for loss in self.records.losses if loss in there]

    @property
    def margin(self) -> float:
        """Smallest effect of interest, in units of Dice."""
        return float(self.records.study.get("smallest_effect") or SMALLEST_EFFECT)

    @property
    def runs(self) -> pd.DataFrame:
        """A row a run."""
        return self.records.runs

    @property
    def asked_runs(self) -> int:
        """Runs that the study asks for."""
        return len(self.runs) + self.records.missing_runs

    @cached_property
    def styles(self) -> dict[str, dict]:
        """Line style of each loss."""
        return {loss: style for f in self.fractions for loss, style in f.part.styles.items()}

    @property
    def diverged(self) -> pd.DataFrame:
        """The runs that did not complete."""
        return self.runs[self.runs.status != "completed"]

    @property
    def absent_fractions(self) -> list[str]:
        """Data sets of the study without any run."""
        there = {fraction.part.dataset for fraction in self.fractions}
        return [name for name in self.records.study["datasets"] if name not in there]

    def named(self, registry_name: str, *, weighted: bool = False) -> str | None:
        """Label of the study's loss of that registry name, without or with weights that it was given.

        ``weighted_ce`` is weighted by itself, and is found without. None where the study has no run
        of it.
        """
        for loss in self.records.study["losses"]:
            has_weights = bool({"class_weights", "alpha"} & set(loss["params"]))
            if loss["name"] == registry_name and (has_weights == weighted or _weighs(loss["name"])):
                return str(loss["label"]) if loss["label"] in self.losses else None
        return None

    def missing(self, losses: Iterable[str] | None = None) -> int:
        """Runs of `losses` (all by default) that the study asks for and that are not here."""
        wanted = set(losses if losses is not None else self.records.losses)
        study = self.records.study
        asked = len(study["datasets"]) * len(study["seeds"]) * len(wanted)
        return asked - int(self.runs.loss.isin(wanted).sum())

    # ------------------------------------------------------------ counted metrics

    def per_seed(
        self, loss: str, at: Fraction, metric: str = "foreground_dice", rule: str = "argmax"
    ) -> np.ndarray:
        """(seeds,) the metric of each seed's network on the whole test set; empty without runs."""
        counts = at.part.by_rule[rule].get(loss)
        if counts is None:
            return np.zeros(0)
        return pooled_metric(counts.sum(1), metric, at.part.foreground)

    def mean(
        self, loss: str, at: Fraction, metric: str = "foreground_dice", rule: str = "argmax"
    ) -> float:
        """Mean over the seeds; NaN without runs."""
        values = self.per_seed(loss, at, metric, rule)
        return float(values.mean()) if len(values) else float("nan")

    def value(
        self, loss: str, at: Fraction, metric: str = "foreground_dice", rule: str = "argmax"
    ) -> Interval:
        """Mean over the seeds with its interval; the ends are NaN where there is but one seed."""
        estimate, seeds = self.mean(loss, at, metric, rule), len(self.per_seed(loss, at))
        found = self._table(at, metric).get(((loss, rule), _NOTHING))
        if found is None:
            return Interval(estimate, np.nan, np.nan, seeds)
        # all three metrics lie in [0, 1]
        return Interval(estimate, max(found.low, 0.0), min(found.high, 1.0), seeds)

    def difference(
        self,
        loss: str,
        other: str,
        at: Fraction,
        *,
        metric: str = "foreground_dice",
        rule: str = "argmax",
        other_rule: str | None = None,
    ) -> Difference | None:
        """`loss` under `rule` minus `other` under `other_rule` (the same by default).

        None where the two have fewer than two seeds in common.
        """
        one, two = (loss, rule), (other, other_rule or rule)
        table = self._table(at, metric)
        if (one, two) in table:
            return table[one, two]
        return _reversed(table[two, one]) if (two, one) in table else None

    def leader(self, at: Fraction, rule: str) -> Leader:
        """The loss with the highest mean Dice, and who is not told apart from it."""
        first, *others = sorted(at.part.losses, key=lambda loss: -self.mean(loss, at, rule=rule))
        found = {loss: self.difference(first, loss, at, rule=rule) for loss in others}
        known = [difference for difference in found.values() if difference is not None]
        behind: set[str] = set()
        equal: set[str] = set()
        if known:
            tested = [loss for loss in others if found[loss] is not None]
            compared = paired.compare(known, self.margin, alpha=1 - LEVEL)
            for loss, each in zip(tested, compared, strict=True):
                if each.outcome == "better":
                    behind.add(loss)
                if each.p_equivalence <= 1 - LEVEL:
                    equal.add(loss)
        return Leader(
            first,
            tuple(loss for loss in others if loss not in behind),
            tuple(loss for loss in others if loss in equal),
            others[0] if others else None,
            len(known),
        )

    def collapsed(self, loss: str, at: Fraction, rule: str) -> list[int]:
        """Seeds whose network is no better than a constant: less than the margin above the best of them."""
        values = self.per_seed(loss, at, rule=rule)
        bound = at.part.constant_dice + self.margin
        seeds = at.part.seeds.get(loss, [])
        return [seed for seed, value in zip(seeds, values, strict=True) if value < bound]

    def contrast(
        self, at: Fraction, plus: Sequence[Cell], minus: Sequence[Cell]
    ) -> Difference | None:
        """Mean Dice of the cells `plus` minus that of as many cells `minus`, each a (loss, rule).

        Each cell stands as a class of its own, and the mean over classes is the mean that is
        wanted. None where a cell has no run, or all together fewer than two seeds in common.
        """
        key = (at.part.dataset, tuple(plus), tuple(minus))
        if key not in self._contrasts:
            self._contrasts[key] = _contrast(at.part, plus, minus, self.draws)
        return self._contrasts[key]

    def _table(self, at: Fraction, metric: str) -> dict[tuple[Cell, Cell], Difference]:
        """Every difference of two cells (loss, rule) and of a cell from nothing; made once."""
        key = (at.part.dataset, metric)
        if key not in self._tables:
            self._tables[key] = _differences(at.part, metric, self.draws)
        return self._tables[key]

    def tuned_logits(self, loss: str, at: Fraction) -> np.ndarray:
        """(seeds,) the logit above which a pixel is foreground at the tuned threshold."""
        rows = at.part.runs[at.part.runs.loss == loss]
        known = [
            json.loads(text) for text in rows.get("offsets_tuned", pd.Series(dtype=str)).dropna()
        ]
        return np.array([-offsets[-1] for offsets in known if offsets], float)

    # ------------------------------------------------------------ metrics of a run

    def column(self, loss: str, at: Fraction, name: str) -> pd.Series:
        """A column of ``runs.parquet`` by seed, NaN left out."""
        runs = at.part.runs[at.part.runs.loss == loss]
        return runs.set_index("seed")[name].astype(float).dropna().sort_index()

    def column_mean(self, loss: str, at: Fraction, name: str) -> Interval:
        """Mean over the seeds of a column that is never negative; Student's interval, cut at 0."""
        mean = student(self.column(loss, at, name).to_numpy())
        return dataclasses.replace(mean, low=max(mean.low, 0.0) if mean.seeds > 1 else mean.low)

    def column_difference(
        self, loss: str, other: str, at: Fraction, name: str
    ) -> Difference | None:
        """Paired difference of a column, `loss` minus `other`: Student's over the seeds alone.

        The test set is taken as given. None below two seeds in common.
        """
        values = self.column(loss, at, name) - self.column(other, at, name)
        return self.paired(loss, other, values, at)

    def paired(self, loss: str, other: str, by_seed: pd.Series, at: Fraction) -> Difference | None:
        """Differences by seed as a `Difference` with Student's quantiles; None below two."""
        values = by_seed.dropna().to_numpy(float)
        if len(values) < 2:
            return None
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        return _plain(loss, other, float(values.mean()), error, len(values) - 1, tuple(values), at)

    def column_above(self, loss: str, at: Fraction, name: str) -> Difference | None:
        """The mean of a column as a difference from 0, to be tested against a bound."""
        return self.paired(loss, ZERO, self.column(loss, at, name), at)

    def fall(self, loss: str, first: Fraction, last: Fraction, rule: str) -> Difference | None:
        """Dice at `first` minus Dice at `last`: two data sets, so two independent samples (Welch)."""
        table = [self._table(at, "foreground_dice") for at in (first, last)]
        found = [of_set.get(((loss, rule), _NOTHING)) for of_set in table]
        if found[0] is None or found[1] is None:
            return None
        one, two = found[0], found[1]
        return _independent(
            (one.estimate, one.standard_error**2, one.df),
            (two.estimate, two.standard_error**2, two.df),
            last,
        )


def welch(one: np.ndarray, two: np.ndarray, at: Fraction) -> Difference | None:
    """Mean of `one` minus mean of `two`, independent samples (Welch); None below two values each."""
    if min(len(one), len(two)) < 2:
        return None
    first, second = (
        (float(values.mean()), float(values.var(ddof=1) / len(values)), len(values) - 1.0)
        for values in (one, two)
    )
    return _independent(first, second, at)


def _independent(
    one: tuple[float, float, float], two: tuple[float, float, float], at: Fraction
) -> Difference:
    """Difference of two independent estimates, each (mean, variance of the mean, df)."""
    (a, v, m), (b, w, n) = one, two
    df = (v + w) ** 2 / (v**2 / m + w**2 / n) if v + w > 0 else min(m, n)
    return _plain("first", "last", a - b, float(np.sqrt(v + w)), df, (), at)


def _check(records: Records) -> None:
    study = records.study
    if set(study["mode"].values()) != {"binary"}:
        raise RecordsError(f"{records.folder}: expected a binary study, got {study['mode']}")
    if len(study["models"]) != 1:
        raise RecordsError(f"{records.folder}: expected one model, got {study['models']}")
    for part in records.parts:
        absent = [rule for rule in RULES if rule not in part.by_rule]
        if absent:
            raise RecordsError(
                f"{records.folder}: expected the decision rules {', '.join(RULES)}, missing: "
                f"{', '.join(absent)}; collect the records anew with this version of lossatlas"
            )


def _theory_where_there_is_one(records: Records) -> tuple[Records, dict[str, str]]:
    """The records without theory's rule where it says nothing or was wrong; and of those losses why, by label."""
    runs = records.runs
    version = runs.get("theory_version", pd.Series(1, runs.index)).fillna(1)
    why = {}
    for label, rows in runs.groupby("loss"):
        name = rows.loss_name.iloc[0]
        if name in _NO_THEORY:
            why[str(label)] = "no threshold follows from a loss of the hardest pixels"
        elif name in _BENT and (version[rows.index] < 2).any():
            why[str(label)] = (
                "the rule of these runs took the probability for the true one, which this loss bends"
            )

    def blank(table: pd.DataFrame) -> pd.DataFrame:
        gone = [name for name in table.columns if name.endswith("_theory")]
        table = table.copy()
        table.loc[table.loss.isin(why), [name for name in gone if name != "offsets_theory"]] = (
            np.nan
        )
        return table

    parts = []
    for part in records.parts:
        known = {k: v for k, v in part.by_rule.get("theory", {}).items() if k not in why}
        by_rule = part.by_rule | ({"theory": known} if "theory" in part.by_rule else {})
        parts.append(dataclasses.replace(part, by_rule=by_rule, runs=blank(part.runs)))
    return dataclasses.replace(records, runs=blank(runs), parts=parts), why


def _fraction(records: Records, part: Part) -> Fraction:
    asked = records.study.get("dataset_params", {}).get(part.dataset, {}).get("foreground")
    return Fraction(float(part.fractions[part.foreground].sum()), part, asked)


def _rarity(at: Fraction) -> float:
    return -at.value


def _weighs(registry_name: str) -> bool:
    """Whether a loss of that name is one with class weights."""
    return registry_name.startswith("weighted_")


def _plain(
    first: str,
    second: str,
    estimate: float,
    error: float,
    df: float,
    per_seed: tuple[float, ...],
    at: Fraction,
) -> Difference:
    """A difference whose quantiles are Student's."""
    return Difference(
        first=first,
        second=second,
        estimate=estimate,
        standard_error=error,
        df=df,
        stretch=(1.0, 1.0),
        level=LEVEL,
        per_seed=per_seed,
        images=at.images,
        clusters=at.images,
    )


def _shared(part: Part, losses: Iterable[str]) -> tuple[int, ...]:
    """The seeds that all `losses` have."""
    return tuple(sorted(set.intersection(*(set(part.seeds[loss]) for loss in losses))))


def _counts(part: Part, cell: Cell, seeds: Sequence[int]) -> np.ndarray:
    """(S, N, C, 3) foreground counts of a cell for these seeds; `_NOTHING` finds no pixel."""
    loss, rule = cell
    if cell == _NOTHING:
        loss, rule = part.losses[0], "argmax"
    rows = [part.seeds[loss].index(seed) for seed in seeds if seed in part.seeds[loss]]
    counts = part.by_rule[rule][loss][rows][:, :, part.foreground]
    if cell == _NOTHING:  # the truth is the same for every run
        truth = counts[:1, ..., 0] + counts[:1, ..., 2]
        empty = np.stack([0 * truth, 0 * truth, truth], axis=-1)
        counts = np.repeat(empty, len(seeds), axis=0)
    return counts


def _contrast(
    part: Part, plus: Sequence[Cell], minus: Sequence[Cell], draws: int
) -> Difference | None:
    cells = [*plus, *minus]
    if len(plus) != len(minus) or any(loss not in part.by_rule[rule] for loss, rule in cells):
        return None
    shared = _shared(part, [loss for loss, _ in cells])
    if len(shared) < 2:
        return None
    tables = {
        side: np.concatenate([_counts(part, cell, shared) for cell in of_side], axis=2)
        for side, of_side in (("plus", plus), ("minus", minus))
    }
    return paired.paired_differences(
        tables, groups=part.groups, metric="foreground_dice", draws=draws, level=LEVEL
    )[0]


def _differences(part: Part, metric: str, draws: int) -> dict[tuple[Cell, Cell], Difference]:
    """Differences of all pairs of cells; pairs that share the same seeds are resampled together."""
    cells = [(loss, rule) for rule, of_rule in part.by_rule.items() for loss in of_rule]
    by_seeds: dict[tuple[int, ...], list[tuple[Cell, Cell]]] = {}
    for one, two in itertools.combinations([*cells, _NOTHING], 2):
        losses = {loss for loss, _ in (one, two)} - {_NOTHING[0]}
        by_seeds.setdefault(_shared(part, losses), []).append((one, two))
    found: dict[tuple[Cell, Cell], Difference] = {}
    for seeds, pairs in by_seeds.items():
        if len(seeds) < 2:
            continue
        used = {cell for pair in pairs for cell in pair}
        results = paired.paired_differences(
            {
                _label(cell): _counts(part, cell, seeds)
                for cell in [*cells, _NOTHING]
                if cell in used
            },
            groups=part.groups,
            metric=metric,
            pairs=[(_label(one), _label(two)) for one, two in pairs],
            draws=draws,
            level=LEVEL,
        )
        found |= dict(zip(pairs, results, strict=True))
    return found


def _label(cell: Cell) -> str:
    return f"{cell[0]} {RULE_NAMES[cell[1]]}"


def _reversed(difference: Difference) -> Difference:
    """The same difference, second minus first."""
    return dataclasses.replace(
        difference,
        first=difference.second,
        second=difference.first,
        estimate=-difference.estimate,
        stretch=difference.stretch[::-1],
        per_seed=tuple(-value for value in difference.per_seed),
    )


def student(values: np.ndarray) -> Interval:
    """Mean with Student's interval; the ends are NaN below two values."""
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan, 1)
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(mean, mean - float(half), mean + float(half), len(values))
