"""Overlap, boundaries, centre lines, calibration and decision rules of segmentations.

Functions take one pair of masks; classes (:class:`ConfusionMatrix`, :class:`BoundaryMetrics`,
:class:`ObjectRecall`, :class:`ClDice`, :class:`TolerantF1`, :class:`Calibration`,
:class:`ThresholdSearch`, :class:`OffsetSearch`) take batch after batch, and their memory does not
grow with the set. Those that keep sums alone, all but the last, have ``merge``: it adds the sums of
another part of the set, in another process.
"""

from lossatlas.metrics.boundary import (
    BoundaryMetrics,
    ObjectRecall,
    average_surface_distance,
    boundary_iou,
    hausdorff_distance,
    normalized_surface_dice,
    surface_distances,
)
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
from lossatlas.metrics.pixels import sample_pixels
from lossatlas.metrics.plug_in import PlugInRule, calibrate
from lossatlas.metrics.thresholds import DecisionRule, OffsetSearch, ThresholdSearch
from lossatlas.metrics.tolerance import TolerantF1
from lossatlas.metrics.topology import ClDice

__all__ = [
    "BoundaryMetrics",
    "Calibration",
    "ClDice",
    "ConfusionMatrix",
    "DecisionRule",
    "ObjectRecall",
    "OffsetSearch",
    "PlugInRule",
    "ThresholdSearch",
    "TolerantF1",
    "average_surface_distance",
    "boundary_iou",
    "calibrate",
    "confusion_per_image",
    "dice_from_counts",
    "hausdorff_distance",
    "iou_from_counts",
    "normalized_surface_dice",
    "precision_from_counts",
    "recall_from_counts",
    "sample_pixels",
    "surface_distances",
    "volume_ratio_from_counts",
]
