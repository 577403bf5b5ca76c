"""One judge for every prediction, and one vocabulary of outcomes.

A study's file says how each prediction is checked (``holds:``), before it runs. A check is a quantity, a condition and
the places where it must be met. At a place it *holds* where the records show that the condition is met, *fails* where
they show that it is not, and is *open* in between, which is what few seeds give. Both are one-sided tests at 2.5 %,
which agree with 95 % intervals, after Holm's correction over the places. Nothing is judged from fewer than three seeds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lossatlas.claims.quantities import Entry, Share, entries
from lossatlas.report.records import Records, RecordsError, load
from lossatlas.statistics.intervals import MIN_SEEDS
from lossatlas.statistics.paired import Difference, holm

SCHEMA = 1
#: One-sided level that agrees with 95 % intervals.
ALPHA = 0.025
Outcome = Literal["holds", "fails", "open"]
_CONDITION = re.compile(r"(>|<|within)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)")


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
    """

    claim: str
    text: str
    checks: dict[str, list[Check]]

    @property
    def outcome(self) -> Outcome:
        """Fails where one condition fails at one place, holds where all hold at all places, else open."""
        outcomes = {check.outcome for of_one in self.checks.values() for check in of_one}
        if "fails" in outcomes:
            return "fails"
        return "holds" if outcomes == {"holds"} else "open"

    @property
    def where(self) -> str:
        """The outcome with its places: ``fails at 3 %, open elsewhere``; plain where it is the same everywhere."""
        checks = [check for of_one in self.checks.values() for check in of_one]
        outcomes = {check.outcome for check in checks}
        if len(outcomes) <= 1:
            return self.outcome
        told: list[str] = []
        for outcome in ("holds", "fails"):
            at = list(dict.fromkeys(check.place for check in checks if check.outcome == outcome))
            if at:
                told.append(f"{outcome} at {_listed(at)}")
        return ", ".join([*told, "open elsewhere"] if "open" in outcomes else told)


def judge(records: Records) -> list[Judgement]:
    """Every prediction of a study, in the order of its file.

    Raises
    ------
    ValueError
        a check names a quantity, a loss, a rule or a factor that the study does not have.
    """
    return [
        Judgement(
            prediction["claim"],
            prediction["text"],
            {_words(check): _decide(records, check) for check in prediction.get("holds") or []},
        )
        for prediction in records.study.get("predictions", [])
    ]


def parse(condition: str) -> tuple[str, float]:
    """``"> 0"``, ``"< 0.1"`` or ``"within 0.01"`` in two parts.

    Raises
    ------
    ValueError
        it is of another form.
    """
    found = _CONDITION.fullmatch(condition.strip())
    if found is None:
        raise ValueError(f"expected '> 0', '< 0.1' or 'within 0.01', got {condition!r}")
    return found[1], float(found[2])


def _decide(records: Records, check: Mapping[str, Any]) -> list[Check]:
    relation, bound = parse(check["is"])
    found = entries(
        records,
        check["quantity"],
        check["losses"],
        check.get("rule", "half"),
        check.get("where") or {},
    )
    known = [each for each in found if _can_be_judged(each)]
    p_holds, p_fails = (
        zip(*(_tails(each.value, relation, bound) for each in known), strict=True)
        if known
        else ((), ())
    )
    holding = iter(holm(p_holds) <= ALPHA)
    failing = iter(holm(p_fails) <= ALPHA)
    checks = []
    for each in found:
        if each not in known:
            why = each.why or f"fewer than {MIN_SEEDS} seeds"
            checks.append(Check(each.place, "open", why, awaits=each.awaits))
            continue
        holds, fails = next(holding), next(failing)
        outcome: Outcome = "holds" if holds else "fails" if fails else "open"
        assert each.value is not None
        checks.append(Check(each.place, outcome, each.value.text()))
    return checks


def _can_be_judged(entry: Entry) -> bool:
    if isinstance(entry.value, Difference):
        return entry.value.seeds >= MIN_SEEDS
    return isinstance(entry.value, Share) and entry.value.trials >= MIN_SEEDS


def _tails(value: Any, relation: str, bound: float) -> tuple[float, float]:
    """One-sided p-values: small where the condition is met, and where it is not."""
    if relation == ">":
        return value.p_above(bound), value.p_below(bound)
    if relation == "<":
        return value.p_below(bound), value.p_above(bound)
    if isinstance(value, Share):
        raise ValueError("a share of runs is compared by > or <, not by within")
    outside = 2 * min(value.p_above(bound), value.p_below(-bound))
    return value.p_equivalence(bound), min(1.0, outside)


def _words(check: Mapping[str, Any]) -> str:
    """``dice − ce in Dice at the tuned threshold > 0``."""
    losses = check["losses"]
    paired = len(losses) == 2 and not check["quantity"].startswith("share")
    who = f"{losses[0]} \N{MINUS SIGN} {losses[1]}" if paired else ", ".join(losses)
    rule = {"half": "at ½", "tuned": "tuned", "theory": "at theory's threshold"}[
        check.get("rule", "half")
    ]
    where = ", ".join(f"{k} {v}" for k, v in (check.get("where") or {}).items())
    of = f"{check['quantity']}{f' {rule}' if not check['quantity'].startswith('share') else ''}"
    return f"{who}: {of} {check['is']}" + (f" ({where})" if where else "")


def _listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


#: The ledger's word for an outcome.
_VERDICTS = {"holds": "true", "fails": "false", "open": "open"}


def claims(judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """What the judgements say of each claim, as ``verdicts.json`` has it; claims without a check are left out.

    A claim is true where all its predictions hold, false where all that are decided fail and none holds, conditional
    where some hold and some fail, or hold at some places and fail at others; open where nothing is decided,
    awaiting where nothing is decided and runs are missing.
    """
    by_claim: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.checks:
            by_claim.setdefault(judgement.claim, []).append(judgement)
    return {claim: _entry(of_claim) for claim, of_claim in by_claim.items()}


def _entry(judgements: Sequence[Judgement]) -> dict[str, Any]:
    checks = [c for j in judgements for of_one in j.checks.values() for c in of_one]
    outcomes = {check.outcome for check in checks}
    if {"holds", "fails"} <= outcomes or outcomes == {"holds", "open"}:
        verdict = "conditional"
    else:
        verdict = _VERDICTS[
            "fails" if "fails" in outcomes else "holds" if outcomes == {"holds"} else "open"
        ]
    if verdict == "open" and any(check.awaits for check in checks):
        verdict = "awaiting"
    said = "; ".join(
        f"“{j.text}” {j.where.replace('holds', 'true').replace('fails', 'false')}"
        for j in judgements
    )
    because = " ".join(
        f"{words}: {'; '.join(f'{c.found} at {c.place}' for c in of_one)}."
        for j in judgements
        for words, of_one in j.checks.items()
    )
    return {
        "verdict": verdict,
        "said": "" if len(outcomes) <= 1 else said,
        "because": because,
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
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def describe(path: Path) -> str:
    """A line a claim of a ``verdicts.json``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return "\n".join(
        f"{claim:>3}  {entry['said'] or entry['verdict']}"
        for claim, entry in content["verdicts"].items()
    )
