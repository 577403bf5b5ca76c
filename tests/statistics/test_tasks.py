"""Robust means, ranks and their agreement: SciPy, other packages' values, simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lossatlas.statistics.tasks import (
    aggregate,
    iqm,
    probability_of_improvement,
    rank_correlation,
    tau_b,
)

# Eight runs of two losses on five tasks, the first run tied, and what rliable 1.2.0 says of them
# (metrics.aggregate_iqm, metrics.probability_of_improvement, library.get_interval_estimates with 3,000
# resamples of its own). It needs pandas < 3 and brings arch and statsmodels: too much for four numbers.
FIRST = np.array(
    [
        [0.703, 0.764, 0.715, 0.503, 0.461],
        [0.607, 0.686, 0.651, 0.781, 0.675],
        [0.664, 0.527, 0.489, 0.748, 0.605],
        [0.681, 0.462, 0.556, 0.471, 0.522],
        [0.690, 0.452, 0.547, 0.616, 0.533],
        [0.575, 0.578, 0.642, 0.557, 0.627],
        [0.606, 0.642, 0.622, 0.766, 0.534],
        [0.720, 0.560, 0.504, 0.721, 0.556],
    ]
)
SECOND = np.array(
    [
        [0.703, 0.764, 0.715, 0.503, 0.461],
        [0.688, 0.702, 0.552, 0.525, 0.566],
        [0.687, 0.533, 0.562, 0.722, 0.635],
        [0.683, 0.485, 0.556, 0.664, 0.517],
        [0.577, 0.493, 0.510, 0.562, 0.498],
        [0.717, 0.490, 0.632, 0.649, 0.545],
        [0.560, 0.517, 0.719, 0.623, 0.577],
        [0.679, 0.638, 0.542, 0.567, 0.529],
    ]
)
RLIABLE = {
    "iqm": (0.60505, 0.5874),
    "iqm of seven runs": 0.6062105263157895,
    "iqm interval": (0.57195, 0.63905375),
    "improvement": 0.528125,
    "improvement interval": (0.403125, 0.6640625),
}


# ------------------------------------------------------------- interquartile mean


def test_the_interquartile_mean_is_scipys_trimmed_mean_and_rliables():
    assert iqm(FIRST) == pytest.approx(stats.trim_mean(FIRST, 0.25, axis=None))
    assert (iqm(FIRST), iqm(SECOND)) == pytest.approx(RLIABLE["iqm"])
    assert iqm(FIRST[:7]) == pytest.approx(RLIABLE["iqm of seven runs"])
    assert iqm(np.stack([FIRST, SECOND])) == pytest.approx(RLIABLE["iqm"])


def test_one_failed_run_hardly_moves_it():
    failed = FIRST.copy()
    failed[0] = 0
    assert abs(iqm(failed) - iqm(FIRST)) < 0.5 * abs(failed.mean() - FIRST.mean())


def test_the_plain_stratified_interval_is_rliables_but_for_chance():
    got = aggregate({"x": FIRST}, widen=False, draws=4000)["x"]
    assert (got.low, got.high) == pytest.approx(RLIABLE["iqm interval"], abs=0.003)
    assert got.seeds == 8


def test_few_runs_widen_the_interval_by_the_stated_factor():
    plain, wide = (aggregate({"x": FIRST}, widen=w)["x"] for w in (False, True))
    factor = np.sqrt(8 / 7) * stats.t.ppf(0.975, 5 * 7) / stats.norm.ppf(0.975)
    assert wide.high - wide.estimate == pytest.approx(factor * (plain.high - plain.estimate))
    assert wide.low - wide.estimate == pytest.approx(factor * (plain.low - plain.estimate))


def test_runs_are_drawn_within_each_task():
    # Tasks far apart, runs of a task alike: nothing is left to vary.
    flat = np.tile([0.1, 0.5, 0.9, 0.4], (8, 1))
    got = aggregate({"x": flat})["x"]
    assert got.low == got.high == got.estimate == pytest.approx(0.45)


def test_any_statistic_over_the_last_two_axes_can_be_aggregated():
    got = aggregate({"x": FIRST}, lambda s: s.mean((-2, -1)))["x"]
    assert got.estimate == pytest.approx(FIRST.mean())


# ------------------------------------------------------------- probability of improvement


def test_the_chance_of_improvement_is_mann_and_whitneys_u_ties_one_half():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (8, 4)) / 5, rng.integers(0, 5, (10, 4)) / 5
    u = [stats.mannwhitneyu(x[:, k], y[:, k]).statistic for k in range(4)]
    got = probability_of_improvement(x, y)
    assert got.estimate == pytest.approx(np.mean(u) / 80)
    assert probability_of_improvement(y, x).estimate == pytest.approx(1 - got.estimate)


def test_the_chance_of_improvement_and_its_interval_are_rliables():
    got = probability_of_improvement(FIRST, SECOND, widen=False, draws=4000)
    assert got.estimate == pytest.approx(RLIABLE["improvement"])
    assert (got.low, got.high) == pytest.approx(RLIABLE["improvement interval"], abs=0.015)


def test_shared_seeds_narrow_the_interval_of_improvement_and_leave_the_estimate():
    rng = np.random.default_rng(1)
    base = rng.normal(size=(10, 6))
    better = base + 0.5
    alone = probability_of_improvement(better, base)
    paired = probability_of_improvement(better, base, paired=True)
    assert paired.estimate == alone.estimate
    assert paired.high - paired.low < 0.8 * (alone.high - alone.low)


def test_the_interval_of_improvement_stays_within_0_and_1():
    x = np.random.default_rng(2).normal(size=(8, 2))
    got = probability_of_improvement(x + 2, x)
    assert 0 <= got.low <= got.estimate <= got.high <= 1
    parted = probability_of_improvement(x + 99, x)
    assert (parted.low, parted.high) == (1, 1)


# ------------------------------------------------------------- rank correlation


def test_tau_b_is_scipys_with_and_without_ties():
    rng = np.random.default_rng(3)
    for high in (4, 1000):
        x, y = rng.integers(0, high, (2, 9))
        assert tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert np.isnan(tau_b([1, 1, 1], [1, 2, 3]))


def test_the_agreement_of_two_data_sets_is_that_of_the_means_with_its_test():
    rng = np.random.default_rng(4)
    level = np.linspace(0, 1, 8)
    first, second = (level[:, None] + rng.normal(0, 0.3, (8, 6)) for _ in range(2))
    got = rank_correlation(first, second)
    theirs = stats.kendalltau(first.mean(1), second.mean(1))
    assert (got.tau, got.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert got.rho == pytest.approx(stats.spearmanr(first.mean(1), second.mean(1)).statistic)
    tied = np.round(first.mean(1), 1)
    assert rank_correlation(tied, second.mean(1)).rho == pytest.approx(
        stats.spearmanr(tied, second.mean(1)).statistic
    )
    assert got.low <= got.tau <= got.high
    assert (got.over, got.losses, got.seeds) == ("seeds", 8, 6)


def test_seeds_without_noise_leave_a_point_and_a_ceiling_of_one():
    level = np.tile(np.arange(6.0)[:, None], 5)
    got = rank_correlation(level, level**2)
    assert (got.tau, got.low, got.high, got.ceiling) == (1, 1, 1, 1)
    back = rank_correlation(level, -level)
    assert (back.tau, back.low, back.high) == (-1, -1, -1)


def test_noise_lowers_the_ceiling_and_with_it_what_agreement_can_be_seen():
    rng = np.random.default_rng(5)
    level = np.linspace(0, 1, 10)[:, None]
    clear, noisy = (
        rank_correlation(*(level + spread * rng.normal(size=(2, 10, 8)))) for spread in (0.05, 3)
    )
    assert clear.ceiling > 0.9 > 0.5 > noisy.ceiling
    assert clear.tau > noisy.tau


def test_published_tables_without_seeds_are_resampled_over_losses():
    rng = np.random.default_rng(6)
    x = rng.normal(size=14)
    y = x + rng.normal(size=14)
    got = rank_correlation(x, y)
    assert got.over == "losses"
    assert np.isnan(got.ceiling)
    assert got.low < got.tau < got.high
    assert rank_correlation(x[:, None] + np.zeros(3), y, over="losses").low == got.low


# ------------------------------------------------------------- bad input


def test_bad_scores_are_refused():
    hole = FIRST.copy()
    hole[2, 3] = np.nan
    for call, words in [
        (lambda: iqm([1.0, 2.0]), r"expected scores \(runs, tasks\)"),
        (lambda: aggregate({"x": FIRST[:1]}), "x: expected at least 2 runs on each task, got 1"),
        (lambda: aggregate({"x": hole}), "x: expected finite scores"),
        (lambda: aggregate({"x": FIRST}, draws=0), "expected draws > 0"),
        (lambda: probability_of_improvement(FIRST, SECOND[:, :4]), "the same tasks, got 5 and 4"),
        (
            lambda: probability_of_improvement(FIRST, SECOND[:6], paired=True),
            "expected paired runs, got 8 and 6",
        ),
        (lambda: rank_correlation([1, 2], [2, 1]), "at least 3 losses"),
        (lambda: rank_correlation([1, 2, 3], [2, 1]), "of the same losses"),
        (lambda: rank_correlation([1, 2, np.nan], [2, 1, 3]), "expected finite scores"),
        (lambda: rank_correlation([1, 2, 3], [2, 1, 3], over="seeds"), "at least 2 seeds"),
        (lambda: rank_correlation([1, 2, 3], [2, 1, 3], over="images"), "over seeds or losses"),
        (lambda: rank_correlation([1, 2, 3], [4, 4, 4]), "a ranking of ties"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
