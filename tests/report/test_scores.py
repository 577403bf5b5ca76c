"""Means and differences of a study's losses are those of the records and of the paired statistics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lossatlas.report.scores import Scores
from lossatlas.statistics.counts import METRICS
from lossatlas.statistics.intervals import Interval
from lossatlas.statistics.paired import MIN_GROUPS, paired_differences


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


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_mean_is_that_of_the_runs_recorded_metric(folder, scores, metric):
    runs = pd.read_parquet(folder / "runs.parquet")
    for loss in scores.part.losses:
        of_loss = runs[(runs.model == "unet") & (runs.loss == loss)].sort_values("seed")
        assert scores.per_seed(loss, metric) == pytest.approx(of_loss[metric].to_numpy())
        assert scores.mean(loss, metric) == pytest.approx(of_loss[metric].mean())
        interval = scores.interval(loss, metric)
        assert interval.estimate == pytest.approx(of_loss[metric].mean())
        assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


def test_a_difference_is_that_of_the_paired_statistics(part, scores):
    found = scores.difference("dice", "ce")
    expected = paired_differences(
        {loss: part.counts[loss] for loss in ("dice", "ce")},
        groups=part.groups,
        metric="foreground_dice",
        foreground=part.foreground,
    )[0]
    assert found == expected
    assert found.df < 10  # three seeds: Student's quantiles and not a normal's


def test_seeds_alone_give_students_interval(part):
    # Images all alike: the interval is that of three numbers.
    dice = [0.4, 0.5, 0.6]
    interval = Scores(small_part(part, {"a": with_dice(dice, 8)})).interval("a")
    half = 4.303 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-3)


def test_equal_images_and_seeds_leave_no_spread(part):
    fixed = small_part(part, {"a": with_dice([0.5, 0.5, 0.5], 8)})
    assert Scores(fixed).interval("a") == Interval(0.5, 0.5, 0.5, 3)


def test_a_difference_uses_the_seeds_that_both_losses_have(part):
    table = {"a": with_dice([0.2, 0.3, 0.4, 0.5], 5), "b": with_dice([0.9, 0.6, 0.7], 5)}
    some = dataclasses.replace(small_part(part, table), seeds={"a": [0, 1, 2, 3], "b": [1, 2, 3]})
    difference = Scores(some).difference("b", "a")
    assert difference.per_seed == pytest.approx((0.6, 0.2, 0.2))


def test_fewer_than_three_seeds_have_a_mean_no_interval_and_no_difference(part):
    for dice in ([0.5], [0.4, 0.6]):
        few = Scores(small_part(part, {"a": with_dice(dice, 20), "b": with_dice(dice, 20)}))
        interval = few.interval("a")
        assert interval.estimate == pytest.approx(0.5)
        assert np.isnan([interval.low, interval.high]).all()
        assert interval.text().startswith("0.500 (no interval: ")
        assert few.difference("a", "b") is None
        assert few.level_with_leader() == ["a", "b"]


def test_a_class_that_no_run_has_gives_an_undefined_mean(part):
    nothing = np.zeros((3, 5, 1, 3), np.int64)
    interval = Scores(small_part(part, {"a": nothing})).interval("a")
    assert np.isnan(interval.estimate)
    assert interval.text() == "undefined"


def test_class_means_are_the_recorded_ones(folder, scores):
    table = pd.read_parquet(folder / "per_class.parquet")
    rows = table[(table.model == "unet") & (table.loss == "focal")]
    expected = rows.groupby("class_index").dice.mean()
    assert scores.class_means("focal") == pytest.approx(expected.to_numpy(), nan_ok=True)


def test_the_leader_has_the_highest_mean_and_who_is_level_depends_on_the_paired_spread(part):
    # b is always 0.1 below a, although the seeds differ by more; c scatters around a
    dice = np.array([0.5, 0.6, 0.8])
    table = {
        "a": with_dice(dice, 20),
        "b": with_dice(dice - [0.1, 0.11, 0.1], 20),
        "c": with_dice(dice - [0.2, -0.15, 0.1], 20),
    }
    scores = Scores(small_part(part, table))
    assert scores.leader() == "a"
    assert scores.level_with_leader() == ["a", "c"]


def test_many_losses_are_compared_with_the_leader_after_holms_correction(part):
    dice = np.array([0.5, 0.6, 0.7])
    table = {"a": with_dice(dice, 20), "b": with_dice(dice - [0.1, 0.15, 0.12], 20)}
    assert Scores(small_part(part, table)).level_with_leader() == ["a"]
    others = {f"c{i}": with_dice(dice - [0.3, -0.2, 0.1], 20) for i in range(9)}
    assert "b" in Scores(small_part(part, table | others)).level_with_leader()


def test_a_handful_of_groups_is_not_resampled_and_the_caption_says_so(part):
    table = {"a": with_dice([0.5, 0.6, 0.7], 20)}
    few, many = (
        Scores(small_part(part, table, [f"v{i % count}" for i in range(20)]))
        for count in (MIN_GROUPS - 1, MIN_GROUPS)
    )
    assert f"only {MIN_GROUPS - 1} groups" in few.meaning()
    assert f"20 test images in {MIN_GROUPS} groups" in many.meaning()


def test_the_caption_names_images_and_seeds(scores, part):
    text = scores.meaning().replace("\N{NO-BREAK SPACE}", " ")
    assert "95 % intervals for other seeds and other test images" in text
    assert "from 3 seeds and 24 test images" in text
    assert "Student" in text
    one = small_part(part, {"a": with_dice([0.5], 20)})
    assert Scores(one).meaning().startswith("No intervals: 1 seed a loss.")


def test_an_unknown_metric_is_refused(scores):
    with pytest.raises(ValueError, match="expected a metric of foreground_dice"):
        scores.interval("ce", "auc")
