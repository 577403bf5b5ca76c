"""What every metric refuses, for the target and the prediction alike, and what it then tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lossatlas import metrics

LABELS = np.array([[[0, 1], [2, 255]]])  # (1, 2, 2), one void pixel


def logits(labels: np.ndarray) -> torch.Tensor:
    """Scores (N, 3, *S) of labels."""
    return torch.nn.functional.one_hot(torch.tensor(labels).clamp(0, 2), 3).movedim(-1, 1).float()


# Everything that takes class indices for prediction and target, as a function of the two.
BY_LABELS = {
    "confusion_per_image": lambda p, t: metrics.confusion_per_image(p, t, 3, 255),
    "ConfusionMatrix": lambda p, t: metrics.ConfusionMatrix(3, 255).update(p, t),
    "ConfusionMatrix per image": lambda p, t: metrics.ConfusionMatrix(3, 255).update_per_image(
        p, t
    ),
    "BoundaryMetrics": lambda p, t: metrics.BoundaryMetrics(3, 255).update(p, t),
    "ClDice": lambda p, t: metrics.ClDice(3, 255).update(p, t),
    "ObjectRecall": lambda p, t: metrics.ObjectRecall(3, 255).update(p, t),
}
# Everything that takes logits and a target, as a function of the target.
BY_LOGITS = {
    "Calibration": lambda t: metrics.Calibration(3, ignore_index=255).update(logits(LABELS), t),
    "ThresholdSearch": lambda t: metrics.ThresholdSearch(255).update(logits(LABELS)[:, :1], t),
    "OffsetSearch": lambda t: metrics.OffsetSearch([2, 1, 1], ignore_index=255).update(
        logits(LABELS), t
    ),
}


@pytest.mark.parametrize("stray", [-1, 3, 200, -100])
def test_a_stray_label_is_refused_in_target_and_prediction_beside_void_pixels(stray: int) -> None:
    wrong = LABELS.copy()
    wrong[0, 0, 1] = stray
    fine = LABELS.clip(0, 1)
    for name, update in BY_LABELS.items():
        update(LABELS.clip(0, 2), LABELS)
        for pair, word, remedy in (
            ((fine, wrong), "target", "; void pixels need ignore_index"),
            ((wrong, LABELS), "pred", ""),
        ):
            told = rf"{word}: expected class indices 0…2, got {stray}{remedy}"
            with pytest.raises(ValueError, match=told):
                update(*pair)
                pytest.fail(f"{name} took {stray} in the {word}")
    for name, update in BY_LOGITS.items():
        update(LABELS.clip(0, 1))
        told = rf"target: expected class indices 0…., got {stray}; void pixels need ignore_index"
        with pytest.raises(ValueError, match=told):
            update(np.where(wrong == 255, 0, wrong.clip(-100, 1) if stray < 0 else wrong))
            pytest.fail(f"{name} took {stray}")


def test_what_is_predicted_at_a_void_pixel_is_never_looked_at() -> None:
    predicted = LABELS.clip(0, 2)
    predicted[0, 1, 1] = 77
    for update in BY_LABELS.values():
        update(predicted, LABELS)


def test_a_floating_target_is_told_to_become_integers_and_a_prediction_to_take_the_argmax() -> None:
    floats = LABELS.astype(np.float32)
    for target in (floats, torch.tensor(floats)):
        for update in BY_LABELS.values():
            with pytest.raises(TypeError, match=r"target: .*float32; convert .*target\.long\(\)"):
                update(LABELS, target)
            with pytest.raises(TypeError, match=r"pred: .*float32; take the argmax"):
                update(target, LABELS)
        for update in BY_LOGITS.values():
            with pytest.raises(TypeError, match=r"target: .*float32; convert .*target\.long\(\)"):
                update(target)


def test_a_mask_of_0_and_255_is_told_that_it_is_scaled_and_not_to_ignore_its_foreground() -> None:
    mask = np.array([[[0, 255], [255, 0]]], dtype=np.uint8)
    scores = torch.zeros(1, 1, 2, 2)
    calls = (
        lambda: metrics.ConfusionMatrix(2).update(mask > 0, mask),
        lambda: metrics.BoundaryMetrics(2).update(mask > 0, mask),
        lambda: metrics.ObjectRecall(2).update(mask > 0, mask),
        lambda: metrics.ClDice(2).update(mask > 0, mask),
        lambda: metrics.Calibration(1).update(scores, mask),
        lambda: metrics.ThresholdSearch().update(scores, mask),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"scaled by 255: pass \(target > 127\)") as caught:
            call()
        assert "ignore_index" not in str(caught.value)


def test_shapes_that_disagree_are_refused_with_both_shapes() -> None:
    for update in BY_LABELS.values():
        with pytest.raises(ValueError, match=r"\(1, 2, 2\).*\(2, 2, 2\)"):
            update(LABELS, np.concatenate([LABELS, LABELS]))
    for update in BY_LOGITS.values():
        with pytest.raises(ValueError, match=r"\(1, 2, 2\), got \(2, 2, 2\)"):
            update(np.concatenate([LABELS, LABELS]).clip(0, 1))


def test_a_batch_that_is_refused_leaves_nothing_behind() -> None:
    good, bad = LABELS.clip(0, 2), np.full_like(LABELS, 7)
    search = metrics.OffsetSearch([4, 2, 2])
    with pytest.raises(ValueError, match="expected class indices"):
        search.update(logits(np.concatenate([good, good])), np.concatenate([good, bad]))
    assert not list(search.kept())


def test_parameters_that_fit_no_class_are_refused_when_the_metric_is_built() -> None:
    with pytest.raises(ValueError, match="background: expected a class index"):
        metrics.Calibration(3, background=3)
    with pytest.raises(ValueError, match="classes: expected indices"):
        metrics.ObjectRecall(3, classes=[3])
    assert metrics.ConfusionMatrix(np.int64(3)).num_classes == 3
