"""One judge for every prediction, and one vocabulary of outcomes.

A study's file says how each prediction is checked (``holds:``), before it runs. A check is a quantity, a condition and
the places where it must be met. At a place it *holds* where the records show that the condition is met, *fails* where
they show that it is not, and is *open* in between, which is what few seeds give. Both are one-sided tests at 2.5 %,
which agree with 95 % intervals, after Holm's correction over the places. Nothing is judged from fewer than three seeds.

Where a check counts places (``at_least: 5``), each place is judged by its own test, equality by the 90 % interval (two
one-sided tests at 5 %): it holds where so many places hold, and fails where so many no longer can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lossatlas.basics import replacing
from lossatlas.claims.quantities import Entry, Share, entries
from lossatlas.report.records import Records, RecordsError, load
from lossatlas.statistics.intervals import MIN_SEEDS
from lossatlas.statistics.paired import Difference, holm

SCHEMA = 1
#: One-sided level that agrees with 95 % intervals.
ALPHA = 0.025
#: That of equality at a place which is counted: two one-sided tests that agree with the 90 % interval.
ALPHA_COUNTED = 0.05
Outcome = Literal["holds", "fails", "open"]
_NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
_CONDITION = re.compile(rf"(>|<|within)\s*{_NUMBER}|(in) \[{_NUMBER}, {_NUMBER}\]")


@dataclass(frozen=True)
class Check:
    """A condition at one place, and what the records say of it; `awaits` where runs are missing."""

    place: str
    outcome: Outcome
    found: str
    awaits: bool = False


@dataclass(frozen=True)
class Judgement:
    """A prediction, and how the records decide it.

    Attributes
    ----------
    claim, text
        as the study's file has them.
    checks
        by condition, one a place; none where the file does not say how it is checked.
    at_least
        by condition, at how many places it must hold; all, where it is not named.
    bearing
        "for", "against" or "beside" the claim, where the prediction holds.
    sides
        of the places at which equality fails: whose difference lies "below" or "above" the margin.
    """

    claim: str
    text: str
    checks: dict[str, list[Check]]
    at_least: dict[str, int] = field(default_factory=dict)
    bearing: str = "for"
    sides: frozenset[tuple[str, str]] = frozenset()

    @property
    def outcome(self) -> Outcome:
        """Fails where one condition fails, holds where all of them hold, else open."""
        outcomes = {self._of_condition(words) for words in self.checks}
        if "fails" in outcomes:
            return "fails"
        return "holds" if outcomes == {"holds"} else "open"

    def _of_condition(self, words: str) -> Outcome:
        """Fails where it fails at one place and holds where it holds at all, unless places are counted."""
        outcomes = [check.outcome for check in self.checks[words]]
        enough = self.at_least.get(words) or len(outcomes)
        if outcomes.count("holds") >= enough:
            return "holds"
        return "fails" if outcomes.count("fails") > len(outcomes) - enough else "open"

    @property
    def outcomes(self) -> set[Outcome]:
        """Of every place; of a condition that counts its places the one that the count gives."""
        found: set[Outcome] = set()
        for words, checks in self.checks.items():
            counted = words in self.at_least
            found |= {self._of_condition(words)} if counted else {c.outcome for c in checks}
        return found

    @property
    def is_divided(self) -> bool:
        """Whether its outcomes differ, and a place decides the whole prediction: where none does, its parts do not."""
        return (
            len(self.outcomes) > 1 and {"holds", "fails"} & {*self._of_places().values()} != set()
        )

    @property
    def where(self) -> str:
        """The outcome with its places: ``fails at 3 %, open elsewhere``; plain where it is the same everywhere.

        Plain at a single place, too: what differs there is the conditions.
        """
        of_place = self._of_places()
        if not self.is_divided or len(of_place) == 1:
            return self.outcome
        told: list[str] = []
        for outcome in ("holds", "fails"):
            at = [place for place, found in of_place.items() if found == outcome]
            commas = max((place.count(", ") for place in at), default=0)
            long = commas > 1 or (commas == 1 and len(at) > 2)
            if at:
                named = f"{len(at)} of {len(of_place)} places" if long else _listed(at)
                told.append(f"{outcome} at {named}")
        between = "; " if any(";" in each for each in told) else ", "
        return between.join([*told, "open elsewhere"] if "open" in self.outcomes else told)

    def _of_places(self) -> dict[str, Outcome]:
        """A place holds where all its conditions do, and fails where one does that counts no places."""
        found: dict[str, set[Outcome]] = {}
        for words, checks in self.checks.items():
            for check in checks:
                spared = words in self.at_least and check.outcome == "fails"
                found.setdefault(check.place, set()).add("open" if spared else check.outcome)
        return {
            place: "fails" if "fails" in of_place else "open" if "open" in of_place else "holds"
            for place, of_place in found.items()
        }


def judge(records: Records) -> list[Judgement]:
    """Every prediction of a study, in the order of its file.

    Raises
    ------
    ValueError
        a check names a quantity, a loss, a rule or a factor that the study does not have.
    """
    return [_judged(records, prediction) for prediction in records.study.get("predictions", [])]


def _judged(records: Records, prediction: Mapping[str, Any]) -> Judgement:
    asked = prediction.get("holds") or []
    words = [_words(check) for check in asked]
    if len(set(words)) < len(words):
        raise ValueError(
            f"expected different checks in the prediction {prediction['text']!r}, got one twice: {words}"
        )
    decided = {each: _decide(records, check) for each, check in zip(words, asked, strict=True)}
    return Judgement(
        prediction["claim"],
        prediction["text"],
        {words: checks for words, (checks, _) in decided.items()},
        {_words(check): check["at_least"] for check in asked if check.get("at_least")},
        prediction.get("bearing") or "for",
        frozenset(
            (" \N{MINUS SIGN} ".join(check["losses"]), side)
            for check in asked
            for side in decided[_words(check)][1]
        ),
    )


def parse(condition: str) -> tuple[str, float, float]:
    """``"> 0"``, ``"< 0.1"``, ``"within 0.01"`` or ``"in [0.04, 0.096]"``: the relation and its two bounds.

    >>> parse("within 0.01"), parse("in [0.04, 0.096]"), parse("> 0")
    (('in', -0.01, 0.01), ('in', 0.04, 0.096), ('>', 0.0, 0.0))

    Raises
    ------
    ValueError
        it is of another form.
    """
    found = _CONDITION.fullmatch(condition.strip())
    if found is None:
        raise ValueError(
            f"expected '> 0', '< 0.1', 'within 0.01' or 'in [0.04, 0.096]', got {condition!r}"
        )
    if found[3]:
        return "in", float(found[4]), float(found[5])
    bound = float(found[2])
    return ("in", -bound, bound) if found[1] == "within" else (found[1], bound, bound)


def _entries(records: Records, check: Mapping[str, Any]) -> list[Entry]:
    """The quantity at every place of the study, and of the studies whose places count too."""
    asked = (check["quantity"], check["losses"], check.get("rule", "half"), check.get("where"))
    options = {"against": check.get("against"), "over": check.get("over", "seeds and images")}
    found = entries(records, *asked, **options)
    for name in check.get("also") or []:
        try:
            other = load(records.folder.parent / name)
        except RecordsError:
            found.append(Entry(name, None, "the study has no records yet", awaits=True))
        else:
            found += entries(other, *asked, **options)
    return found


def _decide(records: Records, check: Mapping[str, Any]) -> tuple[list[Check], set[str]]:
    """The check at every place, and to which sides of its margin it fails."""
    condition = parse(check["is"])
    found = _entries(records, check)
    counted = bool(check.get("at_least"))
    alpha = ALPHA_COUNTED if counted and condition[0] == "in" else ALPHA
    known = [each for each in found if _can_be_judged(each)]
    p_holds, p_fails = (
        zip(*(_tails(each.value, *condition) for each in known), strict=True) if known else ((), ())
    )
    # places that are counted are judged one by one
    adjusted = np.asarray if counted else holm
    holding = iter(adjusted(p_holds) <= alpha)
    failing = iter(adjusted(p_fails) <= ALPHA)
    checks, sides = [], set()
    for each in found:
        if each not in known:
            why = each.why or f"fewer than {MIN_SEEDS} seeds"
            checks.append(Check(each.place, "open", why, awaits=each.awaits))
            continue
        holds, fails = next(holding), next(failing)
        outcome: Outcome = "holds" if holds else "fails" if fails else "open"
        assert each.value is not None
        checks.append(Check(each.place, outcome, each.value.text()))
        if fails and condition[0] == "in":
            sides.add("below" if each.value.estimate < condition[1] else "above")
    return checks, sides


def _can_be_judged(entry: Entry) -> bool:
    if isinstance(entry.value, Difference):
        return entry.value.seeds >= MIN_SEEDS
    return isinstance(entry.value, Share) and entry.value.trials >= MIN_SEEDS


def _tails(value: Any, relation: str, low: float, high: float) -> tuple[float, float]:
    """One-sided p-values: small where the condition is met, and where it is not."""
    if relation == ">":
        return value.p_above(low), value.p_below(low)
    if relation == "<":
        return value.p_below(high), value.p_above(high)
    if isinstance(value, Share):
        raise ValueError("a share of runs is compared by > or <, not by within")
    # outside is above one end or below the other: the 95 % interval then lies wholly beyond that end
    outside = min(value.p_above(high), value.p_below(low))
    return max(value.p_above(low), value.p_below(high)), outside


def _words(check: Mapping[str, Any]) -> str:
    """``dice − ce in Dice at the tuned threshold > 0``."""
    losses, rule, quantity = check["losses"], check.get("rule", "half"), check["quantity"]
    share = quantity.startswith("share")
    two = [rule] * 2 if isinstance(rule, str) else list(rule)
    names = (
        losses
        if two[0] == two[1]
        else [f"{x} {_RULE_WORDS[r]}" for x, r in zip(losses, two, strict=False)]
    )
    paired = len(losses) == 2 and not share
    who = f"{names[0]} \N{MINUS SIGN} {names[1]}" if paired else ", ".join(names)
    places = [f"{k} {v}" for k, v in (check.get("where") or {}).items()]
    if check.get("against"):
        places.append("less " + ", ".join(f"{k} {v}" for k, v in check["against"].items()))
    if check.get("over") == "seeds":
        places.append("these test images")
    if check.get("at_least"):
        places.append(f"at {check['at_least']} places or more")
    of = quantity if share or two[0] != two[1] else f"{quantity} {_RULE_WORDS[two[0]]}"
    return f"{who}: {of} {check['is']}" + (f" ({', '.join(places)})" if places else "")


_RULE_WORDS = {
    "half": "at ½",
    "tuned": "tuned",
    "theory": "at theory's threshold",
    "plug-in": "by the plug-in rule",
    "oracle": "at its best threshold",
}


def _listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; with semicolons where a name has a comma."""
    if len(words) == 1:
        return words[0]
    inner = any(", " in word for word in words)
    return (
        f"{('; ' if inner else ', ').join(words[:-1])}{'; and ' if inner else ' and '}{words[-1]}"
    )


