"""A network's logits on a split: batch by batch, in pieces that fit the cache, computed once where they are small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Pixels of one forward pass. Activations that leave a CPU's cache make a pass twice as slow (0.83 against 1.7 million
#: pixels a second with a U-Net of width 8 at 320×480).
_PIXELS_CPU = 2**18
_PIXELS_GPU = 2**23
_MOST_IMAGES = 32
#: Bytes of logits that are kept for a second pass over the same split.
_KEPT = 2**28


def images_at_once(dataset: Any, device: torch.device) -> int:
    """How many images of a split go through a network together: 1 to 32."""
    pixels = int(np.prod(dataset.labels.shape[1:]))
    most = _PIXELS_CPU if device.type == "cpu" else _PIXELS_GPU
    return min(max(most // max(pixels, 1), 1), _MOST_IMAGES)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; the mode that the model had before, outside."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Logits:
    """The logits of a network on a split, with the targets. Iterate as often as wanted.

    The first full pass computes them. If they take at most 256 MiB they are kept, and the next pass only reads. Change
    no weights between two passes.

    Args:
        model: gives (B, C, H, W) logits.
        dataset: a ``SegmentationDataset``.
        device: where the model is.
        batch_size: images at a time; None chooses by their size. It changes memory and speed, not the result.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        device: torch.device,
        *,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.dataset, self.device = model, dataset, device
        self.batch_size = batch_size or images_at_once(dataset, device)
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    @torch.inference_mode()
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, C, H, W) float32 logits and (B, H, W) target of every batch, on the device."""
        if self._kept is not None:
            yield from self._kept
            return
        room = _KEPT
        kept: list[tuple[Tensor, Tensor]] = []
        with evaluating(self.model):
            for start in range(0, len(self.dataset), self.batch_size):
                index = np.arange(start, min(start + self.batch_size, len(self.dataset)))
                images, target = self.dataset.batch(index)
                logits, target = self.model(images.to(self.device)).float(), target.to(self.device)
                room -= logits.nbytes + target.nbytes
                kept = [*kept, (logits, target)] if room >= 0 else []
                yield logits, target
        self._kept = kept if room >= 0 else None
