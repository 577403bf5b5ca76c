"""From a file's pixels to what a network was trained on: number type, size, standardisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossatlas.data.dataset import SegmentationDataset
from lossatlas.data.errors import DataError

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preparation:
    """What happens to an image before the network sees it.

    An image of more than 8 bits is brought to 0…255 by ``intensity``; it is resized to ``size``; then
    a value x becomes (x / 255 − mean) / std.

    Attributes:
        mean, std: a number a channel, on the scale 0…1.
        intensity: the two values that become 0 and 255 where images have more than 8 bits; else None.
        size: (height, width) that images were resized to in training; None: their own size.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    intensity: tuple[float, float] | None = None
    size: tuple[int, int] | None = None

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @classmethod
    def of_dataset(cls, train: SegmentationDataset) -> Preparation:
        """That of the networks trained on ``train``, which was loaded with its images."""
        height, width = train.labels.shape[1:]
        resized = any(train.params.get(side) is not None for side in ("height", "width"))
        return cls(
            mean=tuple(float(value) for value in train.mean),
            std=tuple(float(value) for value in train.std),
            intensity=train.intensity,
            size=(int(height), int(width)) if resized else None,
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Preparation:
        """From what :meth:`as_json` gave.

        Raises:
            TypeError, ValueError: it is not that.
        """
        made = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        numbers = [float(value) for value in (*made.mean, *made.std, *(made.intensity or ()))]
        if len(made.mean) != len(made.std) or not np.isfinite(numbers).all() or min(made.std) <= 0:
            raise ValueError(f"expected a mean and a positive std for each channel, got {values}")
        return made

    def as_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)

    def eight_bits(self, image: npt.NDArray[Any], where: object) -> UInt8Array:
        """(H, W, C) uint8 of training's channels and size.

        Raises:
            DataError: another number of channels or of bits than in training; ``where`` names the image.
        """
        from lossatlas.data import imageio

        if self.channels == 3 and image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)  # a grey photograph among colour ones
        if image.shape[2] != self.channels:
            raise DataError(
                f"{where}: expected {self.channels} channels as in training, got {image.shape[2]}; "
                "convert the image"
            )
        if (image.dtype == np.uint8) != (self.intensity is None):
            expected = "8-bit numbers" if self.intensity is None else "more than 8 bits"
            raise DataError(
                f"{where}: expected {expected} as in training, got {image.dtype}; convert the image"
            )
        if self.intensity is not None:
            image = imageio.eight_bits(image, *self.intensity)
        if self.size is not None:
            image = imageio.resize_image(image, *self.size)
        return image

    def standardised(self, image: UInt8Array) -> torch.Tensor:
        """(1, C, H, W) float32 of an image (H, W, C) as :meth:`eight_bits` gives it."""
        pixels = torch.from_numpy(np.array(image))  # a copy: a file's array may be read-only
        pixels = pixels.permute(2, 0, 1)[None].float()
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels / 255 - mean) / std
