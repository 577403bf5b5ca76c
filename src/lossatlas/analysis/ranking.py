"""Losses over many tasks: robust means, how often one beats another, and whether ranks agree.

A task is a data set (or one setting of it: a foreground fraction, say) with a model. `aggregate`
and `probability_of_improvement` follow Agarwal and others, "Deep reinforcement learning at the edge
of the statistical precipice" (NeurIPS 2021): scores of R runs (seeds) on each of M tasks, shape
(R, M), and a bootstrap that draws runs anew within every task, tasks fixed. Its intervals speak of
these tasks and of other seeds. The plain percentile interval is too short for 8 to 10 runs (it covers
91 to 93 %), so its deviations from the estimate are multiplied by √(R/(R−1)) t/z, with Student's and
the normal quantile, of M(R−1) degrees of freedom for one loss; `widen=False` leaves that out.
``results/statistics/coverage.csv`` has the coverage of both. `critical_difference` takes the tasks themselves as
the sample, one number a task and loss, as Demšar, "Statistical comparisons of classifiers over
multiple data sets" (Journal of Machine Learning Research 7, 2006) does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from lossatlas.analysis.counts import METRICS, class_metric, nanmean, pooled_metric
from lossatlas.analysis.figures import Drawing
from lossatlas.analysis.inference import drawn_counts, holm, paired_test
from lossatlas.analysis.records import Part
from lossatlas.analysis.statistics import Interval
from lossatlas.analysis.style import FIGURE_WIDTH, loss_style

#: Statistic of an array of scores over its last two axes (runs, tasks).
Statistic = Callable[[np.ndarray], np.ndarray]

_PAIRS = 2_000_000  # pairs of runs compared at a time, 16 MB


# ---------------------------------------------------------------- from records


def task_scores(
    parts: Sequence[Part], metric: str = "foreground_dice", *, rule: str = "argmax"
) -> dict[str, np.ndarray]:
    """Scores (R, M) of every loss that all `parts` have: a row a seed, a column a part.

    The rows are the seeds that every loss has in every part, so that runs pair; `.mean(0)` of each
    is what `critical_difference` takes. `metric` is a key of `counts.METRICS`, `rule` a decision
    rule of the records.

    Raises ValueError where fewer than two seeds or losses are everywhere, or a metric is undefined.
    """
    if not parts:
        raise ValueError("expected at least one data set and model, got none")
    if metric not in METRICS:
        raise ValueError(f"expected a metric of {', '.join(METRICS)}, got {metric!r}")
    tables = [(part.by_rule | {"argmax": part.counts}).get(rule, {}) for part in parts]
    losses = [
        loss
        for loss in parts[0].losses
        if all(loss in part.losses and loss in of for part, of in zip(parts, tables, strict=True))
    ]
    if not any(tables):
        known = ", ".join(parts[0].by_rule | {"argmax": 0})
        raise ValueError(f"expected a rule of {known}, got {rule!r}")
    held = [set(part.seeds[loss]) for part in parts for loss in losses]
    seeds = sorted(set.intersection(*held)) if held else []
    if len(seeds) < 2:
        raise ValueError(
            f"expected at least 2 seeds that {len(losses)} losses have in all of {len(parts)} "
            f"parts, got {len(seeds)}; run what is missing or leave a loss out"
        )
    found = {}
    for loss in losses:
        columns = []
        for part, table in zip(parts, tables, strict=True):
            counts = table[loss][[part.seeds[loss].index(seed) for seed in seeds]]
            if metric == "mean_dice_per_image":
                dice = nanmean(class_metric(counts[:, :, part.foreground], "dice"))
                columns.append(nanmean(dice))
            else:
                columns.append(pooled_metric(counts.sum(1), metric, part.foreground))
        found[loss] = np.stack(columns, axis=1)
        if np.isnan(found[loss]).any():
            raise ValueError(
                f"{loss}: expected a defined {metric} for every seed, got none for one"
            )
    return found


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


# ---------------------------------------------------------------- critical differences


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks of losses over tasks, and which of them the tasks do not tell apart.

    Attributes
    ----------
    losses
        From the best mean rank to the worst.
    mean_ranks
        (L,) in that order; rank 1 is best, ties share the mean of their ranks.
    tasks
        Number of tasks.
    statistic, p
        Friedman's χ² and its p-value; p_f is that of Iman and Davenport's F, less conservative.
    method
        "nemenyi" or "wilcoxon-holm".
    distance
        Nemenyi's critical difference of mean ranks; NaN with the other method.
    p_values
        (L, L) of each pair, adjusted for their number, in the order of `losses`.
    groups
        Largest runs of neighbours (first, last), as indices, within which no pair differs.
    alpha
        Of the tests.
    """

    losses: tuple[str, ...]
    mean_ranks: np.ndarray
    tasks: int
    statistic: float
    p: float
    p_f: float
    method: str
    distance: float
    p_values: np.ndarray
    groups: tuple[tuple[int, int], ...]
    alpha: float

    def frame(self) -> pd.DataFrame:
        """A row a loss: loss, mean_rank, and the groups it is in, as letters."""
        letters = [
            "".join(
                chr(ord("a") + number)
                for number, (first, last) in enumerate(self.groups)
                if first <= place <= last
            )
            for place in range(len(self.losses))
        ]
        return pd.DataFrame({"loss": self.losses, "mean_rank": self.mean_ranks, "groups": letters})


