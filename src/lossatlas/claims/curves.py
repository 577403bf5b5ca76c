"""What one training curve says: noise, informativeness, and what follows convergence.

Each function takes the rows of one run of ``curves.parquet``, in the order of the steps, and gives one number.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

#: The part of a training over which the noise is measured.
LAST = 0.25
#: The part of a training whose mean loss is the start of the fall: steps 60 to 120 of 600.
START = (0.1, 0.2)


def noise(curve: pd.DataFrame) -> float:
    """Standard deviation of the batch loss over its mean, in the last quarter, less its linear trend.

    >>> curve = pd.DataFrame({"step": range(1, 101), "loss_value": [1.0, 3.0] * 50})
    >>> round(noise(curve), 2)
    0.51
    """
    tail = _last(curve)
    return float(_spread(tail) / tail.loss_value.mean())


def informativeness(curve: pd.DataFrame) -> float:
    """Fall of the mean batch loss from the start to the last quarter, over the noise about the trend there."""
    steps = curve.step.max()
    start = curve[(curve.step > START[0] * steps) & (curve.step <= START[1] * steps)]
    tail = _last(curve)
    return float((start.loss_value.mean() - tail.loss_value.mean()) / _spread(tail))


def training_follows(curve: pd.DataFrame) -> float:
    """Rank correlation of the falling training loss with the validation Dice at its tuned threshold."""
    return _rank(-_smoothed(curve), _evaluations(curve).val_dice_tuned)


def validation_follows(curve: pd.DataFrame) -> float:
    """Rank correlation of the falling validation loss with the validation Dice at its tuned threshold."""
    rows = _evaluations(curve)
    return _rank(-rows.val_loss, rows.val_dice_tuned)


def half_follows(curve: pd.DataFrame) -> float:
    """Rank correlation of the validation Dice at ½ with that at its tuned threshold."""
    rows = _evaluations(curve)
    return _rank(rows.val_mean_dice, rows.val_dice_tuned)


def tuned_over_training(curve: pd.DataFrame) -> float:
    """How much better the tuned validation Dice follows the step than the falling training loss does."""
    rows = _evaluations(curve)
    return _rank(rows.step, rows.val_dice_tuned) - _rank(rows.step, -_smoothed(curve))


def easy_negatives(curve: pd.DataFrame) -> float:
    """Largest share, over the steps, of the loss that background pixels with a background of p > 0.9 carry."""
    return float(curve.easy_negative_share.max())


def easy_negatives_late(curve: pd.DataFrame) -> float:
    """The same after the first tenth of the training."""
    return float(curve[curve.step > 0.1 * curve.step.max()].easy_negative_share.max())


def _last(curve: pd.DataFrame) -> pd.DataFrame:
    return curve[curve.step > (1 - LAST) * curve.step.max()]


def _spread(tail: pd.DataFrame) -> float:
    """Standard deviation about the linear trend, with two degrees of freedom spent on it."""
    fit = np.polyfit(tail.step, tail.loss_value, 1)
    rest = tail.loss_value - np.polyval(fit, tail.step)
    return float(np.sqrt((rest**2).sum() / (len(tail) - 2)))


def _evaluations(curve: pd.DataFrame) -> pd.DataFrame:
    return curve[curve.val_dice_tuned.notna()]


def _smoothed(curve: pd.DataFrame) -> np.ndarray:
    """(E,) mean batch loss of the steps since the evaluation before."""
    ends = _evaluations(curve).step.to_numpy()
    starts = [0, *ends[:-1]]
    return np.array(
        [
            curve[(curve.step > a) & (curve.step <= b)].loss_value.mean()
            for a, b in zip(starts, ends, strict=True)
        ]
    )


def _rank(first: object, second: object) -> float:
    """Spearman's rank correlation; 0 where one of the two does not move."""
    x, y = np.asarray(first, float), np.asarray(second, float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0 if len(x) >= 3 else float("nan")
    return float(stats.spearmanr(x, y).statistic)
