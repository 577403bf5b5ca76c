r"""How far apart two outlines are: distances between surfaces, and overlap of boundaries.

For masks P (prediction) and T (truth) on a grid in any number of dimensions, the *surface* ∂P is the set
of pixels of P with a neighbour across a face that is not in P; what lies beyond the image counts as
outside, so a mask cut by the border has a surface there. With the Euclidean distance d, the distances
:math:`D_P = \{\min_{t\in\partial T} d(p,t) : p\in\partial P\}` and likewise :math:`D_T`, a tolerance
:math:`\tau`, and the band :math:`P_\delta` of the pixels of P at most :math:`\delta` from the nearest
pixel outside P:

.. math::

    \mathrm{HD} &= \max(\max D_P, \max D_T), \qquad
    \mathrm{HD95} = \max(\mathrm{P}_{95}(D_P), \mathrm{P}_{95}(D_T)), \\
    \mathrm{ASSD} &= \frac{\sum D_P + \sum D_T}{|D_P| + |D_T|}, \qquad
    \mathrm{NSD}_\tau = \frac{|\{D_P \le \tau\}| + |\{D_T \le \tau\}|}{|D_P| + |D_T|}, \\
    \mathrm{BF}_\tau &= \frac{2\,\pi\rho}{\pi + \rho}, \quad
    \pi = \frac{|\{D_P \le \tau\}|}{|D_P|},\; \rho = \frac{|\{D_T \le \tau\}|}{|D_T|}, \qquad
    \mathrm{BIoU}_\delta = \frac{|P_\delta \cap T_\delta|}{|P_\delta \cup T_\delta|}.

**Units.** Distances, tolerances and δ are in the units of ``spacing``: the size of a pixel along every
axis, one number or one an axis; None means pixels of size 1.

**Empty masks.** Both empty: every number is NaN, undefined, and left out of a mean. One empty: the
scores (NSD, BF, BIoU) are 0 and the distances infinite; a mean over images leaves the infinite ones out
and says how many finite ones there were.

**Void pixels** belong to no class in truth or prediction, so that both outlines run along them.

**Beside other code.** A surface pixel counts 1, as in MONAI; DeepMind's ``surface-distance`` weights
elements between the pixels by their area, which differs on slanted outlines and on pixels that are not
cubes. Percentiles interpolate linearly, as in NumPy. Boundary IoU follows the text of its paper
(Euclidean distance); the authors' code erodes by a 3×3 square, which differs at reflex corners and on
slants.

Sources: Huttenlocher et al. 1993 (HD); Heimann et al. 2009 (ASSD); Nikolov et al. 2021 (NSD); Csurka et
al. 2013 (BF), with SegNet's tolerance (Badrinarayanan et al. 2017); Cheng et al. 2021 (boundary IoU);
Maier-Hein et al. 2024 for the choice among their variants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossatlas.metrics.overlap import (
    Float64Array,
    Labels,
    _as_labels,
    _channel_hint,
    _check_ignore_index,
    _check_indices,
    _check_num_classes,
    _check_range,
    _is_number,
    _Summed,
    _void,
)

BoolArray = npt.NDArray[np.bool_]
Mask = torch.Tensor | npt.NDArray[Any]
Spacing = float | Sequence[float] | None

#: Tolerance of a set's NSD, in units of the spacing.
NSD_TOLERANCE = 1.0
#: Tolerance of the boundary F score as a share of the image's diagonal: SegNet's.
BF_TOLERANCE = 0.0075
#: Width of the band of boundary IoU as a share of the image's diagonal: Cheng et al.'s.
BAND_WIDTH = 0.02
#: Smallest sizes (pixels) of the strata of objects.
SIZE_STRATA = (1, 4, 16, 64, 256, 1024, 4096)


def _ndimage() -> ModuleType:
    """SciPy's image functions, imported where they are needed: the losses and overlaps do without."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError(
            "boundary metrics need SciPy: install lossatlas[experiments], or scipy itself"
        ) from error
    return ndimage


