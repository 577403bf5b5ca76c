"""Where a run's batches come from: the device itself where the whole split fits there, else the host, ahead of time.

Both give the same bits: the same gather of uint8 pixels, the same multiply-add, the same augmentation.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lossatlas.data.feeding import feed
from lossatlas.experiments.seeding import AugmentationStream

#: Part of the GPU's free memory that a training set may take; the rest is for the network, and for other runs.
LARGEST_SHARE = 0.25
# the runs of a process share what is on the device: one copy a data set, gone with the data set
_on_device: WeakKeyDictionary[Any, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def batches(
    dataset: Any, order: Iterator[np.ndarray], device: torch.device, stream: AugmentationStream
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield (images float32 (B, C, H, W), target int64 (B, H, W)) on ``device``, augmented.

    Args:
        dataset: a ``SegmentationDataset``.
        order: the indices of each batch.
        device: of the batches.
        stream: the run's augmentation.
    """
    if device.type == "cuda" and _fits(dataset, device):
        return from_device(dataset, order, device, stream)
    return feed(dataset, order, device=device, augment=stream)


def from_device(
    dataset: Any, order: Iterator[np.ndarray], device: torch.device, stream: AugmentationStream
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The same batches from pixels that lie on the device: nothing but the indices travels."""
    copies = _on_device.setdefault(dataset, {})
    if device not in copies:
        arrays = (torch.from_numpy(np.array(a)) for a in (dataset.images, dataset.labels))
        pixels, labels = (array.to(device) for array in arrays)
        copies[device] = (pixels, labels)
    pixels, labels = copies[device]
    scale, shift = (value.to(device) for value in dataset.standardisation)
    for indices in order:
        chosen = torch.from_numpy(np.ascontiguousarray(indices)).to(device, non_blocking=True)
        images = pixels[chosen].permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.contiguous_format)
        images = images.mul_(scale).add_(shift)
        yield stream(images, labels[chosen].to(torch.int64), stream.generator)


def _fits(dataset: Any, device: torch.device) -> bool:
    if dataset in _on_device and device in _on_device[dataset]:
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return dataset.images.nbytes + dataset.labels.nbytes <= LARGEST_SHARE * free
