"""An estimate with its interval, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Fewer seeds than this support no comparison of losses: they say too little about another training.
MIN_SEEDS = 3


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, or another estimate, with its interval; NaN ends where too few seeds give none."""

    estimate: float
    low: float
    high: float
    seeds: int

    def text(self, *, sign: bool = False) -> str:
        """Three decimals: ``0.412 [0.380, 0.440]``, with an explicit sign for differences.

        One seed says nothing of another: then ``0.412 (no interval: 1 seed)``.
        """
        if not np.isfinite(self.estimate):
            return "undefined"
        if not np.isfinite([self.low, self.high]).all():
            return f"{number(self.estimate, sign)} (no interval: {self.seeds} seed{'s' * (self.seeds != 1)})"
        return (
            f"{number(self.estimate, sign)} [{number(self.low, sign)}, {number(self.high, sign)}]"
        )


def number(value: float, sign: bool = False) -> str:
    """Three decimals with a true minus sign; never "−0.000"."""
    rounded = round(float(value), 3) + 0.0
    text = f"{rounded:+.3f}" if sign and rounded else f"{rounded:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
