"""Losses over many tasks: robust means, how often one beats another, and whether ranks agree.

A task is a data set (or one setting of it: a foreground fraction, say) with a model. `aggregate`
and `probability_of_improvement` follow Agarwal and others, "Deep reinforcement learning at the edge
of the statistical precipice" (NeurIPS 2021): scores of R runs (seeds) on each of M tasks, shape
(R, M), and a bootstrap that draws runs anew within every task, tasks fixed. Its intervals speak of
these tasks and of other seeds. The plain percentile interval is too short for 8 to 10 runs (it covers
91 to 93 %), so its deviations from the estimate are multiplied by √(R/(R−1)) t/z, with Student's and
the normal quantile, of M(R−1) degrees of freedom for one loss; `widen=False` leaves that out.
``results/statistics/coverage.csv`` has the coverage of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from lossatlas.statistics.intervals import Interval
from lossatlas.statistics.paired import drawn_counts

#: Statistic of an array of scores over its last two axes (runs, tasks).
Statistic = Callable[[np.ndarray], np.ndarray]

_PAIRS = 2_000_000  # pairs of runs compared at a time, 16 MB


# ---------------------------------------------------------------- robust means over runs and tasks


def iqm(scores: Any) -> np.ndarray:
    """Interquartile mean over the last two axes: the mean of the middle half of all scores.

    Of n = R·M sorted scores the floor(n/4) lowest and highest are left out (Agarwal 2021): less
    swayed by a failed run than the mean, less noisy than the median. Shape (..., R, M) → (...).

    >>> iqm([[0.0, 0.1, 0.2, 0.9]]).round(3)
    np.float64(0.15)
    """
    values = np.asarray(scores, float)
    if values.ndim < 2:
        raise ValueError(f"expected scores (runs, tasks), got shape {values.shape}")
    flat = np.sort(values.reshape(*values.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def aggregate(
    scores: Mapping[str, Any],
    statistic: Statistic = iqm,
    *,
    widen: bool = True,
    draws: int = 2000,
    level: float = 0.95,
    rng: int = 0,
) -> dict[str, Interval]:
    """A statistic of each loss with its interval by stratified bootstrap.

    Parameters
    ----------
    scores
        For each loss (R, M): runs (seeds) by tasks.
    statistic
        Over the last two axes, `iqm` by default.
    widen
        False gives the plain percentile interval, as Agarwal and others have it.
    draws, level, rng
        Of the bootstrap: R runs are drawn with replacement within each task, M times R in all.

    Returns
    -------
    dict
        `Interval` of each loss; its `seeds` is R.

    Raises ValueError for fewer than two runs and for numbers that are not finite.
    """
    _check_draws(draws, level)
    tables = {label: _runs(label, values) for label, values in scores.items()}
    found = {}
    for label, table in tables.items():
        drawn = statistic(_redraw(table, _picks(table.shape, draws, rng)))
        runs, tasks = table.shape
        estimate = float(statistic(table))
        ends = _ends(estimate, drawn, level, runs, tasks * (runs - 1) if widen else None)
        found[label] = Interval(estimate, *ends, runs)
    return found


def probability_of_improvement(
    first: Any,
    second: Any,
    *,
    paired: bool = False,
    widen: bool = True,
    draws: int = 2000,
    level: float = 0.95,
    rng: int = 0,
) -> Interval:
    """Chance that a run of `first` scores higher than a run of `second`, mean over the tasks.

    On each task the Mann–Whitney statistic over its largest value, U/(R·R'), where a tie counts one
    half: P(X > Y) + ½ P(X = Y). ½ means that neither wins more often; it says nothing of by how much.
    The interval is that of the stratified bootstrap, cut at 0 and 1. Where every run of one lies
    above every run of the other, it is a point, which is no certainty: with one task and 8 runs it
    misses a true chance of 0.86 one time in ten. Show n with it.

    Parameters
    ----------
    first, second
        (R, M) and (R', M) scores, runs by tasks; the same tasks in the same order.
    paired
        True draws the same runs for both: for runs that share their seeds. The estimate is the
        same, the interval narrower where seeds matter to both alike.
    widen
        False gives the plain percentile interval, as Agarwal and others have it.
    draws, level, rng
        Of the bootstrap.

    Raises ValueError for fewer than two runs, other tasks, numbers that are not finite, and with
    `paired` for different numbers of runs.
    """
    _check_draws(draws, level)
    x, y = _runs("first", first), _runs("second", second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"expected the same tasks, got {x.shape[1]} and {y.shape[1]}")
    if paired and len(x) != len(y):
        raise ValueError(f"expected paired runs, got {len(x)} and {len(y)}")
    mine = _picks(x.shape, draws, rng)
    theirs = mine if paired else _picks(y.shape, draws, [rng, 1])
    estimate = float(_improvement(x[None], y[None])[0])
    drawn = _improvement(_redraw(x, mine), _redraw(y, theirs))
    runs = min(len(x), len(y))
    df = x.shape[1] * ((len(x) - 1) if paired else (len(x) + len(y) - 2))
    low, high = _ends(estimate, drawn, level, runs, df if widen else None)
    return Interval(estimate, max(low, 0.0), min(high, 1.0), runs)


def _improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(B,) mean over tasks of P(X > Y) + ½ P(X = Y) for x (B, R, M) and y (B, R', M)."""
    step = max(1, _PAIRS // (x.shape[1] * y.shape[1] * x.shape[2]))
    parts = []
    for start in range(0, len(x), step):
        a, b = x[start : start + step, :, None], y[start : start + step, None]
        parts.append(((a > b) + 0.5 * (a == b)).mean((1, 2, 3)))
    return np.concatenate(parts)


def _picks(shape: tuple[int, ...], draws: int, rng: int | list[int]) -> np.ndarray:
    """(draws, R, M) rows drawn with replacement, anew for each task."""
    return np.random.default_rng(rng).integers(0, shape[0], size=(draws, *shape))


def _redraw(table: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return np.take_along_axis(table[None], picks, axis=1)


def _ends(
    estimate: float, drawn: np.ndarray, level: float, runs: int, df: float | None
) -> tuple[float, float]:
    """Percentiles of the resamples, with `df` widened for few runs as the module says."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    wide = 1.0
    if df is not None:
        tail = (1 + level) / 2
        wide = np.sqrt(runs / (runs - 1)) * stats.t.ppf(tail, df) / stats.norm.ppf(tail)
    return float(estimate - wide * (estimate - low)), float(estimate + wide * (high - estimate))


# ---------------------------------------------------------------- agreement of rankings


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b of two rankings of the same losses, and Spearman's rho beside it.

    Attributes
    ----------
    tau, low, high
        Estimate and percentile interval.
    rho
        Spearman's rank correlation, the correlation of the ranks: it is larger than tau by about
        half, and given because much of the literature has it.
    p
        Two-sided p-value of no association (exact for few losses without ties).
    over
        What the resamples drew: "seeds" or "losses".
    ceiling
        About what the two data sets' own seeds allow: the geometric mean over both of the mean tau
        between the two halves of a data set's seeds (half of the seeds, so that it is somewhat low);
        NaN where there are no seeds.
    losses, seeds
        How many; `seeds` is the smaller of both, 0 without.
    """

    tau: float
    low: float
    high: float
    rho: float
    p: float
    over: str
    ceiling: float
    losses: int
    seeds: int


def tau_b(x: Any, y: Any) -> np.ndarray:
    """Kendall's tau-b over the last axis: (..., L) and (..., L) → (...).

    (concordant − discordant pairs) / √((pairs untied in x)(pairs untied in y)) (Kendall,
    Biometrika 33, 1945); NaN where one of them is all ties.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    i, j = np.triu_indices(x.shape[-1], 1)
    a, b = np.sign(x[..., i] - x[..., j]), np.sign(y[..., i] - y[..., j])
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    top = (a * b).sum(-1)
    return np.divide(top, scale, out=np.full(np.shape(scale), np.nan), where=scale > 0)


def rank_correlation(
    first: Any,
    second: Any,
    *,
    over: Literal["seeds", "losses"] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    rng: int = 0,
) -> RankCorrelation:
    """Kendall's tau-b between the scores of the same losses on two data sets, with an interval.

    Parameters
    ----------
    first, second
        (L, S) and (L, S') scores by loss and seed, of which each loss's mean is ranked, or (L,) one
        number a loss (a published table). The same losses in the same order.
    over
        "seeds" draws seeds of each data set, all losses alike: how far chance in training moves the
        agreement of these losses. "losses" draws losses: what other losses of their kind would
        show. None: seeds where there are any.

    With seeds whose noise is as large as the losses' differences, ranks are mostly noise, tau is
    drawn towards 0, and resamples add noise once more: the interval then lies too low for the tau
    of the expected scores. `ceiling` shows it: a data set can hardly agree more with another
    than with itself. ``results/statistics/coverage.csv`` has the coverage in both situations.

    Raises ValueError for fewer than three losses, lists that do not pair, fewer than two seeds where
    they are drawn, numbers that are not finite, and rankings that are all ties.
    """
    _check_draws(draws, level)
    x, y = np.asarray(first, float), np.asarray(second, float)
    if x.ndim not in (1, 2) or y.ndim not in (1, 2) or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"expected scores (losses,) or (losses, seeds) of the same losses, got {x.shape} and "
            f"{y.shape}"
        )
    if len(x) < 3:
        raise ValueError(f"expected at least 3 losses to correlate ranks, got {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("expected finite scores, got NaN or infinity: leave such losses out")
    seeds = min(table.shape[1] if table.ndim == 2 else 0 for table in (x, y))
    if over is None:
        over = "seeds" if seeds >= 2 else "losses"
    if over not in ("seeds", "losses"):
        raise ValueError(f"expected over seeds or losses, got {over!r}")
    if over == "seeds" and seeds < 2:
        raise ValueError(f"expected at least 2 seeds on each data set to draw them, got {seeds}")
    means = [table.mean(1) if table.ndim == 2 else table for table in (x, y)]
    tau = float(tau_b(*means))
    if np.isnan(tau):
        raise ValueError("expected losses that differ on both data sets, got a ranking of ties")
    generator = np.random.default_rng(rng)
    if over == "losses":
        picks = generator.integers(0, len(x), (draws, len(x)))
        drawn = tau_b(means[0][picks], means[1][picks])
    else:
        drawn = tau_b(*(_seed_means(table, draws, generator) for table in (x, y)))
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    halves = [_halves(table, generator) for table in (x, y) if table.ndim == 2]
    ceiling = np.sqrt(np.prod(np.maximum(halves, 0))) if seeds >= 2 else np.nan
    return RankCorrelation(
        tau=tau,
        low=float(low),
        high=float(high),
        rho=float(np.corrcoef([stats.rankdata(mean) for mean in means])[0, 1]),
        p=float(stats.kendalltau(*means).pvalue),
        over=over,
        ceiling=float(ceiling),
        losses=len(x),
        seeds=seeds,
    )


def _seed_means(table: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, L) mean of each loss over resampled seeds, the same for every loss."""
    seeds = table.shape[1]
    return drawn_counts(generator, draws, seeds) @ table.T / seeds


def _halves(table: np.ndarray, generator: np.random.Generator, splits: int = 200) -> float:
    """Mean tau-b between the means of two halves of the seeds, over random splits."""
    seeds = table.shape[1]
    order = np.argsort(generator.random((splits, seeds)), axis=1)
    half = seeds // 2
    one, other = (table.T[order[:, part]].mean(1) for part in np.s_[:half, half : 2 * half])
    taus = tau_b(one, other)
    return float(taus[~np.isnan(taus)].mean()) if not np.isnan(taus).all() else 0.0


# ---------------------------------------------------------------- checks


def _runs(label: str, scores: Any) -> np.ndarray:
    table = np.asarray(scores, float)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{label}: expected scores (runs, tasks), got shape {table.shape}")
    if len(table) < 2:
        raise ValueError(
            f"{label}: expected at least 2 runs on each task, got {len(table)}: one says nothing "
            f"of what another would do"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"{label}: expected finite scores, got NaN or infinity")
    return table


def _check_draws(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"expected draws > 0 and 0 < level < 1, got {draws} and {level}")
