"""The numbers, the table and the figure of the front page that come from real images: the study `thresholds`.

The sentences stand in ``book/intro.md`` and its translations; they name a number as ``{{ real.… }}``. A task counts
when all its seeds of cross-entropy and of Dice are there. A set that is cross-validated has a study of its own and is
one task: see :func:`with_folds`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lossatlas.claims import frames, quantities
from lossatlas.report import front
from lossatlas.report.records import Part, Records
from lossatlas.statistics.counts import pooled_metric
from lossatlas.statistics.intervals import number

#: Where the headline stands.
_PAGES = "book/intro.md, lossatlas.claims.readme"
#: What a task's name in the study says, by language; a task that has no entry keeps its name.
NAMES = {
    "en": {},
    "es": {"cracks": "grietas", "vessels": "vasos", "mitochondria": "mitocondrias",
           "synapses": "sinapsis", "pedestrians": "peatones", "defects": "defectos"},
    "fr": {"cracks": "fissures", "vessels": "vaisseaux", "mitochondria": "mitochondries",
           "synapses": "synapses", "pedestrians": "piétons", "defects": "défauts"},
}  # fmt: skip
PAIR = ("dice", "ce")


def with_folds(study: Records) -> Records:
    """The study, and as one more task each the cross-validated studies that its predictions count.

    Args:
        study: whose predictions name the others by ``also``. One that has no records yet is still planned.
    """
    checks = [
        check for each in study.study.get("predictions", []) for check in each.get("holds") or []
    ]
    names = list(dict.fromkeys(name for check in checks for name in check.get("also") or []))
    parts, tables, datasets = list(study.parts), [study.runs], list(study.study["datasets"])
    for name in names:
        other = frames.load_if_run(study.folder.parent / name, name)
        found = quantities.places(other) if other is not None else []
        parts += found
        tables += [_pooled_runs(part) for part in found]
        datasets += [part.dataset for part in found] or [name]
    runs = pd.concat(tables, ignore_index=True) if names else study.runs
    return replace(study, study=study.study | {"datasets": datasets}, parts=parts, runs=runs)


def _pooled_runs(part: Part) -> pd.DataFrame:
    """A row for each loss and seed of a cross-validation: Dice over all folds' test images together."""
    rows = []
    for loss in part.losses:
        of_rule = {
            "foreground_dice": part.by_rule["argmax"][loss],
            "foreground_dice_tuned": part.by_rule["tuned"][loss],
        }
        values = {
            name: pooled_metric(counts.sum(1), "foreground_dice", part.foreground)
            for name, counts in of_rule.items()
        }
        rows.append(pd.DataFrame({"loss": loss, "seed": part.seeds[loss], **values}))
    return pd.concat(rows, ignore_index=True).assign(dataset=part.dataset, model=part.model)


def tasks(study: Records) -> list[str]:
    """The tasks of which every seed of cross-entropy and of Dice is there, in the study's order."""
    wanted = len(study.study["seeds"])
    counts = study.runs[study.runs.loss.isin(PAIR)].groupby(["dataset", "loss"]).size()
    order = study.study["datasets"]
    return [task for task in order if all(counts.get((task, loss), 0) == wanted for loss in PAIR)]


def table(study: Records, over: str = "seeds and images") -> pd.DataFrame:
    """A row for each task: medians at ½ and at the threshold of validation, and Dice minus cross-entropy there.

    Index: task. Columns: ``foreground`` (share of the test pixels), ``ce at ½``, ``ce``, ``dice at ½``, ``dice``
    (medians of test Dice over the seeds; without ½, at the threshold of validation), and ``half``, ``half low``,
    ``half high``, ``half p``, and the same of ``tuned``: mean paired differences with 95 % intervals and uncorrected
    p-values, for other trainings and other test images, or with `over` "seeds" for other trainings on these images.
    """
    done, rows = tasks(study), {}
    fractions = {part.dataset: part.fractions[0] for part in study.parts}
    for task in done:
        runs = dict(iter(study.runs[study.runs.dataset == task].groupby("loss")))
        rows[task] = {
            "foreground": 1 - fractions[task],
            "ce at ½": runs["ce"].foreground_dice.median(),
            "ce": runs["ce"].foreground_dice_tuned.median(),
            "dice at ½": runs["dice"].foreground_dice.median(),
            "dice": runs["dice"].foreground_dice_tuned.median(),
        }
    found = pd.DataFrame.from_dict(rows, orient="index")
    for rule in ("half", "tuned"):
        gaps = frames.differences(study, "dice", PAIR, rule, over=over).reindex(done)
        columns = {"estimate": rule} | {each: f"{rule} {each}" for each in ("low", "high", "p")}
        found = found.join(gaps[list(columns)].rename(columns=columns).astype(float))
    return found


