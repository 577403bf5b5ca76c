r"""IoU, Dice, precision and recall from integer counts.

For a class :math:`c` let :math:`TP_c` be the pixels that are :math:`c` in the truth and in the
prediction, :math:`FP_c` those that are :math:`c` in the prediction alone and :math:`FN_c` those
that are :math:`c` in the truth alone. Then

.. math::

    \mathrm{IoU}_c = \frac{TP_c}{TP_c + FP_c + FN_c}, \qquad
    \mathrm{Dice}_c = \frac{2\,TP_c}{2\,TP_c + FP_c + FN_c}, \qquad
    \mathrm{precision}_c = \frac{TP_c}{TP_c + FP_c}, \qquad
    \mathrm{recall}_c = \frac{TP_c}{TP_c + FN_c}.

Two conventions hold everywhere in this package:

* a class that is absent from both truth and prediction is *undefined* (NaN) and left out of a mean;
* a class that is absent from the truth but predicted somewhere scores 0 (IoU, Dice, precision);
  its recall is undefined.

Void pixels (``target == ignore_index``) leave every count, whatever was predicted there.
Counts are 64-bit integers from start to end, so a whole test set is summed without rounding and
the order of the batches does not matter. Every function takes torch tensors, on any device, or
NumPy arrays.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Labels = torch.Tensor | npt.NDArray[Any]

TP, FP, FN = 0, 1, 2
"""Positions in the last axis of the counts that :func:`confusion_per_image` returns."""


def _as_labels(labels: Labels, name: str) -> torch.Tensor:
    """Return ``labels`` as an int64 tensor, or say why they are no class indices."""
    if isinstance(labels, torch.Tensor):
        whole = not (labels.is_floating_point() or labels.is_complex())
    else:
        labels = np.asarray(labels)
        whole = labels.dtype.kind in "biu"
    if not whole:
        remedy = "take the argmax (or the threshold) of the scores first"
        if name == "target":
            remedy = "convert whole numbers with target.long(), a mask from 0 to 1 with (target > 0.5).long()"
        raise TypeError(
            f"{name}: expected integer class indices, got dtype {labels.dtype}; {remedy}"
        )
    if isinstance(labels, torch.Tensor):
        return labels.detach().to(torch.int64)
    return torch.from_numpy(labels.astype(np.int64))


def _index(value: object) -> int | None:
    """An integer of any type as int; None for what is none, truth values included."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def _check_integer(value: int, name: str, least: int, hint: str = "") -> int:
    found = _index(value)
    if found is None or found < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}{hint}")
    return found


def _check_num_classes(num_classes: int) -> int:
    hint = " (a binary task has 2 classes: background and foreground)"
    return _check_integer(num_classes, "num_classes", 2, hint)


def _check_ignore_index(value: int | None) -> int | None:
    found = None if value is None else _index(value)
    if found is None and value is not None:
        raise TypeError(
            f"ignore_index: expected an integer or None, got {value!r} of type {type(value).__name__}"
        )
    if found is not None and not -(2**63) <= found < 2**63:
        raise ValueError(f"ignore_index: expected a label of 64 bits at most, got {found}")
    return found


