"""What a prediction can speak of: one table of named quantities.

A quantity of two losses is the first's less the second's, paired by seed; of one loss it is its own. Those of the
test images (Dice, IoU, precision, recall) come with the studentised interval over seeds and images; those of a run
(its calibration, its curve …) with Student's interval over the seeds; shares of runs with the exact binomial
interval. A quantity may be of one network by two decision rules, of two places (one less the other), or of the
folds of a cross-validation together.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lossatlas.claims import curves, pixels
from lossatlas.report.records import Part, Records
from lossatlas.report.scores import Scores
from lossatlas.statistics.paired import Difference, drawn_counts
from lossatlas.statistics.ranks import tau_b

#: Of the test images, by the name that `Scores` has for it.
OF_IMAGES = {
    "dice": "foreground_dice",
    "iou": "foreground_iou",
    "precision": "mean_precision",
    "recall": "mean_recall",
    "pixel accuracy": "pixel_accuracy",
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
#: Of a run's training curve.
OF_CURVES: dict[str, Callable[[pd.DataFrame], float]] = {
    "noise of the loss": curves.noise,
    "informativeness of the loss": curves.informativeness,
    "training loss follows": curves.training_follows,
    "validation loss follows": curves.validation_follows,
    "Dice at one half follows": curves.half_follows,
    "tuned Dice over training loss": curves.tuned_over_training,
    "easy negatives": curves.easy_negatives,
    "easy negatives, late": curves.easy_negatives_late,
}
#: Of a run, from a table of its own: the table, its column, and the column that names the decision rule or the class.
OF_TABLES = {
    "clDice": ("thin", "cldice"),
    "F1 at 2 pixels": ("thin", "f1_at_2"),
    "boundary F": ("boundary", "boundary_f"),
    "surface Dice": ("boundary", "nsd"),
}
#: Of two networks on the same sampled pixels.
OF_PIXELS = ("mask agreement", "logit slope", "logit intercept")
#: Over all places that a check names together: one entry.
OVER_PLACES = ("rank correlation", "best rate")
#: Of one loss against the loss that validation prefers.
REGRET = "regret"
QUANTITIES = (
    *(*OF_IMAGES, *OF_RUNS, *OF_CURVES, *OF_TABLES, *OF_PIXELS),
    *(*SHARES, *OVER_PLACES, REGRET),
)
#: Decision rules, by the name that the records have for them.
RULES = {
    "half": "argmax",
    "tuned": "tuned",
    "theory": "theory",
    "plug-in": "plug_in",
    "oracle": "oracle",
}

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
    rule: str | Sequence[str] = "half",
    where: Mapping[str, Any] | None = None,
    *,
    against: Mapping[str, Any] | None = None,
    over: str = "seeds and images",
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
        one of `RULES`, or one for each of the two losses.
    where
        by factor (a column of ``runs.parquet``, ``dataset`` and ``model`` among them) the level, a list of levels, or
        a condition such as ``"< 0.02"``.
    against
        the levels of another place: the quantity there is taken off, so that places are compared and not losses.
    over
        "seeds and images": both are samples; "seeds": the test images are the ones there are.

    Raises
    ------
    ValueError
        there is no such quantity, rule, loss or factor; or `where` matches no place.
    """
    _known("quantity", quantity, QUANTITIES)
    rules = (rule, rule) if isinstance(rule, str) else tuple(rule)
    for one_rule in rules:
        _known("rule", one_rule, RULES)
    for loss in losses:
        _known("loss", loss, records.losses)
    parts, absent = _named(records, where or {})
    if not parts and not absent:
        raise ValueError(f"expected a place with {dict(where or {})}, the study has none")
    found, whole = [], []
    asked = list(dict.fromkeys(records.losses if quantity == REGRET else losses))
    several = len(records.study["models"]) > 1
    for place, part in zip(_places(parts, several, records.parts), parts, strict=True):
        wanted = len(asked) * len(records.study["seeds"]) * part.runs.dataset.nunique()
        missing = wanted - int(part.runs.loss.isin(asked).sum())
        if missing > 0:
            why = f"{missing} of the {wanted} runs that it needs are missing"
            found.append(Entry(place, None, why, awaits=True))
        elif quantity in OVER_PLACES:
            whole.append(part)
        else:
            found.append(Entry(place, *_value(records, part, quantity, losses, rules, over)))
    for gap in absent:
        name = f"{gap['dataset']}, {gap['model']}" if several else str(gap["dataset"])
        found.append(Entry(name, None, "none of its runs is there yet", awaits=True))
    if quantity in OVER_PLACES and not found:
        value, why = _over_places(whole, quantity, losses, rules[0])
        return [Entry(f"{len(whole)} places together", value, why)]
    if against is None:
        return found
    others = entries(records, quantity, losses, rule, against, over=over)
    if len(others) != 1:
        raise ValueError(
            f"against: expected levels of one place, got {dict(against)} with {len(others)}"
        )
    (base,) = _named(records, against)[0] or (None,)
    compared = []
    for each, own in zip(found, [*parts, *[None] * len(absent)], strict=False):
        alike = base is not None and own is not None and _same_images(own, base)
        images = quantity in OF_IMAGES and len(losses) == 1 and each.value is not None
        if base and own and alike and images:
            value = _of_models(own, base, OF_IMAGES[quantity], losses[0], rules[0], over)
            compared.append(Entry(_gap(each.place, others[0].place), value))
        else:
            compared.append(_compared(each, others[0], paired=alike))
    return compared


