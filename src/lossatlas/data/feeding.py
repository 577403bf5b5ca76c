"""Batches ahead of time: a thread decodes nothing, it only gathers, while the device computes.

The arrays are decoded once into a memory-mapped cache (:mod:`lossatlas.data.cache`), so a batch is
one gather of uint8 pixels. They travel to the device as uint8, a quarter of the bytes of float32,
and are standardised there. One thread is enough: gathering releases the interpreter's lock, and more
workers would only compete for memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from lossatlas.data import checks
from lossatlas.data.dataset import SegmentationDataset

Batch = tuple[torch.Tensor, torch.Tensor]


def _gather(dataset: SegmentationDataset, indices: Sequence[int] | npt.NDArray[np.int64]) -> Batch:
    """uint8 images (B, H, W, C) and labels (B, H, W) in memory of their own."""
    index = np.asarray(indices, dtype=np.int64)
    return (
        torch.from_numpy(np.ascontiguousarray(dataset.images[index])),
        torch.from_numpy(np.ascontiguousarray(dataset.labels[index])),
    )


def feed(
    dataset: SegmentationDataset,
    batches: Iterable[Sequence[int] | npt.NDArray[np.int64]],
    *,
    device: torch.device | str = "cpu",
    augment: Callable[[torch.Tensor, torch.Tensor, torch.Generator], Batch] | None = None,
    seed: int = 0,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """Yield (images float32 (B, C, H, W), target int64 (B, H, W)) on ``device``.

    The same values as :meth:`SegmentationDataset.batch`, then ``augment`` (an
    :class:`lossatlas.data.augment.Augment`, or any function like it) with a generator seeded by
    ``seed``: the batches depend on the seed alone, not on timing. At most ``ahead`` batches wait in
    memory. Stopping early ends the thread.

    Raises:
        DataError: whatever the data set raises, at the batch where it does.
    """
    checks.integer("ahead", ahead, 1, 64)
    target_device = torch.device(device)
    pin = target_device.type == "cuda"
    waiting: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for indices in batches:
                images, labels = _gather(dataset, indices)
                if pin:
                    images, labels = images.pin_memory(), labels.pin_memory()
                if not put((images, labels)):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="lossatlas-feed", daemon=True)
    thread.start()
    generator = torch.Generator().manual_seed(seed)
    scale, shift = (v.to(target_device) for v in dataset.standardisation)
    try:
        while True:
            item = waiting.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            images = item[0].to(target_device, non_blocking=True).permute(0, 3, 1, 2)
            target = item[1].to(target_device, non_blocking=True).to(torch.int64)
            images = images.to(torch.float32, memory_format=torch.contiguous_format)
            images = images.mul_(scale).add_(shift)
            if augment is not None:
                images, target = augment(images, target, generator)
            yield images, target
    finally:
        stopped.set()
        thread.join()
