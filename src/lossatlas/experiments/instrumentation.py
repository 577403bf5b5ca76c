"""What a run measures of itself while it trains: where the gradient pulls, and what the loss is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.experiments.components import has_background


def background_class(classes: tuple[str, ...], image_counts: np.ndarray) -> int:
    """The class whose pixels are no foreground: class 0 where it is the background, else the commonest.

    Args:
        classes: names of the classes by index.
        image_counts: (images, classes) pixel counts of the training set; the commonest class is read from it.
    """
    if has_background(classes):
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

    def __call__(self, logits: Tensor, gradient: Tensor, target: Tensor) -> Tensor:
        """(2,): the share, and that of :meth:`easy_sums`; on the gradient's device, nothing waits for it here."""
        sums = torch.cat([self.sums(gradient, target), self.easy_sums(logits, target)])
        foreground, pull, easy, whole = self.total(sums).unbind()
        return torch.stack([foreground / pull, easy / whole])

    def easy_sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """(2,) float32: cross-entropy of the easy background pixels, and of all labelled pixels.

        Easy is a background pixel whose probability of being background is above 0.9. The sums are those of plain
        cross-entropy, whichever loss trains: their ratio says how much of its *value* easy negatives make up.

        Args:
            logits: (N, C, *S); one channel is the foreground's.
            target: (N, *S) classes.
        """
        z = logits.detach().float()
        if z.shape[1] == 1:
            z = torch.cat([torch.zeros_like(z), z], dim=1)
        void = torch.zeros_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            void = target == self.ignore_index
        surprisal = torch.nn.functional.cross_entropy(
            z, target.long().masked_fill(void, self.background), reduction="none"
        ).masked_fill(void, 0.0)
        easy = (target == self.background) & (surprisal < -math.log(0.9)) & ~void
        return torch.stack([(surprisal * easy).sum(), surprisal.sum()])
