"""The streams of random numbers of a run, and the hashes that prove two runs saw the same ones.

For a seed every loss starts from the same weights and sees the same batches, augmented alike: each stream has its
own generator, so that drawing more from one (a loss that samples, dropout) never moves another.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.experiments.augment import Augmentation

_BATCH_STREAM, _AUGMENT_STREAM, _FOREGROUND_STREAM = 1, 2, 3
#: So many augmented batches are hashed pixel by pixel. What comes later follows from the generator's state, which
#: is hashed after them: nobody else draws from that generator, and how much a batch draws depends on its shape.
HASHED_BATCHES = 3


def batch_indices(
    size: int, batch_size: int, seed: int, foreground: np.ndarray | None = None, share: float = 0.0
) -> Iterator[np.ndarray]:
    """Endless batches of indices: every image once an epoch, in an order that the seed alone decides.

    A batch may straddle two epochs, so that all batches have the same size.

    Args:
        size: images of the training set.
        batch_size: images of a batch.
        seed: the run's.
        foreground: (size,) bool, which images contain foreground; read where ``share`` is above 0.
        share: so many of a batch's images, rounded up, come from those with foreground, each of them once before any
            comes again; the others of the batch are drawn as without a share.

    Raises:
        ValueError: a share is asked for and no image has foreground.
    """
    everything = _shuffled(np.arange(size), np.random.default_rng([seed, _BATCH_STREAM]))
    forced = math.ceil(round(share * batch_size, 9))  # .14 × 50 is 7, not 7.000000000000001
    while not forced:
        yield np.fromiter(itertools.islice(everything, batch_size), np.int64, batch_size)
    rich = np.flatnonzero(np.zeros(size, bool) if foreground is None else foreground)
    if not len(rich):
        raise ValueError(
            f"foreground_batches: expected images with foreground, got none among {size}; set it to 0"
        )
    chosen = _shuffled(rich, np.random.default_rng([seed, _FOREGROUND_STREAM]))
    while True:
        first = list(itertools.islice(chosen, forced))
        yield np.array(first + list(itertools.islice(everything, batch_size - forced)))


def _shuffled(items: np.ndarray, generator: np.random.Generator) -> Iterator[int]:
    """The items endlessly, in a new order each time through."""
    while True:
        yield from items[generator.permutation(len(items))]


class AugmentationStream:
    """An augmentation with the run's own generator, as ``lossatlas.data.feeding.feed`` calls it.

    Args:
        augment: of (images, target, generator), or None.
        seed: the run's.

    Attributes:
        generator: of the draws; its state and ``digests`` are all that a checkpoint must keep.
        digests: SHA-256 of each of the first ``HASHED_BATCHES`` batches as the network sees them, and then of
            the generator's state.
    """

    def __init__(self, augment: Augmentation | None, seed: int) -> None:
        self._augment = augment
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + _AUGMENT_STREAM)
        self.digests: list[str] = []

    def __call__(self, images: Tensor, target: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
        """The augmented batch; the generator that ``feed`` offers is left alone."""
        if self._augment is not None:
            images, target = self._augment(images, target, self.generator)
        if len(self.digests) < HASHED_BATCHES:
            self.digests.append(_digest({"images": images, "target": target}))
            if len(self.digests) == HASHED_BATCHES:
                self.digests.append(_digest({"state": self.generator.get_state()}))
        return images, target

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"generator": self.generator.get_state(), "digests": self.digests}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.generator.set_state(state["generator"])
        self.digests = list(state["digests"])

    def hash(self) -> str:
        """One hash of all digests, for the record."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def hash_of_weights(model: torch.nn.Module) -> str:
    """SHA-256 of every parameter and buffer with its name, type and shape, in the model's order.

    The bias of the last layer is left out: it may begin at each loss's own constant prediction.
    """
    layer = getattr(model, "output_layer", None)
    bias = None if layer is None else layer.bias
    return _digest(
        {
            name: value
            for name, value in model.state_dict(keep_vars=True).items()
            if value is not bias
        }
    )


def hash_of_batches(batches: Iterator[np.ndarray], steps: int) -> str:
    """SHA-256 of the indices of the first ``steps`` batches, as little-endian int64."""
    digest = hashlib.sha256()
    for indices in itertools.islice(batches, steps):
        digest.update(np.ascontiguousarray(indices, dtype="<i8").data)
    return digest.hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, values in tensors.items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        contiguous = values.detach().cpu().contiguous()
        digest.update(contiguous.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
