"""Overlap, decision rules, calibration: streaming, per class, per image and over a whole set."""

from lossatlas.metrics.calibration import Calibration
from lossatlas.metrics.overlap import (
    ConfusionMatrix,
    confusion_per_image,
    dice_from_counts,
    iou_from_counts,
    precision_from_counts,
    recall_from_counts,
    volume_ratio_from_counts,
)
from lossatlas.metrics.thresholds import DecisionRule, OffsetSearch, ThresholdSearch

__all__ = [
    "Calibration",
    "ConfusionMatrix",
    "DecisionRule",
    "OffsetSearch",
    "ThresholdSearch",
    "confusion_per_image",
    "dice_from_counts",
    "iou_from_counts",
    "precision_from_counts",
    "recall_from_counts",
    "volume_ratio_from_counts",
]