def _is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether it is one finite number from ``low`` to ``high``; a text and several numbers are none."""
    try:
        return math.isfinite(value) and low <= value <= high  # type: ignore[arg-type,operator]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def _check_indices(values: Iterable[int], name: str, count: int, hint: str = "") -> list[int]:
    """Class indices below ``count``, as integers."""
    try:
        found = [_index(c) for c in values]
    except TypeError:  # one number
        found = [None]
    known = [c for c in found if c is not None and 0 <= c < count]
    if isinstance(values, str) or len(known) < len(found):
        raise ValueError(f"{name}: expected {hint}indices 0…{count - 1}, got {values!r}")
    return known


def _channel_hint(name: str, shape: Sequence[int], wanted: Sequence[int]) -> str:
    """What to do where (N, 1, *S), or a one-hot map (N, C, *S), came in place of (N, *S), or ""."""
    if len(shape) < 2 or (*shape[:1], *shape[2:]) != tuple(wanted):
        return ""
    if shape[1] == 1:
        return f"; take the axis of one channel out with {name}.squeeze(1)"
    return f"; one channel a class becomes class indices by {name}.argmax(1)"


def _void(target: torch.Tensor, ignore_index: int | None) -> torch.Tensor:
    """Where the label says nothing."""
    if ignore_index is None:
        return torch.zeros_like(target, dtype=torch.bool)
    return target == ignore_index


def _check_range(
    labels: torch.Tensor, num_classes: int, name: str, ignore_index: int | None = None
) -> None:
    """Refuse what is no class in the target or in "pred"; void pixels are left out already."""
    if labels.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(labels))
    if low < 0 or high >= num_classes:
        bad = low if low < 0 else high
        hint = f"void pixels need ignore_index (now {ignore_index})"
        if name == "pred":
            hint = "num_classes or the argmax axis is wrong"
        if num_classes == 2 and high == 255 and bool(((labels == 0) | (labels == 255)).all()):
            hint = f"the mask looks scaled by 255: pass ({name} > 127)"
        raise ValueError(f"{name}: expected class indices 0…{num_classes - 1}, got {bad}; {hint}")


def _pairs(
    pred: Labels, target: Labels, num_classes: int, ignore_index: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (flat code ``target * C + pred``, keep mask, shape-preserving target)."""
    pred_t, target_t = _as_labels(pred, "pred"), _as_labels(target, "target")
    if pred_t.shape != target_t.shape:
        hint = (
            _channel_hint("target", target_t.shape, pred_t.shape)
            or _channel_hint("pred", pred_t.shape, target_t.shape)
            or "; pred holds class indices, not scores per class"
        )
        raise ValueError(
            f"pred and target: expected the same shape, got {tuple(pred_t.shape)} and "
            f"{tuple(target_t.shape)}{hint}"
        )
    target_t, ignore_index = target_t.to(pred_t.device), _check_ignore_index(ignore_index)
    keep = ~_void(target_t, ignore_index)
    kept_target, kept_pred = target_t[keep], pred_t[keep]
    _check_range(kept_target, num_classes, "target", ignore_index)
    _check_range(kept_pred, num_classes, "pred")
    return kept_target * num_classes + kept_pred, keep, target_t