def numbers(folder: str | Path, study_name: str = "thresholds") -> dict[str, Any]:
    """Every number of the front page that comes from real images, as text; only ``tasks`` while no task is complete.

    Args:
        folder: of the study's records.
        study_name: whose they are.

    Returns:
        how many ``tasks`` are complete; ``seeds``, ``runs``, ``planned_runs``; what a ``longer`` training gives, by
        task, what the better of two ``rates``, what the ``prior`` bias for both, and what OHEM (``hard``), the
        ``others``, ``lovasz`` and ``squared`` Dice, what a ``threshold`` does to recall and precision, the
        ``calibration`` errors, and what a loss is ``worth`` beside other changes; for each task its share of
        foreground and its medians, both
        losses from the prior where those runs are whole; ``range_tuned``, the ends of the tuned differences; and by
        rule (``half``, ``tuned``) in how many tasks Dice is shown ``ahead_…`` (p ≤ 0.05 after Holm's correction).

    Raises:
        FrontError: a record contradicts the front page's headline or one of its sentences.
    """
    known = frames.load_if_run(folder, study_name)
    if known is None or not tasks(known):
        return {"tasks": "0"}
    runs, known = known.runs, with_folds(known)
    found = table(known)
    _never_ahead(folder, "Dice", found["tuned low"])
    moved = found["ce"] > found["ce at ½"]
    back = "a threshold brings cross-entropy back on pedestrians"
    front.stands(folder, back, moved.get("pedestrians", True))
    made: dict[str, Any] = {
        "tasks": str(len(found)),
        "seeds": str(len(known.study["seeds"])),
        "runs": str(len(runs)),
        "planned_runs": str(len(runs) + known.missing_runs),
        "range_tuned": _ends(found["tuned"]),
    }
    for rule in ("half", "tuned"):
        ahead = frames.shown(found[f"{rule} p"]) & (found[rule] > 0)
        made[f"ahead_{rule}"] = str(int(ahead.sum()))
    results = Path(folder).parent
    made |= {
        "rates": _of_better_rates(results),
        "prior": from_the_prior(results),
        "calibration": calibration(results),
        "others": other_losses(results),
        "lovasz": lovasz(results),
        "worth": yardstick(results),
        "squared": squared_dice(results),
        "longer": longer(results / "thresholds_long", found["tuned"]),
    }
    for everywhere in frames.whole(results, "losses_everywhere"):
        if "dice_focal" in everywhere.losses:
            made["hard"] = hard_examples(everywhere)
            made["threshold"] = at_thresholds(everywhere)
    medians = _medians(results)
    for task, row in (found if medians is None else found.assign(**medians)).iterrows():
        made[str(task)] = {
            "foreground": f"{100 * row['foreground']:.2g}",
            "ce_half": f"{row['ce at ½']:.3f}",
            "ce": f"{row['ce']:.3f}",
            "dice_half": f"{row['dice at ½']:.3f}",
            "dice": f"{row['dice']:.3f}",
        }
    return made


def _ends(gaps: pd.Series) -> dict[str, str]:
    """The ``low`` and the ``high`` end, as text."""
    return {"low": number(gaps.min(), sign=True), "high": number(gaps.max(), sign=True)}


def _never_ahead(
    where: object, who: str, low: pd.Series, when: str = "", correct: str = _PAGES
) -> None:
    """No interval may begin above 0."""
    begins = f"{when} its intervals begin at {low.to_dict()}".strip()
    front.stands(where, f"{who} is ahead in no task", not (low > 0).any(), begins, correct)


