"""Differences between two losses: interval, test, and what a study could have seen.

The design is crossed. Seeds s = 1..S train a network each under every loss, and all networks are
tested on the same images, which come in clusters g = 1..G (videos, patients; an image by itself
where there are none). The difference of two losses is d = mean over the seeds of T_s, where T_s is
the metric of the first loss's network minus that of the second's, over the whole test set. Seeds
and clusters are both samples: another seed gives another network, another test set other images.

**Standard error.** Write the metric as ratios of sums over clusters (Dice: sum of 2tp over sum of
2tp + fp + fn) and let u_sg be cluster g's influence on T_s (infinitesimal jackknife: the derivative
with respect to the cluster's weight, times G; it sums to zero over g). The table x_sg = T_s + u_sg is
a two-way layout with mean d, and its mean squares for seeds, clusters and their interaction, MS_A,
MS_B and MS_AB, estimate the variance of d::

    se² = (MS_A + max(MS_B − MS_AB, 0)) / (S G)
    df  = (A + max(B − MS_AB, 0))² / (A²/(S−1) + B²/(G−1) + MS_AB²/((S−1)(G−1))), at least min(S, G) − 1

(random-effects analysis of variance). With A = MS_A and B = MS_B these degrees of freedom are
Satterthwaite's (Biometrics Bulletin 2, 1946). From few seeds they are too many just where MS_A, and
with it the standard error, came out too small by chance: the interval then covers 92 % with three
seeds and 87 % with two. A and B are therefore upper confidence bounds of the mean squares (`_BOUND`),
which leaves many seeds as they are and brings three to 94–97 %. Radiology compares
diagnostic methods with this error term, with readers for seeds and cases for images (Obuchowski and
Rockette, Communications in Statistics 24, 1995; Hillis, Statistics in Medicine 26, 2007).

**Interval: studentised hierarchical bootstrap.** A resample draws S seeds and G clusters with
replacement, the same for all losses, and computes d* and its own se* anew; the quantiles of
t* = (d* − d)/se* take the place of Student's (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, section 12.5). The plain percentile interval is not used, for two reasons. With
S seeds the spread of resamples falls short by (S − 1)/S and has a normal's tails instead of
Student's: at 8 seeds it covers 89 %, BCa no more. And drawing rows and columns of one table counts the
interaction three times (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007):
where that dominates, the percentile interval covers nearly 100 %. Dividing by se* mends both.
``benchmarks/coverage.py`` measures it; the figures are in ``results/statistics/coverage.csv``.

Where one seed of eight is far from the others (a training that collapsed), a resample without it has
nearly no spread, its t* is as large as one likes, and the interval of a Dice could end at 7. The
standard error of a resample is therefore taken as at least a third of the sample's (`_LEAST_SPREAD`).
In simulations that leaves the coverage of normal effects as it is and costs half a point where they
are exponential. Where chance in the resamples makes the interval narrower than Student's as a whole,
both sides are lengthened by the same factor. No interval can know of a collapse that is rarer than
its seeds: of one training in ten, eight seeds see nothing in 43 % of the studies.

At the level asked for, the interval's ends are those of the bootstrap. Other levels and
p-values keep the ratio of the bootstrap's quantile to Student's, on either side, so that p ≤ 0.05
exactly where the 95 % interval leaves out zero and tails beyond the resamples still have a value.
With fewer than `MIN_STUDENTISED` seeds or clusters the ratio is 1: so few can all be drawn alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from scipy import optimize, stats

from lossatlas.statistics.counts import METRICS, class_metric, nanmean
from lossatlas.statistics.intervals import number

#: Fewer groups than this are too few to resample: their images are resampled one by one.
MIN_GROUPS = 6
#: With fewer seeds or clusters than this, quantiles are Student's and not the bootstrap's.
MIN_STUDENTISED = 8
#: How an interval is made: by the bootstrap, or with Student's quantiles, to be compared with it.
Method = Literal["studentised", "student"]

_BOUND = 0.75  # confidence of the mean squares' bounds in the degrees of freedom
_CHUNK = 2_000_000  # numbers of the largest array while resampling, 16 MB
_VALUE = "value"
_FEW_TERMS = 16  # losses × 2 × classes: with more, products of all pairs cost more than they save
_LEAST_SPREAD = 1 / 3  # of a resample, in standard errors of the sample (see the module)
_LEAST_STRETCH = 0.1  # an interval holds its estimate, however skewed the resamples
_ROUNDING = 1e-12  # variance of two equal losses, relative to their own


@dataclass(frozen=True)
class Difference:
    """First loss minus second, with what is needed for intervals and tests at any level.

    Attributes
    ----------
    first, second
        Labels of the losses.
    estimate
        Mean over the seeds of the paired difference.
    standard_error, df
        Of the estimate, and its degrees of freedom (see the module).
    stretch
        Bootstrap quantile over Student's, below and above the estimate.
    level
        Coverage that `low` and `high` aim at.
    per_seed
        The difference of each seed.
    images, clusters
        Test images, and the number of units that were drawn: clusters, or images one by one.
    groups
        Groups that the images come from; fewer than `clusters` where they are too few to be drawn.
    """

    first: str
    second: str
    estimate: float
    standard_error: float
    df: float
    stretch: tuple[float, float]
    level: float
    per_seed: tuple[float, ...]
    images: int
    clusters: int
    groups: int = 0

    @property
    def seeds(self) -> int:
        """Number of paired seeds."""
        return len(self.per_seed)

    @property
    def low(self) -> float:
        """Lower end of the interval at `level`."""
        return self.interval(self.level)[0]

    @property
    def high(self) -> float:
        """Upper end of the interval at `level`."""
        return self.interval(self.level)[1]

    def interval(self, level: float) -> tuple[float, float]:
        """Lower and upper end at another level."""
        _check_fraction("level", level)
        reach = float(stats.t.ppf((1 + level) / 2, self.df)) * self.standard_error
        return self.estimate - self.stretch[0] * reach, self.estimate + self.stretch[1] * reach

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p-value of the difference being `null`."""
        return min(1.0, 2 * min(self.p_above(null), self.p_below(null)))

    def p_above(self, bound: float) -> float:
        """One-sided p-value: small where the difference is larger than `bound`."""
        return self._tail(bound, upwards=True)

    def p_below(self, bound: float) -> float:
        """One-sided p-value: small where the difference is smaller than `bound`."""
        return self._tail(bound, upwards=False)

    def _tail(self, bound: float, *, upwards: bool) -> float:
        """One-sided p-value; the side of the estimate on which the bound lies sets the stretch."""
        excess = self.estimate - bound
        beyond = excess if upwards else -excess
        if self.standard_error == 0:
            return float(beyond <= 0)
        reach = self.standard_error * self.stretch[0 if excess > 0 else 1]
        return float(stats.t.sf(beyond / reach, self.df))

    def text(self, *, sign: bool = True, n: bool = True) -> str:
        """Difference, interval and n: ``+0.012 [+0.003, +0.021], n = 8 seeds × 200 images``, or of seeds alone."""
        span = ", ".join(number(end, sign) for end in self.interval(self.level))
        text = f"{number(self.estimate, sign)} [{span}]"
        if not n:
            return text
        if not self.images:
            return f"{text}, n = {self.seeds} seeds"
        drawn = f"{self.images} images"
        if self.clusters < self.images:
            drawn += f" in {self.clusters} groups"
        elif self.groups == 1 < self.images:
            drawn += " of one group, which is not drawn"
        elif 0 < self.groups < self.images:
            drawn += f" of {self.groups} groups, which are not drawn"
        return f"{text}, n = {self.seeds} seeds × {drawn}"


