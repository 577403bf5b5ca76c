"""F1 of thin structures with a tolerance of a few pixels, as papers on cracks and vessels report it.

A predicted pixel is right if a true one is within the tolerance, and a true pixel is found if a predicted one is::

    precision = |{x in P : d(x, T) <= r}| / |P|      recall = |{x in T : d(x, P) <= r}| / |T|

with Euclidean distances between pixel centres. At r = 0 the F1 is Dice. Values are much above strict Dice for
structures of a few pixels' width: never compare the two.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lossatlas.metrics.boundary import _check_images, _class_maps, _length, _within
from lossatlas.metrics.overlap import Labels, _check_ignore_index, _Summed


class TolerantF1(_Summed):
    """Precision, recall and F1 of a two-class set at a tolerance, over all its images together.

    Args:
        tolerance: in pixels, itself included.
        ignore_index: value of the target that belongs to no class, or None; such pixels are neither right nor wrong.

    >>> truth = np.zeros((1, 5, 5), dtype=int)
    >>> truth[0, 2] = 1
    >>> shifted = np.roll(truth, 2, axis=1)
    >>> metric = TolerantF1(2)
    >>> metric.update(shifted, truth)
    >>> metric.compute()
    {'precision': 1.0, 'recall': 1.0, 'f1': 1.0}
    """

    _SUMS = ("_counts",)

    def __init__(self, tolerance: float, ignore_index: int | None = None) -> None:
        self.tolerance = _length(tolerance, "tolerance", "pixels")
        self.ignore_index = _check_ignore_index(ignore_index)
        self._counts = np.zeros(4, dtype=np.int64)

    def update(self, pred: Labels, target: Labels) -> None:
        """Add images: classes 0 and 1, (N, H, W).

        Raises:
            TypeError: scores in place of class indices.
            ValueError: shapes that differ, no batch axis, volumes, or a class other than 0 and 1. The
                counts then stay as they were.
        """
        predicted, truth = _class_maps(pred, target, 2, self.ignore_index)
        _check_images(truth.shape)
        for p, t in zip(predicted == 1, truth == 1, strict=True):
            self._counts += [int((p & self._near(t)).sum()), int(p.sum()),
                             int((t & self._near(p)).sum()), int(t.sum())]  # fmt: skip

    def _near(self, mask: np.ndarray) -> np.ndarray:
        if not mask.any():
            return np.zeros_like(mask)
        distance: np.ndarray = ndimage.distance_transform_edt(~mask)
        return _within(distance, self.tolerance)

    def compute(self) -> dict[str, float]:
        """``precision``, ``recall`` and ``f1``; without a predicted and a true pixel all are NaN.

        With predicted pixels alone the recall is NaN, and the F1 is 0, as Dice is; with true ones alone all are 0.
        """
        right, predicted, found, true = (int(count) for count in self._counts)
        precision = right / predicted if predicted else float("nan")
        recall = found / true if true else float("nan")
        if not predicted and true:
            precision = 0.0
        f1 = 2 * precision * recall / (precision + recall) if right and found else 0.0
        if not predicted and not true:
            f1 = float("nan")
        return {"precision": precision, "recall": recall, "f1": f1}