def _same_images(one: Part, other: Part) -> bool:
    """Whether two places are two networks, or two trainings, on the same seeds and test images."""
    return (one.dataset, one.image_ids, one.seeds) == (other.dataset, other.image_ids, other.seeds)


def _of_models(
    part: Part, base: Part, metric: str, loss: str, rule: str, over: str
) -> Difference | None:
    """A loss with one network less the same loss with another, paired by seed and test image."""
    names = (f"{loss}, {part.model}", f"{loss}, {base.model}")
    tables = [each.by_rule[RULES[rule]][loss] for each in (part, base)]
    both = dict(zip(names, tables, strict=True))
    seeds = dict.fromkeys(names, part.seeds[loss])
    joint = replace(part, losses=list(names), seeds=seeds, by_rule={RULES[rule]: both})
    return _of_images(joint, metric, names, (rule, rule), over)[0]


def places(records: Records) -> list[Part]:
    """The places of a study that have runs; the folds of a cross-validation are one, once each of them has some."""
    return _named(records, {})[0]


def _named(
    records: Records, where: Mapping[str, Any]
) -> tuple[list[Part], list[Mapping[str, Any]]]:
    """The places that `where` names: those with runs, and those without; the folds of one set are one place."""
    pool = records.study.get("pool")
    parts = [part for part in records.parts if _matches(part.runs.iloc[0], where)]
    absent = [place for place in _without_runs(records) if _matches(place, where)]
    if pool is None:
        return parts, absent
    if absent:
        return [], absent
    return [
        pooled([part for part in parts if part.model == model])
        for model in dict.fromkeys(part.model for part in parts)
    ], []


def pooled(folds: Sequence[Part]) -> Part:
    """The folds of a cross-validation as one place: a seed's networks together predict every image once.

    Its counts are those of all folds' test images, for the seeds that every fold has; what is of a run (its
    calibration …) is then the mean over the folds.
    """
    first = folds[0]
    losses = [loss for loss in first.losses if all(loss in fold.losses for fold in folds)]
    seeds = {
        loss: sorted(set.intersection(*(set(fold.seeds[loss]) for fold in folds)))
        for loss in losses
    }

    def joined(fold: Part, counts: Mapping[str, np.ndarray], loss: str) -> np.ndarray:
        return counts[loss][[fold.seeds[loss].index(seed) for seed in seeds[loss]]]

    by_rule = {
        rule: {
            loss: np.concatenate([joined(fold, fold.by_rule[rule], loss) for fold in folds], axis=1)
            for loss in losses
            if all(loss in fold.by_rule.get(rule, {}) for fold in folds)
        }
        for rule in first.by_rule
    }
    return replace(
        first,
        dataset=unfolded(first.dataset),
        losses=losses,
        seeds=seeds,
        image_ids=[f"{fold.dataset}/{name}" for fold in folds for name in fold.image_ids],
        groups=[f"{fold.dataset}/{name}" for fold in folds for name in fold.groups],
        counts=by_rule["argmax"],
        by_rule=by_rule,
        runs=pd.concat([fold.runs for fold in folds], ignore_index=True),
        curves=pd.concat([fold.curves for fold in folds], ignore_index=True),
    )


