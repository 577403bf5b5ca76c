"""Metrics from counts are the evaluation's, conventions included; numbers print with a true minus."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas import metrics
from lossatlas.statistics import counts
from lossatlas.statistics.intervals import Interval, number


@pytest.mark.parametrize("kind", ["dice", "iou", "precision", "recall"])
def test_metrics_from_counts_are_the_evaluations_conventions_included(kind):
    table = np.array([[5, 2, 1], [0, 0, 0], [0, 0, 4], [0, 3, 0], [7, 0, 0]])
    theirs = getattr(metrics, f"{kind}_from_counts")(table)
    assert np.array_equal(counts.class_metric(table, kind), np.asarray(theirs), equal_nan=True)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="expected dice, iou"):
        counts.class_metric(np.ones((1, 3)), "auc")


def test_numbers_have_a_true_minus_and_zero_has_none():
    assert number(-0.25, sign=True) == "−0.250"
    assert number(0.25, sign=True) == "+0.250"
    assert number(-0.0001, sign=True) == "0.000"
    assert Interval(0.1, -0.05, 0.25, 3).text(sign=True) == "+0.100 [−0.050, +0.250]"
