"""Statements that numbers can decide, each at one fraction, tested together.

A statement about a difference d is decided one of two ways: it holds where d is shown to lie on its
side of a bound, it fails where d is shown to lie on the other; in between it is open, which is what
few seeds give and no sign of either. Both kinds of test are one-sided at 2.5 % (so that they agree
with 95 % intervals) after Holm's correction for the number of fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lossatlas.analysis.imbalance.study import LEVEL, ZERO
from lossatlas.statistics.intervals import Interval, number
from lossatlas.statistics.paired import Difference, holm

#: One-sided level that agrees with the intervals.
ALPHA = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Check:
    """A statement at one place, and what the records say of it.

    Attributes
    ----------
    where
        The fraction, or the rule and the fraction.
    holds
        True, False, or None where it is open.
    found
        The numbers behind it.
    applies
        False where there is nothing to decide; such a check counts neither way.
    """

    where: str
    holds: bool | None
    found: str
    applies: bool = True


#: A place and the difference found there, None where it cannot be computed.
Entry = tuple[str, Difference | None]
#: What a check shows of a difference.
Words = Callable[[Difference], str]


def larger(entries: Sequence[Entry], bound: float = 0.0, words: Words | None = None) -> list[Check]:
    """d > bound."""
    return _checks(entries, lambda d: d.p_above(bound), lambda d: d.p_below(bound), words)


def smaller(entries: Sequence[Entry], bound: float) -> list[Check]:
    """d < bound."""
    return _checks(entries, lambda d: d.p_below(bound), lambda d: d.p_above(bound))


def within(entries: Sequence[Entry], margin: float) -> list[Check]:
    """−margin < d < margin: two one-sided tests; fails where d is shown to lie outside."""
    return _checks(
        entries,
        lambda d: d.p_equivalence(margin),
        lambda d: 2 * min(d.p_above(margin), d.p_below(-margin)),
    )


def ahead(entries: Sequence[Entry], margin: float) -> list[Check]:
    """d > 0 and of interest. Fails where d is shown to be below `margin`, significant or not."""
    not_of_interest = smaller(entries, margin)
    return [
        Check(
            over.where,
            False if under.holds else (True if over.holds else None),
            over.found,
        )
        for over, under in zip(larger(entries, 0.0), not_of_interest, strict=True)
    ]


def negated(checks: Sequence[Check]) -> list[Check]:
    """The opposite statement at the same places."""
    return [
        Check(check.where, None if check.holds is None else not check.holds, check.found)
        for check in checks
    ]


def _checks(
    entries: Sequence[Entry],
    p_holds: Callable[[Difference], float],
    p_fails: Callable[[Difference], float],
    words: Words | None = None,
) -> list[Check]:
    known = [difference for _, difference in entries if difference is not None]
    holding, failing = (
        iter(holm([min(1.0, p(d)) for d in known]) <= ALPHA) for p in (p_holds, p_fails)
    )
    checks = []
    for where, difference in entries:
        if difference is None:
            checks.append(Check(where, None, "fewer than two seeds in common"))
            continue
        holds, fails = next(holding), next(failing)
        outcome = True if holds else (False if fails else None)
        checks.append(Check(where, outcome, (words or brief)(difference)))
    return checks


def combined(checks: Sequence[Check]) -> str:
    """One verdict on a statement about every place where it applies.

    "conditional" where it holds at some places and fails at others, or holds at some and is open at
    others; "false" where it fails and nowhere holds; "undecided" where it is open everywhere, or
    where no check applies.
    """
    outcomes = {check.holds for check in checks if check.applies}
    if True in outcomes:
        return "true" if outcomes == {True} else "conditional"
    return "false" if False in outcomes else "undecided"


def located(checks: Sequence[Check]) -> str:
    """A verdict with its places: ``false at 3 %, open elsewhere``; plain where it is the same everywhere.

    One counterexample makes a general claim false. Where most places are open, "false" alone would
    hide that.
    """
    words = {True: "true", False: "false", None: "open"}
    outcomes = {check.holds for check in checks if check.applies}
    if len(outcomes) <= 1:
        return words[outcomes.pop()] if outcomes else "open"
    parts = [f"{words[each]} {places(checks, each)}" for each in (True, False) if each in outcomes]
    return ", ".join([*parts, "open elsewhere"] if None in outcomes else parts)


def located_by_rule(half: Sequence[Check], tuned: Sequence[Check]) -> str:
    """The same for a claim under two rules of the threshold: ``at ½ true, tuned open``."""
    one, two = located(half), located(tuned)
    return one if one == two else f"at ½ {one}; tuned {two}"


def places(checks: Sequence[Check], holds: bool | None) -> str:
    """Where the outcome is `holds`: ``at 1 % and 0.1 %``; empty where nowhere."""
    where = [check.where for check in checks if check.applies and check.holds is holds]
    return f"at {listed(where)}" if where else ""


def spread(checks: Sequence[Check], held: str = "holds", failed: str = "fails") -> str:
    """``holds at 1 %; fails at 30 % and 10 %; undecided at 3 %``, or ``holds everywhere``."""
    words = {True: held, False: failed, None: "undecided"}
    applying = [check for check in checks if check.applies]
    if len(applying) > 1 and len({check.holds for check in applying}) == 1:
        return f"{words[applying[0].holds]} everywhere"
    return "; ".join(
        f"{word} {places(checks, outcome)}"
        for outcome, word in words.items()
        if places(checks, outcome)
    )


def ends(checks: Sequence[Check]) -> str:
    """The first and the last of several: ``+0.001 [−0.002, +0.004] at 30 %, … at 0.1 %``."""
    chosen = [checks[0], checks[-1]] if len(checks) > 1 else list(checks)
    return ", ".join(f"{check.found} at {check.where}" for check in chosen)


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def brief(difference: Difference) -> str:
    """Difference and interval without n: ``+0.012 [+0.003, +0.021]``."""
    return difference.text(sign=difference.second != ZERO, n=False)


def precise(difference: Difference | Interval) -> str:
    """The same with two significant digits, for what is far below 1: ``+0.00012 [+0.0001, +0.00014]``."""
    sign = isinstance(difference, Difference) and difference.second != ZERO
    ends = ", ".join(significant(end, sign) for end in (difference.low, difference.high))
    return f"{significant(difference.estimate, sign)} [{ends}]"


def significant(value: float, sign: bool = False) -> str:
    """Two significant digits with a true minus sign, three decimals from 0.1 on."""
    if not abs(value) < 0.1 or value == 0:
        return number(value, sign)
    digits = max(3, 1 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")