def unfolded(dataset: str) -> str:
    """Name of a cross-validated set by the label of one of its folds.

    >>> unfolded("defects0")
    'defects'
    """
    return dataset.rstrip("_0123456789")


def _without_runs(records: Records) -> list[Mapping[str, Any]]:
    """The places that the study asks for and that have no run yet: a prediction for all of them is not met."""
    there = {(part.dataset, part.model) for part in records.parts}
    places: list[Mapping[str, Any]] = records.study.get("places", [])
    return [place for place in places if (place["dataset"], place["model"]) not in there]


def _value(
    records: Records,
    part: Part,
    quantity: str,
    losses: Sequence[str],
    rules: Sequence[str],
    over: str,
) -> tuple[Difference | Share | None, str]:
    if quantity in SHARES:
        column = part.runs[part.runs.loss.isin(losses)][SHARES[quantity]]
        return Share(int(column.astype(bool).sum()), len(column)), ""
    if quantity in OF_IMAGES:
        return _of_images(part, OF_IMAGES[quantity], losses, rules, over)
    if quantity == REGRET:
        return _regret(part, losses[0], rules[0], over)
    if quantity in OF_PIXELS:
        return _of_pixels(records, part, quantity, losses, rules[0])
    asked = replace(part, runs=part.runs[part.runs.loss.isin(losses)])
    values = _by_run(records, asked, quantity, rules[0])
    if values is None:
        return None, f"the records have no {quantity}"
    gaps = int(values[list(dict.fromkeys(losses))].isna().sum().sum())
    if gaps:
        return None, f"{gaps} of {values[losses[0]].size} runs have no {quantity}"
    # the folds of a seed count together
    by_seed = values.groupby(level="seed").mean()
    found = by_seed[losses[0]] - (by_seed[losses[1]] if len(losses) > 1 else 0.0)
    return _of_seeds(found.to_numpy(), losses), ""


def _by_run(records: Records, part: Part, quantity: str, rule: str) -> pd.DataFrame | None:
    """A number of every run, by (data set, seed) and loss; None where the records do not have it."""
    runs = part.runs
    if quantity in OF_RUNS:
        column = OF_RUNS[quantity]
        if rule != "half" and f"{column}_{RULES[rule]}" in runs:
            column += f"_{RULES[rule]}"
        of_run = runs.set_index("run_id")[column].astype(float)
    elif quantity in OF_CURVES:
        measure = OF_CURVES[quantity]
        rows = part.curves[part.curves.run_id.isin(runs.run_id)]
        of_run = pd.Series({run: measure(curve) for run, curve in rows.groupby("run_id")})
    else:
        name, column = OF_TABLES[quantity]
        path = records.folder / f"{name}.parquet"
        rows = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"run_id": []})
        rows = rows[rows.run_id.isin(runs.run_id)]
        if rows.empty:
            return None
        if "rule" in rows:
            rows = rows[rows.rule == RULES[rule]]
        if "class_index" in rows:
            rows = rows[rows.class_index.isin(part.foreground)]
        of_run = rows.groupby("run_id")[column].mean()
    table = runs.assign(value=runs.run_id.map(of_run))
    return table.pivot(index=["dataset", "seed"], columns="loss", values="value")