def critical_difference(
    scores: Mapping[str, Any],
    *,
    method: Literal["nemenyi", "wilcoxon-holm"] = "wilcoxon-holm",
    alpha: float = 0.05,
    higher_is_better: bool = True,
) -> CriticalDifference:
    """Ranks of losses over tasks, tested by Friedman and pair by pair (Demšar 2006).

    Parameters
    ----------
    scores
        For each loss (M,): one number a task, the mean over the seeds. Seeds of one task are no
        tasks: they would count one data set many times.
    method
        "nemenyi": two losses differ where their mean ranks are further apart than
        q_α √(L(L+1)/(6M)), q the studentised range over √2. Its verdict on two losses depends on which
        others are in the study. "wilcoxon-holm": Wilcoxon's signed ranks on the pair's own scores,
        Holm's correction over all pairs (Benavoli and others, Journal of Machine Learning Research
        17, 2016). M tasks give no p-value below 2^(1−M), so that it can tell any of L losses apart
        only from M = 1 + log₂(L(L−1)/(2α)) tasks on: 9 for 5 losses, 12 for 12.
    alpha
        Of all tests. If Friedman's test does not reject, no pair is called different.
    higher_is_better
        Of the scores.

    Friedman: χ² = (12 Σ_l R_l² / (M L (L+1)) − 3 M (L+1)) / c with rank sums R and the correction for
    ties c; F = (M − 1) χ² / (M (L − 1) − χ²), of L − 1 and (L − 1)(M − 1) degrees of freedom (Iman and
    Davenport 1980). "Does not reject" is Friedman's χ².

    Raises ValueError for fewer than three losses or two tasks, lists that do not pair, and numbers
    that are not finite.
    """
    if method not in ("nemenyi", "wilcoxon-holm"):
        raise ValueError(f"expected nemenyi or wilcoxon-holm, got {method!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha between 0 and 1, got {alpha}")
    labels, table = _task_scores(scores)  # (M, L)
    tasks, count = table.shape
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    order = np.argsort(ranks.mean(0), kind="stable")
    labels, table, mean = [labels[k] for k in order], table[:, order], ranks.mean(0)[order]
    chi, p, p_f = _friedman(ranks)
    distance = np.nan
    p_values = np.ones((count, count))
    pairs = list(itertools.combinations(range(count), 2))
    if method == "nemenyi":
        unit = np.sqrt(count * (count + 1) / (6 * tasks))
        distance = float(stats.studentized_range.ppf(1 - alpha, count, np.inf) / np.sqrt(2) * unit)
        apart = np.array([mean[j] - mean[i] for i, j in pairs]) / unit * np.sqrt(2)
        found = stats.studentized_range.sf(apart, count, np.inf)
    else:
        found = holm([paired_test(table[:, i], table[:, j], "wilcoxon") for i, j in pairs])
    for (i, j), value in zip(pairs, found, strict=True):
        p_values[i, j] = p_values[j, i] = min(1.0, float(value))
    differs = (p_values <= alpha) & (p <= alpha)
    return CriticalDifference(
        losses=tuple(labels),
        mean_ranks=mean,
        tasks=tasks,
        statistic=chi,
        p=p,
        p_f=p_f,
        method=method,
        distance=distance,
        p_values=p_values,
        groups=_neighbours(differs),
        alpha=alpha,
    )


def _friedman(ranks: np.ndarray) -> tuple[float, float, float]:
    """χ² with the correction for ties, its p-value, and that of Iman and Davenport's F."""
    tasks, count = ranks.shape
    ties = sum(
        float((n**3 - n).sum())
        for n in (np.unique(row, return_counts=True)[1].astype(float) for row in ranks)
    )
    correction = 1 - ties / (tasks * count * (count**2 - 1))
    if correction == 0:  # all equal on every task
        return 0.0, 1.0, 1.0
    sums = (ranks.sum(0) ** 2).sum()
    chi = (12 / (tasks * count * (count + 1)) * sums - 3 * tasks * (count + 1)) / correction
    chi = max(float(chi), 0.0)
    room = tasks * (count - 1) - chi
    df = count - 1
    # the ranks agree on every task: F is infinite
    f = (tasks - 1) * chi / room if room > 1e-9 else np.inf
    return chi, float(stats.chi2.sf(chi, df)), float(stats.f.sf(f, df, df * (tasks - 1)))


