"""Verdicts on claims of the ledger, computed from the records of a study and never by hand.

A function for each claim turns the claim into checks that could go either way, and a rule turns
their outcomes into true, false or conditional. "undecided" is an outcome too: the intervals leave
the claim open. What these records cannot settle stays "awaiting", and the reason is kept.

``verdicts.json`` in the folder of the records is what the ledger reads: ``{"schema": 1, "verdicts":
{"7": {"verdict", "said", "because", "condition", "checks", …}}, "awaiting": {"23": reason}}``. The ledger knows no
"undecided": such a claim is written as awaiting, with its numbers and ``"undecided": true``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lossatlas.analysis import optimizers
from lossatlas.analysis.imbalance.checks import (
    Check,
    ahead,
    combined,
    ends,
    larger,
    listed,
    located,
    located_by_rule,
    negated,
    precise,
    spread,
)
from lossatlas.analysis.imbalance.predictions import NotThere, entries
from lossatlas.analysis.imbalance.share import gap_to_best, mostly_closed
from lossatlas.analysis.imbalance.study import RULE_NAMES, Fraction, Imbalance
from lossatlas.analysis.imbalance.training import WORKS, sensitivity
from lossatlas.analysis.optimizers import Comparison, Sweep
from lossatlas.analysis.records import Records, RecordsError, load
from lossatlas.analysis.style import per_cent
from lossatlas.statistics.intervals import number
from lossatlas.statistics.paired import Difference

SCHEMA = 1
_OPTIMIZERS = {"adamw": "AdamW", "sgd": "gradient descent with momentum"}
#: The foreground is rare, "imbalanced" in the words of the claims, below this part of the pixels.
IMBALANCED = 0.15


@dataclass(frozen=True)
class Finding:
    """A claim and what the records say of it.

    Attributes
    ----------
    verdict
        "true", "false", "conditional" or "undecided".
    because
        The numbers, as Markdown.
    condition
        On what a conditional claim depends, or the limits of another.
    said
        The verdict with its places, "false at 3 %, open elsewhere"; empty where `verdict` says it all.
    checks
        By statement, what was tested and how it came out.
    """

    verdict: str
    because: str
    condition: str = ""
    checks: dict[str, list[Check]] = field(default_factory=dict)
    said: str = ""

    @property
    def text(self) -> str:
        """The verdict as a page prints it."""
        plain = not self.said or self.verdict == "undecided"
        return self.verdict if plain else self.said


def verdicts(records: Records) -> tuple[dict[str, Finding], dict[str, str]]:
    """Findings by claim, and for the claims that these records cannot settle the reason.

    Raises
    ------
    RecordsError
        The study is none for which verdicts are written.
    """
    if records.study.get("report") == "optimizers":
        return of_sweep(records)
    if not is_known(records):
        raise RecordsError(
            f"{records.folder}: no verdicts are computed from the study {records.name!r}; "
            f"expected a study of imbalance: binary, one model, several foreground fractions; or one of the report "
            f"`optimizers`"
        )
    return of_study(Imbalance(records))


def of_study(study: Imbalance) -> tuple[dict[str, Finding], dict[str, str]]:
    """The same from a study that is read already."""
    found: dict[str, Finding] = {}
    awaiting = dict(_CANNOT)
    for claim, (names, function) in _CLAIMS.items():
        try:
            found[claim] = function(study, *_labels(study, names))
        except NotThere as error:
            awaiting[claim] = f"The records do not settle it yet: {error}."
    return found, awaiting


def of_sweep(records: Records) -> tuple[dict[str, Finding], dict[str, str]]:
    """The same from a study that tunes with two optimisers, for the claims on learning rates."""
    compared = [one for one in optimizers.compare(records) if {"dice", "ce"} <= set(one.losses)]
    if not compared:
        why = "The records do not settle it: there are no runs of `dice` and of `ce`."
        return {}, dict.fromkeys(("4", "24"), why)
    margin = float(records.study.get("smallest_effect") or optimizers.SMALLEST_EFFECT)
    return {"4": _fewer_rates(compared), "24": _fast(compared, margin)}, {}


def page(study: Imbalance) -> str:
    """The verdicts as a Markdown list, those that the records do not settle behind."""
    found, awaiting = of_study(study)
    lines = []
    for claim, finding in found.items():
        because = f"{finding.because} {finding.condition}".strip()
        lines.append(f"- {_link(claim)}: **{finding.text}**. {because}")
    lines += [f"- {_link(claim)}: not settled here. {why}" for claim, why in awaiting.items()]
    added = [_link(claim) for claim in _SUPPLEMENTS if claim in found]
    if added:
        lines.append(
            f"\n{listed(added)}: the ledger's own verdict comes from a computation or from another study; "
            f"here stands what these runs add."
        )
    return "\n".join(lines)


def failing(study: Imbalance) -> str:
    """The claims that the records call false, one sentence; empty where there are none."""
    found = [
        _link(claim) + (f" ({finding.text})" if finding.text != "false" else "")
        for claim, finding in of_study(study)[0].items()
        if finding.verdict == "false"
    ]
    if not found:
        return ""
    words = "claim" if len(found) == 1 else "claims"
    return (
        f"Of the ledger's own {words} they call false: {listed(found)} (below, under "
        f"what it says of the claims)."
    )


def _link(claim: str) -> str:
    return f"[Claim {claim}](#claim-{claim.lower()})"


def is_known(records: Records) -> bool:
    """Whether the records are of a kind from which verdicts are computed."""
    study = records.study
    return (
        study["schema"] >= 2
        and set(study["mode"].values()) == {"binary"}
        and len(study["models"]) == 1
        and len(study["datasets"]) > 1
    )


def write(folder: str | Path) -> Path:
    """Compute the verdicts of the study in `folder` and write ``verdicts.json`` there; its path."""
    records = load(folder)
    found, awaiting = verdicts(records)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "study": records.name,
        "runs": len(records.runs),
        "missing_runs": records.missing_runs,
        "created_utc": records.study["provenance"].get("created_utc"),
        "commit": records.study["provenance"].get("commit"),
        "fingerprint": records.study.get("fingerprint"),
        "verdicts": {
            claim: _entry(finding) | {"supplement": claim in _SUPPLEMENTS}
            for claim, finding in sorted(found.items())
        },
        "awaiting": awaiting,
    }
    path = records.folder / "verdicts.json"
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    text = json.dumps(content, indent=1, ensure_ascii=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def describe(path: Path) -> str:
    """A line a claim of a ``verdicts.json``: what it says, or why it waits."""
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"{claim:>3}  {'undecided' if entry['undecided'] else entry.get('said') or entry['verdict']}"
        for claim, entry in content["verdicts"].items()
    ]
    lines += [f"{claim:>3}  awaiting: {why}" for claim, why in content["awaiting"].items()]
    return "\n".join(lines)


def _entry(finding: Finding) -> dict[str, Any]:
    undecided = finding.verdict == "undecided"
    because = f"The study leaves it open. {finding.because}" if undecided else finding.because
    return {
        "verdict": "awaiting" if undecided else finding.verdict,
        "said": "" if finding.text == finding.verdict else finding.text,
        "undecided": undecided,
        "because": because,
        "condition": finding.condition,
        "checks": {
            statement: [asdict(check) for check in checks]
            for statement, checks in finding.checks.items()
        },
    }


def _labels(study: Imbalance, names: Sequence[str]) -> list[str]:
    """Labels of the losses that a claim names; their runs (`_ALL`: all of the study's) must be there."""
    labels = []
    for name in names:
        if name == _ALL:
            continue
        label = study.named(name.removesuffix("+weights"), weighted=name.endswith("+weights"))
        if label is None:
            raise NotThere(f"there is no run of {name.replace('+', ' with ')}")
        labels.append(label)
    wanted = study.records.losses if _ALL in names else labels
    missing = study.missing(wanted)
    if missing:
        asked = missing + int(study.runs.loss.isin(wanted).sum())
        raise NotThere(f"{missing} of the {asked} runs that it needs are missing")
    return labels


def _n(study: Imbalance) -> str:
    seeds = len(study.records.study["seeds"])
    images = sorted({at.images for at in study.fractions})
    return f"n = {seeds} seeds × {'–'.join(map(str, images))} test images"


# ---------------------------------------------------------------- the claims, one by one


def _most_of_the_gap(study: Imbalance) -> Finding:
    """H4: most of the gap between losses at ½ is a threshold."""
    gaps = [gap_to_best(study, at) for at in study.fractions]
    checks = mostly_closed(study, gaps)
    with_gap = [check for check in checks if check.applies]
    statement = "tuned thresholds close more than half of the mean gap to the highest loss at ½"
    without = [check.where for check in checks if not check.applies]
    no_gap = f"No gap of {study.margin:g} or more at ½ at {listed(without)}." if without else ""
    if not with_gap:
        return Finding("undecided", no_gap, checks={statement: checks})
    because = (
        f"Share that tuned thresholds close of the mean gap between the highest loss at ½ and the "
        f"others: {ends(with_gap)} ({_n(study)})."
    )
    said = combined(with_gap)
    condition = " ".join(
        part
        for part in (
            _condition(
                with_gap,
                "more than half of the gap is a threshold",
                "less than half of the gap is a threshold",
            ),
            no_gap,
        )
        if part
    )
    return Finding(said, because, condition, {statement: checks}, located(with_gap))


def _dice_unstable(study: Imbalance, dice: str, ce: str) -> Finding:
    """4: training with Dice becomes more unstable. These records have AdamW only."""
    used = sorted(set(study.runs.optimizer)) if "optimizer" in study.runs else ["adamw"]
    width = []
    for at in study.fractions:
        mine, theirs = sensitivity(study, dice, at), sensitivity(study, ce, at)
        if mine is None or theirs is None or np.isnan([mine.scores, theirs.scores]).any():
            raise NotThere("tuning runs are missing")
        less = mine.working() - theirs.working()
        narrower = True if (less < 0).all() else (False if (less >= 0).all() else None)
        found = (
            f"{number_of(mine.working())} of {len(mine.rates)} rates against "
            f"{number_of(theirs.working())}"
        )
        width.append(Check(at.text, narrower, found))
    unstable = _ended(study, dice) - _ended(study, ce)
    spreads = ahead(
        [(at.text, _spread(study, dice, ce, at)) for at in study.fractions], study.margin
    )
    any_worse = [
        Check(
            a.where,
            True if True in (a.holds, b.holds) else (None if None in (a.holds, b.holds) else False),
            f"{a.found}; {b.found}",
        )
        for a, b in zip(width, spreads, strict=True)
    ]
    said = "conditional" if unstable > 0 and combined(any_worse) == "false" else combined(any_worse)
    because = (
        f"Learning rates that reach {per_cent(WORKS)} of the loss's best validation Dice, `{dice}` "
        f"against `{ce}`: {ends(width)}. Runs that diverged: {_ended(study, dice)} against "
        f"{_ended(study, ce)}; that are no better than a constant at the tuned threshold: "
        f"{_collapsed(study, dice)} against {_collapsed(study, ce)}. Spread over seeds at the "
        f"tuned rate (mean distance from the median Dice, `{dice}` minus "
        f"`{ce}`): {ends(spreads)}."
    )
    condition = (
        f"Under {listed([_OPTIMIZERS.get(name, name) for name in used])} only: plain gradient "
        f"descent is not part of these records. "
        + _condition(any_worse, "less stable", "no less stable")
    ).strip()
    checks = {
        f"fewer learning rates work for `{dice}`": width,
        f"the seeds of `{dice}` spread more at the tuned rate": spreads,
    }
    places = located(any_worse) if said == combined(any_worse) else ""
    return Finding(said, because, condition, checks, places)


def _real_objective(study: Imbalance, dice: str, ce: str) -> Finding:
    """5: Dice is used because it is the real objective."""
    wins = ahead(entries(study, study.fractions, dice, ce, "argmax"), study.margin)
    worse = {
        name: larger(
            [(at.text, study.column_difference(dice, ce, at, name)) for at in study.fractions],
            words=precise,
        )
        for name in ("ece", "nll")
    }
    loses = [
        Check(
            a.where,
            True if True in (a.holds, b.holds) else (None if None in (a.holds, b.holds) else False),
            f"ECE {a.found}, NLL {b.found}",
        )
        for a, b in zip(worse["ece"], worse["nll"], strict=True)
    ]
    on_dice, on_calibration = combined(wins), combined(loses)
    said = on_dice
    if on_dice == "true":
        by_calibration = {"false": "true", "undecided": "undecided"}
        said = by_calibration.get(on_calibration, "conditional")
    because = (
        f"Dice at ½, `{dice}` minus `{ce}`: {ends(wins)}. Calibration, `{dice}` minus `{ce}` (less is "
        f"better): {ends(loses)} ({_n(study)})."
    )
    condition = (
        f"It depends on the metric. `{dice}` on Dice at ½: {spread(wins, 'ahead', 'not ahead')}; "
        f"on ECE or NLL: {spread(loses, 'worse', 'not worse')}."
    )
    checks = {f"`{dice}` is ahead on Dice at ½": wins, f"`{dice}` is less calibrated": loses}
    places = located(wins) if said == on_dice else ""
    return Finding(said, because, condition if said == "conditional" else "", checks, places)


def _better_by_design(study: Imbalance, dice: str, ce: str) -> Finding:
    """7: Dice works better under class imbalance by design."""
    rare = _imbalanced(study)
    half = ahead(entries(study, rare, dice, ce, "argmax"), study.margin)
    tuned = ahead(entries(study, rare, dice, ce, "tuned"), study.margin)
    said = _both(combined(half), combined(tuned))
    because = (
        f"`{dice}` minus `{ce}`, test Dice at ½: {ends(half)}; at tuned thresholds: "
        f"{ends(tuned)} ({_n(study)})."
    )
    condition = (
        f"`{dice}` at ½: {spread(half, 'ahead', 'not ahead')}; at tuned thresholds: "
        f"{spread(tuned, 'ahead', 'not ahead')} (ahead: above 0, and not shown to be below "
        f"{study.margin:g})."
    )
    checks = {f"`{dice}` is ahead at ½": half, f"`{dice}` is ahead at tuned thresholds": tuned}
    return Finding(said, because, condition, checks, located_by_rule(half, tuned))


def _simply_a_factor(study: Imbalance, weighted: str, dice: str) -> Finding:
    """8: imbalance is simply handled by a loss factor for each class, so that Dice is not needed."""
    rare = _imbalanced(study)
    half, tuned = (
        negated(ahead(entries(study, rare, dice, weighted, rule), study.margin))
        for rule in ("argmax", "tuned")
    )
    volume = ends(
        larger([(at.text, study.column_above(weighted, at, "volume_ratio")) for at in rare], 1.0)
    )
    because = (
        f"`{dice}` minus `{weighted}`, test Dice at ½: {ends(half)}; at tuned thresholds: {ends(tuned)}; "
        f"volume ratio of `{weighted}` at ½: {volume} ({_n(study)})."
    )
    condition = _by_rule(half, tuned, "not behind Dice", "behind Dice")
    checks = {
        f"`{weighted}` is not behind `{dice}` {RULE_NAMES[rule]}": found
        for rule, found in (("argmax", half), ("tuned", tuned))
    }
    said = _both(combined(half), combined(tuned))
    return Finding(said, because, condition, checks, located_by_rule(half, tuned))


def _inverse_frequency(study: Imbalance, inverse: str, focal: str) -> Finding:
    """18: α of the focal loss can be the inverse class frequency."""
    worse = {
        rule: ahead(entries(study, study.fractions, focal, inverse, rule), study.margin)
        for rule in ("argmax", "tuned")
    }
    half, tuned = negated(worse["argmax"]), negated(worse["tuned"])
    said = combined([*half, *tuned])
    because = (
        f"`{focal}` minus `{inverse}`, test Dice at ½: {ends(half)}; at tuned thresholds: "
        f"{ends(tuned)} ({_n(study)})."
    )
    condition = (
        f"{_by_rule(half, tuned, 'not behind', 'behind')} Two values of α were compared, no grid: "
        f"none and the inverse frequency."
    ).strip()
    checks = {
        f"`{inverse}` is not behind `{focal}` {RULE_NAMES[rule]}": found
        for rule, found in (("argmax", half), ("tuned", tuned))
    }
    return Finding(said, because, condition, checks, located_by_rule(half, tuned))


def _the_way_to_go(study: Imbalance, ce: str) -> Finding:
    """27: cross-entropy is definitely the way to go."""
    by_rule = {
        rule: [_no_worse(study, ce, at, rule) for at in study.fractions]
        for rule in ("argmax", "tuned")
    }
    half, tuned = by_rule["argmax"], by_rule["tuned"]
    said = _both(combined(half), combined(tuned))
    because = (
        f"Highest other loss minus `{ce}`, test Dice at ½: {ends(half)}; at tuned thresholds: "
        f"{ends(tuned)} ({_n(study)})."
    )
    condition = (
        f"`{ce}` beside every other loss at ½: {spread(half, 'matches', 'is behind')}; at tuned thresholds: "
        f"{spread(tuned, 'matches', 'is behind')} (matches: shown to be less than {study.margin:g} behind each)."
    )
    checks = {f"`{ce}` matches every loss {RULE_NAMES[rule]}": c for rule, c in by_rule.items()}
    return Finding(said, because, condition, checks, located_by_rule(half, tuned))


# ---------------------------------------------------------------- claims on learning rates


def _fewer_rates(compared: Sequence[Comparison], dice: str = "dice", ce: str = "ce") -> Finding:
    """4: training with Dice becomes more unstable, under two optimisers: fewer learning rates work.

    A rate works that comes near the best of either loss: a loss that learns nothing at any rate has none.
    """
    checks, bests = [], []
    diverged, runs = np.zeros(2, dtype=int), 0
    for one, optimizer, mine, theirs in _swept(compared, dice, ce):
        where = f"{one.text} with {optimizers.NAMES[optimizer]}"
        reference = max(mine.best_score, theirs.best_score)
        counts = mine.working(reference), theirs.working(reference)
        found = f"{counts[0]} of {len(mine.rates)} rates against {counts[1]}"
        checks.append(Check(where, counts[0] < counts[1], found))
        bests.append(f"{number(mine.best_score)} and {number(theirs.best_score)} at {where}")
        diverged += mine.diverged, theirs.diverged
        runs += mine.scores.size
    because = (
        f"Learning rates that reach {per_cent(WORKS)} of the best validation Dice of the two, `{dice}` against "
        f"`{ce}`: {_everywhere(checks)}. The best of each: {', '.join(bests)}. Tuning runs that diverged: "
        f"{diverged[0]} against {diverged[1]}, of {runs} each."
    )
    condition = _condition(checks, "fewer rates work", "not fewer")
    condition = f"{condition} {_no_intervals(compared)}".strip()
    statement = f"fewer learning rates work for `{dice}`"
    return Finding(combined(checks), because, condition, {statement: checks}, located(checks))


def _fast(
    compared: Sequence[Comparison], margin: float, dice: str = "dice", ce: str = "ce"
) -> Finding:
    """24: therefore Dice converges fast: at one rate for both it is ahead where the tuning runs end.

    A rate counts at which either loss comes halfway to the best; ahead is who is so by the margin in every seed.
    """
    checks = []
    for one, optimizer, mine, theirs in _swept(compared, dice, ce):
        reference = max(mine.best_score, theirs.best_score)
        learns = np.maximum(mine.mean, theirs.mean) >= 0.5 * reference
        apart = (mine.scores - theirs.scores)[learns]
        ahead_at = int((apart > margin).all(1).sum())
        behind_at = int((apart < -margin).all(1).sum())
        found = f"ahead at {ahead_at}, behind at {behind_at} of {len(apart)} rates"
        where = f"{one.text} with {optimizers.NAMES[optimizer]}"
        checks.append(Check(where, bool(ahead_at and not behind_at), found))
    because = (
        f"Validation Dice at the threshold tuned there, where the tuning runs end, `{dice}` beside `{ce}` at one "
        f"rate for both, in every seed more than {margin:g} apart: {_everywhere(checks)} at which one of them comes "
        f"halfway to the best."
    )
    condition = (
        f"{_condition(checks, 'ahead and never behind', 'not so')} {_no_intervals(compared)}"
    )
    statement = f"at one rate for both `{dice}` is ahead at some rate and behind at none"
    places = located(checks)
    return Finding(combined(checks), because, condition.strip(), {statement: checks}, places)


def _no_intervals(compared: Sequence[Comparison]) -> str:
    """What is said of every comparison of tuning runs."""
    seeds = next(iter(compared[0].sweeps.values())).scores.shape[1]
    return f"{seeds} tuning seeds a rate and no intervals: counts, not tests."


def _swept(
    compared: Sequence[Comparison], dice: str, ce: str
) -> Iterator[tuple[Comparison, str, Sweep, Sweep]]:
    for one in compared:
        for optimizer in one.optimizers:
            yield one, optimizer, one.sweeps[dice, optimizer], one.sweeps[ce, optimizer]


def _everywhere(checks: Sequence[Check]) -> str:
    """Every check in full: ``3 of 6 rates against 3 at 10 % with SGD, …``."""
    return ", ".join(f"{check.found} at {check.where}" for check in checks)


_Judge = Callable[..., Finding]
_ALL = "every loss"

#: Claim → the losses that it names (`_ALL`: it needs all of the study's), and what settles it.
_CLAIMS: dict[str, tuple[tuple[str, ...], _Judge]] = {
    "H4": ((_ALL,), _most_of_the_gap),
    "4": (("dice", "ce"), _dice_unstable),
    "5": (("dice", "ce"), _real_objective),
    "7": (("dice", "ce"), _better_by_design),
    "8": (("weighted_ce", "dice"), _simply_a_factor),
    "18": (("focal+weights", "focal"), _inverse_frequency),
    "27": (("ce", _ALL), _the_way_to_go),
}

#: Claims that a computation or another study settles, and to which these records add.
_SUPPLEMENTS = ("4", "5", "18", "24")

#: Claims that await such a study and that its records cannot settle.
_CANNOT = {
    "23": (
        "Dice also falls because rarer foreground means fewer objects to learn from and more distractors "
        "for each. It takes a fixed number of objects, and the best Dice that is possible beside each loss."
    ),
}


# ---------------------------------------------------------------- parts of them


def number_of(counts: np.ndarray) -> str:
    """``3`` where all agree, ``2 and 3`` where the seeds do not."""
    return " and ".join(str(value) for value in sorted({int(c) for c in counts}))


def _imbalanced(study: Imbalance) -> list[Fraction]:
    found = [at for at in study.fractions if at.value < IMBALANCED]
    if not found:
        raise NotThere(f"there is no fraction below {IMBALANCED:.0%}")
    return found


def _ended(study: Imbalance, loss: str) -> int:
    """Runs of a loss that diverged, tuning and reporting."""
    reporting = study.diverged[study.diverged.loss == loss]
    tuning = [found.diverged for at in study.fractions if (found := sensitivity(study, loss, at))]
    return len(reporting) + sum(tuning)


def _collapsed(study: Imbalance, loss: str) -> int:
    """Reporting runs of a loss that learnt nothing."""
    return sum(len(study.collapsed(loss, at, "tuned")) for at in study.fractions)


def _spread(study: Imbalance, loss: str, other: str, at: Fraction) -> Difference | None:
    """Paired difference of the seeds' distances from their loss's median Dice (Brown and Forsythe)."""
    away = {}
    for name in (loss, other):
        values = study.column(name, at, "foreground_dice")
        away[name] = (values - values.median()).abs()
    return study.paired(loss, other, away[loss] - away[other], at)


def _no_worse(study: Imbalance, loss: str, at: Fraction, rule: str) -> Check:
    """`loss` is less than the margin behind each other one; fails where one is ahead of it."""
    found = {
        other: study.difference(other, loss, at, rule=rule)
        for other in at.part.losses
        if other != loss
    }
    known = {other: difference for other, difference in found.items() if difference is not None}
    if not known:
        return Check(at.text, None, "no other loss")
    checks = ahead(list(known.items()), study.margin)
    best = max(known, key=lambda other: known[other].estimate)
    holds = True if all(c.holds is False for c in checks) else None
    if any(c.holds for c in checks):
        holds = False
    by_name = {c.where: c for c in checks}
    return Check(at.text, holds, f"{by_name[best].found} (`{best}`)")


def _both(one: str, two: str) -> str:
    """Verdict on a claim that has to be true under two rules."""
    if one == two:
        return one
    outcomes = {one, two}
    if "undecided" in outcomes:
        return "conditional" if outcomes & {"true", "conditional"} else "undecided"
    return "conditional"


def _by_rule(half: Sequence[Check], tuned: Sequence[Check], held: str, failed: str) -> str:
    """The same for a claim under two rules."""
    if len({check.holds for check in [*half, *tuned]}) == 1:
        return ""
    return (
        f"At ½: {spread(half, held, failed)}. At tuned thresholds: {spread(tuned, held, failed)}."
    )


def _condition(checks: Sequence[Check], held: str, failed: str) -> str:
    """Where it is which; empty where it is the same everywhere."""
    if len({check.holds for check in checks}) == 1:
        return ""
    text = spread(checks, held, failed)
    return f"{text[0].upper()}{text[1:]}."


__all__ = ["Finding", "describe", "is_known", "of_study", "of_sweep", "page", "verdicts", "write"]
