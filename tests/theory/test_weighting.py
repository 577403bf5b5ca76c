"""Thresholds of a population whose posteriors are known."""

from __future__ import annotations

import pytest

from lossatlas.theory import weighting


def test_a_population_without_a_posterior_above_one_half_finds_nothing_there() -> None:
    rare = weighting.threshold_facts(0.02)
    assert weighting.posterior(0.02, 0.3).max() < 0.5
    assert rare["Dice at ½"] == 0.0


def test_dice_at_one_half_is_that_of_the_pixels_above_it() -> None:
    truth = weighting.posterior(0.2, 0.3)
    found = truth > 0.5
    dice = 2 * truth[found].sum() / (found.sum() + truth.sum())
    assert weighting.threshold_facts(0.2)["Dice at ½"] == pytest.approx(dice, rel=1e-3)


def test_a_divisor_of_each_batch_makes_the_shift_of_a_weight_smaller():
    found = weighting.shift_by_batches(((0.02, 0.02), (0.0, 0.04)))
    alike, unlike = found["shift: weighted_ce"]
    assert alike == pytest.approx(found["ln w"][0], abs=1e-6)
    assert unlike < found["ln w"][1] - 0.5
    # ½ is the best constant of balanced cross-entropy in every batch
    assert found["shift: balanced_ce"].to_list() == pytest.approx(found["ln w"].to_list(), abs=1e-6)