def _of_images(
    part: Part, metric: str, losses: Sequence[str], rules: Sequence[str], over: str
) -> tuple[Difference | None, str]:
    pairs = list(zip(losses, rules, strict=False))
    for loss, rule in pairs:
        if loss not in part.by_rule.get(RULES[rule], {}):
            return None, f"the records of {loss!r} have no counts by the rule {rule!r}"
    # under labels of their own: one loss by two rules is compared as two losses are
    names = [loss if losses.count(loss) == 1 else f"{loss} ({rule})" for loss, rule in pairs]
    tables = [part.by_rule[RULES[rule]][loss] for loss, rule in pairs]
    counts = dict(zip(names, tables, strict=True))
    seeds = {name: part.seeds[loss] for name, loss in zip(names, losses, strict=True)}
    scores = Scores(replace(part, losses=names, counts=counts, seeds=seeds))
    if over == "seeds":
        own = [scores.per_seed(name, metric) for name in names]
        return _of_seeds(own[0] - (own[1] if len(own) > 1 else 0.0), names), ""
    first, *rest = names
    return scores.difference(first, rest[0], metric) if rest else scores.own(first, metric), ""


def _regret(part: Part, loss: str, rule: str, over: str) -> tuple[Difference | None, str]:
    """What the loss that validation prefers has more than `loss` on the test images; 0 where it is that loss."""
    preferred = part.runs.groupby("loss").val_foreground_dice_tuned.mean()
    best = str(preferred.loc[part.losses].idxmax())
    if best == loss:
        return _of_seeds(np.zeros(len(part.seeds[loss])), (best, loss)), ""
    return _of_images(part, OF_IMAGES["dice"], (best, loss), (rule, rule), over)


def _of_pixels(
    records: Records, part: Part, quantity: str, losses: Sequence[str], rule: str
) -> tuple[Difference | None, str]:
    path = records.folder / "pixels.parquet"
    if not path.is_file():
        return None, "the records have no sample of pixels"
    rows = pd.read_parquet(path)
    rows = rows[rows.run_id.isin(part.runs.run_id)]
    folds = []
    for _, fold in part.runs[part.runs.loss.isin(losses)].groupby("dataset", sort=False):
        runs: list[dict[Any, Any]] = fold.to_dict("records")
        kept = {run["run_id"]: rows[rows.run_id == run["run_id"]] for run in runs}
        without = sum(table.empty for table in kept.values())
        if without:
            return None, f"{without} of {len(runs)} runs kept no sample of pixels"
        weight = kept[runs[0]["run_id"]].weight.to_numpy()
        cut = rule if quantity == "mask agreement" else "half"
        one, other = (
            {
                run["seed"]: kept[run["run_id"]].logit.to_numpy() + _offset(run, cut)
                for run in runs
                if run["loss"] == loss
            }
            for loss in losses
        )
        if quantity == "mask agreement":
            first, second = ({seed: z > 0 for seed, z in logits.items()} for logits in (one, other))
            folds.append(pixels.agreement(first, second, weight))
        else:
            which = ("logit slope", "logit intercept").index(quantity)
            lines = [pixels.line(one[seed], other[seed])[which] for seed in sorted(one)]
            folds.append(np.array(lines))
    return _of_seeds(np.mean(folds, axis=0), losses), ""


def _offset(run: Mapping[str, Any], rule: str) -> float:
    """What the decision rule adds to the one logit of a run."""
    if rule == "half":
        return 0.0
    if rule == "oracle":
        return float(run["oracle_offset"])
    return float(json.loads(run[f"offsets_{RULES[rule]}"])[0])


def _over_places(
    parts: Sequence[Part], quantity: str, losses: Sequence[str], rule: str
) -> tuple[Difference | None, str]:
    """What is of several places together: how far their rankings agree, or where the best rate lies."""
    by_loss = [
        {loss: Scores(part, RULES[rule]).per_seed(loss) for loss in losses} for part in parts
    ]
    if quantity == "rank correlation":
        if len(losses) < 3 or len(parts) < 2:
            return None, "ranks are compared for at least three losses at two places"
        value = _agreement([np.array([of[loss] for loss in losses]) for of in by_loss])
        return (value, "") if value is not None else (None, "at a place all losses are equal")
    rates = np.log10([float(part.runs.rate.iloc[0]) for part in parts])
    best = [rates[np.argmax([of[loss] for of in by_loss], axis=0)] for loss in losses]
    return _of_seeds(best[0] - (best[1] if len(best) > 1 else 0.0), losses), ""