def better_rates(sets: Sequence[Records], pair: Sequence[str] = PAIR) -> pd.DataFrame:
    """Two losses' difference by task at the thresholds of validation, each at the rate that validation prefers.

    Index: task. Columns: ``estimate``, ``low``, ``high`` (95 %, for other trainings on these test images), ``p``, and
    by loss of `pair` the label whose mean validation Dice, at its threshold, is larger.

    Args:
        sets: records of studies whose losses are labelled ``ce_low``, ``ce_high`` and so on.
        pair: the first less the second, without the rate: ``("dice", "ce")``.
    """
    rows = {}
    for known in sets:
        scores = known.runs.assign(task=known.runs.dataset.map(quantities.unfolded))
        means = scores.groupby(["task", "loss"], sort=False).val_foreground_dice_tuned.mean()
        for task in scores.task.unique():
            chosen = {
                loss: str(means[task][[f"{loss}_low", f"{loss}_high"]].idxmax()) for loss in pair
            }
            labels = [chosen[loss] for loss in pair]
            gap = frames.differences(known, "dice", labels, "tuned", over="seeds").loc[task]
            ends = ("estimate", "low", "high", "p")
            rows[task] = {each: float(gap[each]) for each in ends} | chosen
    return pd.DataFrame.from_dict(rows, orient="index")


def _of_better_rates(results: Path) -> dict[str, str]:
    """The range of `better_rates` and how many ``tasks`` it spans, as text; empty while a study of it is not whole.

    Raises:
        FrontError: Dice is ahead in the mean of a task, so that the front page's sentence is false.
    """
    whole = frames.whole(results, "thresholds_rate", "thresholds_rate_kolektor")
    if not whole:
        return {}
    found = better_rates(whole)
    sentence = "with the better of two rates Dice is behind in the mean of every task"
    front.stands(results, sentence, (found.estimate < 0).all(), found.estimate.to_dict())
    return {"tasks": str(len(found))} | _ends(found.estimate)


def from_the_prior(results: str | Path) -> dict[str, str]:
    """Dice minus cross-entropy, both from the prior bias and at the better of two rates, as text.

    At the thresholds of validation, for other trainings on these test images.

    Returns:
        of how many ``tasks``, the ``low`` and ``high`` end of their means, in how many Dice is shown ``behind`` (p ≤
        0.05 after Holm's correction for the tasks) and how many are ``open``, and the largest mean ``gain`` of Dice
        by the prior, in points; ``untuned``: on pedestrians Dice at ½ less cross-entropy at its threshold. Empty while
        one of its two studies is not whole.

    Raises:
        FrontError: Dice is ahead somewhere, or the bias does not bring the losses nearer, so that the front page's
            headline is false; or Dice loses by the prior in the mean of a task, against the decision guide.
    """
    sets = frames.whole(results, "thresholds_bias", "thresholds_bias_kolektor")
    if not sets:
        return {}
    found, from_zero = better_rates(sets, ("dice_prior", "ce")), better_rates(sets)
    apart, from_0 = (each.estimate.abs().mean() for each in (found, from_zero))
    sentence = "one start for both brings the losses nearer"
    front.stands(results, sentence, apart < from_0, f"means {apart:.3f}, and {from_0:.3f} from 0")
    gain = better_rates(sets, ("dice_prior", "dice"))
    sentence = "Dice is higher from the prior in the mean of every task"
    holds, got = (gain.estimate >= 0).all(), gain.estimate.to_dict()
    front.stands(results, sentence, holds, got, "book/decision_guide.md")
    _never_ahead(results, "Dice", found.low, "with the prior bias")
    behind = frames.shown(found.p) & (found.estimate < 0)  # ahead it has raised
    named = list(found.index[behind])
    alone = "defects" not in found.index or named == ["defects"]
    front.stands(results, "Dice is shown behind on defects alone", alone, named)
    return {
        "tasks": str(len(found)),
        **_ends(found.estimate),
        "behind": str(int(behind.sum())),
        "open": str(int((~behind).sum())),
        "gain": f"{100 * gain.estimate.max():.1f}",
    } | _untuned(sets, found)


def at_one_half(sets: Sequence[Records], chosen: pd.DataFrame) -> pd.DataFrame:
    """By task, Dice at ½ less cross-entropy at its threshold of validation, both from the prior.

    Columns ``estimate``, ``low`` and ``high`` (95 %, for other trainings on these test images).

    Args:
        sets: records of studies whose losses are labelled ``ce_low``, ``dice_prior_high`` and so on.
        chosen: the rates, as :func:`better_rates` gives them for ``("dice_prior", "ce")``.
    """
    rows = {}
    for known in sets:
        for task in chosen.index[chosen.index.isin(known.runs.dataset.map(quantities.unfolded))]:
            pair = [chosen.dice_prior[task], chosen.ce[task]]
            gaps = frames.differences(known, "dice", pair, ["half", "tuned"], over="seeds")
            rows[task] = gaps.loc[task, ["estimate", "low", "high"]].astype(float)
    return pd.DataFrame.from_dict(rows, orient="index")