def paired_differences(
    scores: Mapping[str, Any],
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: str = _VALUE,
    foreground: Sequence[int] | None = None,
    pairs: Iterable[tuple[str, str]] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    method: Method = "studentised",
    rng: int | Sequence[int] | np.random.Generator = 0,
) -> list[Difference]:
    """Paired differences of losses by the studentised hierarchical bootstrap (see the module).

    Parameters
    ----------
    scores
        For each loss either a number for each seed and image, shape (S, N), or counts of true
        positives, false positives and false negatives, shape (S, N, C, 3). Row s of every loss is
        the same seed, column i the same image.
    groups
        Video or patient of each image, length N; None: every image by itself. Fewer groups than
        `MIN_GROUPS` are too few to draw: then images are drawn one by one, `Difference.text`
        says so, and the interval knows nothing of other groups: it is too narrow for them.
    metric
        Of counts: a key of `counts.METRICS`. For numbers "value": their mean.
    foreground
        Of counts: the classes that the metric is a mean over; None takes all. A class that is
        neither in the truth nor predicted in a resample is left out of that resample's mean.
    pairs
        (first, second) labels; None: every pair, in the order of `scores`.
    draws
        Number of resamples, the same for all pairs; at least 2/(1 − level) − 1.
    level
        Coverage that the interval aims at.
    method
        "studentised"; "student" takes Student's quantiles and resamples nothing.
    rng
        Seed of the resampling or a generator.

    Returns
    -------
    list of Difference
        In the order of `pairs`.

    Raises
    ------
    ValueError
        Seeds are not paired or fewer than two, shapes differ, a number is not finite, a metric is
        undefined for a seed, or a label is unknown.
    """
    tables = _tables(scores)
    losses = list(tables)
    chosen = _pairs(losses, pairs)
    weights = np.zeros((len(chosen), len(losses)))
    for row, (first, second) in zip(weights, chosen, strict=True):
        row[losses.index(first)], row[losses.index(second)] = 1, -1
    _check_fraction("level", level)
    least = math.ceil(2 / (1 - level) - 1e-9) - 1
    if draws < least:
        raise ValueError(f"expected at least {least} draws for the level {level:g}, got {draws}")
    if method not in ("studentised", "student"):
        raise ValueError(f"expected the method studentised or student, got {method!r}")
    images = next(iter(tables.values())).shape[1]
    sums = _sums(tables, metric, foreground, _units(groups, images))
    rows, clusters = sums.top.shape[1:3]
    given = images if groups is None else len(np.unique(np.asarray(groups).astype(str)))
    whole = _moments(sums, np.ones((1, rows)), np.ones((1, clusters)))
    for name, values in zip(tables, whole.per_seed[0], strict=True):
        if np.isnan(values).any():
            raise ValueError(
                f"{name}: expected a defined {metric} for every seed, got none for row "
                f"{int(np.isnan(values).argmax())}: no class is in the truth or predicted"
            )
    estimates, variances, dfs = (values[0] for values in _contrasts(whole, weights))
    errors = np.sqrt(variances)
    stretch = np.ones((len(chosen), 2))
    if method == "studentised" and min(rows, clusters) >= MIN_STUDENTISED:
        shifts, drawn = _resample(sums, weights, estimates, draws, np.random.default_rng(rng))
        tail = (1 - level) / 2
        student = stats.t.ppf(1 - tail, dfs)
        for k in np.flatnonzero(errors > 0):
            pivots = shifts[:, k] / np.maximum(drawn[:, k], _LEAST_SPREAD * errors[k])
            low, high = _quantiles(pivots, [tail, 1 - tail]) / student[k]
            sides = np.maximum([high, -low], _LEAST_STRETCH)
            stretch[k] = sides * max(1.0, 2 / sides.sum())  # not narrower than Student's
    per_seed = weights @ whole.per_seed[0]
    return [
        Difference(
            first=first,
            second=second,
            estimate=float(estimates[k]),
            standard_error=float(errors[k]),
            df=float(dfs[k]),
            stretch=(float(stretch[k, 0]), float(stretch[k, 1])),
            level=level,
            per_seed=tuple(float(value) for value in per_seed[k]),
            images=images,
            clusters=clusters,
            groups=given,
        )
        for k, (first, second) in enumerate(chosen)
    ]


