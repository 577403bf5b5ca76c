"""Published tables are those of their sources, and what a study must lie in follows from them."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas.experiments import load_study
from lossatlas.report import published


def test_segnets_means_are_those_of_its_table():
    gaps = published.segnet_differences()
    assert gaps.shape == (8, 4)
    assert gaps.mean().round(2).to_dict() == {"G": -1.97, "C": 6.79, "mIoU": 1.04, "BF": -0.43}
    assert (gaps.C > 0).all() and (gaps.G < 0).sum() == 7 and (gaps.mIoU > 0).sum() == 6


@pytest.mark.parametrize("name", ["segnet_table1", "segnet_table1_half"])
def test_the_rule_of_a_study_is_the_interval_of_a_ninth_network(name):
    gaps = published.segnet_differences()
    rules = {
        check.quantity: check.condition
        for prediction in load_study(name).predictions
        for check in prediction.holds
        if check.condition.startswith("in ")
    }
    for quantity, measure in {"recall": "C", "pixel accuracy": "G", "iou": "mIoU"}.items():
        stated = [100 * float(end) for end in rules[quantity][4:-1].split(",")]
        np.testing.assert_allclose(
            stated, published.prediction_interval(gaps[measure]), atol=0.1, err_msg=measure
        )


def test_the_vessels_differ_as_published():
    gaps = published.vessel_differences()
    assert len(gaps) == 12 and (gaps.points > 0).sum() == 10
    assert gaps.points.mean() == pytest.approx(0.85, abs=0.005)
    chase = gaps[gaps["data set"] == "CHASE_DB1"].points
    assert chase.round(2).tolist() == [0.16, -0.08, -0.10]


def test_a_difference_of_the_odyssey_is_in_points():
    gap = published.odyssey_differences("Dice", "CE")
    assert gap.round(2).to_dict() == {
        "liver": -1.25,
        "liver tumour": 5.46,
        "pancreas": 1.41,
        "multi-organ": -0.34,
    }


def test_a_prediction_interval_holds_one_more_value_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 9))
    ends = np.array([published.prediction_interval(row[:8]) for row in draws])
    inside = (ends[:, 0] < draws[:, 8]) & (draws[:, 8] < ends[:, 1])
    assert 0.935 < inside.mean() < 0.965


def test_one_value_has_no_prediction_interval():
    with pytest.raises(ValueError, match="at least two values"):
        published.prediction_interval([1.0])
