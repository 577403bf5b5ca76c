"""A trained model's predictions on a split, and every overlap metric of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossatlas import metrics


@dataclass(frozen=True)
class Evaluation:
    """What a split says of a model.

    Attributes:
        confusion: pooled over the split, void left out.
        per_image: (N, C, 3) counts of true positives, false positives and false negatives.
        predictions: (N, H, W) uint8 predicted classes, or None if they were not asked for.
        mean_logits: (C, C) mean logit of the channel of class c (row) on the pixels of class k (column); NaN
            where the split has no pixel of k. A binary model's one channel is the row of its foreground.
    """

    confusion: metrics.ConfusionMatrix
    per_image: np.ndarray
    predictions: np.ndarray | None
    mean_logits: np.ndarray


def predicted_classes(logits: Tensor) -> Tensor:
    """(N, C, *S) logits to (N, *S) classes: the largest logit, or the sign of a single channel's."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    dataset: Any,
    device: torch.device,
    *,
    batch_size: int = 32,
    keep_predictions: bool = False,
) -> Evaluation:
    """Run ``model`` over ``dataset`` in evaluation mode, batch by batch.

    Args:
        model: gives (B, C, H, W) logits.
        dataset: a ``SegmentationDataset``.
        device: where the model is.
        batch_size: images at a time; it changes memory and speed, not the result.
        keep_predictions: also return the predicted classes of every image.
    """
    was_training = model.training
    model.eval()
    num_classes = len(dataset.classes)
    confusion = metrics.ConfusionMatrix(num_classes, ignore_index=dataset.ignore_index)
    per_image, predictions = [], []
    logit_sums = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for start in range(0, len(dataset), batch_size):
        images, target = dataset.batch(np.arange(start, min(start + batch_size, len(dataset))))
        logits = model(images.to(device)).cpu()
        prediction = predicted_classes(logits)
        logit_sums += _logit_sums(logits, target, num_classes)
        confusion.update(prediction, target)
        per_image.append(
            np.asarray(
                metrics.confusion_per_image(prediction, target, num_classes, dataset.ignore_index)
            )
        )
        if keep_predictions:
            predictions.append(prediction.numpy().astype(np.uint8))
    model.train(was_training)
    return Evaluation(
        confusion,
        np.concatenate(per_image),
        np.concatenate(predictions) if keep_predictions else None,
        _mean_logits(logit_sums, np.concatenate(per_image)),
    )


def _logit_sums(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(C, C) sums of each channel's logits over the pixels of each class; void falls out."""
    channels = logits.movedim(1, 0).flatten(1).double()
    labels = target.flatten()
    labelled = (labels >= 0) & (labels < num_classes)
    sums = torch.zeros(len(channels), num_classes, dtype=torch.float64)
    sums.index_add_(1, labels[labelled], channels[:, labelled])
    if len(channels) == num_classes:
        return sums
    return torch.cat([torch.full((num_classes - 1, num_classes), torch.nan), sums])  # binary


def _mean_logits(sums: Tensor, per_image: np.ndarray) -> np.ndarray:
    """Sums over the pixels of each class divided by their number."""
    pixels = per_image[:, :, [0, 2]].sum((0, 2)).astype(float)
    pixels[pixels == 0] = np.nan
    return sums.numpy() / pixels


def has_background(classes: tuple[str, ...]) -> bool:
    """Whether class 0 is what is left over, so that foreground means are over the others."""
    return classes[0] == "background"


def constant_dice(fractions: np.ndarray, *, foreground_only: bool) -> float:
    """Mean Dice of the best constant prediction: one class everywhere.

    Predicting class c everywhere gives it Dice 2π_c/(1+π_c) and every other class of the set 0.

    Args:
        fractions: (C,) fraction π_c of the labelled pixels; classes with π_c = 0 are no part of the mean.
        foreground_only: leave class 0 out of the mean.
    """
    kept = np.asarray(fractions, dtype=float)[1 if foreground_only else 0 :]
    kept = kept[kept > 0]
    return float((2 * kept / (1 + kept)).max() / len(kept)) if len(kept) else float("nan")


def summary(evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, float]:
    """The numbers of one row of a table, all in [0, 1]."""
    confusion = evaluation.confusion
    foreground = has_background(classes)
    target_pixels = _target_pixels(evaluation)
    per_image_dice = metrics.dice_from_counts(evaluation.per_image)
    start = 1 if foreground else 0
    with np.errstate(all="ignore"):
        image_means = _nanmean(np.asarray(per_image_dice)[:, start:], axis=1)
    return {
        "mean_iou": float(confusion.mean_iou()),
        "mean_dice": float(confusion.mean_dice()),
        "foreground_iou": float(confusion.mean_iou(foreground_only=foreground)),
        "foreground_dice": float(confusion.mean_dice(foreground_only=foreground)),
        "pixel_accuracy": float(confusion.pixel_accuracy()),
        "mean_precision": float(np.nanmean(_array(confusion.precision())[start:])),
        "mean_recall": float(np.nanmean(_array(confusion.recall())[start:])),
        "mean_dice_per_image": float(np.nanmean(image_means)),
        "constant_dice": constant_dice(
            target_pixels / max(target_pixels.sum(), 1), foreground_only=foreground
        ),
    }


def per_class(evaluation: Evaluation, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a class: IoU, Dice, precision and recall over the pooled split, and what its channel says where.

    ``logit_own``, ``logit_other`` and ``logit_background`` are the mean logits of the class's channel on its own
    pixels, on those of the other foreground classes, and on the background (NaN where there is none).
    """
    confusion = evaluation.confusion
    target_pixels = _target_pixels(evaluation)
    columns = {
        name: _array(getattr(confusion, name)()) for name in ("iou", "dice", "precision", "recall")
    }
    start = 1 if has_background(classes) else 0
    others = [[k for k in range(start, len(classes)) if k != c] for c in range(len(classes))]
    logits = evaluation.mean_logits
    return [
        {
            "class_index": index,
            "class_name": name,
            **{column: float(values[index]) for column, values in columns.items()},
            "target_fraction": float(target_pixels[index] / max(target_pixels.sum(), 1)),
            "logit_own": float(logits[index, index]),
            "logit_other": _weighted_mean(
                logits[index, others[index]], target_pixels[others[index]]
            ),
            "logit_background": float(logits[index, 0]) if start else math.nan,
        }
        for index, name in enumerate(classes)
    ]


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the pixels of several classes; NaN if they have none."""
    kept = weights > 0
    return float(np.average(values[kept], weights=weights[kept])) if kept.any() else math.nan


def _target_pixels(evaluation: Evaluation) -> np.ndarray:
    """(C,) labelled pixels of each class: true positives and false negatives."""
    return evaluation.per_image[:, :, [0, 2]].sum((0, 2))


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=float)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the defined values; NaN where there is none (an image without any foreground)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
