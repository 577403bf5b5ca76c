"""What every metric refuses, for the target and the prediction alike, and what it then tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from counting import counted

from lossatlas import metrics

NAN = float("nan")
LABELS = np.array([[[0, 1], [2, 255]]])  # (1, 2, 2), one void pixel


def logits(labels: np.ndarray) -> torch.Tensor:
    """Scores (N, 3, *S) of labels."""
    return torch.nn.functional.one_hot(torch.tensor(labels).clamp(0, 2), 3).movedim(-1, 1).float()


# What takes images of class indices, as a function of the number of classes and of the void label.
OF_IMAGES = (metrics.BoundaryMetrics, metrics.ClDice, metrics.ObjectRecall)
# Everything that takes class indices for prediction and target, as a function of the two.
BY_LABELS = {
    "confusion_per_image": lambda p, t: metrics.confusion_per_image(p, t, 3, 255),
    "ConfusionMatrix": lambda p, t: metrics.ConfusionMatrix(3, 255).update(p, t),
    "per image": lambda p, t: metrics.ConfusionMatrix(3, 255).update_per_image(p, t),
    **{kind.__name__: lambda p, t, kind=kind: kind(3, 255).update(p, t) for kind in OF_IMAGES},
}
# Everything that takes logits and a target, as a function of the void label.
OF_LOGITS: dict[str, Callable[[Any], Any]] = {
    "Calibration": lambda v: metrics.Calibration(3, ignore_index=v),
    "ThresholdSearch": metrics.ThresholdSearch,
    "OffsetSearch": lambda v: metrics.OffsetSearch([2, 1, 1], ignore_index=v),
}
# The same as a function of the target.
BY_LOGITS = {
    name: lambda t, build=build, channels=1 if name == "ThresholdSearch" else 3: build(255).update(
        logits(LABELS)[:, :channels], t
    )
    for name, build in OF_LOGITS.items()
}


def refused_by_all(good: Any, wrong: Any, kind: type[Exception], told: str) -> None:
    """Every metric refuses it as a target, and beside a good target as a prediction."""
    for update in BY_LABELS.values():
        with pytest.raises(kind, match=told.format("target")):
            update(good, wrong)
        with pytest.raises(kind, match=told.format("pred")):
            update(wrong, good)
    for update in BY_LOGITS.values():
        with pytest.raises(kind, match=told.format("target")):
            update(wrong)


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


def test_one_image_without_a_batch_axis_is_told_to_get_one() -> None:
    image = LABELS[0].clip(0, 1)
    for metric in (metrics.TolerantF1(1, 255), *(kind(3, 255) for kind in OF_IMAGES)):
        with pytest.raises(ValueError, match=r"\(N, H, W\).*got \(2, 2\).*x\[None\]"):
            metric.update(image, image)
            pytest.fail(f"{metric} took rows for images")
        metric.update(image[None], image[None])


def test_an_axis_of_one_channel_is_told_to_be_squeezed() -> None:
    labels = LABELS.clip(0, 1)
    refused_by_all(labels, labels[:, None], ValueError, r"{}\.squeeze\(1\)")


def test_one_hot_maps_beside_class_indices_are_told_to_become_indices() -> None:
    labels = LABELS.clip(0, 2)
    one_hot = logits(labels).long()
    refused_by_all(labels, one_hot, ValueError, r"class indices by {}\.argmax\(1\)")
    for update in BY_LABELS.values():
        update(one_hot.argmax(1), labels)


def test_metrics_of_images_refuse_volumes_and_say_of_a_kept_channel_how_it_goes() -> None:
    kept = LABELS.clip(0, 1)[:, None]
    told = r"images \(N, H, W\).*out of both with \.squeeze\(1\)"
    for metric in (metrics.ClDice(2), metrics.TolerantF1(1), metrics.BoundaryMetrics(2)):
        with pytest.raises(ValueError, match=told):
            metric.update(kept, kept)
    volume = np.zeros((1, 2, 3, 3), dtype=int)
    for metric in (metrics.ClDice(2), metrics.TolerantF1(1)):
        with pytest.raises(ValueError, match=r"images \(N, H, W\), got \(1, 2, 3, 3\)"):
            metric.update(volume, volume)


def test_logits_that_are_no_tensor_are_told_to_become_one() -> None:
    array = np.zeros((1, 1, 2, 2))
    calls = (
        lambda: metrics.DecisionRule((0.0,))(array),
        lambda: metrics.PlugInRule()(array),
        lambda: metrics.ThresholdSearch().update(array, LABELS),
        lambda: metrics.Calibration(1).update(array, LABELS),
    )
    told = r"logits: expected a tensor, got ndarray; .*from_numpy"
    for call in calls:
        with pytest.raises(TypeError, match=told):
            call()


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
    of_labels = (
        metrics.ConfusionMatrix(2),
        metrics.TolerantF1(1),
        *(kind(2) for kind in OF_IMAGES),
    )
    calls: list[Any] = [(metric, mask > 0) for metric in of_labels]
    calls += [(metrics.Calibration(1), scores), (metrics.ThresholdSearch(), scores)]
    for metric, given in calls:
        with pytest.raises(ValueError, match=r"scaled by 255: pass \(target > 127\)") as caught:
            metric.update(given, mask)
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


def test_a_void_label_that_is_no_integer_is_refused_when_the_metric_is_built() -> None:
    of_labels = (metrics.ConfusionMatrix, metrics.TolerantF1, *OF_IMAGES)
    builds: list[Any] = [lambda v, kind=kind: kind(3, v) for kind in of_labels]
    builds += [*OF_LOGITS.values(), lambda v: metrics.confusion_per_image(LABELS, LABELS, 3, v)]
    for build in builds:
        for void in ("255", 255.5, True, torch.tensor(True), torch.tensor(2.0)):
            with pytest.raises(TypeError, match="ignore_index: expected an integer or None, got"):
                build(void)
        build(np.int64(255))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: metrics.BoundaryMetrics(2, spacing="a"), "spacing: expected one positive number"),
        (lambda: metrics.BoundaryMetrics(2, spacing=-1), "spacing: expected one positive number"),
        (lambda: metrics.BoundaryMetrics(2, spacing=[1, 0]), "spacing: expected one positive number"),
        (lambda: metrics.BoundaryMetrics(2, spacing=NAN), "spacing: expected one positive number"),
        (lambda: metrics.BoundaryMetrics(2, spacing=(1, (2, 3))), "spacing: expected one positive"),
        (lambda: metrics.hausdorff_distance(LABELS[0] == 1, LABELS[0] == 1, spacing={"x": 1}), "spacing: expected"),
        (lambda: metrics.Calibration(3, background=3), "background: expected a class index"),
        (lambda: metrics.Calibration(3, background="0"), "background: expected a class index"),
        (lambda: metrics.Calibration(3, background=1.0), "background: expected a class index"),
        (lambda: metrics.Calibration(3, foreground_above="0"), "foreground_above: expected a prob"),
        (lambda: metrics.ObjectRecall(2, strata=(1, 2.5)), "strata: expected increasing whole"),
        (lambda: metrics.ObjectRecall(2, strata=np.array([1, 5, 3], np.uint8)), "strata: expected"),
        (lambda: metrics.ObjectRecall(2, classes=[True]), "classes: expected indices 0…1"),
        (lambda: metrics.ObjectRecall(3, classes=[3]), "classes: expected indices"),
        (lambda: metrics.OffsetSearch(np.array([1, np.inf])), "class_pixels: expected whole counts, got array"),
        (lambda: metrics.ObjectRecall(2, strata="abc"), "strata: expected increasing whole sizes"),
        (lambda: metrics.ObjectRecall(2, strata=(2, 4)), "strata: expected increasing whole sizes"),
        (lambda: metrics.ObjectRecall(2, strata=(1, 4, 4)), "strata: expected increasing whole"),
        (lambda: metrics.ObjectRecall(2, strata=()), "strata: expected increasing whole sizes"),
        (lambda: metrics.ObjectRecall(2, covered=0), "covered: expected a share above 0"),
        (lambda: metrics.ObjectRecall(2, covered=1.5), "covered: expected a share above 0"),
        (lambda: metrics.Calibration(0), "channels: expected an integer"),
        (lambda: metrics.Calibration(1.0, bins=10), "channels: expected an integer"),
        (lambda: metrics.Calibration(1, bins=0), "bins: expected an integer"),
        (lambda: metrics.Calibration(1, bins=10.0), "bins: expected an integer"),
        (lambda: metrics.Calibration(1, bins=True), "bins: expected an integer"),
        (lambda: metrics.Calibration(1, foreground_above=1), "foreground_above: expected a prob"),
        (lambda: metrics.ObjectRecall(2, classes=1), "classes: expected indices 0…1, got 1"),
        (lambda: metrics.ObjectRecall(2, covered="1"), "covered: expected a share above 0"),
        (lambda: metrics.OffsetSearch(np.array([1.5, 2])), "class_pixels: expected whole counts"),
        (lambda: metrics.OffsetSearch([1, 2], max_pixels=-1), "max_pixels: expected an integer"),
        (lambda: metrics.OffsetSearch([5, -5]), "class_pixels: expected counts of at least 0"),
        (lambda: metrics.OffsetSearch([5, 5], scored=[2]), "scored: expected class indices 0…1"),
        (lambda: metrics.OffsetSearch([5, 5], scored=[-1]), "scored: expected class indices 0…1"),
        (lambda: metrics.OffsetSearch([1, 2], scored=1), "scored: expected class indices"),
        (lambda: metrics.DecisionRule.argmax(1.5), "channels: expected an integer of at least 1"),
        (lambda: metrics.DecisionRule.logit_adjustment(None), "prior: expected positive shares"),
        (lambda: metrics.DecisionRule.logit_adjustment("ab"), "prior: expected positive shares"),
        (lambda: metrics.DecisionRule.logit_adjustment(0.2, tau="1"), "tau: expected a number"),
        (lambda: metrics.ThresholdSearch().dice(NAN), "offset: expected a number"),
        (lambda: metrics.PlugInRule(NAN), "expected finite numbers, got scale nan"),
        (lambda: metrics.PlugInRule("a"), "expected finite numbers, got scale 'a'"),
        (lambda: metrics.calibrate(np.zeros(0), np.zeros(0)), "and both classes, got 0 logits"),
    ],
)  # fmt: skip
def test_an_argument_of_another_kind_is_named_with_what_was_expected(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_what_a_user_may_pass_is_taken() -> None:
    assert metrics.ConfusionMatrix(np.int64(3)).num_classes == 3
    for spacing in (np.array(0.5), torch.tensor([0.5, 0.5]), range(1, 3)):
        metrics.BoundaryMetrics(2, spacing=spacing)
    assert metrics.ObjectRecall(3, classes={1, 2}, strata=np.array([1.0, 9.0])).classes == [1, 2]
    assert metrics.DecisionRule.argmax(torch.tensor(2)).offsets == (0, 0)
    assert metrics.Calibration(3, background=torch.tensor(0)).background == 0
    rule = metrics.DecisionRule.logit_adjustment(torch.tensor(0.2))
    assert rule.probability == pytest.approx(0.2)
    search = metrics.ThresholdSearch()
    search.update(torch.tensor([[[-1.0, 2.0]]]), torch.tensor([[0, 1]]))
    assert search.dice(float("inf")) == pytest.approx(2 / 3) and search.dice(-float("inf")) == 0
    assert metrics.PlugInRule()(torch.zeros(1, 1, 0, 4)).shape == (1, 0, 4)
    z = torch.linspace(-2, 2, 9, requires_grad=True)
    assert metrics.calibrate(z, torch.tensor([0, 0, 0, 1, 0, 1, 1, 0, 1])).scale > 0


def test_a_class_that_was_counted_and_never_comes_leaves_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.randn(1, 3, 40, generator=generator), torch.arange(40)[None] % 2
    never_comes, never_counted, nothing = (
        counted(metrics.OffsetSearch(counts), scores, truth).best()[1]
        for counts in ([20, 20, 10], [20, 20, 0], [0, 0, 10])
    )
    assert never_comes == never_counted > 0
    assert np.isnan(nothing)


@pytest.mark.parametrize(("share", "size", "hits"), [(0.55, 100, 55), (0.28, 25, 7)])
def test_an_object_covered_by_just_the_share_is_found(share: float, size: int, hits: int) -> None:
    truth = np.ones((1, 1, size), dtype=int)
    for number, expected in ((hits, 1), (hits - 1, 0)):
        recall = metrics.ObjectRecall(2, covered=share, strata=(1,))
        recall.update(np.where(np.arange(size) < number, truth, 0), truth)
        assert recall.rows()[0]["found"] == expected


def test_half_precision_of_either_kind_is_taken_or_named() -> None:
    z, y = torch.linspace(-2, 2, 9), torch.tensor([0, 0, 0, 1, 0, 1, 1, 0, 1])
    assert metrics.calibrate(z.bfloat16(), y).scale == pytest.approx(
        metrics.calibrate(z, y).scale, rel=0.02
    )
    mask = torch.ones(3, 3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="expected a mask of booleans"):
        metrics.hausdorff_distance(mask, mask)


def test_an_offset_is_a_number_of_any_kind() -> None:
    search = metrics.ThresholdSearch()
    search.update(torch.tensor([[[-1.0, 2.0]]]), torch.tensor([[0, 1]]))
    assert search.dice(torch.tensor(0.5)) == search.dice(np.float32(0.5)) == search.dice(0.5)
    assert search.dice(np.array(0.5)) == search.dice(0.5)
    for wrong in ("a", None, float("nan"), torch.tensor([0.5, 0.6]), 10**400):
        with pytest.raises(ValueError, match="expected a number to add to the logit"):
            search.dice(wrong)


def test_the_searches_work_where_another_device_is_the_default() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.randn(1, 3, 400, generator=generator), torch.arange(400)[None] % 3
    expected = counted(metrics.OffsetSearch([140, 140, 140]), scores, truth)
    with torch.device("meta"):
        found = counted(metrics.OffsetSearch([140, 140, 140]), scores, truth)
        assert found.best() == expected.best()


def test_a_void_label_that_no_tensor_holds_is_refused():
    for build in (metrics.ThresholdSearch, lambda v: metrics.ConfusionMatrix(2, v)):
        with pytest.raises(ValueError, match="ignore_index: expected a label of 64 bits"):
            build(2**70)
