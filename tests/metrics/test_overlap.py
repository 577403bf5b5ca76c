"""Overlap metrics against hand arithmetic and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counting import counted
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    multilabel_confusion_matrix,
    precision_score,
    recall_score,
)

from lossatlas import metrics
from lossatlas.metrics import ConfusionMatrix, confusion_per_image

# A 2×4 image, three classes and void (9):
#   truth  0 0 1 1 / 2 2 9 0      prediction  0 1 1 1 / 2 0 2 0
# class 0: tp 2, fp 1, fn 1 → IoU 2/4, Dice 4/6, precision 2/3, recall 2/3
# class 1: tp 2, fp 1, fn 0 → IoU 2/3, Dice 4/5, precision 2/3, recall 1
# class 2: tp 1, fp 0, fn 1 → IoU 1/2, Dice 2/3, precision 1,   recall 1/2   (the void 2 is no fp)
TRUTH = np.array([[[0, 0, 1, 1], [2, 2, 9, 0]]])
PREDICTION = np.array([[[0, 1, 1, 1], [2, 0, 2, 0]]])
COUNTS = [[2, 1, 1], [2, 1, 0], [1, 0, 1]]


def random_labels(seed: int, classes: int = 5, void: int | None = 255):
    rng = np.random.default_rng(seed)
    shares = np.array([0.6, 0.25, 0.1, 0.04, 0.01])[:classes]
    target = rng.choice(classes, size=(6, 16, 20), p=shares / shares.sum())
    pred = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, classes, target.shape))
    if void is not None:
        target = np.where(rng.random(target.shape) < 0.05, void, target)
    return pred, target


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_a_case_computed_by_hand_with_a_void_pixel(convert):
    matrix = counted(ConfusionMatrix(3, ignore_index=9), convert(PREDICTION), convert(TRUTH))
    assert matrix.counts().tolist() == COUNTS
    assert matrix.matrix.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 1]]
    np.testing.assert_allclose(matrix.iou(), [1 / 2, 2 / 3, 1 / 2], rtol=1e-15)
    np.testing.assert_allclose(matrix.dice(), [2 / 3, 4 / 5, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(matrix.precision(), [2 / 3, 2 / 3, 1], rtol=1e-15)
    np.testing.assert_allclose(matrix.recall(), [2 / 3, 1, 1 / 2], rtol=1e-15)
    assert matrix.mean_iou() == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)
    assert matrix.mean_iou(foreground_only=True) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert matrix.mean_dice(foreground_only=True) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert matrix.mean_recall() == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert matrix.mean_precision() == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert matrix.pixel_accuracy() == pytest.approx(5 / 7)
    per_image = confusion_per_image(convert(PREDICTION), convert(TRUTH), 3, ignore_index=9)
    assert per_image.dtype == np.int64
    assert per_image.tolist() == [COUNTS]


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_values_equal_scikit_learn_over_the_kept_pixels(seed):
    pred, target = random_labels(seed)
    matrix = counted(ConfusionMatrix(5, 255), torch.from_numpy(pred), torch.from_numpy(target))
    keep, labels = target != 255, list(range(5))
    per_image = confusion_per_image(pred, target, 5, ignore_index=255)
    for p, t, kept, counts in zip(pred, target, keep, per_image, strict=True):
        # [[tn, fp], [fn, tp]] of each class
        theirs = multilabel_confusion_matrix(t[kept], p[kept], labels=labels)
        assert np.array_equal(counts, theirs[:, [1, 0, 1], [1, 1, 0]])
    assert np.array_equal(matrix.counts(), per_image.sum(axis=0))
    t, p = target[keep], pred[keep]
    assert np.array_equal(matrix.matrix, confusion_matrix(t, p, labels=labels))
    for ours, theirs in [
        (matrix.iou(), jaccard_score),
        (matrix.dice(), f1_score),
        (matrix.precision(), precision_score),
        (matrix.recall(), recall_score),
    ]:
        np.testing.assert_allclose(ours, theirs(t, p, labels=labels, average=None), rtol=1e-12)
    assert matrix.mean_iou() == pytest.approx(jaccard_score(t, p, labels=labels, average="macro"))
    assert matrix.mean_dice() == pytest.approx(f1_score(t, p, labels=labels, average="macro"))
    assert matrix.pixel_accuracy() == pytest.approx(accuracy_score(t, p))


def test_an_absent_class_is_nan_and_a_hallucinated_class_is_zero():
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 0, 2, 1]), np.array([0, 0, 0, 1]))  # 2 is predicted only, 3 nowhere
    assert matrix.iou()[2] == matrix.dice()[2] == matrix.precision()[2] == 0
    assert np.isnan(matrix.recall()[2])
    for values in (matrix.iou(), matrix.dice(), matrix.precision(), matrix.recall()):
        assert np.isnan(values[3])
    assert matrix.mean_iou() == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_void_may_lie_inside_the_range_of_the_classes():
    # Void 1 among three classes: only the other pixels count.
    matrix = counted(ConfusionMatrix(3, ignore_index=1), np.array([0, 2, 1]), np.array([1, 2, 0]))
    assert matrix.matrix.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_counts_beyond_32_bits_stay_exact():
    matrix = ConfusionMatrix(2)
    matrix.matrix[:] = [[2**40 + 1, 0], [1, 2**33 + 1]]
    matrix.update(np.array([0]), np.array([0]))
    assert matrix.counts().tolist() == [[2**40 + 2, 1, 0], [2**33 + 1, 0, 1]]


def test_nothing_counted_gives_nan_everywhere_and_no_warning():
    matrix = ConfusionMatrix(2, ignore_index=255)
    matrix.update(np.zeros((1, 3), np.uint8), np.full((1, 3), 255, np.uint8))
    assert np.isnan(matrix.iou()).all()
    assert np.isnan([matrix.mean_iou(), matrix.mean_dice(), matrix.pixel_accuracy()]).all()
    empty = confusion_per_image(np.zeros((0, 4, 4), int), np.zeros((0, 4, 4), int), 3)
    assert empty.shape == (0, 3, 3)


def test_dice_and_iou_of_the_same_counts_obey_their_identity():
    pred, target = random_labels(11)
    counts = confusion_per_image(pred, target, 5, 255)
    iou, dice = metrics.iou_from_counts(counts), metrics.dice_from_counts(counts)
    assert iou.shape == dice.shape == (6, 5)
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_every_integer_type_is_taken(dtype):
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1, 1]).to(dtype), torch.tensor([0, 1, 0]).to(dtype))
    assert matrix.matrix.tolist() == [[1, 1], [0, 1]]


def test_bad_input_is_refused_and_changes_nothing():
    matrix = ConfusionMatrix(3, ignore_index=255)
    good = np.array([[0, 1]])
    matrix.update(good, good)
    before = matrix.matrix.copy()
    with pytest.raises(ValueError, match=r"expected class indices 0…2, got 7.*ignore_index"):
        matrix.update(good, np.array([[0, 7]]))
    assert np.array_equal(matrix.matrix, before)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ConfusionMatrix(1)
    with pytest.raises(ValueError, match=r"last axis of 3"):
        metrics.iou_from_counts([1, 2])
    with pytest.raises(ValueError, match="negative"):
        metrics.iou_from_counts([1, 2, -1])
    with pytest.raises(ValueError, match="batch axis"):
        confusion_per_image(np.array(1), np.array(1), 2)


def test_an_image_at_a_time_adds_up_to_the_matrix_of_the_set():
    pred, target = random_labels(4)
    whole, parts = ConfusionMatrix(5, ignore_index=255), ConfusionMatrix(5, ignore_index=255)
    whole.update(pred, target)
    counts = [parts.update_per_image(pred[n : n + 2], target[n : n + 2]) for n in range(0, 6, 2)]
    assert np.array_equal(np.concatenate(counts), confusion_per_image(pred, target, 5, 255))
    assert np.array_equal(whole.matrix, parts.matrix)


def test_the_volume_ratio_by_hand():
    matrix = counted(ConfusionMatrix(3, ignore_index=9), PREDICTION, TRUTH)
    # predicted 3, 3, 1 pixels (void left out) of 3, 2, 2 true ones
    np.testing.assert_allclose(matrix.volume_ratio(), [1, 3 / 2, 1 / 2], rtol=1e-15)
    assert matrix.mean_volume_ratio(foreground_only=True) == pytest.approx(1)
    np.testing.assert_allclose(
        matrix.volume_ratio(), matrix.recall() / matrix.precision(), rtol=1e-12
    )
    assert np.isnan(metrics.volume_ratio_from_counts([0, 3, 0]))
