"""Batches ahead of time: a thread decodes nothing, it only gathers, while the device computes.

The arrays are decoded once into a memory-mapped cache (:mod:`lossatlas.data.cache`), so a batch is
one gather of uint8 pixels. They travel to the device as uint8, a quarter of the bytes of float32,
and are standardised there. One thread is enough: gathering releases the interpreter's lock, and more
workers would only compete for memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lossatlas.data import checks
from lossatlas.data.augment import Augment
from lossatlas.data.dataset import SegmentationDataset

Batch = tuple[torch.Tensor, torch.Tensor]


def epochs(count: int, batch_size: int, steps: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ``steps`` batches of indices: a new permutation whenever the last one is used up.

    An epoch's short rest is filled from the next one, so that every batch has the same size.
    """
    checks.integer("batch_size", batch_size, 1)
    checks.integer("steps", steps, 0)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    waiting = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


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

    The same values as :meth:`SegmentationDataset.batch`, then ``augment`` (an :class:`Augment`, or any
    function like it) with a generator seeded by
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


@dataclass(frozen=True)
class FeedingReport:
    """What :func:`measure` found.

    Attributes:
        images_per_s: of the feed alone.
        step_s: mean duration of a step on a batch that is there already.
        fed_step_s: mean duration of a step including the wait for its batch.
        step_share: how much of the training's time is spent in the step itself, the rest being the
            wait for the next batch; both are timed in one loop, so that a busy machine slows both.
    """

    images_per_s: float
    step_s: float
    fed_step_s: float
    step_share: float


def measure(
    dataset: SegmentationDataset,
    step: Callable[[torch.Tensor, torch.Tensor], object],
    *,
    batch_size: int,
    steps: int = 20,
    device: torch.device | str = "cpu",
    augment: Augment | None = None,
) -> FeedingReport:
    """Time the feed alone, ``step(images, target)`` alone, and both together.

    ``step`` is one training step; on a GPU its kernels are waited for.
    """

    def wait() -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    def batches(count: int) -> Iterator[Batch]:
        order = epochs(len(dataset), batch_size, count, seed=0)
        return feed(dataset, order, device=device, augment=augment)

    *_, last = batches(2)  # warm up: page cache, allocator
    step(*last)
    wait()
    start = time.perf_counter()
    for _ in batches(steps):
        pass
    wait()
    feeding = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(steps):
        step(*last)
    wait()
    stepping = time.perf_counter() - start
    inside = 0.0
    start = time.perf_counter()
    for images, target in batches(steps):
        wait()
        since = time.perf_counter()
        step(images, target)
        wait()
        inside += time.perf_counter() - since
    together = time.perf_counter() - start
    return FeedingReport(
        images_per_s=steps * batch_size / feeding,
        step_s=stepping / steps,
        fed_step_s=together / steps,
        step_share=inside / together,
    )