# ---------------------------------------------------------------- tests, and several of them


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for their number m by Holm's step-down method, shape (m,).

    The i-th smallest becomes the largest of (m − j + 1) p_(j) over j ≤ i, at most 1. Rejecting
    where that is ≤ α keeps the chance of any false rejection at α, however the tests depend on each
    other (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"expected a list of p-values between 0 and 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


# ---------------------------------------------------------------- what a study can see


def power(effect: float, seeds: int, *, alpha: float = 0.05) -> float:
    """Chance that the two-sided paired t-test of `seeds` pairs finds a difference of `effect`.

    `effect` is in standard deviations of the paired difference. With n pairs t has a noncentral
    t distribution of n − 1 degrees of freedom and noncentrality effect·√n (Cohen, "Statistical
    Power Analysis for the Behavioral Sciences", 1988, chapter 2).
    """
    _check_fraction("alpha", alpha)
    if int(seeds) != seeds or seeds < 2:
        raise ValueError(f"expected a whole number of at least 2 seeds, got {seeds}")
    df, shift = seeds - 1, abs(effect) * np.sqrt(seeds)  # the test is two-sided
    critical = stats.t.ppf(1 - alpha / 2, df)
    right, wrong = stats.nct.sf(critical, df, shift), stats.nct.cdf(-critical, df, shift)
    # SciPy has no number for the tail on the other side of a large shift, which is 0 to the last bit.
    return float(right if shift > 0 and np.isnan(wrong) else right + wrong)


def minimum_detectable_effect(seeds: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest difference that `seeds` pairs find with the chance `power`, in SDs of the difference.

    >>> round(minimum_detectable_effect(8), 2)
    1.16
    """
    _check_fraction("power", power)
    if power <= alpha:
        raise ValueError(f"expected a power above alpha, got {power} and {alpha}")
    top = 1.0
    while _power(top, seeds, alpha=alpha) < power:
        top *= 2
    return float(optimize.brentq(lambda d: _power(d, seeds, alpha=alpha) - power, 0.0, top))


_power = power  # the function, where a parameter of the same name hides it


# ---------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Sums:
    """A metric as ratios of sums over clusters, each array (losses, seeds, clusters, classes).

    A class is defined where the sum of `present` is positive; there it is the sum of `top` over the
    sum of `bottom`, and 0 where the latter is 0.
    """

    top: np.ndarray
    bottom: np.ndarray
    present: np.ndarray

    @cached_property
    def both(self) -> np.ndarray:
        """`top`, then `bottom` of every class: (L, S, 2C, G)."""
        stacked = np.concatenate([self.top, self.bottom], axis=-1).swapaxes(-1, -2)
        return np.ascontiguousarray(stacked)

    @cached_property
    def products(self) -> np.ndarray:
        """Products of any two of the L · 2C terms of a seed and a cluster: (G, S (L 2C)²)."""
        losses, seeds, terms, clusters = self.both.shape
        flat = self.both.transpose(3, 1, 0, 2).reshape(clusters, seeds, losses * terms)
        return (flat[..., None] * flat[..., None, :]).reshape(clusters, -1)


@dataclass(frozen=True)
class _Moments:
    """Of B weighted data sets: means, and mean squares and products between losses.

    per_seed (B, L, S); mean (B, L); by_seed, by_cluster, rest (B, L, L): mean products for seeds, for
    clusters and for their interaction.
    """

    per_seed: np.ndarray
    mean: np.ndarray
    by_seed: np.ndarray
    by_cluster: np.ndarray
    rest: np.ndarray
    seeds: int
    clusters: int


def _pooled(
    sums: _Sums, cluster_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Metric of each seed (B, L, S) with clusters weighted by (B, G), and what it is made of.

    The latter are for each class (B, L, S, C): its ratio, its share in the mean over the defined
    classes, and its denominator. NaN where no class is defined.
    """
    losses, seeds, clusters, classes = sums.top.shape

    def total(values: np.ndarray) -> np.ndarray:  # (B, L, S, C)
        flat = values.transpose(2, 0, 1, 3).reshape(clusters, -1)
        return (cluster_weights @ flat).reshape(-1, losses, seeds, classes)

    bottom = total(sums.bottom)
    defined = (bottom if sums.present is sums.bottom else total(sums.present)) > 0
    ratio = np.divide(total(sums.top), bottom, out=np.zeros_like(bottom), where=bottom > 0)
    number_defined = defined.sum(-1, keepdims=True)
    share = np.divide(
        defined, number_defined, out=np.full(bottom.shape, np.nan), where=number_defined > 0
    )
    return (ratio * share).sum(-1), ratio, share, bottom


def _moments(sums: _Sums, seed_weights: np.ndarray, cluster_weights: np.ndarray) -> _Moments:
    """Moments with seeds weighted by (B, S) and clusters by (B, G); rows sum to S and to G."""
    losses, seeds, clusters, _ = sums.top.shape
    draws = len(seed_weights)
    per_seed, ratio, share, bottom = _pooled(sums, cluster_weights)
    mean = (per_seed * seed_weights[:, None]).sum(-1) / seeds

    # influence of cluster g: G · share · (top_g − ratio · bottom_g) / bottom, summed over classes
    slope = clusters * np.divide(share, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    slopes = np.concatenate([slope, -slope * ratio], axis=-1)  # (B, L, S, 2C)

    centred = (per_seed - mean[..., None]) * np.sqrt(seed_weights[:, None])
    by_seed = clusters * centred @ centred.swapaxes(-1, -2)
    # mean influence of a cluster over the seeds, (B, L, G): one product of matrices a loss
    weighted = (slopes * (seed_weights / seeds)[:, None, :, None]).reshape(draws, losses, -1)
    flat = sums.both.reshape(losses, -1, clusters)
    column = (weighted.swapaxes(0, 1) @ flat).swapaxes(0, 1)
    column = column * np.sqrt(cluster_weights[:, None])
    by_cluster = seeds * column @ column.swapaxes(-1, -2)
    rest = _squares(sums, slopes, seed_weights, cluster_weights) - by_cluster
    return _Moments(
        per_seed=per_seed,
        mean=mean,
        by_seed=by_seed / (seeds - 1),
        by_cluster=by_cluster / (clusters - 1),
        rest=rest / ((seeds - 1) * (clusters - 1)),
        seeds=seeds,
        clusters=clusters,
    )


def _squares(
    sums: _Sums, slopes: np.ndarray, seed_weights: np.ndarray, cluster_weights: np.ndarray
) -> np.ndarray:
    """Weighted sums over seeds and clusters of products of two losses' influences, (B, L, L)."""
    losses, seeds, terms, _ = sums.both.shape
    draws, wide = len(slopes), losses * terms
    if wide > _FEW_TERMS:
        influence = (slopes.transpose(1, 2, 0, 3) @ sums.both).transpose(2, 0, 1, 3)
        weights = np.sqrt(seed_weights[:, :, None] * cluster_weights[:, None])  # (B, S, G)
        flat = (influence * weights[:, None]).reshape(draws, losses, -1)
        return flat @ flat.swapaxes(-1, -2)
    # sums over the clusters first: the slopes are the same for all of them
    drawn = (cluster_weights @ sums.products).reshape(draws, seeds, wide, wide)
    flat = slopes.swapaxes(1, 2).reshape(draws, seeds, wide)
    drawn *= (flat * seed_weights[..., None])[..., None] * flat[:, :, None]
    return drawn.reshape(draws, seeds, losses, terms, losses, terms).sum((1, 3, 5))


def _contrasts(moments: _Moments, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum with weights (P, L), its variance and degrees of freedom, each (B, P)."""

    def squares(products: np.ndarray) -> np.ndarray:
        value = ((weights @ products) * weights).sum(-1)
        # what rounding leaves of two equal losses is not a variance
        own = np.diagonal(products, axis1=-2, axis2=-1) @ (weights**2).T
        return np.where(value > _ROUNDING * own, value, 0.0)

    a, b, ab = (squares(m) for m in (moments.by_seed, moments.by_cluster, moments.rest))
    total = a + np.maximum(b - ab, 0)
    variance = total / (moments.seeds * moments.clusters)
    df = degrees_of_freedom(a, b, ab, moments.seeds, moments.clusters)
    return moments.mean @ weights.T, variance, df


def degrees_of_freedom(
    by_seed: np.ndarray, by_cluster: np.ndarray, rest: np.ndarray, seeds: int, clusters: int
) -> np.ndarray:
    """Of the standard error from mean squares of seeds, clusters and interaction (see the module)."""
    s, g = seeds - 1, clusters - 1
    a, b = by_seed * _excess(s), by_cluster * _excess(g)
    total = a + np.maximum(b - rest, 0)
    spread = a**2 / s + b**2 / g + rest**2 / (s * g)
    df = np.divide(total**2, spread, out=np.full(np.shape(total), float(s)), where=spread > 0)
    return np.maximum(df, min(s, g))


@cache
def _excess(df: int) -> float:
    """Upper confidence bound of a mean square over the mean square, with the confidence `_BOUND`."""
    return float(df / stats.chi2.ppf(1 - _BOUND, df))


def _resample(
    sums: _Sums,
    weights: np.ndarray,
    estimates: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Resampled sums minus the estimates, and their standard errors, each (draws, P)."""
    losses, seeds, clusters, classes = sums.top.shape
    by_seed, by_cluster = (drawn_counts(rng, draws, count) for count in (seeds, clusters))
    step = max(1, _CHUNK // (losses * seeds * max(clusters, classes)))
    shifts, errors = [], []
    for start in range(0, draws, step):
        part = slice(start, start + step)
        values, variances, _ = _contrasts(_moments(sums, by_seed[part], by_cluster[part]), weights)
        shifts.append(values - estimates)
        errors.append(np.sqrt(variances))
    return np.concatenate(shifts), np.concatenate(errors)


def drawn_counts(rng: np.random.Generator, draws: int, count: int) -> np.ndarray:
    """(draws, count) how often each of `count` was drawn in `count` draws with replacement."""
    picks = rng.integers(0, count, (draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=draws * count).reshape(draws, count).astype(float)


def _quantiles(values: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles of what is defined: a resample may hold none of a rare class's images.

    Weibull's positions: of B resamples of an exact pivot, p (B + 1) lie below the p-quantile.
    """
    return np.quantile(values[~np.isnan(values)], levels, method="weibull")


def _sums(
    tables: Mapping[str, np.ndarray],
    metric: str,
    foreground: Sequence[int] | None,
    unit: np.ndarray,
) -> _Sums:
    """The metric's sums over clusters; `unit` (N,) has each image's cluster."""
    stacked = np.stack(list(tables.values()))  # (L, S, N) or (L, S, N, C, 3)
    if stacked.ndim == 3:
        if metric != _VALUE:
            raise ValueError(
                f"expected counts (S, N, C, 3) for the metric {metric!r}, got numbers (S, N)"
            )
        top = stacked[..., None]
        bottom = np.ones_like(top)
        present = bottom
    else:
        classes = stacked.shape[3]
        chosen = list(range(classes)) if foreground is None else list(foreground)
        if not chosen or not set(chosen) <= set(range(classes)):
            raise ValueError(f"expected foreground classes within 0 to {classes - 1}, got {chosen}")
        top, bottom, present = _ratio(stacked, metric, chosen)
    same = present is bottom

    groups = int(unit.max()) + 1
    alone = groups == len(unit) and bool((unit == np.arange(groups)).all())
    member = None if alone else (unit == np.arange(groups)[:, None]).astype(float)  # (G, N)

    def by_cluster(values: np.ndarray) -> np.ndarray:
        return values.astype(float) if member is None else member @ values

    bottom = by_cluster(bottom)
    return _Sums(by_cluster(top), bottom, bottom if same else by_cluster(present))


def _ratio(
    counts: np.ndarray, metric: str, foreground: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numerator, denominator and presence of a metric, each (L, S, N, C), as `counts` has it."""
    if metric == "mean_dice_per_image":
        dice = nanmean(class_metric(counts[..., foreground, :], "dice"))[..., None]
        known = (~np.isnan(dice)).astype(float)
        return np.nan_to_num(dice), known, known
    if metric == "pixel_accuracy":
        labelled = counts[..., [0, 2]].sum((-1, -2))[..., None]
        return counts[..., 0].sum(-1)[..., None], labelled, labelled
    tp, fp, fn = (counts[..., foreground, k] for k in range(3))
    if metric == "foreground_dice":
        bottom = 2 * tp + fp + fn
        return 2 * tp, bottom, bottom
    if metric == "foreground_iou":
        bottom = tp + fp + fn
        return tp, bottom, bottom
    if metric == "mean_precision":
        # never predicted though there: 0, which a sum of 0 below says
        return tp, tp + fp, tp + fp + fn
    if metric == "mean_recall":
        return tp, tp + fn, tp + fn
    raise ValueError(f"expected a metric of {', '.join(METRICS)} for counts, got {metric!r}")


def _units(groups: Sequence[Any] | np.ndarray | None, images: int) -> np.ndarray:
    """(N,) number of the unit that each image is drawn with."""
    if groups is None:
        return np.arange(images)
    names = np.asarray(groups)
    if names.shape != (images,):
        raise ValueError(f"expected a group for each of {images} images, got shape {names.shape}")
    found, unit = np.unique(names.astype(str), return_inverse=True)
    return unit if len(found) >= MIN_GROUPS else np.arange(images)


def _tables(scores: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The scores as float arrays, checked to be paired."""
    tables = {label: np.asarray(values, float) for label, values in scores.items()}
    if len(tables) < 2:
        raise ValueError(f"expected at least 2 losses, got {len(tables)}")
    first = next(iter(tables))
    shape = tables[first].shape
    for label, values in tables.items():
        if values.ndim != 2 and (values.ndim != 4 or values.shape[3] != 3):
            raise ValueError(
                f"{label}: expected numbers (S, N) or counts (S, N, C, 3), got shape {values.shape}"
            )
        if values.shape != shape:
            raise ValueError(
                f"expected paired seeds and images, got shape {shape} for {first} and "
                f"{values.shape} for {label}: keep the seeds and images that all losses have"
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"{label}: expected finite numbers, got NaN or infinity at row "
                f"{int(np.argwhere(~np.isfinite(values))[0][0])}; for a metric that some images "
                f"do not define, give counts"
            )
    if shape[0] < 2 or shape[1] < 2:
        raise ValueError(
            f"expected at least 2 seeds and 2 images, got {shape[0]} and {shape[1]}: one of them "
            f"says nothing of what another would do"
        )
    return tables


def _pairs(losses: Sequence[str], pairs: Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    chosen = list(itertools.combinations(losses, 2)) if pairs is None else list(pairs)
    _check_known(losses, itertools.chain.from_iterable(chosen))
    for first, second in chosen:
        if first == second:
            raise ValueError(f"expected two losses, got {first} twice")
    if not chosen:
        raise ValueError("expected at least one pair of losses, got none")
    return chosen


def _check_known(losses: Sequence[str], asked: Iterable[str]) -> None:
    for label in asked:
        if label not in losses:
            raise ValueError(f"expected a loss of {', '.join(losses)}, got {label!r}")


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"expected {name} between 0 and 1, got {value}")
