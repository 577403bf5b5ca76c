"""Segmentation losses under class imbalance: one contract, PyTorch alone."""

from . import functional, weights
from ._base import CompoundLoss, PixelLoss, RegionLoss, SegmentationLoss
from ._registry import build, names, parameters
from .cross_entropy import (
    BalancedCrossEntropyLoss,
    CrossEntropyLoss,
    LogitAdjustedCrossEntropyLoss,
    OHEMCrossEntropyLoss,
    OneVsAllCrossEntropyLoss,
    TopKCrossEntropyLoss,
)
from .distance import BoundaryLoss, HausdorffLoss, signed_distance
from .focal import AsymmetricLoss, FocalLoss, Poly1Loss, UnifiedFocalLoss
from .lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from .region import (
    DiceLoss,
    DiceSemimetricLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    InverseDiceLoss,
    JaccardLoss,
    LogCoshDiceLoss,
    TverskyLoss,
)
from .topology import SoftClDiceLoss

#: Raised when the losses' numbers or their speed change; a benchmark's record carries it.
#: 1: sums over pixels in float32. 2: in float64. 3: NaN stays NaN, an infinite logit is certainty.
#: 4: sums of errors in float32, added up in float64. 5: other chunks.
VERSION = 6

__all__ = [
    "VERSION",
    "AsymmetricLoss",
    "BalancedCrossEntropyLoss",
    "BoundaryLoss",
    "CompoundLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "DiceSemimetricLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "HausdorffLoss",
    "InverseDiceLoss",
    "JaccardLoss",
    "LogCoshDiceLoss",
    "LogitAdjustedCrossEntropyLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "OHEMCrossEntropyLoss",
    "OneVsAllCrossEntropyLoss",
    "PixelLoss",
    "Poly1Loss",
    "RegionLoss",
    "SegmentationLoss",
    "SoftClDiceLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "build",
    "functional",
    "names",
    "parameters",
    "signed_distance",
    "weights",
]