def _untuned(sets: Sequence[Records], chosen: pd.DataFrame) -> dict[str, str]:
    """Of :func:`at_one_half` the row of pedestrians, as text.

    Raises:
        FrontError: Dice at ½ is not ahead there, or is ahead elsewhere, as the front page says.
    """
    found = at_one_half(sets, chosen)
    if "pedestrians" not in found.index:
        return {}
    sentence = "Dice at ½ is ahead of cross-entropy at its threshold on pedestrians alone"
    alone = list(found.index[found.low > 0]) == ["pedestrians"]
    front.stands("thresholds_bias", sentence, alone, f"lower ends {found.low.to_dict()}")
    return {"untuned": _told(found.loc["pedestrians"])}


def calibration(results: str | Path) -> dict[str, str]:
    """The calibration errors of cross-entropy and of Dice on real images, both from the prior, as text.

    Over the pixels that the network gives more than 0.01; the ends over all trainings of all tasks, at both rates.

    Returns:
        of how many ``tasks``, ``ce`` (the largest), ``low`` and ``high`` of Dice; empty while `thresholds_bias` is
        not whole.

    Raises:
        FrontError: a training with Dice is better calibrated than one with cross-entropy elsewhere, or the mean
            likelihood or Brier score of Dice is better in a task.
    """
    sets = frames.whole(results, "thresholds_bias")
    if not sets:
        return {}
    runs = sets[0].runs
    start = runs.loss.str.replace("_(low|high)$", "", regex=True).rename("start")
    errors = {
        "ce": runs.ece_foreground[start == "ce"],
        "dice": runs.ece_foreground[start == "dice_prior"],
    }
    better = errors["ce"].max() <= errors["dice"].min()
    got = {loss: (each.min(), each.max()) for loss, each in errors.items()}
    sentence = "cross-entropy is better calibrated on real images"
    front.stands(results, sentence, better, got, _PAGES)
    for score, words in (("nll", "likelihood"), ("brier", "Brier score")):
        means = runs.groupby(["dataset", start])[score].mean().unstack()
        sentence = f"the {words} of cross-entropy is better in every task"
        holds = (means.ce < means.dice_prior).all()
        front.stands(results, sentence, holds, means.to_dict("index"), _PAGES)
    hundredths = {loss: (100 * each).round(9) for loss, each in errors.items()}
    return {
        "tasks": str(runs.dataset.nunique()),
        # bounds: rounded outwards
        "ce": f"{math.ceil(hundredths['ce'].max()) / 100:.2f}",
        "low": f"{math.floor(hundredths['dice'].min()) / 100:.2f}",
        "high": f"{math.ceil(hundredths['dice'].max()) / 100:.2f}",
    }


def _signed(points: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:+.1f}".replace("-", "−") for name, value in points.items()}


def _points(found: pd.Series) -> dict[str, str]:
    return _signed({"low": found.min(), "high": found.max()})


def other_losses(results: str | Path) -> dict[str, dict[str, str]]:
    """The sums with Dice (``sums``), and Tversky and Jaccard (``ratios``), minus cross-entropy from one start, as text.

    Points of test Dice at the thresholds of validation: the ``low`` and ``high`` end of the means over the tasks of
    `losses_everywhere`; empty while it is not whole.

    Raises:
        FrontError: what the front page says of the sums does not follow, after Holm's correction for the losses of a
            task: at tuned thresholds ahead or behind in none; at ½ ahead on cracks and pedestrians, behind in none. Or
            Lovász-softmax is shown ahead at tuned thresholds.
    """
    sums, ratios = ["dice_ce", "dice_focal"], ["tversky", "jaccard"]
    sets = frames.whole(results, "losses_everywhere")
    if not sets or not {*sums, *ratios} <= {*sets[0].losses}:
        return {}
    tuned, half = (frames.against(sets[0], "dice", "ce", rule) for rule in ("tuned", "half"))

    def shown(found: pd.DataFrame, *losses: str) -> pd.Series:
        kept = found.groupby("place").p.transform(frames.shown)
        return found.estimate[kept & found.index.isin(losses, level="loss")]

    ahead = {(loss, place) for loss in sums for place in ("cracks", "pedestrians")}
    at_half = shown(half, *sums)
    front.stands(
        results,
        "Lovász-softmax is not shown ahead at tuned thresholds",
        not (shown(tuned, "lovasz_softmax") > 0).any(),
        correct="book/intro.md",
    )
    front.stands(
        results,
        "the sums with Dice are shown ahead at ½ on cracks and pedestrians, behind in no task, and neither at tuned "
        "thresholds",
        {*at_half.index} == ahead and (at_half > 0).all() and shown(tuned, *sums).empty,
        correct="book/intro.md, book/decision_guide.md",
    )
    means = 100 * tuned.estimate.astype(float)
    return {"sums": _points(means[sums]), "ratios": _points(means[ratios])}


