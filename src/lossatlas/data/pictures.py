"""Sample images with their labels as arrays of colour, for figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lossatlas.data.dataset import SegmentationDataset

UInt8Array = npt.NDArray[np.uint8]

CLASS_COLOURS = np.array(
    [
        [0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178],
        [213, 94, 0], [204, 121, 167], [170, 170, 170], [120, 60, 20], [140, 220, 140],
        [100, 80, 200],
    ],
    dtype=np.uint8,
)  # fmt: skip
"""Colours of class 0, 1, …: the eight that colour-blind readers tell apart come first."""

VOID_COLOUR = np.array([255, 255, 255], dtype=np.uint8)


def as_rgb(image: UInt8Array) -> UInt8Array:
    """Image (H, W, C) as (H, W, 3): grey repeated, of many channels the first three."""
    if image.shape[2] < 3:
        return np.repeat(image[..., :1], 3, axis=2)
    return image[..., :3]


def colour_labels(label: UInt8Array, num_classes: int, void: int | None) -> UInt8Array:
    """Label (H, W) as colours (H, W, 3); colours repeat after twelve classes."""
    colours = CLASS_COLOURS[np.arange(256) % len(CLASS_COLOURS)]
    if num_classes < 256 and void is not None:
        colours[void] = VOID_COLOUR
    return colours[label]


def overlay(dataset: SegmentationDataset, index: int, opacity: float = 0.5) -> UInt8Array:
    """Image with the colours of its classes over it; a background class 0 stays clear."""
    image = as_rgb(np.asarray(dataset.images[index]))
    label = np.asarray(dataset.labels[index])
    colours = colour_labels(label, len(dataset.classes), dataset.ignore_index)
    blend = np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
    clear = label == 0 if dataset.classes[0] in ("background", "intracellular") else label < 0
    return np.where(clear[..., None], image, blend)


def grid(rows: Sequence[Sequence[UInt8Array]], gap: int = 2) -> UInt8Array:
    """Pictures of one size, row by row, in one (H, W, 3) array with white gaps."""

    def line(pictures: list[UInt8Array], axis: int) -> UInt8Array:
        shape = list(pictures[0].shape)
        shape[axis] = gap
        white = np.full(shape, 255, dtype=np.uint8)
        pieces = [piece for picture in pictures for piece in (picture, white)][:-1]
        return np.concatenate(pieces, axis=axis)

    return line([line(list(row), 1) for row in rows], 0)
