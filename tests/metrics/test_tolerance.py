"""F1 with a tolerance of a few pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counting import counted
from scipy.spatial.distance import cdist

from lossatlas.metrics import TolerantF1, dice_from_counts


def by_hand(pred, target, tolerance):
    """Every pixel against every other."""

    def near(mask):
        every = np.argwhere(np.ones(mask.shape))
        within = cdist(every, np.argwhere(mask)) <= tolerance
        return within.any(1).reshape(mask.shape)

    right = found = predicted = true = 0
    for p, t in zip(pred == 1, target == 1, strict=True):
        right += (p & near(t)).sum()
        found += (t & near(p)).sum()
        predicted, true = predicted + p.sum(), true + t.sum()
    return right / predicted, found / true


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2])
def test_precision_and_recall_equal_a_loop_over_the_pixels(tolerance):
    generator = np.random.default_rng(0)
    pred = (generator.random((3, 9, 11)) < 0.1).astype(int)
    target = (generator.random((3, 9, 11)) < 0.1).astype(int)
    metric = TolerantF1(tolerance)
    for k in range(3):  # image by image, as batches come
        metric.update(pred[k : k + 1], target[k : k + 1])
    precision, recall = by_hand(pred, target, tolerance)
    found = metric.compute()
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall))
    assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_without_a_tolerance_it_is_dice():
    generator = np.random.default_rng(1)
    pred, target = (generator.random((2, 2, 8, 8)) < 0.3).astype(int)
    metric = counted(TolerantF1(0), pred, target)
    p, t = pred == 1, target == 1
    counts = np.array([(p & t).sum(), (p & ~t).sum(), (~p & t).sum()])
    assert metric.compute()["f1"] == pytest.approx(float(dice_from_counts(counts)))


def test_void_pixels_count_on_neither_side():
    target = np.array([[[1, 0, 0, 0, 255]]])
    metric = counted(TolerantF1(1, ignore_index=255), np.array([[[1, 0, 0, 0, 1]]]), target)
    assert metric.compute() == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_an_empty_prediction_of_something_is_worth_nothing():
    metric = counted(TolerantF1(2), np.zeros((1, 4, 4), int), np.ones((1, 4, 4), int))
    assert metric.compute() == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert np.isnan(TolerantF1(2).compute()["f1"])


@pytest.mark.parametrize("tolerance", [-1, "1", [1, 2], np.ones(2), torch.ones(2), None])
def test_a_tolerance_that_is_no_length_is_refused_by_name(tolerance):
    with pytest.raises(ValueError, match=r"tolerance: expected a length, .* in pixels"):
        TolerantF1(tolerance)


def test_a_prediction_that_requires_its_gradient_is_read():
    truth = torch.tensor([[[0, 1]]])
    metric = TolerantF1(0)
    with pytest.raises(TypeError, match=r"pred: .* take the argmax"):
        metric.update(torch.rand(1, 1, 2, requires_grad=True), truth)
    metric.update((torch.rand(1, 1, 2, requires_grad=True) > 2).long(), truth)
    assert metric.compute()["recall"] == 0


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ((1, 0), (0, 0), (0.0, np.nan, 0.0)),
        ((0, 0), (0, 1), (0.0, 0.0, 0.0)),
        ((1, 0), (0, 1), (0.0, 0.0, 0.0)),
        ((0, 0), (0, 0), (np.nan, np.nan, np.nan)),
    ],
)
def test_where_nothing_is_right_the_f1_is_what_dice_is(predicted, true, expected):
    metric = counted(TolerantF1(0), np.array([[predicted]]), np.array([[true]]))
    assert list(metric.compute().values()) == pytest.approx(expected, nan_ok=True)