def yardstick(results: str | Path) -> dict[str, str]:
    """What the loss is worth on cracks beside other changes, in points of test Dice at the thresholds of validation.

    Returns:
        as text Dice less cross-entropy (``loss``); what twice the steps bring to cross-entropy (``steps_ce``) and to
        Dice (``steps_dice``), and a rate of .01 for .003 to Dice (``rate``); empty while a run of these is missing.

    Raises:
        FrontError: what the first page says of it does not follow: in the means twice the steps bring more than the
            loss with both losses, and the rate costs Dice more.
    """
    known = frames.load_if_run(Path(results) / "yardstick", "yardstick")
    if known is None or "plain8" not in {part.model for part in known.parts}:
        return {}
    plain = {"dataset": "cracks", "model": "plain8"}
    asked = {"loss": (["dice", "ce"], "plain8", None), "steps_ce": (["ce"], "long", plain)}
    asked |= {"steps_dice": (["dice"], "long", plain), "rate": (["dice"], "rate", plain)}
    rows = {}
    for name, (losses, model, base) in asked.items():
        where = plain | {"model": model}
        gap = frames.differences(known, "dice", losses, "tuned", where, against=base, over="seeds")
        rows[name] = 100 * float(gap.estimate.iloc[0])
    if any(map(math.isnan, rows.values())):
        return {}
    least = abs(rows["loss"])
    more = min(rows["steps_ce"], rows["steps_dice"]) > least and rows["rate"] < -least
    sentence = (
        "what a loss is worth on cracks is less than twice the steps and, with Dice, than a rate"
    )
    front.stands(results, sentence, more, rows)
    return _signed(rows)


def lovasz(results: str | Path) -> dict[str, str]:
    """Lovász-softmax behind cross-entropy, in points of test Dice at the thresholds of validation, as text.

    Returns:
        by one sigmoid the ``least`` and the ``most`` of the means over the tasks of `lovasz_half`; on pedestrians
        ``with_ce`` beside it and by ``two_channels``; empty while the study is not whole.

    Raises:
        FrontError: what the decision guide says of it does not follow: behind by one sigmoid in every mean; with
            cross-entropy beside it shown within two points on three tasks, and behind on pedestrians.
    """
    sets = frames.whole(results, "lovasz_half")
    if not sets or "one_sigmoid" not in sets[0].losses:
        return {}
    found = frames.against(sets[0], "dice", "ce", "tuned")[["estimate", "low", "high"]]
    found = 100 * found.astype(float)
    alone, beside = found.loc["one_sigmoid"].estimate, found.loc["ce_lovasz"]
    within = (beside.low > -2) & (beside.high < 2)
    front.stands(
        results,
        "what it says on Lovász-softmax",
        (alone < 0).all() and within.sum() == 3 and beside.high["pedestrians"] < 0,
        found.to_dict("index"),
        "book/decision_guide.md, book/intro.md",
    )
    return {
        "least": f"{-alone.max():.0f}",
        "most": f"{-alone.min():.0f}",
        "with_ce": f"{-beside.estimate['pedestrians']:.0f}",
        "two_channels": f"{-found.estimate['two_channels', 'pedestrians']:.0f}",
    }


def hard_examples(study: Records) -> dict[str, str]:
    """OHEM minus cross-entropy at the thresholds of validation, for other trainings on these test images, as text.

    From `losses_everywhere`: both from the prior and at one rate.

    Returns:
        of how many ``tasks``, the ``low`` and ``high`` end of their means, and in how many it is ``behind`` (its
        interval below 0); empty while no task is complete.

    Raises:
        FrontError: OHEM is ahead somewhere, so that what the decision guide and the chapter say of it is false.
    """
    found = frames.differences(study, "dice", ["ohem_ce", "ce"], "tuned", over="seeds")
    found = found.dropna(subset="estimate")
    if found.empty:
        return {}
    pages = "book/decision_guide.md, the chapter of cross-entropy"
    _never_ahead(study.folder, "OHEM", found.low, correct=pages)
    behind = str(int((found.high < 0).sum()))
    return {"tasks": str(len(found)), "behind": behind} | _ends(found.estimate)


