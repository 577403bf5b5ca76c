"""Scores of the losses on one data set and model: means over the seeds, and paired differences.

The intervals are those of `lossatlas.statistics.paired`: seeds and test images are both samples, and what two
losses share cancels in their difference. The mean of one loss is its difference from a prediction of nothing,
whose every metric is 0.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lossatlas.report.records import Part, Records
from lossatlas.report.style import per_cent
from lossatlas.statistics.counts import METRICS, class_metric, metric_of_seeds, nanmean
from lossatlas.statistics.intervals import MIN_SEEDS, Interval
from lossatlas.statistics.paired import (
    MIN_GROUPS,
    MIN_STUDENTISED,
    Difference,
    holm,
    paired_differences,
)

#: Coverage that the intervals aim at.
LEVEL = 0.95


class Scores:
    """Means and paired differences of the losses of one data set and model.

    Parameters
    ----------
    part
        The data set and model.
    rule
        The decision rule whose masks are counted, by the records' name for it.
    """

    def __init__(self, part: Part, rule: str = "argmax") -> None:
        self.part = part
        self.counts = part.counts if rule == "argmax" else part.by_rule[rule]
        self.interval = cache(self._interval)
        self.difference = cache(self._difference)

    def per_seed(self, loss: str, metric: str = "foreground_dice") -> np.ndarray:
        """(seeds,) the metric of each seed on the whole test set; NaN where it is undefined."""
        if metric not in METRICS:
            raise ValueError(f"expected a metric of {', '.join(METRICS)}, got {metric!r}")
        return metric_of_seeds(self.counts[loss], metric, self.part.foreground)

    def mean(self, loss: str, metric: str = "foreground_dice") -> float:
        """Mean over the loss's seeds; NaN where the metric is undefined for all of them."""
        return float(nanmean(self.per_seed(loss, metric)))

    def _interval(self, loss: str, metric: str = "foreground_dice") -> Interval:
        """Mean over the loss's seeds; below `MIN_SEEDS`, or where a seed has no value, without an interval."""
        values = self.per_seed(loss, metric)
        if len(values) < MIN_SEEDS or np.isnan(values).any():
            return Interval(self.mean(loss, metric), np.nan, np.nan, len(values))
        found = self.own(loss, metric)
        # every metric lies in [0, 1]
        return Interval(found.estimate, max(found.low, 0.0), min(found.high, 1.0), len(values))

    def own(self, loss: str, metric: str = "foreground_dice") -> Difference:
        """The mean of a loss as its difference from a prediction of nothing, whose every metric is 0."""
        counts = self.counts[loss]
        truth = counts[..., 0] + counts[..., 2]
        nothing = np.stack([0 * truth, 0 * truth, truth], axis=-1)
        return self._paired({loss: counts, "nothing": nothing}, metric)

    def _difference(
        self, loss: str, other: str, metric: str = "foreground_dice"
    ) -> Difference | None:
        """`loss` minus `other` on the seeds that both have; None below `MIN_SEEDS` of them."""
        seeds = self.part.seeds
        shared = [seed for seed in seeds[loss] if seed in seeds[other]]
        if len(shared) < MIN_SEEDS:
            return None
        tables = {
            name: self.counts[name][[seeds[name].index(seed) for seed in shared]]
            for name in (loss, other)
        }
        return self._paired(tables, metric)

    def _paired(self, tables: dict[str, np.ndarray], metric: str) -> Difference:
        return paired_differences(
            tables,
            groups=self.part.groups,
            metric=metric,
            foreground=self.part.foreground,
        )[0]

    def class_means(self, loss: str) -> np.ndarray:
        """(C,) Dice of each class on the whole test set, mean over the seeds, or NaN."""
        return nanmean(class_metric(self.counts[loss].sum(1), "dice").T)

    def leader(self, metric: str = "foreground_dice") -> str:
        """The loss with the highest mean."""
        means = {loss: self.mean(loss, metric) for loss in self.part.losses}
        return max(means, key=lambda loss: -np.inf if np.isnan(means[loss]) else means[loss])

    def level_with_leader(self, metric: str = "foreground_dice") -> list[str]:
        """The leader, and the losses that are not significantly lower, after Holm's correction."""
        first = self.leader(metric)
        found = {
            loss: each
            for loss in self.part.losses
            if loss != first and (each := self.difference(first, loss, metric)) is not None
        }
        adjusted = holm([each.p_value() for each in found.values()])
        lower = {loss for loss, p in zip(found, adjusted, strict=True) if p <= 1 - LEVEL}
        return [loss for loss in self.part.losses if loss not in lower]

    def meaning(self) -> str:
        """One sentence, for captions: what the brackets are and what they rest on."""
        counts = sorted({len(seeds) for seeds in self.part.seeds.values()})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        plural = "" if counts == [1] else "s"
        images, groups = len(self.part.image_ids), len(set(self.part.groups))
        if counts[-1] < MIN_SEEDS:
            return (
                f"No intervals: {seeds} seed{plural} a loss. An interval over the {images} test images alone would "
                "not know how another training does."
            )
        text = (
            f"Brackets: {per_cent(LEVEL)} intervals for other seeds and other test images, from {seeds} "
            f"seed{plural} and {images} test images"
        )
        if MIN_GROUPS <= groups < images:
            text += f" in {groups} groups"
        elif 1 < groups < images:
            text += (
                f"; the images come from only {groups} groups and are alike within each, so that the intervals are "
                "too narrow"
            )
        few = counts[-1] < MIN_STUDENTISED
        return f"{text}. {'Student’s quantiles' if few else 'Studentised bootstrap'}, paired by seed and image."


def by_dataset(records: Records) -> dict[str, list[Scores]]:
    """Scores of every part of a study, by data set, models in the study's order."""
    found: dict[str, list[Scores]] = {}
    for part in records.parts:
        found.setdefault(part.dataset, []).append(Scores(part))
    return found
