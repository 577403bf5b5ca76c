"""Overlap metrics from integer counts: per class, per image and over a whole set."""

from lossatlas.metrics.overlap import (
    ConfusionMatrix,
    confusion_per_image,
    dice_from_counts,
    iou_from_counts,
    precision_from_counts,
    recall_from_counts,
)

__all__ = [
    "ConfusionMatrix",
    "confusion_per_image",
    "dice_from_counts",
    "iou_from_counts",
    "precision_from_counts",
    "recall_from_counts",
]
