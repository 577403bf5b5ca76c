"""Means over seeds with bootstrap intervals, and paired differences between losses.

The seeds of a loss and the test images are crossed: every seed's network is tested on the same
images, and every loss has the same seeds. One resample therefore draws images once, for all seeds
and losses, and seeds once, for all losses; a metric is computed anew from the counts of the drawn
images and averaged over the drawn seeds. The interval runs from the 2.5th to the 97.5th percentile
of the resamples (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). It
covers both the choice of test images and the seeds, and a difference between two losses is taken
within each resample: what the two share cancels.

With few seeds the interval knows little of the seeds: three can only be drawn in ten ways, and the
percentiles of so few are too narrow. Pages therefore show every seed beside the interval. A rare
class can be missing from a resample; there the mean is over the classes that are left.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lossatlas.analysis.records import Part, Records
from lossatlas.analysis.style import per_cent
from lossatlas.statistics.counts import METRICS, class_metric, nanmean, pooled_metric
from lossatlas.statistics.intervals import MIN_SEEDS, Interval
from lossatlas.statistics.paired import MIN_GROUPS


class Resampling:
    """Bootstrap of one data set and model: the same resamples for every loss and metric.

    Parameters
    ----------
    part
        The data set and model.
    draws
        Number of resamples.
    level
        Coverage that the interval aims at.
    seed
        Of the resampling: the same seed gives the same intervals.
    """

    def __init__(
        self, part: Part, *, draws: int = 1000, level: float = 0.95, seed: int = 0
    ) -> None:
        if draws < 1 or not 0 < level < 1:
            raise ValueError(f"expected draws > 0 and 0 < level < 1, got {draws} and {level}")
        self.part = part
        self.draws = draws
        self.level = level
        self._seed = seed
        self.groups = len(set(part.groups))
        self.by_group = MIN_GROUPS <= self.groups < len(part.image_ids)
        self._weights = self._image_weights()
        self._values = cache(self._compute)

    def _image_weights(self) -> np.ndarray:
        """(draws + 1, images) how often each image was drawn; row 0 is the test set as it is."""
        rng = np.random.default_rng([self._seed, 0])
        if self.by_group:
            _, unit = np.unique(self.part.groups, return_inverse=True)
        else:
            unit = np.arange(len(self.part.image_ids))
        units = int(unit.max()) + 1
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=self.draws)
        return np.concatenate([np.ones((1, len(unit)), np.int64), drawn[:, unit]])

    def _seed_picks(self, count: int) -> np.ndarray:
        """(draws + 1, count) places of the drawn seeds; row 0 has each once."""
        rng = np.random.default_rng([self._seed, 1, count])
        drawn = rng.integers(0, count, size=(self.draws, count))
        return np.concatenate([np.arange(count)[None], drawn])

    def _compute(self, loss: str, metric: str) -> np.ndarray:
        """(draws + 1, seeds) metric of each seed on each resample of images."""
        if metric not in METRICS:
            raise ValueError(f"expected a metric of {', '.join(METRICS)}, got {metric!r}")
        counts = self.part.counts[loss]  # (S, N, C, 3)
        seeds, images = counts.shape[:2]
        if metric == "mean_dice_per_image":
            dice = nanmean(class_metric(counts[:, :, self.part.foreground], "dice"))
            known = ~np.isnan(dice)  # (S, N)
            total = self._weights @ np.where(known, dice, 0.0).T
            number = self._weights @ known.T.astype(float)
            return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
        flat = np.moveaxis(counts, 1, 0).reshape(images, -1).astype(float)
        pooled = (self._weights @ flat).reshape(-1, seeds, *counts.shape[2:])
        return pooled_metric(pooled, metric, self.part.foreground)

    def per_seed(self, loss: str, metric: str = "foreground_dice") -> np.ndarray:
        """(seeds,) the metric of each seed on the whole test set."""
        return self._values(loss, metric)[0]

    def interval(self, loss: str, metric: str = "foreground_dice") -> Interval:
        """Mean over the loss's seeds."""
        return self._interval(self._values(loss, metric))

    def difference(self, loss: str, other: str, metric: str = "foreground_dice") -> Interval | None:
        """`loss` minus `other`, paired by image and by the seeds both have; None without any."""
        shared = [seed for seed in self.part.seeds[loss] if seed in self.part.seeds[other]]
        if not shared:
            return None
        mine, theirs = (
            self._values(name, metric)[:, [self.part.seeds[name].index(s) for s in shared]]
            for name in (loss, other)
        )
        return self._interval(mine - theirs)

    def _interval(self, values: np.ndarray) -> Interval:
        seeds = values.shape[1]
        means = nanmean(np.take_along_axis(values, self._seed_picks(seeds), axis=1))
        drawn = means[1:][~np.isnan(means[1:])]
        if np.isnan(means[0]) or not len(drawn):
            return Interval(np.nan, np.nan, np.nan, seeds)
        if seeds < MIN_SEEDS:
            return Interval(float(means[0]), np.nan, np.nan, seeds)
        tail = 50 * (1 - self.level)
        low, high = np.percentile(drawn, [tail, 100 - tail])
        return Interval(float(means[0]), float(low), float(high), seeds)

    def class_means(self, loss: str) -> np.ndarray:
        """(C,) Dice of each class on the whole test set, mean over the seeds, or NaN."""
        return nanmean(class_metric(self.part.counts[loss].sum(1), "dice").T)

    def leader(self, metric: str = "foreground_dice") -> str:
        """The loss with the highest mean."""

        def mean(loss: str) -> float:
            value = self.interval(loss, metric).estimate
            return value if np.isfinite(value) else -np.inf

        return max(self.part.losses, key=mean)

    def meaning(self) -> str:
        """One sentence, for captions: what the brackets are and what they rest on."""
        counts = sorted({len(seeds) for seeds in self.part.seeds.values()})
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        plural = "" if counts == [1] else "s"
        images = len(self.part.image_ids)
        if self.by_group:
            drawn = f"{images} test images in {self.groups} groups, drawn group by group"
        else:
            drawn = f"{images} test images"
        text = (
            f"Brackets: {per_cent(self.level)} percentile interval of {self.draws} resamples of "
            f"the {drawn}"
        )
        if counts[-1] < MIN_SEEDS:
            return (
                f"No intervals: {seeds} seed{plural} a loss. An interval over the {images} test images alone would "
                "not know how another training does."
            )
        text += f", and of the {seeds} seed{plural}"
        if counts[-1] < 8:
            text += "; so few seeds make it too narrow for what another seed would do"
        if 1 < self.groups < MIN_GROUPS and self.groups < images:
            text += (
                f"; the images come from only {self.groups} groups and are alike within each, "
                f"which narrows it too"
            )
        return text + "."


def resample(records: Records) -> dict[str, list[Resampling]]:
    """Bootstrap of every part of a study, by data set, models in the study's order."""
    by_dataset: dict[str, list[Resampling]] = {}
    for part in records.parts:
        by_dataset.setdefault(part.dataset, []).append(Resampling(part))
    return by_dataset
