"""What a trained network is worth: the part of its record that the evaluation makes.

No weight depends on this module: where it or what it calls changes, a run is evaluated again
(:mod:`lossatlas.experiments.reassessment`), and not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lossatlas.experiments.components import has_background
from lossatlas.experiments.config import RunConfig
from lossatlas.experiments.evaluation import (
    THEORY_VERSION,
    Evaluation,
    constant_dice,
    evaluate,
    oracle,
    per_class,
    summary,
    theory_rule,
    tune,
)
from lossatlas.experiments.health import reach
from lossatlas.experiments.outcome import began
from lossatlas.metrics import DecisionRule


@dataclass(frozen=True)
class Assessment:
    """What the evaluation leaves of a run.

    Attributes:
        record: its part of ``run.json``.
        per_image: a row a decision rule, test image and class: ``tp``, ``fp``, ``fn``; ``argmax`` comes first.
        predictions: (N, H, W) uint8 classes of the test images by ``argmax``.
    """

    record: dict[str, Any]
    per_image: pd.DataFrame
    predictions: np.ndarray


def assess(
    model: torch.nn.Module,
    config: RunConfig,
    weight: Any,
    val_set: Any,
    test_set: Any,
    device: torch.device,
) -> Assessment:
    """Choose the decision rules on the validation split alone, and judge the test split by each of them once.

    Args:
        model: the trained network, on ``device``.
        config: the run's loss and its parameters, and whether boundaries are measured.
        weight: (C,) class weights of the loss, or None.
        val_set: the rules are chosen on it.
        test_set: what is judged.
        device: where the network is.
    """
    tuned = tune(model, val_set, device)
    rules = {
        "tuned": tuned.rule,
        "theory": theory_rule(
            tuned,
            config.loss,
            weight,
            test_set.mode,
            len(test_set.classes),
            config.loss_params,
        ),
    }
    evaluation = evaluate(
        model, test_set, device, keep_predictions=True, rules=rules, boundary=config.boundary
    )
    assert evaluation.predictions is not None
    metrics = summary(evaluation, test_set.classes)
    best = oracle(model, test_set, device)
    record = {
        "metrics": metrics,
        "oracle": best | {"began": began(best["oracle_dice"], metrics["constant_dice"])},
        "reach": reach(model, val_set, device),
        "per_class": per_class(evaluation, test_set.classes),
        "rules": _rules(evaluation, rules, test_set.classes),
        "theory_version": THEORY_VERSION,
        "calibration": evaluation.calibration,
        "boundary": evaluation.boundary,
        "size_recall": evaluation.size_recall,
        "validation": {
            "foreground_dice": tuned.dice_at_half,
            "foreground_dice_tuned": tuned.dice_tuned,
            "constant_dice": constant_dice(
                _fractions(val_set), foreground_only=has_background(val_set.classes)
            ),
        },
        "mode": test_set.mode,
        "classes": list(test_set.classes),
    }
    return Assessment(record, _per_image_table(evaluation, test_set), evaluation.predictions)


def _fractions(dataset: Any) -> np.ndarray:
    """(C,) fraction of a split's labelled pixels that each class has."""
    pixels = np.asarray(dataset.image_counts()).sum(0).astype(float)
    return pixels / max(pixels.sum(), 1.0)


def _rules(
    evaluation: Evaluation, rules: Mapping[str, DecisionRule], classes: tuple[str, ...]
) -> dict[str, Any]:
    """What each decision rule makes of the test split: its offsets, the summary, a row a class."""
    channels = len(rules["tuned"].offsets)
    return {
        name: {
            "offsets": list(rule.offsets),
            "metrics": summary(evaluation, classes, name),
            "per_class": per_class(evaluation, classes, name),
        }
        for name, rule in {"argmax": DecisionRule.argmax(channels), **rules}.items()
    }


def _per_image_table(evaluation: Evaluation, dataset: Any) -> pd.DataFrame:
    """(N, C, 3) counts of every rule as a table, one row an image and class; ``argmax`` comes first."""
    rules = list(evaluation.by_rule)
    images, classes, _ = evaluation.per_image.shape
    counts = np.concatenate(
        [found.per_image.reshape(-1, 3) for found in evaluation.by_rule.values()]
    )
    return pd.DataFrame(
        {
            "rule": np.repeat(np.asarray(rules, dtype=object), images * classes),
            "image_id": np.tile(
                np.repeat(np.asarray(dataset.ids, dtype=object), classes), len(rules)
            ),
            "group": np.tile(
                np.repeat(np.asarray(dataset.groups, dtype=object), classes), len(rules)
            ),
            "class_index": np.tile(np.arange(classes), images * len(rules)),
            "tp": counts[:, 0],
            "fp": counts[:, 1],
            "fn": counts[:, 2],
        }
    )
