"""Metrics of a set in batches, or in two parts that are merged, are those of the whole set; memory does not grow."""

from __future__ import annotations

import itertools
import pickle
import sys

import numpy as np
import pytest
import torch
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from lossatlas import metrics

rng = np.random.default_rng(0)
LABELS = rng.integers(0, 2, (5, 9, 8))
PREDICTED = np.where(rng.random(LABELS.shape) < 0.2, 1 - LABELS, LABELS)
LOGITS = torch.from_numpy(rng.normal(LABELS, 1))[:, None]
LABELS[rng.random(LABELS.shape) < 0.1] = 255  # void

# How each is built, what it takes beside the labels, and what it says.
KINDS = {
    "ConfusionMatrix": (lambda: metrics.ConfusionMatrix(2, 255), PREDICTED, lambda m: m.matrix.tolist()),
    "BoundaryMetrics": (lambda: metrics.BoundaryMetrics(2, 255), PREDICTED, lambda m: m.rows()),
    "ObjectRecall": (lambda: metrics.ObjectRecall(2, 255), PREDICTED, lambda m: m.rows()),
    "ClDice": (lambda: metrics.ClDice(2, 255), PREDICTED, lambda m: m.rows()),
    "TolerantF1": (lambda: metrics.TolerantF1(1, 255), PREDICTED, lambda m: m.compute()),
    "Calibration": (lambda: metrics.Calibration(1, ignore_index=255), LOGITS, lambda m: m.compute()),
    "ThresholdSearch": (lambda: metrics.ThresholdSearch(255), LOGITS,
                        lambda m: (*m.best(), *m.matrix(0.7).ravel())),
}  # fmt: skip


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


# The calibration's sums round: its own test has a tolerance.
@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"Calibration"}))
@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 4)))
def test_a_set_in_batches_is_the_set_as_a_whole(name, cuts):
    build, given, say = KINDS[name]
    whole, parts = counted(build(), given, torch.from_numpy(LABELS)), build()
    edges = [0, *sorted(cuts), len(LABELS)]
    for low, high in itertools.pairwise(edges):
        parts.update(given[low:high], LABELS[low:high])
    # equal to the bit: an image's numbers are added one after the other either way
    assert str(say(parts)) == str(say(whole))


@pytest.mark.parametrize("name", KINDS)
def test_memory_does_not_grow_with_the_set(name):
    def held(metric):
        return sum(
            v.nbytes if isinstance(v, np.ndarray) else sys.getsizeof(v)
            for v in vars(metric).values()
        )

    build, given, _ = KINDS[name]
    metric = counted(build(), given[:1], LABELS[:1])
    before = held(metric)
    for _ in range(20):
        metric.update(given, LABELS)
    assert held(metric) == before < (2e7 if name == "ThresholdSearch" else 4000)
    assert not any(isinstance(v, torch.Tensor) for v in vars(metric).values())


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
