"""Differences between losses: formulas by hand, SciPy, and simulated studies of known truth."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from scipy import stats

from lossatlas.statistics import paired
from lossatlas.statistics.counts import METRICS, pooled_metric
from lossatlas.statistics.paired import (
    Difference,
    holm,
    minimum_detectable_effect,
    paired_differences,
    power,
)


def random_counts(rng, seeds=8, images=24, classes=3, losses=("a", "b", "c")):
    """Counts of losses that differ, of which the last class is rare."""
    size = rng.integers(20, 200, (images, classes))
    size[:, -1] *= rng.random(images) < 0.4
    tables = {}
    for k, loss in enumerate(losses):
        found = rng.beta(6 + k, 4, (seeds, images, classes))
        tp = np.rint(size * found).astype(int)
        fp = rng.integers(0, 30, tp.shape)
        tables[loss] = np.stack([tp, fp, np.broadcast_to(size, tp.shape) - tp], axis=-1)
    return tables


def difference(estimate, error=0.01, df=7.0, stretch=(1.0, 1.0)):
    """A difference with these numbers."""
    return Difference("a", "b", estimate, error, df, stretch, 0.95, (estimate,) * 8, 200, 50)


# ------------------------------------------------------------- the formulas, slowly


def slow_dice_difference(a, b, unit, seed_picks, cluster_picks):
    """Difference of mean Dice, its standard error and degrees of freedom, for drawn rows.

    The influence of a cluster is a difference quotient in its weight.
    """
    clusters = len(cluster_picks)
    per_cluster = [
        np.stack([counts[:, unit == g].sum(1) for g in cluster_picks], axis=1) for counts in (a, b)
    ]

    def metric(seed, weights):
        means = []
        for counts in per_cluster:
            tp, fp, fn = np.tensordot(weights, counts[seed], axes=1).T
            there = tp + fp + fn > 0
            means.append((2 * tp[there] / (2 * tp + fp + fn)[there]).mean())
        return means[0] - means[1]

    ones = np.ones(clusters)
    table = np.zeros((len(seed_picks), clusters))
    for row, seed in enumerate(seed_picks):
        value = metric(seed, ones)
        for g in range(clusters):
            step = 1e-4 * np.eye(clusters)[g]
            slope = (metric(seed, ones + step) - metric(seed, ones - step)) / 2e-4
            table[row, g] = value + clusters * slope
    return table.mean(), *slow_error(table)


def slow_error(table):
    """Standard error and degrees of freedom of the mean of a two-way table, by loops."""
    s, g = table.shape
    mean = table.mean()
    ms_a = g * sum((table[i].mean() - mean) ** 2 for i in range(s)) / (s - 1)
    ms_b = s * sum((table[:, j].mean() - mean) ** 2 for j in range(g)) / (g - 1)
    ms_ab = sum(
        (table[i, j] - table[i].mean() - table[:, j].mean() + mean) ** 2
        for i in range(s)
        for j in range(g)
    ) / ((s - 1) * (g - 1))
    total = ms_a + max(ms_b - ms_ab, 0)
    # upper bounds of 75 % confidence: (n − 1) MS over the quarter point of χ²
    a, b = (ms * (n - 1) / stats.chi2.ppf(0.25, n - 1) for ms, n in ((ms_a, s), (ms_b, g)))
    top = (a + max(b - ms_ab, 0)) ** 2
    df = top / (a**2 / (s - 1) + b**2 / (g - 1) + ms_ab**2 / ((s - 1) * (g - 1)))
    return math.sqrt(total / (s * g)), max(df, min(s, g) - 1)


@pytest.mark.parametrize("clusters", [None, 8])
def test_standard_error_and_degrees_of_freedom_are_the_formulas(clusters):
    rng = np.random.default_rng(0)
    tables = random_counts(rng, seeds=4, images=16, losses=("a", "b"))
    groups = None if clusters is None else [f"v{i % clusters}" for i in range(16)]
    unit = np.arange(16) if clusters is None else np.arange(16) % clusters
    got = paired_differences(tables, groups=groups, metric="foreground_dice")[0]
    count = int(unit.max()) + 1
    expected = slow_dice_difference(tables["a"], tables["b"], unit, range(4), range(count))
    assert (got.estimate, got.standard_error, got.df) == pytest.approx(expected, rel=1e-5)
    assert (got.seeds, got.images, got.clusters) == (4, 16, count)


def test_the_studentised_interval_is_that_of_resamples_drawn_one_by_one():
    rng = np.random.default_rng(1)
    tables = random_counts(rng, seeds=8, images=9, classes=2, losses=("a", "b"))
    got = paired_differences(tables, metric="foreground_dice", draws=60, rng=5)[0]
    same = np.random.default_rng(5)
    by_seed, by_image = (paired.drawn_counts(same, 60, n).astype(int) for n in (8, 9))
    pivots = []
    for w, v in zip(by_seed, by_image, strict=True):
        value, error, _ = slow_dice_difference(
            tables["a"],
            tables["b"],
            np.arange(9),
            np.repeat(np.arange(8), w),
            np.repeat(np.arange(9), v),
        )
        pivots.append((value - got.estimate) / max(error, got.standard_error / 3))
    low, high = np.quantile(pivots, [0.025, 0.975], method="weibull")
    width = 2 * stats.t.ppf(0.975, got.df)
    longer = max(1.0, width / (high - low))  # never narrower than Student's
    assert got.low == pytest.approx(got.estimate - longer * high * got.standard_error, rel=1e-4)
    assert got.high == pytest.approx(got.estimate - longer * low * got.standard_error, rel=1e-4)


def test_the_bootstrap_turns_an_interval_and_never_narrows_it():
    rng = np.random.default_rng(26)
    for _ in range(20):
        tables = {"a": rng.exponential(size=(8, 30)), "b": np.zeros((8, 30))}
        boot, student = (
            paired_differences(tables, draws=99, method=method)[0]
            for method in ("studentised", "student")
        )
        assert boot.high - boot.low >= (student.high - student.low) * (1 - 1e-9)


@pytest.mark.parametrize("metric", list(METRICS))
def test_each_seeds_difference_is_that_of_the_evaluations_metric(metric):
    tables = random_counts(np.random.default_rng(2), losses=("a", "b"))
    tables["a"][0, :, 1, :2] = 0  # never predicted though there: precision 0
    got = paired_differences(tables, metric=metric, foreground=[1, 2], draws=39)[0]
    if metric == "mean_dice_per_image":
        with np.errstate(invalid="ignore"):
            each = {
                k: 2 * v[..., 0] / (2 * v[..., 0] + v[..., 1] + v[..., 2])
                for k, v in tables.items()
            }
        values = [np.nanmean(np.nanmean(each[k][:, :, 1:], -1), -1) for k in ("a", "b")]
    else:
        values = [pooled_metric(tables[k].sum(1), metric, [1, 2]) for k in ("a", "b")]
    assert got.per_seed == pytest.approx(values[0] - values[1])
    assert got.estimate == pytest.approx((values[0] - values[1]).mean())


# ------------------------------------------------------------- SciPy, where it knows the design


def test_images_all_alike_leave_the_paired_t_test_of_the_seeds():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.02, 0.02, (2, 8))
    tables = {"a": np.tile(a[:, None], 20), "b": np.tile(b[:, None], 20)}
    got = paired_differences(tables, method="student")[0]
    theirs = stats.ttest_rel(a, b)
    assert got.p_value() == pytest.approx(theirs.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    above = stats.ttest_rel(a, b - 0.03, alternative="greater").pvalue
    below = stats.ttest_rel(a, b + 0.03, alternative="less").pvalue
    assert got.p_above(-0.03) == pytest.approx(above)
    assert got.p_below(0.03) == pytest.approx(below)


def test_seeds_all_alike_leave_the_t_test_of_the_clusters():
    of_videos = np.random.default_rng(4).normal(0.01, 0.05, 12)
    tables = {"a": np.tile(np.repeat(of_videos, 5), (8, 1)), "b": np.zeros((8, 60))}
    videos = np.repeat([f"v{i}" for i in range(12)], 5)
    got = paired_differences(tables, groups=videos, method="student")[0]
    theirs = stats.ttest_1samp(of_videos, 0)
    assert got.p_value() == pytest.approx(theirs.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_holm_by_its_definition_as_a_closed_test():
    # An hypothesis is rejected where every set of them that holds it is rejected by Bonferroni.
    rng = np.random.default_rng(7)
    p = rng.uniform(0, 0.2, 6)
    expected = [
        max(
            min(1.0, len(members) * p[members].min())
            for members in (
                np.array([k for k in range(6) if mask >> k & 1]) for mask in range(1, 64)
            )
            if one in members
        )
        for one in range(6)
    ]
    assert holm(p) == pytest.approx(expected)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


# ------------------------------------------------------------- one difference, every level


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (0.8, 1.3)])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_p_value_and_interval_say_the_same_at_every_level(stretch, alpha):
    one = difference(0.02, stretch=stretch)
    low, high = one.interval(1 - alpha)
    for end in (low, high):
        assert one.p_value(end) == pytest.approx(alpha)
    assert one.p_value(low - 1e-4) < alpha < one.p_value(low + 1e-4)
    assert one.p_value(one.estimate) == pytest.approx(1.0)


def test_far_tails_stay_above_zero_so_that_corrections_for_many_pairs_mean_something():
    assert 0 < difference(0.2).p_value() < 1e-5
    assert difference(-0.2).p_value() == pytest.approx(difference(0.2).p_value())


def test_the_text_names_difference_interval_and_n():
    assert (
        difference(0.02).text() == "+0.020 [−0.004, +0.044], n = 8 seeds × 200 images in 50 groups"
    )
    assert (
        dataclasses.replace(difference(0.02), clusters=200).text(sign=False).endswith("200 images")
    )


# ------------------------------------------------------------- the resampling


def test_a_draw_with_replacement_is_counted():
    counts = paired.drawn_counts(np.random.default_rng(22), 4000, 5)
    assert counts.shape == (4000, 5) and (counts.sum(1) == 5).all()
    # of a multinomial distribution: mean 1, variance 1 − 1/5, covariance −1/5
    assert counts.mean(0) == pytest.approx(np.ones(5), abs=0.06)
    assert np.cov(counts.T) == pytest.approx(np.eye(5) - 0.2, abs=0.08)


@pytest.mark.parametrize(("losses", "classes"), [(2, 1), (2, 4), (3, 3), (9, 1)])
def test_few_losses_take_another_way_to_the_same_moments(monkeypatch, losses, classes):
    tables = random_counts(
        np.random.default_rng(23), images=30, classes=classes, losses=tuple("abcdefghi")[:losses]
    )
    found = []
    for terms in (0, 10**6):
        monkeypatch.setattr(paired, "_FEW_TERMS", terms)
        found.append(paired_differences(tables, metric="foreground_dice", draws=60))
    for one, other in zip(*found, strict=True):
        assert (one.low, one.high, one.df) == pytest.approx((other.low, other.high, other.df))


def test_the_same_seed_gives_the_same_interval_whatever_other_pairs_are_asked_for():
    tables = random_counts(np.random.default_rng(8))
    every = paired_differences(tables, metric="foreground_dice", draws=50)
    one = paired_differences(tables, metric="foreground_dice", draws=50, pairs=[("b", "c")])
    assert (one[0].low, one[0].high) == pytest.approx((every[2].low, every[2].high))
    other = paired_differences(tables, metric="foreground_dice", draws=50, rng=1)
    assert other[0].low != every[0].low
    assert [(d.first, d.second) for d in every] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_swapping_the_losses_turns_the_difference_round():
    tables = random_counts(np.random.default_rng(9), losses=("a", "b"))
    pairs = [("a", "b"), ("b", "a")]
    there, back = paired_differences(tables, metric="foreground_iou", pairs=pairs, draws=80)
    assert back.estimate == pytest.approx(-there.estimate)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value() == pytest.approx(there.p_value())


def test_equal_losses_differ_by_nothing():
    values = np.random.default_rng(11).normal(size=(8, 30))
    got = paired_differences({"a": values, "b": values.copy()})[0]
    assert (got.estimate, got.low, got.high) == (0, 0, 0)
    assert got.p_value() == 1.0
    assert got.p_above(-0.01) == got.p_below(0.01) == 0.0


def test_one_collapsed_training_leaves_an_interval_that_a_dice_can_have():
    # Resamples without it have nearly no spread: divided by that, the interval would end at 7.
    rng = np.random.default_rng(25)
    values = 0.5 + rng.normal(0, 0.003, (8, 60))
    values[1] += 0.4
    got = paired_differences({"a": values, "b": np.full((8, 60), 0.5)})[0]
    assert got.low < 0.05 < got.high < 0.5
    assert got.high - got.estimate > got.estimate - got.low  # and it is longer where it is skewed


def test_few_groups_are_not_drawn_and_the_result_says_so():
    tables = random_counts(np.random.default_rng(13), losses=("a", "b"))
    got = paired_differences(tables, groups=[i % 3 for i in range(24)], metric="foreground_dice")
    assert got[0].clusters == got[0].images == 24
    assert got[0].text().endswith("n = 8 seeds × 24 images of 3 groups, which are not drawn")
    stack = paired_differences(tables, groups=["s"] * 24, metric="foreground_dice")[0]
    assert stack.text().endswith("24 images of one group, which is not drawn")
    alone = paired_differences(tables, metric="foreground_dice")[0]
    assert alone.text().endswith("× 24 images")


def test_few_seeds_take_students_quantiles():
    tables = random_counts(np.random.default_rng(14), seeds=paired.MIN_STUDENTISED - 1)
    got = paired_differences(tables, metric="foreground_dice", draws=39)
    assert all(d.stretch == (1.0, 1.0) for d in got)


def test_66_pairs_and_1000_draws_take_a_few_seconds():
    rng = np.random.default_rng(16)
    tables = {f"l{i}": rng.normal(size=(8, 200)) for i in range(12)}
    start = time.process_time()
    assert len(paired_differences(tables, draws=1000)) == 66
    assert time.process_time() - start < 5  # measured: 0.3 s


# ------------------------------------------------------------- power


@pytest.mark.parametrize(
    ("seeds", "effect"), [(3, 3.26), (5, 1.68), (8, 1.16), (10, 1.00), (20, 0.66)]
)
def test_the_detectable_effects_are_those_of_the_protocol(seeds, effect):
    # The effect that is found with 80 % power, in standard deviations: protocol, point 1.
    assert minimum_detectable_effect(seeds) == pytest.approx(effect, abs=0.005)


def test_power_is_how_often_the_t_test_rejects():
    rng = np.random.default_rng(17)
    samples = rng.normal(1.0, 1.0, (20_000, 8))
    rejected = (stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05).mean()
    assert power(1.0, 8) == pytest.approx(rejected, abs=0.01)
    assert power(0.0, 8) == pytest.approx(0.05)
    assert power(minimum_detectable_effect(8, power=0.9), 8) == pytest.approx(0.9)


# ------------------------------------------------------------- coverage

#: Shares of the variance of the mean difference due to seeds, to clusters and to their interaction.
MIXES = [
    (0.9, 0.05, 0.05), (0.1, 0.8, 0.1), (0.05, 0.05, 0.9), (1 / 3, 1 / 3, 1 / 3), (0.5, 0.45, 0.05),
]  # fmt: skip


@pytest.mark.parametrize(("seeds", "clusters"), [(2, 50), (3, 400), (3, 20), (5, 400), (8, 20)])
@pytest.mark.parametrize("mix", MIXES)
def test_few_seeds_cover_too_wherever_the_spread_comes_from(seeds, clusters, mix):
    # Mean squares of a normal two-way layout are χ²: 20,000 studies without a single image.
    rng, times = np.random.default_rng(24), 20_000
    s, g = seeds - 1, clusters - 1
    of_seeds, of_clusters, both = mix
    expected = both + np.array([of_seeds, of_clusters, 0.0])  # of MS_A, MS_B, MS_AB over S G
    df = np.array([s, g, s * g])
    a, b, ab = (expected / df * rng.chisquare(df, (times, 3))).T
    error = np.sqrt(a + np.maximum(b - ab, 0))
    quantile = stats.t.ppf(0.975, paired.degrees_of_freedom(a, b, ab, seeds, clusters))
    covered = np.abs(rng.standard_normal(times)) <= quantile * error  # variance of d: 1
    assert 0.93 <= covered.mean() <= 0.975
    if seeds == 2 and of_seeds == 0.9:  # what the bounds are for
        plain = (a + np.maximum(b - ab, 0)) ** 2 / (a**2 / s + b**2 / g + ab**2 / (s * g))
        narrow = stats.t.ppf(0.975, np.maximum(plain, min(s, g))) * error
        assert (np.abs(rng.standard_normal(times)) <= narrow).mean() < 0.90


# ------------------------------------------------------------- bad input


def test_bad_scores_are_refused_before_any_work():
    good = np.random.default_rng(18).normal(size=(8, 20))
    hole = good.copy()
    hole[3, 5] = np.nan
    for tables, words in [
        ({"a": good}, "at least 2 losses, got 1"),
        ({"a": good, "b": good[:7]}, r"paired seeds and images, got shape \(8, 20\) for a"),
        ({"a": good, "b": hole}, "b: expected finite numbers, got NaN or infinity at row 3"),
        ({"a": good[:1], "b": good[:1]}, "at least 2 seeds and 2 images, got 1 and 20"),
        ({"a": good[0], "b": good[0]}, r"expected numbers \(S, N\) or counts"),
    ]:
        with pytest.raises(ValueError, match=words):
            paired_differences(tables)


def test_bad_settings_are_refused():
    tables = random_counts(np.random.default_rng(19), losses=("a", "b"))
    values = {k: v[..., 0, 0] for k, v in tables.items()}
    for settings, words in [
        ({"groups": ["v"]}, "a group for each of 24 images"),
        ({"pairs": [("a", "dise")]}, "expected a loss of a, b, got 'dise'"),
        ({"pairs": [("a", "a")]}, "expected two losses, got a twice"),
        ({"pairs": []}, "at least one pair"),
        ({"draws": 38}, "at least 39 draws for the level 0.95, got 38"),
        ({"level": 95}, "level between 0 and 1, got 95"),
        ({"method": "magic"}, "studentised or student"),
        ({"metric": "foreground_dice"}, r"expected counts \(S, N, C, 3\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            paired_differences(values, **settings)
    for settings, words in [
        ({"metric": "auc"}, "expected a metric of foreground_dice"),
        ({"metric": "foreground_dice", "foreground": [3]}, "foreground classes within 0 to 2"),
    ]:
        with pytest.raises(ValueError, match=words):
            paired_differences(tables, **settings)


def test_a_metric_without_any_class_is_refused():
    nothing = np.zeros((8, 9, 1, 3))
    with pytest.raises(ValueError, match="a: expected a defined foreground_dice for every seed"):
        paired_differences({"a": nothing, "b": nothing}, metric="foreground_dice")


def test_resamples_without_a_rare_class_are_left_out():
    # One image of forty has the class: 36 % of the resamples do not.
    counts = np.zeros((8, 40, 1, 3))
    counts[:, 0] = np.random.default_rng(20).integers(1, 9, (8, 1, 3))
    other = counts + (counts > 0)
    got = paired_differences({"a": counts, "b": other}, metric="foreground_dice")[0]
    assert got.low < got.estimate < got.high


def test_bad_tests_are_refused():
    for call, words in [
        (lambda: holm([0.1, 1.2]), "p-values between 0 and 1"),
        (lambda: power(1.0, 1), "at least 2 seeds"),
        (lambda: power(1.0, 8, alpha=5), "alpha between 0 and 1"),
        (lambda: minimum_detectable_effect(8, power=0.01), "a power above alpha"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_an_effect_of_any_size_has_a_power_and_two_seeds_have_a_detectable_one():
    assert power(8.0, 2) == pytest.approx(0.625278, abs=1e-6)  # by integration over the variance
    assert power(-8.0, 2) == power(8.0, 2)
    assert power(2.0, 100) == power(1e3, 100) == pytest.approx(1)
    assert np.isnan(power(np.nan, 8))
    for seeds in (2, 3, 1000, 10_000):
        effect = minimum_detectable_effect(seeds)
        assert power(effect, seeds) == pytest.approx(0.8), seeds
        # from three seeds on the normal approximation is a lower bound that many seeds reach
        assert effect > 2.8015 / np.sqrt(seeds) * (1 - 1e-4)
    assert minimum_detectable_effect(10_000) == pytest.approx(2.8015 / 100, rel=1e-3)
