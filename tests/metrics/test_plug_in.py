"""The mask with the largest expected Dice of each image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lossatlas.metrics import PlugInRule, calibrate, dice_from_counts

EVERY = np.array(list(itertools.product((0, 1), repeat=8)))  # mask of eight pixels


def expected_dice(masks, p):
    """E[2|M ∩ Y| / (|M| + |Y|)] of masks (K, 8) over independent pixels, by every truth there can be."""
    chance = np.where(EVERY, p, 1 - p).prod(1)
    whole = masks.sum(1)[:, None] + EVERY.sum(1)
    return np.where(whole, 2 * masks @ EVERY.T / np.maximum(whole, 1), 1.0) @ chance


@pytest.mark.parametrize("seed", range(5))
def test_no_mask_has_a_much_larger_expected_dice(seed):
    """The rule plugs means into a ratio; on a dozen pixels that costs little."""
    p = np.random.default_rng(seed).beta(0.6, 1.2, size=8)
    rule = PlugInRule()
    mask = rule(torch.logit(torch.from_numpy(p)).reshape(1, 1, 2, 4)).numpy().reshape(1, 8)
    assert expected_dice(mask, p) > expected_dice(EVERY, p).max() - 0.03


def test_of_a_large_image_it_is_the_threshold_of_half_its_best_dice():
    generator = np.random.default_rng(0)
    p = generator.beta(0.3, 3.0, size=(1, 1, 100, 100))
    truth = generator.random(p.shape) < p
    mask = PlugInRule()(torch.logit(torch.from_numpy(p)))[:, None].numpy() == 1

    def dice(chosen):
        counts = [(chosen & truth).sum(), (chosen & ~truth).sum(), (~chosen & truth).sum()]
        return float(dice_from_counts(np.array(counts)))

    best = max(dice(p > t) for t in np.linspace(0.01, 0.9, 90))
    assert dice(mask) > best - 0.01
    assert p[mask].min() == pytest.approx(best / 2, abs=0.02)


def test_every_image_has_its_own_threshold():
    sure = torch.logit(torch.tensor([0.99, 0.98, 0.01, 0.01]))
    unsure = torch.logit(torch.tensor([0.3, 0.28, 0.01, 0.01]))
    masks = PlugInRule()(torch.stack([sure, unsure]).reshape(2, 1, 2, 2))
    assert masks.tolist() == [[[1, 1], [0, 0]]] * 2


def test_the_calibration_undoes_a_scale_and_a_shift():
    generator = np.random.default_rng(0)
    z = generator.normal(size=200_000)
    labels = generator.random(z.shape) < 1 / (1 + np.exp(-z))
    rule = calibrate(3 * z + 2, labels)
    assert (rule.scale, rule.shift) == (
        pytest.approx(1 / 3, rel=0.03),
        pytest.approx(-2 / 3, rel=0.05),
    )
    extreme = calibrate(1000 * z, labels)
    assert extreme.scale == pytest.approx(1e-3, rel=0.03)


@pytest.mark.parametrize("labels", [np.zeros(4), np.ones(4), np.zeros(3)])
def test_one_class_alone_cannot_be_calibrated(labels):
    with pytest.raises(ValueError, match="both classes"):
        calibrate(np.arange(4.0), labels)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused_by_name(odd):
    with pytest.raises(ValueError, match="logits: expected finite numbers, got 1 of 4"):
        calibrate(np.array([0, 1, odd, 2]), np.array([0, 1, 1, 0]))


def test_a_void_label_is_named_with_the_way_to_leave_it_out():
    told = r"labels: expected 0 and 1, got 255; leave void pixels out: kept = labels != 255"
    with pytest.raises(ValueError, match=told):
        calibrate(np.arange(4.0), np.array([0, 1, 255, 0]))


def test_several_channels_are_refused():
    with pytest.raises(ValueError, match=r"expected logits \(B, 1, H, W\), got \(1, 2, 4, 4\)"):
        PlugInRule()(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(
    "z", [[-2.0, -1, 1, 2], [2.0, 1, -1, -2], [0.0, 1, 1, 2], [-1e300, -1e300, 1e300, 1e300]]
)
def test_classes_that_a_threshold_separates_have_no_scale(z):
    with pytest.raises(ValueError, match="a threshold separates the two classes"):
        calibrate(np.array(z), np.array([0, 0, 1, 1]))


def test_one_pixel_on_the_other_side_has_a_scale_and_so_do_equal_logits():
    rule = calibrate(np.array([-2.0, 0.5, 0.0, 2]), np.array([0, 0, 1, 1]))
    assert 0 < rule.scale < 10
    level = calibrate(np.zeros(4), np.array([0, 1, 1, 1]))
    assert 1 / (1 + np.exp(-level.shift)) == pytest.approx(0.75)


def test_a_logit_that_is_nan_is_refused_and_an_infinite_one_is_certain():
    z = torch.zeros(1, 1, 2, 2)
    z[0, 0, 0, 0] = torch.inf
    assert PlugInRule()(z)[0, 0, 0] == 1
    z[0, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="logits: expected numbers, got 1 of 4 NaN"):
        PlugInRule()(z)