def at_thresholds(study: Records) -> dict[str, str]:
    """Recall and precision of Dice less those of cross-entropy, both from one start and at one rate, as text.

    Returns:
        of how many ``tasks``; in how many recall is shown higher and precision shown lower at ½ (``apart``, p ≤ 0.05
        after Holm's correction for the tasks); the ``low`` and ``high`` end of the ratio of predicted to true
        foreground at ½, of ``ce`` and of ``dice``: means by task. Empty where no task has pairs of seeds.

    Raises:
        FrontError: at thresholds of validation one of the two is shown to differ, against the decision guide.
    """
    shown = {}
    for quantity, sign in (("recall", 1), ("precision", -1)):
        for rule in ("half", "tuned"):
            found = frames.differences(study, quantity, PAIR, rule, over="seeds")
            found = found.dropna(subset="p")
            larger = sign * found.estimate.astype(float) > 0
            shown[quantity, rule] = frames.shown(found.p) & (larger | (rule == "tuned"))
    if shown["recall", "half"].empty:
        return {}
    sentence = "at tuned thresholds neither recall nor precision is shown to differ"
    tuned = shown["recall", "tuned"] | shown["precision", "tuned"]
    front.stands(study.folder, sentence, not tuned.any(), correct="book/decision_guide.md")
    apart = shown["recall", "half"] & shown["precision", "half"]
    sizes = study.runs.pivot_table("volume_ratio", "dataset", "loss", aggfunc="mean")
    return {
        "tasks": str(len(apart)),
        "apart": str(int(apart.sum())),
        **{
            f"{loss}_{end}": f"{of(sizes[loss]):.1f}"
            for loss in PAIR
            for end, of in (("low", min), ("high", max))
        },
    }


def pedestrians_long(results: str | Path) -> pd.DataFrame:
    """Squared Dice minus cross-entropy on pedestrians after four times the steps, by how the rates are chosen.

    At the thresholds of validation, for other trainings on these test images. Index: how the rates are chosen. Columns:
    those of :func:`lossatlas.claims.frames.verdicts`, without a correction for the three rows, which are three views
    of the same trainings. Empty while `pedestrians_long` is not whole.

    Raises:
        FrontError: it is not ahead at either rate alone, or not open at those of validation, against the first page.
    """
    sets = frames.whole(results, "pedestrians_long")
    if not sets:
        return pd.DataFrame()
    rows = {
        f"both at {rate}": frames.differences(
            sets[0], "dice", [f"squared_{name}", f"ce_{name}"], "tuned", over="seeds"
        ).loc["pedestrians"]
        for rate, name in ((".003", "low"), (".01", "high"))
    }
    rows["each at the rate of validation"] = better_rates(sets, ("squared", "ce")).iloc[0]
    found = pd.concat(frames.verdicts(pd.DataFrame({name: row}).T) for name, row in rows.items())
    front.stands(
        results,
        "after four times the steps squared Dice is ahead on pedestrians at either rate, and open at the rates that "
        "validation prefers",
        found["shown"].tolist() == ["ahead", "ahead", "open"],
        found.to_dict("index"),
        _PAGES,
    )
    return found


