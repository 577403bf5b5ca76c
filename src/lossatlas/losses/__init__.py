"""Segmentation losses under class imbalance: one contract, PyTorch alone."""

from . import functional, weights
from ._base import CompoundLoss, SegmentationLoss
from ._registry import build, names, parameters
from .cross_entropy import CrossEntropyLoss
from .focal import FocalLoss
from .lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from .region import DiceLoss

__all__ = [
    "CompoundLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "SegmentationLoss",
    "build",
    "functional",
    "names",
    "parameters",
    "weights",
]
