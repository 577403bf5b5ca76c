"""Augmentation of whole batches on the device they are on, from a seeded generator.

One affine map a picture (flip, scale, crop) is sampled in a single pass over the batch, images
bilinearly, labels by the nearest pixel, and colour is changed by one multiply-add. Nothing is done
image by image, so the cost on a GPU is one kernel or two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from lossatlas.data import checks
from lossatlas.data.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random flip, scale, crop and colour of a batch.

    Args:
        horizontal_flip, vertical_flip: mirror each picture with probability ½.
        crop: (height, width) of the result, or None for the size of the batch. The window lies
            anywhere in the (scaled) picture.
        crop_foreground: share of the windows that hold a labelled pixel of a class above 0, drawn evenly among the
            picture's, where it has one; the others lie anywhere. Not together with ``scale``. Patches of rare objects
            are else mostly empty, and a loss over sets learns nothing from an empty batch. It raises the
            foreground's share above that of the pictures, and with it the probabilities that a network learns.
        scale: (low, high) of the enlargement, even on a logarithmic scale; (1, 1) is none.
        colour: standard deviation of a shift of each channel and of the logarithm of a factor
            common to the channels, in units of the standardised image.
        ignore_index: label of pixels that come from outside the picture (images: 0, the mean). Where
            it is None the border pixels are repeated instead, in image and label.

    Raises:
        DataError: a parameter that is out of range.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    colour: float = 0.0
    crop_foreground: float = 0.0
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        checks.boolean("horizontal_flip", self.horizontal_flip)
        checks.boolean("vertical_flip", self.vertical_flip)
        checks.number("colour", self.colour, 0, 2)
        checks.number("crop_foreground", self.crop_foreground, 0, 1)
        checks.optional_integer("ignore_index", self.ignore_index, 0, 255)
        if self.crop is not None:
            if not _is_pair(self.crop):
                raise DataError(f"crop: expected (height, width), got {self.crop!r}")
            for side in self.crop:
                checks.integer("crop", side, 1, 16384)
        if not _is_pair(self.scale) or not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            raise DataError(
                f"scale: expected (low, high) with 0.05 ≤ low ≤ high ≤ 20, got {self.scale!r}"
            )
        if self.crop_foreground and (self.crop is None or self.scale != (1.0, 1.0)):
            raise DataError(
                f"crop_foreground: expected a crop and no scale beside it, got crop {self.crop!r} and scale "
                f"{self.scale!r}: add a crop, drop the scale, or set crop_foreground to 0"
            )

    def __call__(
        self, images: torch.Tensor, target: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (images (B, C, h, w), target (B, h, w)) of the same types and device.

        The draws come from ``generator``, which may live on the CPU: they are few, and the same
        seed then gives the same maps on every device.

        Raises:
            DataError: shapes that do not fit together.
        """
        if images.ndim != 4 or target.shape != (images.shape[0], *images.shape[2:]):
            raise DataError(
                "augment: expected images (B, C, H, W) and target (B, H, W), got "
                f"{tuple(images.shape)} and {tuple(target.shape)}"
            )
        batch, _, height, width = images.shape
        draws = torch.rand((batch, 5), generator=generator, device=generator.device)
        if self.crop_foreground:
            placed = torch.rand((batch, 4), generator=generator, device=generator.device)
            draws[:, 3:] = self._around_foreground(target.to(draws.device), draws[:, 3:], placed)
        draws = draws.to(images.device)
        shape = self.crop or (height, width)
        if self._moves((height, width)):
            images, target = self._warp(images, target, draws, shape)
        else:
            images, target = self._flip(images, target, draws)
        if self.colour:
            noise = torch.randn(
                (batch, images.shape[1] + 1), generator=generator, device=generator.device
            )
            noise = (noise * self.colour).to(images.device, images.dtype)
            factor = noise[:, :1, None, None].exp()
            images = images * factor + noise[:, 1:, None, None]
        return images, target

    def _around_foreground(
        self, target: torch.Tensor, draws: torch.Tensor, placed: torch.Tensor
    ) -> torch.Tensor:
        """The draws (B, 2) of the windows' places, x and y, with some of them moved so that they hold foreground."""
        # A pixel is drawn among the picture's, then a window among those that hold it. `placed` (B, 4)
        # says whether, which pixel, and where it lies in the window, x and y.
        assert self.crop is not None
        found = (target > 0) & (target != (-1 if self.ignore_index is None else self.ignore_index))
        flat = found.flatten(1)
        count = flat.sum(1)
        nth = (placed[:, 1] * count).floor().clamp_(max=count - 1) + 1
        pixel = ((flat.cumsum(1) == nth[:, None]) & flat).int().argmax(1)
        height, width = target.shape[1:]
        moved = draws.clone()
        for column, at, size, window in (
            (0, pixel % width, width, self.crop[1]),
            (1, pixel // width, height, self.crop[0]),
        ):
            low = (at - window + 1).clamp(min=0)
            high = at.clamp(max=size - window)
            start = low + (placed[:, 2 + column] * (high - low + 1)).floor()
            moved[:, column] = (start + 0.5) / (size - window + 1)
        chosen = (placed[:, 0] < self.crop_foreground) & (count > 0)
        return torch.where(chosen[:, None], moved, draws)

    def _moves(self, size: tuple[int, int]) -> bool:
        return self.scale != (1.0, 1.0) or (self.crop is not None and self.crop != size)

    def _flip(
        self, images: torch.Tensor, target: torch.Tensor, draws: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for wanted, column, axis in (
            (self.horizontal_flip, 0, -1),
            (self.vertical_flip, 1, -2),
        ):
            if wanted:
                chosen = draws[:, column] < 0.5
                images = torch.where(chosen[:, None, None, None], images.flip(axis), images)
                target = torch.where(chosen[:, None, None], target.flip(axis), target)
        return images, target

    def _warp(
        self,
        images: torch.Tensor,
        target: torch.Tensor,
        draws: torch.Tensor,
        shape: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, channels, height, width = images.shape
        low, high = self.scale
        scale = low * (high / low) ** draws[:, 2]
        theta = torch.zeros((batch, 2, 3), device=images.device, dtype=torch.float32)
        # affine_grid maps the result's [-1, 1]² into the picture's. A window of w pixels at scale s
        # spans w / s of the picture's pixels and begins anywhere that it fits; without scaling it
        # begins at a whole pixel, so that a crop is a copy and not an interpolation.
        for row, (size, window, wanted) in enumerate(
            (
                (width, shape[1], self.horizontal_flip),
                (height, shape[0], self.vertical_flip),
            )
        ):
            span = window / scale
            if self.scale == (1.0, 1.0):
                start = (draws[:, 3 + row] * (size - window + 1)).floor()
            else:
                start = draws[:, 3 + row] * (size - span)
            sign = (draws[:, row] < 0.5) & torch.tensor(wanted, device=draws.device)
            theta[:, row, row] = torch.where(sign, -span, span) / size
            theta[:, row, 2] = (2 * start + span) / size - 1
        grid = functional.affine_grid(theta, [batch, channels, *shape], align_corners=False)
        padding = "border" if self.ignore_index is None else "zeros"
        warped = functional.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode=padding, align_corners=False
        ).to(images.dtype)
        # Class indices below 256 are exact in float32; +1 so that 0 means "outside".
        labels = functional.grid_sample(
            target[:, None].float() + 1,
            grid,
            mode="nearest",
            padding_mode=padding,
            align_corners=False,
        )[:, 0].to(target.dtype)
        if self.ignore_index is None:
            return warped, labels - 1
        return warped, torch.where(labels == 0, self.ignore_index, labels - 1)


def _is_pair(value: object) -> bool:
    """Two numbers, which is more than two characters."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(each, int | float) for each in value)
    )
