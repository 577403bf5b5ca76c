"""The chapter on metrics: its numbers by hand, and that they are those of ``lossatlas.metrics``."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

from lossatlas import metrics
from lossatlas.theory import metric_facts
from lossatlas.theory.verdict import settled


def test_one_far_pixel_by_hand() -> None:
    row = metric_facts.blind_spots().set_index("case").loc["a square, and one far pixel"]
    # 400 pixels shared of 401; the pixel (60, 60) is 31·√2 from the corner (29, 29) of the square.
    assert row["IoU"] == pytest.approx(400 / 401)
    assert row["Hausdorff"] == pytest.approx(31 * np.sqrt(2))
    # outlines of 76 pixels and of 77, one of which is wrong
    assert row["NSD"] == pytest.approx(152 / 153)
    assert row["ASSD"] == pytest.approx(31 * np.sqrt(2) / 153)
    assert row["HD95"] == 0
    # bands of two pixels: 20² − 16² = 144, and the far pixel
    assert row["boundary IoU"] == pytest.approx(144 / 145)


def test_a_shift_costs_the_square_its_edge_and_the_line_everything() -> None:
    table = metric_facts.blind_spots().set_index("case")
    fat = table.loc["a square shifted by one pixel"]
    thin = table.loc["a thin line shifted by one pixel"]
    # bands of 144 pixels each share 4 rows of 19 pixels above and below, and 2 in each of 16 rows: 108
    assert fat["boundary IoU"] == pytest.approx(108 / (2 * 144 - 108))
    # 38 of 76 pixels of an outline are still on the other (19 above, 19 below), the others one away
    assert fat["ASSD"] == pytest.approx(0.5)
    assert thin["Dice"] == thin["boundary IoU"] == 0
    assert thin["ASSD"] == 1
    assert fat["NSD"] == thin["NSD"] == 1


@pytest.mark.parametrize("shift", [1, 2])
def test_the_iou_of_a_shifted_bar_is_its_closed_form(shift: int) -> None:
    table = metric_facts.scores_by_width([1, 2, 3, 5, 8, 40], shift)
    assert table["IoU"].tolist() == pytest.approx(table["(w − s)/(w + s)"].tolist())
    # bands of two pixels on either side, shifted by one, share 2 of 6; shifted by two, none
    assert table["boundary IoU"].iloc[-1] == pytest.approx({1: 2 / 6, 2: 0}[shift])
    assert (table["NSD"].iloc[3:] == {1: 1.0, 2: 0.0}[shift]).all()


def test_a_bar_in_the_plane_has_the_scores_of_its_cross_section_in_the_middle() -> None:
    truth = np.zeros((400, 40), dtype=bool)
    truth[:, 10:18] = True
    found = metric_facts.overlap_and_distance(np.roll(truth, 1, axis=1), truth)
    line = metric_facts.scores_by_width([8]).iloc[0]
    assert found["IoU"] == pytest.approx(line["IoU"])
    # the bar's two ends are part of its outline
    assert found["boundary IoU"] == pytest.approx(line["boundary IoU"], abs=0.02)
    assert found["ASSD"] == pytest.approx(line["ASSD"], abs=0.02)


def test_missed_specks_hardly_move_dice() -> None:
    dice, table = metric_facts.missed_specks()
    assert dice == pytest.approx(2 * 576 / (2 * 576 + 20))
    assert table["found"].tolist() == [0, 1]
    assert table["objects"].tolist() == [5, 1]


def test_the_means_reverse_what_no_mask_does() -> None:
    table = metric_facts.rank_reversal().set_index("network")
    assert table.loc["A", "mean IoU"] == pytest.approx((0.2 + 0.9) / 2)
    assert table.loc["B", "mean IoU"] == pytest.approx((0.5 + 0.58) / 2)
    # D = 2J/(1+J)
    expected = [np.mean([2 * j / (1 + j) for j in pair]) for pair in ((0.2, 0.9), (0.5, 0.58))]
    assert table["mean Dice"].tolist() == pytest.approx(expected)
    assert table.loc["A", "mean IoU"] > table.loc["B", "mean IoU"]
    assert table.loc["A", "mean Dice"] < table.loc["B", "mean Dice"]


@pytest.mark.parametrize("seed", [0, 5])
def test_the_foreground_shows_the_miscalibration_that_the_whole_image_hides(seed: int) -> None:
    table = metric_facts.calibration_gap(seed=seed).set_index("network")
    true, sure = table.loc["true odds"], table.loc["three times too sure"]
    weighted = table.loc["inverse-frequency weights"]
    assert true["ECE, foreground"] < 0.01
    assert sure["ECE"] < 0.02 and sure["ECE, foreground"] > 0.15
    assert weighted["ECE"] > 0.15
    # both are proper scores: nothing beats the true odds
    assert (true[["NLL", "Brier"]] < sure[["NLL", "Brier"]]).all()
    assert (true[["NLL", "Brier"]] < weighted[["NLL", "Brier"]]).all()
    union = metric_facts.choice_of_pixels(seed=seed).set_index("pixels")["ECE of true odds"]
    assert union["truth or prediction is foreground"] > 0.5 > 100 * union["p > 0.01"]


def test_the_figure_is_narrow_and_has_a_line_for_every_score() -> None:
    figure = metric_facts.shift_figure(thickest=8)
    assert figure.get_size_inches()[0] <= 5
    axes = figure.axes[-1]
    assert [line.get_label() for line in axes.lines] == ["IoU", "boundary IoU", "NSD", "Dice"]
    assert len(axes.lines[0].get_xdata()) == 8
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(7 / 9)


def test_the_verdict_on_claim_11_follows_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    function = settled()["11"].__wrapped__  # type: ignore[attr-defined]
    assert function().verdict == "true"
    # were the Hausdorff distance as blind as the IoU, the claim would fall
    monkeypatch.setattr(metrics, "hausdorff_distance", lambda *_, **__: 1.0)
    assert function().verdict == "false"