def squared_dice(results: str | Path) -> dict[str, str]:
    """Squared Dice against plain Dice and cross-entropy, from the prior bias and at the better of two rates, as text.

    At the thresholds of validation, for other trainings on these test images; shown: p ≤ 0.05 after Holm's correction
    for the tasks.

    Returns:
        of how many ``tasks``; in how many it is shown ``ahead`` of plain Dice; on pedestrians, how far ahead of
        cross-entropy in points (``pedestrians``), and on mitochondria, how far behind (``mitochondria``); after four
        times the steps, how far ahead on pedestrians at the rates of validation (``long``, empty while
        `pedestrians_long` is not whole). Empty while `dice_squared_rate` is not whole.

    Raises:
        FrontError: it is shown ahead of cross-entropy elsewhere than on pedestrians, or behind elsewhere than on
            mitochondria, or behind plain Dice, against the first page and the README.
    """
    sets = frames.whole(results, "dice_squared_rate")
    if not sets:
        return {}
    ce, plain = (better_rates(sets, ("squared", other)) for other in ("ce", "dice"))
    shown = {
        name: found.estimate[frames.shown(found.p)]
        for name, found in (("ce", ce), ("plain", plain))
    }
    signs = {task: gap > 0 for task, gap in shown["ce"].items()}
    front.stands(
        results,
        "squared Dice is shown ahead of cross-entropy on pedestrians alone and behind on mitochondria alone, and of "
        "plain Dice behind nowhere",
        signs == {"pedestrians": True, "mitochondria": False} and (shown["plain"] > 0).all(),
        {name: found.to_dict() for name, found in shown.items()},
        _PAGES,
    )
    long = pedestrians_long(results)
    return {
        "long": f"{long.estimate.iloc[-1]:+.1f}" if len(long) else "",
        "tasks": str(len(plain)),
        "ahead": str(len(shown["plain"])),
        "pedestrians": f"{100 * ce.estimate['pedestrians']:.1f}",
        "mitochondria": f"{-100 * ce.estimate['mitochondria']:.1f}",
    }


def at_one_rate(results: str | Path, loss: str) -> pd.Series:
    """A loss minus cross-entropy at the thresholds of validation, both at its rate: means over the seeds, by task.

    The loss is of `thresholds`, cross-entropy at the lower rate of `thresholds_rate`; empty while either is missing.

    Args:
        results: folder of the records of all studies.
        loss: its label.
    """
    labels = {"thresholds": loss, "thresholds_rate": "ce_low"}
    sets = {name: frames.load_if_run(Path(results) / name, name) for name in labels}
    tables = [
        known.runs[known.runs.loss == labels[name]].set_index(["dataset", "seed"])
        for name, known in sets.items()
        if known is not None
    ]
    if len(tables) < 2:
        return pd.Series(dtype=float)
    other, ce = tables
    same = other.lr.eq(ce.lr.reindex(other.index))
    gaps = (other.foreground_dice_tuned - ce.foreground_dice_tuned)[same[same].index]
    found: pd.Series = gaps.groupby(level="dataset", sort=False).mean()
    return found


def longer(folder: str | Path, short: pd.Series) -> dict[str, str]:
    """By task, Dice minus cross-entropy at the thresholds of validation after the longer training, as text.

    For other trainings on these test images; a task counts when all its seeds are there.

    Args:
        folder: of the records of `thresholds_long`.
        short: the same differences after the short training, by task.

    Raises:
        FrontError: Dice is ahead there, so that the front page's headline is false; or the gap is no narrower.
    """
    known = frames.load_if_run(folder, "thresholds_long")
    if known is None:
        return {}
    found = frames.differences(known, "dice", PAIR, "tuned", over="seeds").dropna(subset="estimate")
    _never_ahead(folder, "Dice", found.low, "after the longer training")
    sentence = "a longer training narrows the gap at mitochondria"
    before, now = (each.get("mitochondria", math.nan) for each in (short, found.estimate))
    change = f"{before:+.3f} before, {now:+.3f} now"
    wider = abs(now) >= abs(before)  # not so where one of the two is missing
    front.stands(folder, sentence, not wider, change, "the page of thresholds_long")
    return {str(task): _told(row) for task, row in found.iterrows()}