def _as_mask(mask: Mask, name: str) -> BoolArray:
    if isinstance(mask, torch.Tensor):  # NumPy has no bfloat16
        mask = mask.detach().cpu()
        array = (mask.float() if mask.is_floating_point() else mask).numpy()
    else:
        array = np.asarray(mask)
    if array.dtype != np.bool_:
        if array.dtype.kind not in "iu" or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"{name}: expected a mask of booleans or of 0 and 1, got dtype {array.dtype} with "
                f"values {np.unique(array)[:4].tolist()}…; compare with the class first"
            )
        array = array.astype(np.bool_)
    if array.ndim == 0:
        raise ValueError(f"{name}: expected a mask with at least one axis, got a scalar")
    return array


def _as_pair(pred: Mask, target: Mask) -> tuple[BoolArray, BoolArray]:
    first, second = _as_mask(pred, "pred"), _as_mask(target, "target")
    if first.shape != second.shape:
        raise ValueError(
            f"pred and target: expected the same shape, got {first.shape} and {second.shape}"
        )
    if (axis := _flat_axis(first.shape)) is not None:
        raise ValueError(
            f"pred and target: expected one image (H, W) or volume (D, H, W), got {first.shape}: in three "
            f"axes a map that is one pixel thick is surface throughout; take a channel out with "
            f".squeeze({axis}), give images one by one, and a volume of depth 1 as its slice, volume[0]"
        )
    return first, second


def _flat_axis(shape: tuple[int, ...]) -> int | None:
    """The first axis of length 1 of a map of three axes or more: every one of its pixels is surface."""
    return shape.index(1) if len(shape) > 2 and 1 in shape else None


def _as_spacing(spacing: Spacing, dimensions: int | None) -> tuple[float, ...]:
    """One number an axis; None for ``dimensions`` where their number shows later."""
    try:
        values = np.asarray(1.0 if spacing is None else spacing, dtype=float)
    except (TypeError, ValueError):  # a text, nested numbers
        values = np.empty(0)
    axes = dimensions or max(values.size, 1)
    if values.ndim == 0:
        values = np.full(axes, float(values))
    if values.shape != (axes,) or not (np.isfinite(values) & (values > 0)).all():
        each = f"each of {dimensions} axes" if dimensions else "each axis"
        raise ValueError(
            f"spacing: expected one positive number, or one for {each}, got {spacing!r}"
        )
    return tuple(values.tolist())


def _length(value: float, name: str, unit: str = "the units of spacing") -> float:
    if not _is_number(value, 0):
        raise ValueError(
            f"{name}: expected a length, one number of at least 0 in {unit}, got {value!r}"
        )
    return float(value)


def _within(distances: npt.NDArray[Any], tolerance: float) -> BoolArray:
    """Where a distance is at most the tolerance: a multiple of the spacing must not be missed by rounding."""
    within: BoolArray = distances <= tolerance * (1 + 1e-9)
    return within


