"""A scene for the examples: bright squares on noise."""

import torch


def scene(
    images: int = 8, side: int = 32, classes: int = 2, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, H, W) float32, and masks (N, H, W) int64 with a square of each class."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(images, side, side, dtype=torch.int64)
    for mask in masks:
        for index in range(1, classes):
            top, left = torch.randint(0, side - 8, (2,), generator=generator).tolist()
            mask[top : top + 8, left : left + 8] = index
    noise = 0.3 * torch.randn(images, 1, side, side, generator=generator)
    return masks[:, None].float() + noise, masks