def _divide(numerator: Int64Array, denominator: Int64Array) -> Float64Array:
    """Divide in float64; NaN where the denominator is 0, without a warning."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _split_counts(counts: npt.ArrayLike) -> tuple[Int64Array, Int64Array, Int64Array]:
    array = np.asarray(counts)
    if array.ndim == 0 or array.shape[-1] != 3:
        raise ValueError(f"counts: expected a last axis of 3 [tp, fp, fn], got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"counts: expected integers, got dtype {array.dtype}")
    array = array.astype(np.int64)
    if (array < 0).any():
        raise ValueError(f"counts: expected no negative count, got {int(array.min())}")
    return array[..., TP], array[..., FP], array[..., FN]


def iou_from_counts(counts: npt.ArrayLike) -> Float64Array:
    """Intersection over union, tp / (tp + fp + fn), of counts (..., 3) → (...).

    NaN where the class is absent from truth and prediction.

    >>> iou_from_counts([[1, 1, 2], [0, 3, 0], [0, 0, 0]])
    array([0.25, 0.  ,  nan])
    """
    tp, fp, fn = _split_counts(counts)
    return _divide(tp, tp + fp + fn)


def dice_from_counts(counts: npt.ArrayLike) -> Float64Array:
    """Dice coefficient (F1), 2 tp / (2 tp + fp + fn), of counts (..., 3) → (...).

    NaN where the class is absent from truth and prediction. Dice = 2 IoU / (1 + IoU).

    >>> dice_from_counts([[1, 1, 2], [0, 3, 0], [0, 0, 0]])
    array([0.4, 0. , nan])
    """
    tp, fp, fn = _split_counts(counts)
    return _divide(2 * tp, 2 * tp + fp + fn)


def precision_from_counts(counts: npt.ArrayLike) -> Float64Array:
    """Precision, tp / (tp + fp), of counts (..., 3) → (...).

    NaN where the class is absent from truth and prediction; 0 where it is in the truth but
    never predicted (nothing that was found is right), as scikit-learn's ``zero_division=0`` has it.

    >>> precision_from_counts([[1, 1, 2], [0, 0, 5], [0, 0, 0]])
    array([0.5, 0. , nan])
    """
    tp, fp, fn = _split_counts(counts)
    result = _divide(tp, tp + fp)
    result[(tp + fp == 0) & (fn > 0)] = 0.0
    return result


def recall_from_counts(counts: npt.ArrayLike) -> Float64Array:
    """Recall (class accuracy), tp / (tp + fn), of counts (..., 3) → (...).

    NaN where the class is absent from the truth.

    >>> recall_from_counts([[1, 1, 3], [0, 3, 0]])
    array([0.25,  nan])
    """
    tp, _, fn = _split_counts(counts)
    return _divide(tp, tp + fn)


def volume_ratio_from_counts(counts: npt.ArrayLike) -> Float64Array:
    """Predicted over true volume, (tp + fp) / (tp + fn), of counts (..., 3) → (...).

    1 where as many pixels are predicted as are true (whether or not the same ones), above 1 where too
    many are. NaN where the class is absent from the truth. It equals recall / precision.

    >>> volume_ratio_from_counts([[1, 1, 3], [2, 4, 0], [0, 3, 0]])
    array([0.5, 3. , nan])
    """
    tp, fp, fn = _split_counts(counts)
    return _divide(tp + fp, tp + fn)


def confusion_per_image(
    pred: Labels, target: Labels, num_classes: int, ignore_index: int | None = None
) -> Int64Array:
    """Counts [tp, fp, fn] per image and class.

    Args:
        pred: predicted class indices, shape (N, *S); one image gets its batch axis by x[None].
        target: true class indices, shape (N, *S).
        num_classes: number C of classes; a binary task has 2.
        ignore_index: value of ``target`` that leaves every count, or None.

    Returns:
        int64 array of shape (N, C, 3).

    Raises:
        TypeError: scores in place of class indices.
        ValueError: shapes that differ, or an index outside 0…C−1.

    >>> confusion_per_image(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 9]]), 2, ignore_index=9)
    array([[[1, 0, 1],
            [1, 1, 0]]])
    """
    return _counts(_matrix_per_image(pred, target, num_classes, ignore_index))


def _matrix_per_image(
    pred: Labels, target: Labels, num_classes: int, ignore_index: int | None
) -> Int64Array:
    """(N, C, C) confusion matrices, one an image: rows the truth, columns the prediction."""
    classes = _check_num_classes(num_classes)
    code, keep, target_t = _pairs(pred, target, classes, ignore_index)
    if target_t.ndim == 0:
        raise ValueError("target: expected a leading batch axis (N, *S), got a scalar")
    images = target_t.shape[0]
    cells = classes * classes
    if images == 0:
        return np.zeros((0, classes, classes), dtype=np.int64)
    image = torch.arange(images, device=code.device).reshape(-1, *[1] * (target_t.ndim - 1))
    flat = image.expand(target_t.shape)[keep] * cells + code
    matrix = torch.bincount(flat, minlength=images * cells).reshape(images, classes, classes)
    return matrix.cpu().numpy()


def _counts(matrix: Int64Array) -> Int64Array:
    """Counts [tp, fp, fn] (..., C, 3) of confusion matrices (..., C, C)."""
    tp = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([tp, matrix.sum(axis=-2) - tp, matrix.sum(axis=-1) - tp], axis=-1)


class _Summed:
    """A metric that keeps sums alone: those of two parts of a set make those of the whole."""

    #: The attributes that are sums; the others are what the metric was built with.
    _SUMS: tuple[str, ...]

    def merge(self, other: Self) -> None:
        """Add what another metric has seen of the set, in another process for example.

        Each part once: begin with a new metric, and add all parts to that.

        Raises:
            TypeError: another kind of metric.
            ValueError: one that was built with other arguments. The sums then stay as they were.
        """
        if type(other) is not type(self):
            raise TypeError(
                f"other: expected a {type(self).__name__} to add, got {type(other).__name__}"
            )
        own, added = vars(self), vars(other)
        for name in own.keys() - set(self._SUMS):
            if name not in added or not np.array_equal(own[name], added[name]):
                raise ValueError(
                    f"other: expected a metric built with the same arguments, got {name}={added.get(name)!r} "
                    f"beside {own[name]!r}"
                )
        for name in self._SUMS:
            setattr(self, name, own[name] + added[name])


class ConfusionMatrix(_Summed):
    """Confusion matrix of a whole set, summed batch by batch in 64-bit integers.

    Attribute ``matrix`` is the (C, C) int64 array whose rows are the truth and columns the
    prediction, as in scikit-learn.

    Args:
        num_classes: number C of classes; a binary task has 2.
        ignore_index: value of the target that leaves every count, or None.

    >>> matrix = ConfusionMatrix(3, ignore_index=255)
    >>> matrix.update(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 255]))
    >>> matrix.iou()                       # class 2 is nowhere: undefined
    array([0.5, 0.5, nan])
    >>> matrix.mean_iou()                  # … and left out of the mean
    0.5
    """

    _SUMS = ("matrix",)

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        self.num_classes = _check_num_classes(num_classes)
        self.ignore_index = _check_ignore_index(ignore_index)
        self.matrix: Int64Array = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)

    def update(self, pred: Labels, target: Labels) -> None:
        """Add a batch: class indices ``pred`` and ``target`` of the same shape, whatever it is.

        Every entry counts as a pixel. Integer one-hot maps (N, C, *S) on both sides would count each pixel C
        times, as class 0 or 1, and cannot be told from volumes: take their ``argmax(1)`` first.

        Raises:
            TypeError: scores in place of class indices.
            ValueError: shapes that differ, or an index outside 0…C−1. The matrix then stays as
                it was.
        """
        code, _, _ = _pairs(pred, target, self.num_classes, self.ignore_index)
        counts = torch.bincount(code, minlength=self.num_classes**2)
        self.matrix += counts.reshape(self.num_classes, self.num_classes).cpu().numpy()

    def update_per_image(self, pred: Labels, target: Labels) -> Int64Array:
        """Add a batch (N, *S), and return its counts as :func:`confusion_per_image` does, in one pass."""
        matrix = _matrix_per_image(pred, target, self.num_classes, self.ignore_index)
        self.matrix += matrix.sum(axis=0)
        return _counts(matrix)

    def counts(self) -> Int64Array:
        """Counts [tp, fp, fn] per class, shape (C, 3)."""
        return _counts(self.matrix)

    def iou(self) -> Float64Array:
        """IoU per class, shape (C,); NaN where a class is absent from truth and prediction."""
        return iou_from_counts(self.counts())

    def dice(self) -> Float64Array:
        """Dice per class, shape (C,); NaN where a class is absent from truth and prediction."""
        return dice_from_counts(self.counts())

    def precision(self) -> Float64Array:
        """Precision per class, shape (C,); 0 where a class is in the truth but never predicted."""
        return precision_from_counts(self.counts())

    def recall(self) -> Float64Array:
        """Recall per class, shape (C,); NaN where a class is absent from the truth."""
        return recall_from_counts(self.counts())

    def volume_ratio(self) -> Float64Array:
        """Predicted over true pixels per class, shape (C,); NaN where a class is absent from the truth."""
        return volume_ratio_from_counts(self.counts())

    def mean_iou(self, foreground_only: bool = False) -> float:
        """Mean of :meth:`iou` over the classes where it is defined (NaN if there is none).

        ``foreground_only`` leaves out class 0, the background.
        """
        return _nanmean(self.iou(), foreground_only)

    def mean_dice(self, foreground_only: bool = False) -> float:
        """Mean of :meth:`dice` over the classes where it is defined (NaN if there is none)."""
        return _nanmean(self.dice(), foreground_only)

    def mean_precision(self, foreground_only: bool = False) -> float:
        """Mean of :meth:`precision` over the classes where it is defined (NaN if there is none)."""
        return _nanmean(self.precision(), foreground_only)

    def mean_recall(self, foreground_only: bool = False) -> float:
        """Mean of :meth:`recall` over the classes where it is defined: SegNet's class average."""
        return _nanmean(self.recall(), foreground_only)

    def mean_volume_ratio(self, foreground_only: bool = False) -> float:
        """Mean of :meth:`volume_ratio` over the classes where it is defined (NaN if there is none)."""
        return _nanmean(self.volume_ratio(), foreground_only)

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that are right (SegNet's global accuracy); NaN if none."""
        total = int(self.matrix.sum())
        return float(np.trace(self.matrix) / total) if total else float("nan")


def _nanmean(values: Float64Array, foreground_only: bool) -> float:
    values = values[1:] if foreground_only else values
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
