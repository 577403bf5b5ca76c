"""Metrics of two parts of a set, merged, are those of the whole set."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from counting import counted

from lossatlas import metrics

rng = np.random.default_rng(0)
LABELS = rng.integers(0, 2, (5, 9, 8))
PREDICTED = np.where(rng.random(LABELS.shape) < 0.2, 1 - LABELS, LABELS)
LOGITS = torch.from_numpy(rng.normal(LABELS, 1))[:, None]

# How each is built, what it takes beside the labels, and what it says.
KINDS = {
    "ConfusionMatrix": (lambda: metrics.ConfusionMatrix(2), PREDICTED, lambda m: m.matrix.tolist()),
    "BoundaryMetrics": (lambda: metrics.BoundaryMetrics(2), PREDICTED, lambda m: m.rows()),
    "ObjectRecall": (lambda: metrics.ObjectRecall(2), PREDICTED, lambda m: m.rows()),
    "ClDice": (lambda: metrics.ClDice(2), PREDICTED, lambda m: m.rows()),
    "TolerantF1": (lambda: metrics.TolerantF1(1), PREDICTED, lambda m: m.compute()),
    "Calibration": (lambda: metrics.Calibration(1), LOGITS, lambda m: m.compute()),
    "ThresholdSearch": (metrics.ThresholdSearch, LOGITS, lambda m: m.best()),
}


def numbers(said) -> list[float]:
    """Every number of what a metric says, in order."""
    if isinstance(said, dict):
        return numbers(list(said.values()))
    if isinstance(said, (list, tuple)):
        return [n for each in said for n in numbers(each)]
    if isinstance(said, metrics.DecisionRule):
        return list(said.offsets)
    return [] if isinstance(said, str) else [float(said)]


@pytest.mark.parametrize("name", KINDS)
def test_the_sums_of_two_parts_make_the_metric_of_the_whole(name):
    build, given, say = KINDS[name]
    whole, parts = build(), [build(), build()]
    whole.update(given, LABELS)
    for part, where in zip(parts, (slice(0, 2), slice(2, None)), strict=True):
        part.update(given[where], LABELS[where])
    merged = build()
    for part in parts:
        before = say(part)
        merged.merge(pickle.loads(pickle.dumps(part)))  # as another process sends it
        merged.merge(build())  # a process without an image
        assert numbers(say(part)) == pytest.approx(numbers(before), nan_ok=True)
    assert numbers(say(merged)) == pytest.approx(numbers(say(whole)), nan_ok=True)


def test_every_metric_of_sums_is_merged_here():
    merging = {name for name in metrics.__all__ if hasattr(getattr(metrics, name), "merge")}
    assert merging == set(KINDS)


def test_a_metric_of_another_kind_or_with_other_arguments_is_refused():
    one = counted(metrics.ConfusionMatrix(2, 255), PREDICTED, LABELS)
    before = one.matrix.copy()
    with pytest.raises(TypeError, match="expected a ConfusionMatrix to add, got ClDice"):
        one.merge(metrics.ClDice(2, 255))
    for other, words in (
        (metrics.ConfusionMatrix(3, 255), "num_classes=3 beside 2"),
        (metrics.ConfusionMatrix(2), "ignore_index=None beside 255"),
    ):
        with pytest.raises(ValueError, match=f"built with the same arguments, got {words}"):
            one.merge(other)
    assert (one.matrix == before).all()
    recall = metrics.ObjectRecall(2, strata=(1, 4))
    with pytest.raises(ValueError, match="strata=array"):
        recall.merge(metrics.ObjectRecall(2, strata=(1, 5)))
    with pytest.raises(ValueError, match="spacing="):
        metrics.BoundaryMetrics(2).merge(metrics.BoundaryMetrics(2, spacing=(1, 2)))