def _agreement(tables: Sequence[np.ndarray], draws: int = 1000) -> Difference | None:
    """Mean Kendall tau-b over the pairs of places, each (losses, seeds); its error is a bootstrap's over the seeds."""
    generator = np.random.default_rng(0)
    seeds = min(table.shape[1] for table in tables)
    counts = [drawn_counts(generator, draws, table.shape[1]) for table in tables]
    means = [n @ table.T / table.shape[1] for n, table in zip(counts, tables, strict=True)]
    pairs = list(itertools.combinations(range(len(tables)), 2))
    tau = float(np.mean([tau_b(tables[a].mean(1), tables[b].mean(1)) for a, b in pairs]))
    if math.isnan(tau):
        return None
    drawn = np.nanmean([tau_b(means[a], means[b]) for a, b in pairs], axis=0)
    return replace(
        _of_seeds(np.full(seeds, tau), ("", "")), standard_error=float(np.nanstd(drawn, ddof=1))
    )


def _gap(place: str, other: str) -> str:
    """Two places' names as one, what both begin with once.

    >>> _gap("cracks, plain", "cracks, unet"), _gap("1 %", "30 %")
    ('cracks, plain against unet', '1 % against 30 %')
    """
    names, others = (each.replace("_", " ").split(", ") for each in (place, other))
    place = ", ".join(names)
    while len(names) > 1 and len(others) > 1 and names[0] == others[0]:
        names, others = names[1:], others[1:]
    return f"{place} against {', '.join(others)}"


def _compared(each: Entry, other: Entry, *, paired: bool) -> Entry:
    """An entry less that of another place; errors add, unless both are of the same seeds and of nothing else."""
    name = _gap(each.place, other.place)
    one, base = each.value, other.value
    if not isinstance(one, Difference) or not isinstance(base, Difference):
        gap = other if not isinstance(base, Difference) else each
        return Entry(name, None, gap.why or "no difference", gap.awaits)
    if paired and one.images == base.images == 0:
        both = np.array([one.per_seed, base.per_seed])
        return Entry(name, _of_seeds(both[0] - both[1], (one.first, one.second)))
    return Entry(name, _less(one, base))


def _less(first: Difference, second: Difference) -> Difference:
    """The difference of two independent differences, with Welch's degrees of freedom."""
    a, b = first.standard_error**2, second.standard_error**2
    spread = a**2 / first.df + b**2 / second.df
    return replace(
        first,
        estimate=first.estimate - second.estimate,
        standard_error=math.sqrt(a + b),
        df=(a + b) ** 2 / spread if spread else min(first.df, second.df),
        # the longer side of each: the first's lower end goes with the second's upper
        stretch=(
            max(first.stretch[0], second.stretch[1]),
            max(first.stretch[1], second.stretch[0]),
        ),
        per_seed=tuple(x - y for x, y in zip(first.per_seed, second.per_seed, strict=False)),
    )


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


def _places(parts: Sequence[Part], several: bool, every: Sequence[Part]) -> list[str]:
    """Names of places that say in what they differ from each other, or one from the study's: ``3 %, 533 objects``."""
    levels = pd.DataFrame([part.runs.iloc[0] for part in parts])
    differ = levels if len(parts) > 1 else pd.DataFrame([part.runs.iloc[0] for part in every])
    factors = [
        name
        for name in levels.columns
        if name in _FACTOR_WORDS and name in differ and differ[name].nunique() > 1
    ]
    if factors:
        return [
            ", ".join(_FACTOR_WORDS[f](row[f]) for f in factors) for _, row in levels.iterrows()
        ]
    return [f"{part.dataset}, {part.model}" if several else part.dataset for part in parts]


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
