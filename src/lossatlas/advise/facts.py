"""What a set of masks is like: fractions, objects, thinness, empty masks, annotators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lossatlas.data import checks
from lossatlas.data.errors import DataError
from lossatlas.data.folder import Layout, classes_of, read_labels, read_masks_layout

UInt8Array = npt.NDArray[np.uint8]

#: Masks whose objects are measured, evenly spaced; fractions are counted in all masks.
SHAPE_MASKS = 500
#: Objects of fewer pixels than this are called tiny.
TINY_PX = 16
_TOUCHING = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are one object


@dataclass(frozen=True)
class MaskSet:
    """Masks of one annotator, read one at a time."""

    layout: Layout
    classes: tuple[str, ...]
    void: int | None

    def read(self, stem: str) -> UInt8Array:
        """Class indices and void (H, W) of one mask."""
        path = self.layout.root / self.layout.masks[stem]
        settings, greys = self.layout.settings, self.layout.greys
        return read_labels(path, settings, self.classes, self.void, greys=greys)[0]

    def labels(self) -> Iterator[UInt8Array]:
        """All masks, by stem."""
        for stem in self.layout.pairs:
            yield self.read(stem)


def read_masks(
    root: str | Path, *, ignore_index: int | None = None, like: MaskSet | None = None
) -> MaskSet:
    """The masks of a folder: those in ``masks``, else in the folder itself.

    Args:
        root: the folder; ``classes.yaml`` in it says what the values mean.
        ignore_index: value of void pixels, where ``classes.yaml`` has none.
        like: the first annotator's masks, whose classes and values hold where this folder says nothing.

    Raises:
        DataError: no masks, or values that can be classes in more than one way.
    """
    path = checks.folder("root", root)
    layout = read_masks_layout(path, None if like is None else like.layout.settings)
    if like is not None and layout.settings == like.layout.settings:
        return MaskSet(layout, like.classes, like.void)
    names, void = classes_of(layout, ignore_index)
    if like is not None and tuple(names) != like.classes:
        raise DataError(
            f"{layout.root}: expected the classes {', '.join(like.classes)} as in "
            f"{like.layout.root}, got {', '.join(names)}; give both the same classes.yaml"
        )
    return MaskSet(layout, tuple(names), void)


@dataclass
class _Class:
    """What is counted of one class, mask by mask."""

    pixels: int = 0
    masks: int = 0
    searched: int = 0  # masks of the class whose objects were measured
    areas: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    widths: list[float] = field(
        default_factory=list
    )  # NaN: the object fills its image and has none


def measure(
    labels: Iterable[npt.NDArray[Any]],
    classes: Sequence[str],
    void: int | None = None,
    *,
    count: int,
    shape_masks: int = SHAPE_MASKS,
) -> dict[str, Any]:
    """Facts of a set of masks, as JSON-able values; one mask is in memory at a time.

    Args:
        labels: class indices (H, W), any sizes.
        classes: names by index; class 0 is the background.
        void: value of pixels that are left out.
        count: number of masks.
        shape_masks: so many masks, evenly spaced, are searched for objects.

    Returns:
        ``masks``, ``height`` and ``width`` (least, median, greatest; pixels), ``void_share``,
        ``empty_share`` (masks without a foreground class), and ``foreground``: a row a class but the
        background, with ``fraction`` (of the labelled pixels), ``masks`` (that hold it), ``objects``
        and ``objects_per_mask`` (8-connected regions, in the ``shape_masks`` that were searched and
        hold the class), quartiles of ``area_px``, ``tiny_share`` (objects under 16 pixels), and of the object
        in which the median foreground pixel lies ``area_share`` (of the mask), ``width_px`` and ``thinness``: area
        over squared width, about 2 for a compact object and length over width for a strip. So specks
        beside a vessel do not make the class one of specks. An object's width is four times the mean
        distance of its pixels to the nearest pixel outside (less half a pixel), as
        `lossatlas.data.statistics` has it.

    Raises:
        DataError: there is no labelled pixel.
    """
    looked_at = set(np.linspace(0, count - 1, min(count, shape_masks)).round().astype(int).tolist())
    found = [_Class() for _ in classes]
    sizes, labelled, total, empty, searched = [], 0, 0, 0, 0
    for index, label in enumerate(labels):
        label = np.asarray(label)
        sizes.append(label.shape)
        counts = np.bincount(label.ravel(), minlength=256)
        if void is not None:
            counts[void] = 0
        counts = counts[: len(classes)]
        labelled, total = labelled + int(counts.sum()), total + label.size
        empty += not counts[1:].any()
        searched += index in looked_at
        for c in np.flatnonzero(counts).tolist():
            found[c].pixels += int(counts[c])
            found[c].masks += 1
            if c and index in looked_at:
                _objects(label == c, found[c])
    if not labelled:
        raise DataError("masks: expected labelled pixels, got none; check the masks and the void")
    height, width = np.array(sizes).T
    return {
        "masks": len(sizes),
        "searched": searched,
        "height": [int(height.min()), int(np.median(height)), int(height.max())],
        "width": [int(width.min()), int(np.median(width)), int(width.max())],
        "void_share": 1 - labelled / total,
        "empty_share": empty / len(sizes),
        "foreground": [
            {"name": name, "fraction": row.pixels / labelled, "masks": row.masks} | _shapes(row)
            for name, row in zip(classes[1:], found[1:], strict=True)
        ],
    }


def _objects(mask: npt.NDArray[np.bool_], row: _Class) -> None:
    """Add the objects of one mask (H, W) to ``row``."""
    from scipy import ndimage

    regions, _ = ndimage.label(mask, _TOUCHING)
    row.searched += 1
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        # one pixel more on each side: the nearest pixel outside an object is never farther
        grown = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = regions[grown] == number
        area = int(inside.sum())
        row.areas.append(area)
        row.shares.append(area / mask.size)
        width = np.nan
        if not inside.all():
            distance = ndimage.distance_transform_edt(inside)
            width = 4 * float(distance[inside].mean() - 0.5)
        row.widths.append(width)


def _shapes(row: _Class) -> dict[str, Any]:
    """Sizes and shapes of the objects of a class; None where it has none."""
    if not row.areas:
        names = ("area_px", "area_share", "tiny_share", "width_px", "thinness")
        return {"objects": 0, "objects_per_mask": None} | dict.fromkeys(names)
    areas, widths = np.array(row.areas, float), np.array(row.widths)
    return {
        "objects": len(areas),
        "objects_per_mask": len(areas) / row.searched,
        "area_px": np.percentile(areas, [25, 50, 75]).tolist(),
        "area_share": _of_median_pixel(np.array(row.shares), areas),
        "tiny_share": float((areas < TINY_PX).mean()),
        "width_px": _of_median_pixel(widths, areas),
        "thinness": _of_median_pixel(areas / widths**2, areas),
    }


def _of_median_pixel(
    values: npt.NDArray[np.float64], areas: npt.NDArray[np.float64]
) -> float | None:
    """The median of a value of objects, each with the weight of its pixels; None where none has one."""
    known = np.isfinite(values)
    if not known.any():
        return None
    order = np.argsort(values[known])
    below = np.cumsum(areas[known][order])
    return float(values[known][order][np.searchsorted(below, below[-1] / 2)])


def disagreement(first: MaskSet, second: MaskSet) -> dict[str, Any]:
    """How far two annotators agree: Dice of each foreground class over their common masks.

    Void of either leaves a pixel out. A Dice is None where neither has a pixel of the class.

    Raises:
        DataError: no mask in common, or two masks of different sizes.
    """
    shared = sorted(set(first.layout.pairs) & set(second.layout.pairs))
    if not shared:
        raise DataError(
            f"{second.layout.root}: expected masks of the same names as in {first.layout.root}, "
            "got none in common; rename them"
        )
    both, sums = np.zeros(len(first.classes)), np.zeros(len(first.classes))
    for stem in shared:
        a, b = first.read(stem), second.read(stem)
        if a.shape != b.shape:
            raise DataError(
                f"{second.layout.root / second.layout.masks[stem]}: expected {a.shape[0]}×{a.shape[1]} "
                f"pixels as the first annotator's, got {b.shape[0]}×{b.shape[1]}; resize it"
            )
        known = np.ones(a.shape, dtype=bool)
        for value, void in ((a, first.void), (b, second.void)):
            known &= True if void is None else value != void
        for c in range(1, len(first.classes)):
            mine, other = (a == c) & known, (b == c) & known
            both[c] += int((mine & other).sum())
            sums[c] += int(mine.sum()) + int(other.sum())
    return {
        "folder": str(second.layout.root),
        "masks": len(shared),
        "dice": {
            name: float(2 * both[c] / sums[c]) if sums[c] else None
            for c, name in enumerate(first.classes)
            if c
        },
    }


def rarest(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the rarest foreground class that occurs: it governs the advice.

    Raises:
        DataError: no mask has foreground.
    """
    rows = [row for row in facts["foreground"] if row["fraction"] > 0]
    if not rows:
        raise DataError("masks: expected foreground in some mask, got background alone; check them")
    return min(rows, key=lambda row: row["fraction"])