def _diagonal(shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    return math.sqrt(sum((n * s) ** 2 for n, s in zip(shape, spacing, strict=True)))


def _band_width(
    distance: float | None, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> float:
    step = min(spacing)
    if distance is not None:
        if _length(distance, "distance") < step:
            raise ValueError(
                f"distance: expected at least one pixel ({step}), got {distance!r}: the band would "
                "be empty"
            )
        return float(distance)
    return step * max(1, round(BAND_WIDTH * _diagonal(shape, spacing) / step))


def _crop(pred: BoolArray, target: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Both masks in the box around either, with a frame of one pixel that is outside of both."""
    either = pred | target
    box = []
    for axis in range(either.ndim):
        others = tuple(a for a in range(either.ndim) if a != axis)
        where = np.flatnonzero(either.any(axis=others))
        box.append(slice(where[0], where[-1] + 1) if len(where) else slice(0, 0))
    return np.pad(pred[tuple(box)], 1), np.pad(target[tuple(box)], 1)


def _surface(framed: BoolArray) -> BoolArray:
    """Surface of a mask whose outermost pixels are all outside."""
    inner = (slice(1, -1),) * framed.ndim
    inside = framed[inner].copy()
    for axis in range(framed.ndim):
        for neighbour in (slice(None, -2), slice(2, None)):
            inside &= framed[(*inner[:axis], neighbour, *inner[axis + 1 :])]
    result = framed.copy()
    result[inner] &= ~inside
    return result


def _distances(
    pred: BoolArray, target: BoolArray, spacing: tuple[float, ...]
) -> tuple[Float64Array, Float64Array]:
    edges = [_surface(mask) for mask in _crop(pred, target)]
    found = []
    for own, other in (edges, edges[::-1]):
        if not own.any():
            found.append(np.empty(0))
        elif not other.any():
            found.append(np.full(int(own.sum()), math.inf))
        else:
            found.append(_ndimage().distance_transform_edt(~other, sampling=spacing)[own])
    return found[0], found[1]


def surface_distances(
    pred: Mask, target: Mask, *, spacing: Spacing = None
) -> tuple[Float64Array, Float64Array]:
    """Distances from every surface pixel of ``pred`` to the surface of ``target``, and back.

    Args:
        pred, target: one mask each, of the same shape, boolean or 0 and 1, in any number of dimensions. A
            batch (N, H, W) would be measured as a volume. An axis of length 1 beside two others is
            refused: it is a channel that was kept, or a volume that is to be given as its slice. Of two axes
            (1, W) is an image of one row.
        spacing: size of a pixel along the axes.

    Returns:
        two arrays, as long as the surfaces have pixels, in units of ``spacing``: infinite where the
        other mask is empty.

    >>> a, b = np.zeros((2, 1, 6), dtype=int)
    >>> a[0, 1:3], b[0, 2:5] = 1, 1
    >>> surface_distances(a, b)
    (array([1., 0.]), array([0., 1., 2.]))
    """
    first, second = _as_pair(pred, target)
    return _distances(first, second, _as_spacing(spacing, first.ndim))


def _percentile(there: Float64Array, back: Float64Array, percentile: float) -> float:
    if not len(there) and not len(back):
        return math.nan
    if not len(there) or not len(back):
        return math.inf
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def _mean_distance(there: Float64Array, back: Float64Array) -> float:
    both = np.concatenate([there, back])
    return float(both.mean()) if len(both) else math.nan


def _nsd(there: Float64Array, back: Float64Array, tolerance: float) -> float:
    both = np.concatenate([there, back])
    return float(_within(both, tolerance).mean()) if len(both) else math.nan


def _f_score(there: Float64Array, back: Float64Array, tolerance: float) -> float:
    if not len(there) and not len(back):
        return math.nan
    if not len(there) or not len(back):
        return 0.0
    precision, recall = (float(_within(gaps, tolerance).mean()) for gaps in (there, back))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def hausdorff_distance(
    pred: Mask, target: Mask, *, percentile: float = 100.0, spacing: Spacing = None
) -> float:
    """Hausdorff distance between the surfaces; ``percentile=95`` is HD95.

    The larger of the two directed percentiles (not the percentile of both directions together).

    Args:
        pred, target: masks of the same shape.
        percentile: 0 to 100; 100 is the largest distance.
        spacing: size of a pixel along the axes.

    Returns:
        a distance in units of ``spacing``; NaN if both masks are empty, infinite if one is.

    >>> a, b = np.zeros((2, 1, 6), dtype=int)
    >>> a[0, 1:3], b[0, 2:5] = 1, 1
    >>> hausdorff_distance(a, b), hausdorff_distance(a, b, percentile=50, spacing=0.5)
    (2.0, 0.5)
    """
    if not _is_number(percentile, 0, 100):
        raise ValueError(f"percentile: expected a number from 0 to 100, got {percentile!r}")
    return _percentile(*surface_distances(pred, target, spacing=spacing), float(percentile))


def average_surface_distance(pred: Mask, target: Mask, *, spacing: Spacing = None) -> float:
    """Average symmetric surface distance (ASSD): the mean over the pixels of both surfaces.

    The mean of the two directed means (often called MASD) is another number where one surface is longer.

    Args:
        pred, target, spacing: as in :func:`surface_distances`.

    Returns:
        a distance in units of ``spacing``; NaN if both masks are empty, infinite if one is.

    >>> a, b = np.zeros((2, 1, 6), dtype=int)
    >>> a[0, 1:3], b[0, 2:5] = 1, 1
    >>> average_surface_distance(a, b)     # (1 + 0 + 0 + 1 + 2) / 5
    0.8
    """
    return _mean_distance(*surface_distances(pred, target, spacing=spacing))


def normalized_surface_dice(
    pred: Mask, target: Mask, *, tolerance: float, spacing: Spacing = None
) -> float:
    """Normalised surface Dice (NSD): the share of both surfaces within ``tolerance`` of the other.

    Args:
        pred, target: masks of the same shape.
        tolerance: in units of ``spacing``, itself included (up to rounding). There is no default: it is
            what the task allows, ideally the distance between two experts.
        spacing: size of a pixel along the axes.

    Returns:
        0 to 1; NaN if both masks are empty, 0 if one is.

    >>> a, b = np.zeros((2, 1, 6), dtype=int)
    >>> a[0, 1:3], b[0, 2:5] = 1, 1
    >>> normalized_surface_dice(a, b, tolerance=1)     # four of the five pixels
    0.8
    """
    return _nsd(*surface_distances(pred, target, spacing=spacing), _length(tolerance, "tolerance"))


def _band(framed: BoolArray, distance: float, spacing: tuple[float, ...]) -> BoolArray:
    """The pixels of a framed mask at most ``distance`` from the nearest pixel outside."""
    depth = _ndimage().distance_transform_edt(framed, sampling=spacing)
    return framed & _within(depth, distance)


def _band_iou(
    pred: BoolArray, target: BoolArray, distance: float, spacing: tuple[float, ...]
) -> float:
    if not pred.any() and not target.any():
        return math.nan
    first, second = (_band(mask, distance, spacing) for mask in _crop(pred, target))
    return float((first & second).sum() / (first | second).sum())


def boundary_iou(
    pred: Mask, target: Mask, *, distance: float | None = None, spacing: Spacing = None
) -> float:
    """Boundary IoU: intersection over union of the inner bands along the two outlines.

    With ``distance`` as large as the objects it is the IoU.

    Args:
        pred, target: masks of the same shape.
        distance: width of the band in units of ``spacing``, at least one pixel; None is 2 % of the
            image's diagonal, rounded to whole pixels, at least 1 (12 pixels of 360×480).
        spacing: size of a pixel along the axes.

    Returns:
        0 to 1; NaN if both masks are empty, 0 if one is.

    >>> a = np.zeros((7, 7), dtype=int)
    >>> b = a.copy()
    >>> a[1:6, 1:6], b[2:5, 2:5] = 1, 1     # rings of 16 and of 8 pixels that do not meet; IoU 9/25
    >>> boundary_iou(a, b, distance=1), boundary_iou(a, b, distance=5)
    (0.0, 0.36)
    """
    first, second = _as_pair(pred, target)
    sizes = _as_spacing(spacing, first.ndim)
    width = _band_width(distance, first.shape, sizes)
    return _band_iou(first, second, width, sizes)


def _class_maps(
    pred: Labels, target: Labels, num_classes: int, ignore_index: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(N, *S) class indices of images or volumes, with −1 in both where the truth is void."""
    maps = [_as_labels(pred, "pred").cpu(), _as_labels(target, "target").cpu()]
    predicted, true = (tuple(map_.shape) for map_ in maps)
    if predicted != true or len(true) < 3:
        hint = _channel_hint("target", true, predicted) or _channel_hint("pred", predicted, true)
        if predicted == true:
            hint = "; give one image its batch axis: x[None]"
        raise ValueError(
            f"pred and target: expected class indices of one shape (N, H, W) or (N, D, H, W), got "
            f"{predicted} and {true}{hint}"
        )
    # Checked before −1 marks the void pixels: a stray −1 is no void pixel.
    void = _void(maps[1], ignore_index)
    _check_range(maps[0][~void], num_classes, "pred")
    _check_range(maps[1][~void], num_classes, "target", ignore_index)
    maps = [map_.masked_fill(void, -1) for map_ in maps]
    return maps[0].numpy(), maps[1].numpy()


def _check_images(shape: tuple[int, ...], of_volumes: str = "") -> None:
    """Refuse volumes, or say of a channel that was kept how it goes."""
    if len(shape) != 3:
        hint = "; take the axis of one channel out of both with .squeeze(1)"
        raise ValueError(
            f"pred and target: expected images (N, H, W), got {shape}{hint if shape[1] == 1 else of_volumes}"
        )


class BoundaryMetrics(_Summed):
    """Boundary IoU, BF, NSD, HD95 and ASSD per class: means over the images of a set.

    Every image is measured by itself, and sums and counts alone are kept, so that memory does not grow
    with the set. The NSD has a tolerance of 1 in units of ``spacing``, the BF score of 0.75 % of the
    image's diagonal (SegNet's: 4.5 pixels of 360×480; on a small image less than one pixel, so that the
    outlines must coincide), and boundary IoU the band of :func:`boundary_iou`.

    Args:
        num_classes: number C of classes, background included.
        ignore_index: value of the target that belongs to no class, or None.
        spacing: size of a pixel along the axes, the same for every image.

    >>> boundary = BoundaryMetrics(2)
    >>> truth = np.zeros((2, 8, 8), dtype=int)
    >>> truth[0, 2:6, 2:6] = 1
    >>> boundary.update(np.roll(truth, 1, axis=2), truth)     # the second image is empty
    >>> row = boundary.rows()[1]
    >>> row["n"], row["assd"], row["nsd"], row["boundary_f"]
    (1, 0.5, 1.0, 0.5)
    """

    _SUMS = ("_sums", "_images")
    _SCORES, _DISTANCES = ("boundary_iou", "boundary_f", "nsd"), ("hd95", "assd")

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        *,
        spacing: Spacing = None,
    ) -> None:
        self.num_classes = _check_num_classes(num_classes)
        sizes = _as_spacing(spacing, None)
        self.ignore_index = _check_ignore_index(ignore_index)
        # a copy: what happens to the caller's list is not this set's
        self.spacing = sizes if np.ndim(spacing) else spacing  # type: ignore[arg-type]
        self._sums = np.zeros((num_classes, len(self._SCORES) + len(self._DISTANCES)))
        # images where the scores are defined, and where the distances are finite
        self._images = np.zeros((num_classes, 2), dtype=np.int64)

    def update(self, pred: Labels, target: Labels) -> None:
        """Add images (N, H, W) or volumes (N, D, H, W) of class indices.

        Integer one-hot maps (N, C, H, W) cannot be told from volumes of depth C: take their ``argmax(1)``
        first. A volume of depth 1 is an image: ``volumes.squeeze(1)``.

        Raises:
            TypeError: scores in place of class indices.
            ValueError: shapes that differ, no batch axis, a channel that was kept (N, 1, H, W), an index
                outside 0…C−1, a spacing that does not fit the images. The sums then stay as they were.
        """
        predicted, truth = _class_maps(pred, target, self.num_classes, self.ignore_index)
        if (axis := _flat_axis(truth.shape[1:])) is not None:
            raise ValueError(
                f"pred and target: expected images (N, H, W) or volumes (N, D, H, W), got {truth.shape}: a "
                "volume that is one pixel thick is surface throughout; take the axis of one channel, or of "
                f"depth 1, out of both with .squeeze({axis + 1}), and its number out of a spacing of several"
            )
        spacing = _as_spacing(self.spacing, truth.ndim - 1)
        for one, other in zip(predicted, truth, strict=True):
            width = _band_width(None, other.shape, spacing)
            tolerance = BF_TOLERANCE * _diagonal(other.shape, spacing)
            there = np.union1d(one, other)
            for c in there[there >= 0].tolist():
                masks = one == c, other == c
                gaps = _distances(*masks, spacing)
                scores = [
                    _band_iou(*masks, width, spacing),
                    _f_score(*gaps, tolerance),
                    _nsd(*gaps, NSD_TOLERANCE),
                ]
                self._sums[c, : len(scores)] += scores
                self._images[c, 0] += 1
                if masks[0].any() and masks[1].any():
                    self._sums[c, len(scores) :] += _percentile(*gaps, 95), _mean_distance(*gaps)
                    self._images[c, 1] += 1

    def rows(self) -> list[dict[str, float | int]]:
        """One row a class: ``class_index``, the five means, and how many images they are over.

        ``n`` counts those where the class is in truth or prediction (the scores' mean),
        ``n_both`` those where it is in both (the distances' mean). A mean over none is NaN.
        """
        counts = np.repeat(self._images, [len(self._SCORES), len(self._DISTANCES)], axis=1)
        means = self._sums / np.where(counts == 0, np.nan, counts)
        names = (*self._SCORES, *self._DISTANCES)
        return [
            {"class_index": c, **dict(zip(names, means[c].tolist(), strict=True))}
            | dict(zip(("n", "n_both"), self._images[c].tolist(), strict=True))
            for c in range(self.num_classes)
        ]


class ObjectRecall(_Summed):
    """How many of the true objects are found, by their size.

    An object is a connected component of one class of the truth. It is *found* if at least ``covered``
    of its pixels are predicted as its class. Objects are counted by strata of their size in pixels; memory
    does not grow with the set.

    Args:
        num_classes: number C of classes, background included.
        ignore_index: value of the target that belongs to no object, or None.
        covered: share of an object's pixels, above 0, up to 1.
        strata: smallest sizes of the strata, increasing, from 1 on.
        classes: classes whose objects count; None is all but class 0, the background.
        corners_touch: pixels that share no more than a corner belong to one object.

    >>> recall = ObjectRecall(2, strata=(1, 3))
    >>> truth = np.array([[[1, 0, 1, 1, 1, 1]]])
    >>> recall.update(np.array([[[0, 0, 0, 0, 1, 1]]]), truth)
    >>> recall.rows()
    [{'stratum': '1–2', 'smallest': 1, 'objects': 1, 'found': 0, 'recall': 0.0},
     {'stratum': '3+', 'smallest': 3, 'objects': 1, 'found': 1, 'recall': 1.0}]
    """

    _SUMS = ("_counts",)

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        *,
        covered: float = 0.5,
        strata: Sequence[int] = SIZE_STRATA,
        classes: Sequence[int] | None = None,
        corners_touch: bool = True,
    ) -> None:
        self.num_classes = _check_num_classes(num_classes)
        self.ignore_index = _check_ignore_index(ignore_index)
        if not _is_number(covered, 0, 1) or covered == 0:
            raise ValueError(f"covered: expected a share above 0 and up to 1, got {covered!r}")
        self.covered, self.corners_touch = covered, corners_touch
        given = np.asarray(strata)
        numbers = given.ndim == 1 and given.dtype.kind in "iuf" and np.isfinite(given).all()
        sizes = given.astype(np.int64) if numbers else np.empty(0, dtype=np.int64)
        increasing = sizes.size and sizes[0] == 1 and (np.diff(sizes) > 0).all()
        if not increasing or (sizes != given).any():
            raise ValueError(f"strata: expected increasing whole sizes from 1 on, got {strata!r}")
        self.strata = sizes
        wanted = range(1, num_classes) if classes is None else classes
        self.classes = _check_indices(wanted, "classes", num_classes)
        self._counts = np.zeros((len(self.strata), 2), dtype=np.int64)  # objects, found

    def update(self, pred: Labels, target: Labels) -> None:
        """Add images (N, H, W) or volumes (N, D, H, W) of class indices, and no one-hot maps (N, C, H, W).

        Raises:
            TypeError: scores in place of class indices.
            ValueError: shapes that differ, no batch axis, or an index outside 0…C−1.
        """
        predicted, truth = _class_maps(pred, target, self.num_classes, self.ignore_index)
        ndimage = _ndimage()
        dimensions = truth.ndim - 1
        neighbours = ndimage.generate_binary_structure(
            dimensions, dimensions if self.corners_touch else 1
        )
        for one, other in zip(predicted, truth, strict=True):
            for c in np.intersect1d(other, self.classes).tolist():
                objects, count = ndimage.label(other == c, neighbours)
                sizes = np.bincount(objects.ravel(), minlength=count + 1)[1:]
                hits = np.bincount(objects[one == c], minlength=count + 1)[1:]
                stratum = np.searchsorted(self.strata, sizes, side="right") - 1
                found = hits >= self.covered * sizes * (1 - 1e-9)  # not missed by rounding
                self._counts[:, 0] += np.bincount(stratum, minlength=len(self.strata))
                self._counts[:, 1] += np.bincount(stratum[found], minlength=len(self.strata))

    def rows(self) -> list[dict[str, Any]]:
        """One row a stratum: ``stratum`` (sizes in pixels), ``smallest``, ``objects``, ``found``, ``recall``.

        The recall of a stratum without objects is NaN.
        """
        names = [
            f"{low}–{high - 1}" if high - 1 > low else f"{low}"
            for low, high in zip(self.strata[:-1], self.strata[1:], strict=True)
        ] + [f"{self.strata[-1]}+"]
        return [
            {
                "stratum": name,
                "smallest": int(low),
                "objects": int(objects),
                "found": int(found),
                "recall": float(found / objects) if objects else math.nan,
            }
            for name, low, (objects, found) in zip(names, self.strata, self._counts, strict=True)
        ]