def _told(row: Any) -> str:
    estimate, low, high = (number(row[end], sign=True) for end in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """The table of tasks as the front page shows it: one number a cell."""
    cells = {"foreground": (100 * found["foreground"]).map("{:.2g} %".format)}
    for column, name in (("ce", "cross-entropy"), ("dice", "Dice")):
        cells[name] = found[column].map("{:.3f}".format)
    for column, name in (("", "Dice − cross-entropy"), (" low", "from"), (" high", "to")):
        cells[name] = found[f"tuned{column}"].map(lambda value: number(value, sign=True))
    return pd.DataFrame(cells).rename_axis("task").reset_index()


def shown_from_the_prior(results: str | Path) -> pd.DataFrame | None:
    """What :func:`from_the_prior` compares, as the front page shows it: a row a task, one number a cell.

    None while one of its two studies is not whole.
    """
    sets = frames.whole(results, "thresholds_bias", "thresholds_bias_kolektor")
    if not sets:
        return None
    columns = {"estimate": "Dice − CE", "low": "from", "high": "to"}
    found = better_rates(sets, ("dice_prior", "ce"))[[*columns]].rename(columns=columns)
    return found.map(lambda value: number(value, sign=True)).rename_axis("task").reset_index()


def seeds_table(study: Records) -> pd.DataFrame:
    """A row for each complete task and seed, in the columns of :func:`lossatlas.report.front.seeds_table`."""
    runs = study.runs.sort_values("seed")
    rows = [front.of_seeds(task, runs[runs.dataset == task]) for task in tasks(study)]
    return pd.concat(rows, ignore_index=True)


def seeds_from_the_prior(results: str | Path) -> pd.DataFrame | None:
    """As :func:`seeds_table`, both losses from the prior and each at the rate that validation prefers.

    These are the runs that :func:`from_the_prior` compares; None while one of its two studies is not whole.
    """
    sets = frames.whole(results, "thresholds_bias", "thresholds_bias_kolektor")
    if not sets:
        return None
    chosen, rows = better_rates(sets, ("dice_prior", "ce")), []
    runs = pd.concat(_pooled_runs(part) for known in sets for part in quantities.places(known))
    for task, labels in chosen.iterrows():
        names = {labels.ce: "ce", labels.dice_prior: "dice"}
        here = runs[(runs.dataset == task) & runs.loss.isin(names)].sort_values("seed")
        rows.append(front.of_seeds(str(task), here.assign(loss=here.loss.map(names))))
    return pd.concat(rows, ignore_index=True)


def _medians(results: Path) -> pd.DataFrame | None:
    """The medians of :func:`seeds_from_the_prior` in the columns of :func:`table`, and of Dice at its threshold.

    Raises:
        FrontError: tuning does not lift cross-entropy, or does not lower Dice, on pedestrians, as the pages say.
    """
    seeds = seeds_from_the_prior(results)
    if seeds is None:
        return None
    named = {"ce tuned": "ce", "dice": "dice at ½", "dice tuned": "dice"}
    found = seeds.drop(columns="seed").groupby("head").median().rename(columns=named)
    if "pedestrians" in found.index:
        row = found.loc["pedestrians"]
        moves = row["ce at ½"] < row["ce"] and row["dice"] < row["dice at ½"]
        sentence = "on pedestrians the threshold lifts cross-entropy and lowers Dice"
        front.stands(results, sentence, moves, row.to_dict(), "book/decision_guide.md, " + _PAGES)
    return found


def both(begin: str | Path, folder: str | Path, study_name: str = "thresholds") -> pd.DataFrame:
    """The seeds behind the withdrawn last layer on drawn digits, then those of every complete task, from the prior.

    First comes the task on which the threshold brings cross-entropy most. Without a task: both last layers on digits.
    While the studies of the prior are not whole, the tasks are those of `folder`.
    """
    known = frames.load_if_run(folder, study_name)
    drawn = front.seeds_table(begin)
    if known is None or not tasks(known):
        return drawn
    real = seeds_from_the_prior(Path(folder).parent)
    if real is None:
        real = seeds_table(with_folds(known))
    gain = (real["ce tuned"] - real["ce at ½"]).groupby(real["head"]).transform("median")
    real = real.loc[gain.sort_values(ascending=False, kind="stable").index]
    return pd.concat([drawn[drawn["head"] == next(iter(front.HEADS))], real], ignore_index=True)


def titles(language: str) -> dict[str, str]:
    """Of the panels of `both`."""
    words = front.WORDS[language]
    return {head: words[head] for head in front.HEADS} | NAMES[language]


def files(
    begin: str | Path, folder: str | Path, made_in: str | Path, study_name: str = "thresholds"
) -> dict[str, str]:
    """The figure of the front page in every language, light and dark, and the table of tasks, as text by path.

    The table has both losses from the prior; while those studies are not whole, those of `folder`.
    """
    made_in = Path(made_in)
    named = {language: titles(language) for language in NAMES}
    made = front.figures(both(begin, folder, study_name), made_in / "both", named)
    known = frames.load_if_run(folder, study_name)
    if known is not None and tasks(known):
        tasks_shown = shown_from_the_prior(Path(folder).parent)
        if tasks_shown is None:
            tasks_shown = shown(table(with_folds(known)))
        made[str(made_in / "real.md")] = front.embedded(tasks_shown)
    return made
