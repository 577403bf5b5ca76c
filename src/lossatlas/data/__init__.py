"""Data sets: digits without a download, CamVid, and how unbalanced they are.

>>> from lossatlas import data
>>> data.load("digits", "train", train_size=8, image_size=32, objects=2)
SegmentationDataset('digits', 'train', 8 images of 32×32, 11 classes, mode='multiclass')
"""

from lossatlas.data.dataset import SegmentationDataset, class_fractions, image_counts
from lossatlas.data.errors import DataError
from lossatlas.data.registry import is_available, load, load_labels, names, parameters

__all__ = [
    "DataError",
    "SegmentationDataset",
    "class_fractions",
    "image_counts",
    "is_available",
    "load",
    "load_labels",
    "names",
    "parameters",
]
