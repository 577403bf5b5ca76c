"""Augmentation of whole batches with a seeded generator: images and labels move together.

Each function takes the batch on its device: ``images`` (B, C, H, W) float, ``target`` (B, H, W) integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def shift(images: Tensor, target: Tensor, generator: torch.Generator) -> Batch:
    """Cyclic shift of the whole batch by up to a quarter of its height and width.

    Cyclic, so that no pixel is lost and the class fractions of the batch stay as they are.
    """
    height, width = target.shape[-2:]
    down = _integer(-(height // 4), height // 4, generator)
    right = _integer(-(width // 4), width // 4, generator)
    return images.roll((down, right), (-2, -1)), target.roll((down, right), (-2, -1))


def flip(images: Tensor, target: Tensor, generator: torch.Generator) -> Batch:
    """Horizontal mirror image of each image with probability one half."""
    chosen = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return (
        torch.where(chosen[:, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None], target.flip(-1), target),
    )


def jitter(images: Tensor, target: Tensor, generator: torch.Generator) -> Batch:
    """Contrast (±20 %) and brightness (±0.2 standard deviations) of each image."""
    factor = 0.8 + 0.4 * torch.rand(len(images), 1, 1, 1, generator=generator)
    offset = 0.4 * torch.rand(len(images), 1, 1, 1, generator=generator) - 0.2
    return images * factor.to(images.device) + offset.to(images.device), target


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Batch]] = {
    "shift": shift,
    "flip": flip,
    "jitter": jitter,
}


def apply(
    names: Sequence[str], images: Tensor, target: Tensor, generator: torch.Generator
) -> Batch:
    """Apply the augmentations in the order of ``names``, each drawing from ``generator``."""
    for name in names:
        images, target = AUGMENTATIONS[name](images, target, generator)
    return images, target


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
