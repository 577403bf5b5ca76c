"""What a run measures of itself while it trains: where in the picture the gradient pulls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: The name by which a data set says that class 0 is what is left over.
BACKGROUND = "background"


def background_class(classes: tuple[str, ...], image_counts: np.ndarray) -> int:
    """The class whose pixels are no foreground: class 0 where it is the background, else the commonest.

    Args:
        classes: names of the classes by index.
        image_counts: (images, classes) pixel counts of the training set; the commonest class is read from it.
    """
    if classes[0] == BACKGROUND:
        return 0
    return int(np.asarray(image_counts).sum(0).argmax())


class ForegroundShare:
    """Share of the ℓ1 norm of the loss's gradient at the logits that falls on foreground pixels.

    With g = ∂L/∂z the gradient at the logits, (N, C, *S), and F the pixels of the batch whose label is a
    foreground class::

        share = Σ_{i∈F} Σ_c |g_ic| / Σ_{i labelled} Σ_c |g_ic|

    Void pixels are part of neither sum. Foreground is every class but :func:`background_class`. The value is
    NaN where the whole gradient is zero.

    Args:
        background: index of the class that is no foreground.
        ignore_index: label of void pixels, or None.
        total: adds up the two sums over the processes that share a batch.
    """

    def __init__(
        self,
        background: int,
        ignore_index: int | None,
        total: Callable[[Tensor], Tensor] = lambda sums: sums,
    ) -> None:
        self.background, self.ignore_index, self.total = background, ignore_index, total

    @classmethod
    def of(
        cls, dataset: Any, total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> ForegroundShare:
        """The measure for a training set, a ``SegmentationDataset``."""
        background = background_class(dataset.classes, dataset.image_counts())
        return cls(background, dataset.ignore_index, total)

    def pixels(self, target: Tensor) -> Tensor:
        """Number of labelled foreground pixels of a batch, a float32 scalar."""
        kept = target != self.background
        if self.ignore_index is not None:
            kept &= target != self.ignore_index
        return kept.sum(dtype=torch.float32)

    def sums(self, gradient: Tensor, target: Tensor) -> Tensor:
        """(2,) float32: the sum over the foreground pixels, and over all labelled pixels.

        Args:
            gradient: (N, C, *S), at the logits.
            target: (N, *S) classes.
        """
        pull = gradient.detach().abs().sum(1, dtype=torch.float32)
        if self.ignore_index is not None:
            pull = pull.masked_fill(target == self.ignore_index, 0.0)
        whole = pull.sum()
        return torch.stack([whole - (pull * (target == self.background)).sum(), whole])

    def __call__(self, gradient: Tensor, target: Tensor) -> Tensor:
        """The share, a scalar on the gradient's device: nothing waits for the device here."""
        foreground, whole = self.total(self.sums(gradient, target)).unbind()
        return foreground / whole
