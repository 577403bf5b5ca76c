"""clDice against hand arithmetic, its skeleton against scikit-image's, and what the skeleton keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lossatlas.metrics import ClDice
from lossatlas.metrics.topology import _counts, _scores, _thinned

# skimage.morphology.thin, version 0.26: # is the mask, @ what it keeps.
DRAWN = [
    ".####.....####.........##.....",
    ".#####...#####........#@#.....",
    "###############.......#@##....",
    "###############......##@##....",
    "####@#####@####.....##@###....",
    "####@####@#####....###@###....",
    "#####@@@@#@###....####@####...",
    "######@####@###..####@#####...",
    "######@####@###..####@#####...",
    "..####@#####@##...#########...",
    "...###@#...#@##....#######....",
    "......@#....#@#.....#####.....",
    "##...........@#......##.......",
    "@#...........@#...............",
]
MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def street(rows: slice, columns: slice = slice(None)) -> np.ndarray:
    """A mask of 7 × 12 pixels with a bar."""
    mask = np.zeros((7, 12), dtype=bool)
    mask[rows, columns] = True
    return mask


def cldice(pred: np.ndarray, target: np.ndarray) -> float:
    """clDice of two masks."""
    return _scores(_counts(pred, target))[0]


def objects_and_holes(mask: np.ndarray) -> tuple[int, int]:
    """Pixels of an object touch at corners, pixels of a hole at faces; the frame joins the outside."""
    return (
        ndimage.label(mask, np.ones((3, 3)))[1],
        ndimage.label(~np.pad(mask, 1))[1],
    )


def test_the_skeleton_is_scikit_images_on_a_recorded_mask() -> None:
    letters = np.array([list(row) for row in DRAWN])
    np.testing.assert_array_equal(_thinned(letters != "."), letters == "@")


@given(mask=MASKS)
@settings(max_examples=200, deadline=None)
def test_the_skeleton_is_a_part_with_as_many_objects_and_holes_and_its_own_skeleton(mask) -> None:
    lines = _thinned(mask)
    assert not (lines & ~mask).any()
    assert objects_and_holes(lines) == objects_and_holes(mask)
    np.testing.assert_array_equal(_thinned(lines), lines)


def test_width_costs_nothing_and_a_gap_costs_its_length() -> None:
    truth = street(slice(3, 4))
    wide = street(slice(2, 5))
    assert cldice(truth, truth) == cldice(wide, truth) == 1
    gap = truth.copy()
    gap[:, 4:7] = False
    assert cldice(gap, truth) == pytest.approx(2 * 0.75 / 1.75)  # P = 1, R = 9/12
    branch = truth.copy()
    branch[0:3, 5] = True  # three pixels more, of which one may go at the junction
    drawn = _thinned(branch).sum()
    assert drawn > 12
    precision = (_thinned(branch) & truth).sum() / drawn
    assert cldice(branch, truth) == pytest.approx(2 * precision / (1 + precision))


def test_prediction_and_truth_may_change_places() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        pair = rng.random((2, 12, 9)) < 0.4
        assert cldice(*pair) == pytest.approx(cldice(*pair[::-1]))


def test_empty_masks_and_masks_that_do_not_meet() -> None:
    empty, full = street(slice(0, 0)), street(slice(0, 2))
    assert math.isnan(cldice(empty, empty))
    assert cldice(full, empty) == cldice(empty, full) == cldice(full, street(slice(4, 6))) == 0


def test_means_per_image_leave_out_what_is_undefined_and_pooled_scores_weigh_by_length() -> None:
    metric = ClDice(3)
    assert [row["class_index"] for row in metric.rows()] == [1, 2]
    assert metric.rows()[0]["n"] == 0 and math.isnan(metric.rows()[0]["pooled_cldice"])
    truth, found = np.zeros((2, 4, 7, 12), dtype=np.int64)
    truth[0, 3] = 1  # 12 pixels, found without 3
    found[0, 3, 3:] = 1
    truth[1, 3, :4] = 1  # 4 pixels, found
    found[1, 3, :4] = 1
    found[2, 3, :5] = 1  # 5 pixels that are not
    truth[3, 3, :2] = 2  # two pixels of another class, missed
    metric.update(found[:1], truth[:1])
    metric.update(torch.tensor(found[1:]), torch.tensor(truth[1:]))
    one, two = metric.rows()
    assert one["n"] == 3
    assert one["cldice"] == pytest.approx((2 * 0.75 / 1.75 + 1 + 0) / 3)
    assert one["precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert one["sensitivity"] == pytest.approx((0.75 + 1) / 2)  # the third image has no truth
    precision, sensitivity = 13 / 18, 13 / 16
    assert one["pooled_precision"] == pytest.approx(precision)
    assert one["pooled_sensitivity"] == pytest.approx(sensitivity)
    assert one["pooled_cldice"] == pytest.approx(
        2 * precision * sensitivity / (precision + sensitivity)
    )
    assert two["cldice"] == two["sensitivity"] == two["pooled_cldice"] == 0
    assert math.isnan(two["precision"]) and math.isnan(two["pooled_precision"])


def test_void_pixels_belong_to_neither_mask() -> None:
    truth = street(slice(3, 4)).astype(int)[None]
    found = truth.copy()
    truth[:, :, 6:] = 255
    found[:, :, 2:6] = 0
    row = counted(ClDice(2, 255), found, truth).rows()[0]
    assert (row["precision"], row["sensitivity"]) == (1, pytest.approx(2 / 6))
