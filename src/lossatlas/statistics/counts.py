"""Overlap metrics from counts of true positives, false positives and false negatives.

The conventions are those of the evaluation, so that a metric of resampled images means the same as
the metric of a run: a class that is neither in the truth nor predicted is undefined (NaN) and left
out of a mean; a class that is predicted but not in the truth counts 0.
"""

from __future__ import annotations

import numpy as np

#: Metrics, with the words that pages have for them. Means are over the foreground classes.
METRICS = {
    "foreground_dice": "Dice",
    "foreground_iou": "IoU",
    "mean_precision": "precision",
    "mean_recall": "recall",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice_per_image": "Dice per image",
}


def class_metric(counts: np.ndarray, metric: str) -> np.ndarray:
    """Dice, IoU, precision or recall of counts (..., 3) in the order tp, fp, fn.

    With tp, fp, fn: Dice 2tp/(2tp+fp+fn), IoU tp/(tp+fp+fn), precision tp/(tp+fp), recall
    tp/(tp+fn). A class that is neither in the truth nor predicted is NaN. A class in the truth that
    is never predicted has precision 0; a class that is not in the truth has no recall (NaN).
    """
    tp, fp, fn = (counts[..., i].astype(float) for i in range(3))
    if metric == "dice":
        top, bottom = 2 * tp, 2 * tp + fp + fn
    elif metric == "iou":
        top, bottom = tp, tp + fp + fn
    elif metric == "precision":
        # the quotient is 0/0 where nothing was predicted; with truth there it counts as 0
        top, bottom = tp, np.where(tp + fp > 0, tp + fp, fn)
    elif metric == "recall":
        top, bottom = tp, tp + fn
    else:
        raise ValueError(f"expected dice, iou, precision or recall, got {metric!r}")
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def pooled_metric(counts: np.ndarray, metric: str, foreground: list[int]) -> np.ndarray:
    """A metric of `METRICS` (per image excepted) from pooled counts (..., C, 3), shape (...)."""
    if metric == "pixel_accuracy":
        labelled = counts[..., [0, 2]].sum((-1, -2))
        right = counts[..., 0].sum(-1)
        out = np.full(np.shape(right), np.nan)
        return np.divide(right, labelled, out=out, where=labelled > 0)
    kind = metric.removeprefix("foreground_").removeprefix("mean_")
    return nanmean(class_metric(counts[..., foreground, :], kind))


def metric_of_seeds(counts: np.ndarray, metric: str, foreground: list[int]) -> np.ndarray:
    """A metric of `METRICS` of every seed on its whole test set: counts (S, N, C, 3), shape (S,)."""
    if metric == "mean_dice_per_image":
        return nanmean(nanmean(class_metric(counts[:, :, foreground], "dice")))
    return pooled_metric(counts.sum(1), metric, foreground)


def nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is, without a warning."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
