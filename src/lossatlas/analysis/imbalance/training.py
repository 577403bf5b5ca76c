"""What the runs of a study of imbalance say of their training: whose pixels pull, and which rates work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossatlas.analysis.imbalance.study import Fraction, Imbalance, student
from lossatlas.statistics.intervals import Interval

#: "Early" is the first measured batch with foreground, if it is within this part of the steps.
EARLY = 0.1
#: A learning rate works where its validation Dice reaches this part of the loss's best.
WORKS = 0.9


def shares(at: Fraction) -> pd.DataFrame:
    """The foreground's share of the gradient where it was measured on a batch with foreground.

    Columns loss, seed, step, share. Batches are the same for every loss of a seed; one without any
    foreground gives no loss a share, and at small fractions most are such.
    """
    curves = at.part.curves.dropna(subset=["foreground_share"])
    table = curves[["loss", "seed", "step", "foreground_share"]].rename(
        columns={"foreground_share": "share"}
    )
    has_foreground = table.groupby(["seed", "step"]).share.transform("max") > 0
    return table[has_foreground]


def early_share(study: Imbalance, loss: str, at: Fraction) -> np.ndarray:
    """(seeds,) share on the first measured batch with foreground, when least is learnt.

    A seed without such a batch in the first tenth of the steps has none: where the foreground is
    rare, that is many of them.
    """
    table = shares(at)
    early = table[(table.loss == loss) & (table.step <= EARLY * study.records.study["steps"] + 1)]
    return early.sort_values("step").groupby("seed").share.first().to_numpy()


def early_share_interval(study: Imbalance, loss: str, at: Fraction) -> Interval:
    """The mean of `early_share` with Student's interval."""
    return student(early_share(study, loss, at))


@dataclass(frozen=True)
class Sensitivity:
    """One loss at one fraction under every learning rate that was tried.

    Attributes
    ----------
    rates
        Learning rates, ascending.
    scores
        (rates, seeds) validation Dice at the threshold tuned there; 0 where a run diverged, NaN
        where it is missing.
    chosen
        The rate of the reporting runs, None while runs are missing.
    diverged
        Tuning runs that diverged.
    """

    rates: tuple[float, ...]
    scores: np.ndarray
    chosen: float | None
    diverged: int

    @property
    def mean(self) -> np.ndarray:
        """(rates,) mean over the tuning seeds."""
        return self.scores.mean(1)

    @property
    def at_edge(self) -> bool:
        """Whether the chosen rate is the lowest or highest of those tried."""
        return self.chosen in (self.rates[0], self.rates[-1])

    def working(self, part: float = WORKS) -> np.ndarray:
        """(seeds,) how many rates reach that part of the seed's best score."""
        best = self.scores.max(0, keepdims=True)
        return ((self.scores >= part * best) & (best > 0)).sum(0)


def sensitivity(study: Imbalance, loss: str, at: Fraction) -> Sensitivity | None:
    """The tuning runs of a loss at a fraction; None where the study tuned nothing."""
    table = study.records.tuning
    if table is None:
        return None
    rows = table[(table.dataset == at.part.dataset) & (table.loss == loss)]
    if rows.empty:
        return None
    rates, seeds = sorted(set(rows.lr)), sorted(set(rows.seed))
    scores = np.full((len(rates), len(seeds)), np.nan)
    diverged, chosen = 0, None
    for row in rows.to_dict("records"):
        ended = str(row["status"]).startswith("diverged")
        diverged += ended
        place = rates.index(row["lr"]), seeds.index(row["seed"])
        score = 0.0 if ended else float(row["val_foreground_dice_tuned"])
        # of several optimisers the best at this rate
        scores[place] = np.fmax(scores[place], score)
        chosen = float(row["lr"]) if row["chosen"] else chosen
    return Sensitivity(tuple(map(float, rates)), scores, chosen, diverged)