def _ending(where: str) -> str:
    """``holds at cracks, open elsewhere``, ``is open``: the end of a sentence that begins with a prediction."""
    return f"is {where}" if where.startswith("open") else where


def _direction(judgement: Judgement) -> str:
    """Of equality that fails to one side everywhere, in a sentence to which side; else nothing."""
    if len(judgement.sides) != 1:
        return ""
    ((who, side),) = judgement.sides
    return f" Where it fails, {who} is {side} the margin."


#: What an outcome means for a claim that the prediction speaks against.
_TURNED = {"holds": "fails", "fails": "holds", "open": "open"}
#: The ledger's word for an outcome.
_VERDICTS = {"holds": "true", "fails": "false", "open": "open"}


def claims(judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """What the judgements say of each claim, as ``verdicts.json`` has it; claims without a check are left out.

    A claim is true where all its predictions hold, false where all that are decided fail and none holds, conditional
    where some hold and some fail, or hold at some places and fail at others; open where nothing is decided,
    awaiting where nothing is decided and runs are missing. A prediction against the claim counts the other way
    round, and one beside it is told and decides nothing.
    """
    by_claim: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.checks:
            by_claim.setdefault(judgement.claim, []).append(judgement)
    return {claim: _entry(of_claim) for claim, of_claim in by_claim.items()}


def _entry(judgements: Sequence[Judgement]) -> dict[str, Any]:
    checks = [c for j in judgements for of_one in j.checks.values() for c in of_one]
    outcomes = {
        _TURNED[outcome] if j.bearing == "against" else outcome
        for j in judgements
        if j.bearing != "beside"
        for outcome in (j.outcomes if j.is_divided else [j.outcome])
    }
    decided = outcomes - {"open"}
    if len(decided) == 2 or outcomes == {"holds", "open"}:
        verdict = "conditional"
    else:
        verdict = _VERDICTS[decided.pop() if decided else "open"]
    if verdict == "open" and any(check.awaits for check in checks):
        verdict = "awaiting"
    alone = judgements[0].where if len(judgements) == 1 and len(outcomes) > 1 else ""
    against = judgements[0].bearing == "against"
    alone = alone.replace("holds", _VERDICTS["fails" if against else "holds"])
    alone = alone.replace("fails", _VERDICTS["holds" if against else "fails"])
    return {
        "verdict": verdict,
        "said": alone,
        "because": " ".join(f"“{j.text}” {_ending(j.where)}.{_direction(j)}" for j in judgements),
        "condition": "",
        "checks": {
            words: [asdict(c) for c in of_one]
            for j in judgements
            for words, of_one in j.checks.items()
        },
    }


def write(folder: str | Path) -> Path:
    """Judge the predictions of the study in `folder` and write ``verdicts.json`` there; its path.

    Raises
    ------
    RecordsError
        no prediction of the study says how it is checked.
    """
    records = load(folder)
    found = claims(judge(records))
    if not found:
        raise RecordsError(
            f"{records.folder}: expected a prediction with a check (key holds), the study {records.name!r} has none"
        )
    content = {
        "schema": SCHEMA,
        "study": records.name,
        "runs": len(records.runs),
        "missing_runs": records.missing_runs,
        "created_utc": records.study["provenance"].get("created_utc"),
        "commit": records.study["provenance"].get("commit"),
        "fingerprint": records.study.get("fingerprint"),
        "verdicts": found,
    }
    path = records.folder / "verdicts.json"
    with replacing(path) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    return path


def describe(path: Path) -> str:
    """A line a claim of a ``verdicts.json``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(
        f"{claim:>3}  {entry['said'] or entry['verdict']}"
        for claim, entry in content["verdicts"].items()
    )
