"""The one shape that every data set has once it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lossatlas.data.cache import content_checksum
from lossatlas.data.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Mode = Literal["multiclass", "binary"]

SPLITS = ("train", "val", "test")


class SegmentationDataset:
    """Images and their class indices, decoded, in memory or as a memory map.

    Attributes:
        params: every parameter of the loader with the value in force.
        classes: names of the classes by index; ("background", <thing>) in a binary task.
        ignore_index: the value of void pixels in ``labels``, or None.
        images: uint8, shape (N, H, W, C).
        labels: uint8, shape (N, H, W), values 0…len(classes)−1 or ``ignore_index``.
        ids: one name per image, unique in the split.
        groups: what each image belongs to (video, patient, item): images of a group are correlated,
            so a bootstrap resamples groups.
        mean, std: constants per channel, on the scale 0…1, that :meth:`batch` standardises by.
        intensity: the two values that became 0 and 255 where the files have more than 8 bits; else None.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        classes: Sequence[str],
        mode: Mode,
        images: UInt8Array | None,
        labels: UInt8Array,
        ids: Sequence[str],
        groups: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        ignore_index: int | None = None,
        params: Mapping[str, Any] | None = None,
        checksum: str | None = None,
        intensity: tuple[float, float] | None = None,
    ) -> None:
        if images is not None and images.shape[:3] != labels.shape:
            raise DataError(
                f"{name}: expected images (N, H, W, C) over labels (N, H, W), got "
                f"{images.shape} over {labels.shape}"
            )
        if not len(labels) == len(ids) == len(groups):
            raise DataError(
                f"{name}: expected one id and one group an image, got {len(labels)} images, "
                f"{len(ids)} ids, {len(groups)} groups"
            )
        self.name, self.split = name, split
        self.classes, self.mode = tuple(classes), mode
        self.ignore_index = ignore_index
        self.labels = labels
        self.ids, self.groups = list(ids), list(groups)
        self.mean, self.std = tuple(mean), tuple(std)
        self.intensity = intensity
        self.params = dict(params or {})
        self._images = images
        self._checksum = checksum
        self._counts: Int64Array | None = None
        # x / 255 standardised is scale · x + shift, one multiply-add a pixel.
        deviation = torch.tensor(self.std, dtype=torch.float64) * 255
        self._scale = (1 / deviation).to(torch.float32).reshape(-1, 1, 1)
        shift = -torch.tensor(self.mean, dtype=torch.float64) * 255 / deviation
        self._shift = shift.to(torch.float32).reshape(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "×".join(str(v) for v in self.labels.shape[1:])
        return (
            f"SegmentationDataset({self.name!r}, {self.split!r}, {len(self)} images of {size}, "
            f"{len(self.classes)} classes, mode={self.mode!r})"
        )

    @property
    def images(self) -> UInt8Array:
        """uint8 images, shape (N, H, W, C)."""
        if self._images is None:
            raise DataError(
                f"{self.name}: expected images, got a set loaded by load_labels; use load"
            )
        return self._images

    @property
    def checksum(self) -> str:
        """Hex SHA-256 of shapes and contents of images and labels."""
        if self._checksum is None:
            self._checksum = content_checksum(self.images, self.labels)
        return self._checksum

    @property
    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, shift), each (C, 1, 1) float32: a uint8 value x becomes scale · x + shift."""
        return self._scale.clone(), self._shift.clone()

    @property
    def in_channels(self) -> int:
        """Channels C of an image."""
        return int(self.images.shape[-1])

    @property
    def out_channels(self) -> int:
        """Channels a model needs: 1 in a binary task, else the number of classes."""
        return 1 if self.mode == "binary" else len(self.classes)

    def batch(self, indices: Sequence[int] | Int64Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images float32 (B, C, H, W) and targets int64 (B, H, W) of these indices.

        An image is divided by 255, less ``mean``, divided by ``std``: constants of the data set's
        class, the same for every split, size and seed. Void pixels keep ``ignore_index``.
        """
        index = np.asarray(indices, dtype=np.int64)
        if index.size and (index.min() < -len(self) or index.max() >= len(self)):
            raise IndexError(
                f"{self.name}: expected indices below {len(self)}, got {int(index.max())}"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[index]))
        images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        images.mul_(self._scale).add_(self._shift)
        return images, torch.from_numpy(self.labels[index].astype(np.int64))

    def image_counts(self) -> Int64Array:
        """Pixels per image and class, shape (N, len(classes)) int64; void is not counted."""
        if self._counts is None:
            self._counts = count_labels(self.labels, len(self.classes))
        return self._counts.copy()


def count_labels(labels: UInt8Array, num_classes: int) -> Int64Array:
    """Pixels per image and class of (N, H, W) uint8 labels; other values are not counted."""
    counts = np.zeros((len(labels), num_classes), dtype=np.int64)
    for row, label in zip(counts, labels, strict=True):
        row[:] = np.bincount(np.ravel(label), minlength=256)[:num_classes]
    return counts


def image_counts(dataset: SegmentationDataset) -> Int64Array:
    """Pixels per image and class, shape (N, C) int64; void is not counted."""
    return dataset.image_counts()


def class_fractions(dataset: SegmentationDataset) -> npt.NDArray[np.float64]:
    """Share of each class among all labelled (non-void) pixels of the split, shape (C,).

    Raises:
        DataError: every pixel is void.
    """
    totals = dataset.image_counts().sum(axis=0)
    if totals.sum() == 0:
        raise DataError(f"{dataset.name}: expected labelled pixels, got void alone")
    fractions: npt.NDArray[np.float64] = totals / totals.sum()
    return fractions
