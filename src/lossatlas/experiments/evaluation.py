"""A trained model's predictions on a split, and every overlap metric of them."""

from __future__ import annotations

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
    """

    confusion: metrics.ConfusionMatrix
    per_image: np.ndarray
    predictions: np.ndarray | None


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
    for start in range(0, len(dataset), batch_size):
        images, target = dataset.batch(np.arange(start, min(start + batch_size, len(dataset))))
        prediction = predicted_classes(model(images.to(device))).cpu()
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
    )


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
    """One row a class: IoU, Dice, precision, recall over the pooled split, and its fraction of the pixels."""
    confusion = evaluation.confusion
    target_pixels = _target_pixels(evaluation)
    columns = {
        name: _array(getattr(confusion, name)()) for name in ("iou", "dice", "precision", "recall")
    }
    return [
        {
            "class_index": index,
            "class_name": name,
            **{column: float(values[index]) for column, values in columns.items()},
            "target_fraction": float(target_pixels[index] / max(target_pixels.sum(), 1)),
        }
        for index, name in enumerate(classes)
    ]


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
