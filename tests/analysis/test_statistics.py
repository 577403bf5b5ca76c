"""Metrics from counts agree with the evaluation's; intervals cover what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lossatlas import metrics
from lossatlas.statistics import counts
from lossatlas.analysis.statistics import Resampling
from lossatlas.statistics.intervals import Interval, number
from lossatlas.statistics.paired import MIN_GROUPS


def small_part(part, table, groups=None):
    """`part` with the counts of `table`: {loss: (seeds, images, classes, 3)}."""
    first = next(iter(table.values()))
    images = [str(i) for i in range(first.shape[1])]
    return dataclasses.replace(
        part,
        losses=list(table),
        seeds={loss: list(range(len(values))) for loss, values in table.items()},
        classes=["background", "thing"][-first.shape[2] :],
        image_ids=images,
        groups=groups or images,
        counts={loss: np.asarray(values) for loss, values in table.items()},
    )


def with_dice(dice, images):
    """Counts of one class with this Dice on each image: (seeds, images, 1, 3)."""
    tp = np.rint(1000 * np.broadcast_to(np.asarray(dice, float)[:, None], (len(dice), images)))
    wrong = 1000 - tp
    return np.stack([tp, wrong, wrong], axis=-1)[:, :, None].astype(np.int64)


@pytest.mark.parametrize("kind", ["dice", "iou", "precision", "recall"])
def test_metrics_from_counts_are_the_evaluations_conventions_included(kind):
    table = np.array([[5, 2, 1], [0, 0, 0], [0, 0, 4], [0, 3, 0], [7, 0, 0]])
    theirs = getattr(metrics, f"{kind}_from_counts")(table)
    assert np.array_equal(counts.class_metric(table, kind), np.asarray(theirs), equal_nan=True)


def test_an_unknown_metric_is_refused(resampling):
    with pytest.raises(ValueError, match="expected dice, iou"):
        counts.class_metric(np.ones((1, 3)), "auc")
    with pytest.raises(ValueError, match="expected a metric of foreground_dice"):
        resampling.interval("ce", "auc")


@pytest.mark.parametrize("metric", list(counts.METRICS))
def test_the_estimate_is_the_mean_of_the_runs_recorded_metric(folder, resampling, metric):
    runs = pd.read_parquet(folder / "runs.parquet")
    for loss in resampling.part.losses:
        of_loss = runs[(runs.model == "unet") & (runs.loss == loss)].sort_values("seed")
        assert resampling.per_seed(loss, metric) == pytest.approx(of_loss[metric].to_numpy())
        assert resampling.interval(loss, metric).estimate == pytest.approx(of_loss[metric].mean())


def alike(table):
    """Three seeds with the counts of one: what is left to vary are the images."""
    return np.repeat(table, 3, axis=0)


def test_intervals_hold_their_estimate_and_come_again_with_the_same_seed(part, resampling):
    for loss in part.losses:
        interval = resampling.interval(loss)
        assert interval.low <= interval.estimate <= interval.high
        assert interval == Resampling(part, draws=300).interval(loss)
    other = Resampling(part, draws=300, seed=1)
    assert other.interval("dice") != resampling.interval("dice")


def test_equal_images_and_seeds_leave_no_spread(part):
    fixed = small_part(part, {"a": with_dice([0.5, 0.5, 0.5], 8)})
    assert Resampling(fixed, draws=50).interval("a") == Interval(0.5, 0.5, 0.5, 3)


def test_seeds_that_differ_widen_the_interval_to_the_seeds_themselves(part):
    # Images all alike: only the draw of three seeds varies, and a draw of one seed thrice has
    # probability 1/27 each, more than the 2.5 % tails.
    fixed = small_part(part, {"a": with_dice([0.2, 0.4, 0.9], 8)})
    interval = Resampling(fixed, draws=2000).interval("a")
    assert interval.estimate == pytest.approx(0.5)
    assert (interval.low, interval.high) == pytest.approx((0.2, 0.9))


def test_images_that_differ_widen_the_interval(part):
    one = with_dice([0.5], 30)
    one[0, ::2] = with_dice([0.9], 15)[0]
    wide = Resampling(small_part(part, {"a": alike(one)}), draws=500).interval("a")
    assert wide.high - wide.low > 0.05


def test_the_interval_covers_the_truth_about_as_often_as_it_says(part):
    # Seeds all alike, 40 images whose pooled Dice is in expectation 0.6.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(120):
        tp = rng.binomial(100, 0.6, size=(1, 40, 1))
        table = np.stack([tp, 100 - tp, 100 - tp], axis=-1)
        interval = Resampling(small_part(part, {"a": alike(table)}), draws=300).interval("a")
        assert np.isfinite(interval.low)
        covered += not interval.excludes(0.6)
    assert 0.88 <= covered / 120 <= 1.0


def test_a_difference_is_paired_so_that_a_shared_spread_cancels(part):
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.8, size=(1, 25))
    a = np.concatenate([with_dice([d], 1) for d in base[0]], axis=1)
    b = np.concatenate([with_dice([d + 0.1], 1) for d in base[0]], axis=1)
    bootstrap = Resampling(small_part(part, {"a": alike(a), "b": alike(b)}), draws=400)
    difference = bootstrap.difference("b", "a")
    assert difference.estimate == pytest.approx(0.1, abs=2e-3)
    assert difference.high - difference.low < 0.005
    assert bootstrap.interval("a").overlaps(bootstrap.interval("b"))


def test_a_difference_uses_the_seeds_that_both_losses_have(part):
    table = {"a": with_dice([0.2, 0.3, 0.4], 5), "b": with_dice([0.5, 0.9], 5)}
    some = dataclasses.replace(small_part(part, table), seeds={"a": [0, 1, 2], "b": [2, 5]})
    difference = Resampling(some, draws=20).difference("b", "a")
    assert difference.seeds == 1
    assert difference.estimate == pytest.approx(0.1)
    none = dataclasses.replace(some, seeds={"a": [0, 1, 2], "b": [7, 8]})
    assert Resampling(none, draws=20).difference("b", "a") is None


def test_a_loss_differs_from_itself_by_nothing(resampling):
    assert resampling.difference("dice", "dice") == Interval(0.0, 0.0, 0.0, 3)


def test_grouped_images_are_drawn_together_and_widen_the_interval(part):
    # 10 videos of 8 alike frames: drawn singly, the frames pretend to know more.
    dice = np.repeat(np.linspace(0.1, 0.9, 10), 8)
    table = {"a": alike(np.concatenate([with_dice([d], 1) for d in dice], axis=1))}
    videos = [f"v{i // 8}" for i in range(80)]
    grouped = Resampling(small_part(part, table, videos), draws=400)
    single = Resampling(small_part(part, table), draws=400)
    assert grouped.by_group and not single.by_group
    widths = [r.interval("a").high - r.interval("a").low for r in (grouped, single)]
    assert widths[0] > 2 * widths[1]


def test_a_handful_of_groups_is_not_resampled_and_the_caption_says_so(part):
    table = {"a": with_dice([0.5, 0.6, 0.7], 20)}
    few = small_part(part, table, [f"v{i % (MIN_GROUPS - 1)}" for i in range(20)])
    bootstrap = Resampling(few, draws=20)
    assert not bootstrap.by_group
    assert f"only {MIN_GROUPS - 1} groups" in bootstrap.meaning()


def test_the_caption_names_resamples_images_and_seeds(resampling, part):
    text = resampling.meaning()
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    assert "95 % percentile interval of 300 resamples of the 24 test images" in text
    assert "of the 3 seeds; so few seeds" in text
    one = small_part(part, {"a": with_dice([0.5], 20)})
    assert Resampling(one, draws=9).meaning().startswith("No intervals: 1 seed a loss.")


def test_fewer_than_three_seeds_have_a_mean_and_no_interval(part):
    for dice in ([0.5], [0.4, 0.6]):
        interval = Resampling(small_part(part, {"a": with_dice(dice, 20)}), draws=9).interval("a")
        assert (
            interval.estimate == pytest.approx(0.5)
            and np.isnan([interval.low, interval.high]).all()
        )
        assert interval.text().startswith("0.500 (no interval: ")


def test_a_class_that_no_resample_has_gives_an_undefined_interval(part):
    nothing = np.zeros((2, 5, 1, 3), np.int64)
    interval = Resampling(small_part(part, {"a": nothing}), draws=10).interval("a")
    assert np.isnan(interval.estimate)
    assert interval.text() == "undefined"


def test_class_means_are_the_recorded_ones(folder, resampling):
    table = pd.read_parquet(folder / "per_class.parquet")
    rows = table[(table.model == "unet") & (table.loss == "focal")]
    expected = rows.groupby("class_index").dice.mean()
    assert resampling.class_means("focal") == pytest.approx(expected.to_numpy(), nan_ok=True)


def test_the_leader_has_the_highest_mean(resampling):
    means = {loss: resampling.interval(loss).estimate for loss in resampling.part.losses}
    assert resampling.leader() == max(means, key=means.get)


def test_numbers_have_a_true_minus_and_zero_has_none():
    assert number(-0.25, sign=True) == "−0.250"
    assert number(0.25, sign=True) == "+0.250"
    assert number(-0.0001, sign=True) == "0.000"
    assert Interval(0.1, -0.05, 0.25, 3).text(sign=True) == "+0.100 [−0.050, +0.250]"


def test_nonsense_settings_are_refused(part):
    with pytest.raises(ValueError, match="expected draws > 0"):
        Resampling(part, draws=0)
