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
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        checks.boolean("horizontal_flip", self.horizontal_flip)
        checks.boolean("vertical_flip", self.vertical_flip)
        checks.number("colour", self.colour, 0, 2)
        checks.optional_integer("ignore_index", self.ignore_index, 0, 255)
        if self.crop is not None:
            if len(self.crop) != 2:
                raise DataError(f"crop: expected (height, width), got {self.crop!r}")
            for side in self.crop:
                checks.integer("crop", side, 1, 16384)
        if len(self.scale) != 2 or not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            raise DataError(
                f"scale: expected (low, high) with 0.05 ≤ low ≤ high ≤ 20, got {self.scale!r}"
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
