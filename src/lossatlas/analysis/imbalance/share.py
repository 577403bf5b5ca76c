"""How much of a gap between losses is a threshold.

At ½ a loss lies x behind a reference, at tuned thresholds y. The threshold explains the share
1 − y/x of the gap: 1 where nothing is left, 0 where tuning changes nothing, above 1 where the loss
overtakes, below 0 where it falls further behind.

The share's interval is Fieller's for a ratio of two correlated estimates (Fieller, Journal of the
Royal Statistical Society B 16, 1954): the values ρ for which y − ρx is not told apart from 0,

    (y − ρx)² ≤ t² (v_y − 2ρ c + ρ² v_x).

The variances v_x and v_y are those of the paired differences; the covariance c follows from the
variance of x − y, a paired difference too. The degrees of freedom are the smallest of the three.
The interval is finite where x is told apart from 0. Elsewhere no share is given: where x is smaller than
the smallest effect of interest there is no gap to explain, and else the gap is too uncertain for a share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lossatlas.analysis.imbalance.checks import Check, brief, larger
from lossatlas.analysis.imbalance.study import LEVEL, Fraction, Imbalance
from lossatlas.statistics.intervals import Interval
from lossatlas.statistics.paired import Difference

#: A fraction, the reference, and the losses whose (mean) gap to it is looked at.
Gap = tuple[Fraction, str, Sequence[str]]


@dataclass(frozen=True)
class Explained:
    """A gap at ½ and at tuned thresholds, and the share of it that the threshold explains.

    Attributes
    ----------
    reference, losses
        The loss from which the gap is measured, and the loss (or losses: then the mean gap) behind.
    half, tuned
        Reference minus loss at ½ and at tuned thresholds.
    share
        With its interval; None where there is no gap of interest at ½, or too uncertain a one.
    gap
        Whether there is a gap of interest at ½ at all, certain or not.
    """

    reference: str
    losses: tuple[str, ...]
    half: Difference
    tuned: Difference
    share: Interval | None
    gap: bool

    def text(self) -> str:
        """The share in per cent: ``98 % [91 %, 104 %]``."""
        if self.share is None:
            return "too uncertain a gap" if self.gap else "no gap"
        low, high = _per_cent(self.share.low), _per_cent(self.share.high)
        return f"{_per_cent(self.share.estimate)} [{low}, {high}]"


def explained(
    study: Imbalance, at: Fraction, reference: str, losses: Sequence[str]
) -> Explained | None:
    """What the threshold explains of the (mean) gap from `losses` to `reference` at one fraction.

    None where a loss has no run there, or all together fewer than two seeds in common.
    """
    behind = tuple(losses)
    half = _gap(study, at, reference, behind, "argmax")
    tuned = _gap(study, at, reference, behind, "tuned")
    closed = study.contrast(
        at,
        [(reference, "argmax")] * len(behind) + [(loss, "tuned") for loss in behind],
        [(loss, "argmax") for loss in behind] + [(reference, "tuned")] * len(behind),
    )
    if half is None or tuned is None or closed is None:
        return None
    share, gap = None, half.estimate >= study.margin
    if gap and half.low > 0:
        # the contrast is a mean over twice as many cells: half of x − y
        share = _share(half, tuned, (2 * closed.standard_error) ** 2, closed.df)
    return Explained(reference, behind, half, tuned, share, gap)


def gap_to_best(study: Imbalance, at: Fraction) -> Gap:
    """All other losses behind the one that is highest at ½: `explained` of it is their mean gap."""
    best = study.leader(at, "argmax").loss
    return at, best, [loss for loss in at.part.losses if loss != best]


def mostly_closed(study: Imbalance, gaps: Sequence[Gap]) -> list[Check]:
    """For each gap: tuned thresholds close more than half of it.

    Where there is no gap of interest at ½ there is nothing to explain, and the check does not apply; where
    the gap is too uncertain for a share it is open.
    """
    found = [explained(study, *gap) for gap in gaps]
    entries = [
        (gap[0].text, _closed(study, *gap) if each and each.share else None)
        for gap, each in zip(gaps, found, strict=True)
    ]
    return [
        dataclasses.replace(
            check,
            holds=check.holds if each and check.holds is _most(each.share) else None,
            found=_words(each),
            applies=each is None or each.gap,
        )
        for check, each in zip(larger(entries), found, strict=True)
    ]


def _most(share: Interval | None) -> bool | None:
    """What the interval of the share says: a check never says more."""
    if share is None or share.low <= 0.5 <= share.high:
        return None
    return share.low > 0.5


def _closed(
    study: Imbalance, at: Fraction, reference: str, losses: Sequence[str]
) -> Difference | None:
    """Half of the mean gap at ½ minus the gap at tuned thresholds, but for a constant factor."""
    count = len(losses)
    return study.contrast(
        at,
        [(reference, "argmax")] * count + [(loss, "tuned") for loss in losses] * 2,
        [(loss, "argmax") for loss in losses] + [(reference, "tuned")] * 2 * count,
    )


def _words(found: Explained | None) -> str:
    if found is None:
        return "fewer than two seeds in common"
    if found.share is None:
        return f"{found.text()} at ½ ({brief(found.half)})"
    return f"{found.text()} of {brief(found.half)}, which leaves {brief(found.tuned)}"


def _gap(
    study: Imbalance, at: Fraction, reference: str, losses: Sequence[str], rule: str
) -> Difference | None:
    return study.contrast(at, [(reference, rule)] * len(losses), [(loss, rule) for loss in losses])


def _share(half: Difference, tuned: Difference, variance: float, df: float) -> Interval | None:
    """1 − y/x with Fieller's interval; `variance` and `df` are those of x − y."""
    x, y = half.estimate, tuned.estimate
    v_x, v_y = half.standard_error**2, tuned.standard_error**2
    bound = float(np.sqrt(v_x * v_y))
    c = float(np.clip((v_x + v_y - variance) / 2, -bound, bound))
    t2 = float(stats.t.ppf((1 + LEVEL) / 2, min(half.df, tuned.df, df))) ** 2
    a, b, q = x**2 - t2 * v_x, x * y - t2 * c, y**2 - t2 * v_y
    if a <= 0:
        return None
    reach = float(np.sqrt(max(b**2 - a * q, 0.0)))
    return Interval(1 - y / x, 1 - (b + reach) / a, 1 - (b - reach) / a, half.seeds)


def _per_cent(value: float) -> str:
    text = f"{100 * value:.0f}".replace("-0", "0") if abs(value) < 0.005 else f"{100 * value:.0f}"
    return text.replace("-", "\N{MINUS SIGN}") + "\N{NO-BREAK SPACE}%"