def _neighbours(differs: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Largest runs (first, last) of two or more neighbours without a pair that differs."""
    count = len(differs)
    runs: list[tuple[int, int]] = []
    for first in range(count - 1):
        last = first
        while last + 1 < count and not differs[first : last + 2, first : last + 2].any():
            last += 1
        if last > first and not any(last <= end for _, end in runs):
            runs.append((first, last))
    return tuple(runs)


def critical_difference_diagram(
    result: CriticalDifference, styles: Mapping[str, Mapping[str, Any]] | None = None
) -> Drawing:
    """Mean ranks, best above; a bar at the right joins losses that the tasks do not tell apart.

    Rows in place of the customary comb: with a dozen names it still reads at 400 pixels. `styles`
    are a study's line styles by label (`Part.styles`); None takes `style.loss_style`.
    """
    count, bars = len(result.losses), len(result.groups)
    nemenyi = np.isfinite(result.distance)
    figure = Figure(figsize=(FIGURE_WIDTH, 0.95 + 0.24 * count), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for row, (loss, rank) in enumerate(zip(result.losses, result.mean_ranks, strict=True)):
        look = loss_style(loss) if styles is None else styles[loss]
        axis.plot([1, rank], [row, row], color=look["color"], lw=1.2, alpha=0.5)
        axis.plot(rank, row, color=look["color"], marker=look["marker"], ms=7, ls="")
    top = count + 0.3
    gap = 0.045 * count  # between the bars, in ranks
    for place, (first, last) in enumerate(result.groups):
        x = top + place * gap
        axis.plot([x, x], [first - 0.25, last + 0.25], color="black", lw=3, solid_capstyle="butt")
    upper = -0.6
    if nemenyi:
        upper = -1.9
        end = min(1 + result.distance, count)
        axis.plot([1, end], [-0.9, -0.9], color="black", lw=1.5, marker="|", ms=7)
        axis.annotate(
            f"critical difference {result.distance:.2f}",
            ((1 + end) / 2, -0.9),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize="small",
        )
    axis.set_yticks(range(count), result.losses)
    axis.set_ylim(count - 0.4, upper)
    axis.set_xlim(0.8, top + max(bars, 1) * gap)
    step = max(1, round(count / 8))
    axis.set_xticks([*range(1, count + 1, step)])
    axis.set_xlabel("mean rank (1 is best)")
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    how = {
        "nemenyi": "Nemenyi's test",
        "wilcoxon-holm": "Wilcoxon's test with Holm's correction",
    }[result.method]
    words = "; ".join(
        f"{loss} {rank:.2f}" for loss, rank in zip(result.losses, result.mean_ranks, strict=True)
    )
    joined = (
        "; ".join(f"{result.losses[a]} to {result.losses[b]}" for a, b in result.groups) or "none"
    )
    pairs = count * (count - 1) / 2
    blind = not nemenyi and pairs * 2.0 ** (1 - result.tasks) > result.alpha
    verb = "differ" if result.p <= result.alpha else "are not shown to differ"
    caption = (
        f"Mean rank over {result.tasks} tasks. The losses {verb} (Friedman χ² = "
        f"{result.statistic:.1f}, p = {result.p:.2g}). A bar joins losses that {how} at "
        f"α = {result.alpha:g} does not tell apart."
    )
    if blind:
        caption += " It could not tell any two apart: the tasks are too few for so many losses."
    alt = f"Mean ranks from best to worst: {words}. Not told apart: {joined}."
    return Drawing(figure, caption, alt)


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


def _task_scores(scores: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    labels = list(scores)
    columns = [np.asarray(scores[label], float) for label in labels]
    if len(labels) < 3:
        raise ValueError(f"expected at least 3 losses to rank, got {len(labels)}")
    for label, column in zip(labels, columns, strict=True):
        if column.ndim != 1 or column.shape != columns[0].shape:
            raise ValueError(
                f"{label}: expected one number a task, {len(columns[0])} as for {labels[0]}, got "
                f"shape {column.shape}"
            )
        if not np.isfinite(column).all():
            raise ValueError(f"{label}: expected finite scores, got NaN or infinity")
    if len(columns[0]) < 2:
        raise ValueError(f"expected at least 2 tasks, got {len(columns[0])}")
    return labels, np.stack(columns, axis=1)


def _check_draws(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"expected draws > 0 and 0 < level < 1, got {draws} and {level}")
