"""Is the network ever kept waiting? The feed alone, the step alone, and both together.

    LOSSATLAS_MIRROR=… python benchmarks/feeding.py --out results/bench

CamVid at 360×480 with every augmentation (flip, scale, crop, colour), and the digits with a shift: the U-Net of the
`quick` study, one thread, as the studies train. Writes feeding.csv: images a second of the feed alone and of the step
alone, and the share of a training step's time that is the step.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lossatlas import data, losses, models
from lossatlas.data.augment import Augment
from lossatlas.data.feeding import Batch, feed
from lossatlas.experiments.seeding import batch_indices


class Found(NamedTuple):
    """What `measure` found.

    ``images_per_s`` is of the feed alone, ``step_s`` the mean duration of a step on a batch that is there already.
    ``step_share`` is how much of the training's time is spent in the step itself, the rest being the wait for the next
    batch; both are timed in one loop, so that a busy machine slows both.
    """

    images_per_s: float
    step_s: float
    step_share: float


def measure(
    dataset: Any,
    step: Callable[[torch.Tensor, torch.Tensor], object],
    *,
    batch_size: int,
    steps: int,
    device: str,
    augment: Augment,
) -> Found:
    """Time the feed alone, ``step(images, target)`` alone, and both together; a GPU's kernels are waited for."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def batches(count: int) -> Iterator[Batch]:
        order = itertools.islice(batch_indices(len(dataset), batch_size, seed=0), count)
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
    return Found(steps * batch_size / feeding, stepping / steps, inside / together)


def training_step(dataset: Any, device: str) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """Forward, backward and update of a small U-Net under Dice + cross-entropy."""
    model = models.build(
        "unet", in_channels=dataset.in_channels, out_channels=dataset.out_channels
    ).to(device)
    criterion = losses.build("dice_ce", mode=dataset.mode, ignore_index=dataset.ignore_index)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(images: torch.Tensor, target: torch.Tensor) -> None:
        optimizer.zero_grad()
        criterion(model(images), target).backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for feeding.csv")
    parser.add_argument("--steps", type=int, default=10, help="steps of each measurement")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    every = Augment(scale=(0.5, 2.0), crop=(360, 480), colour=0.2, ignore_index=11)
    cases: dict[str, tuple[dict[str, Any], int, Augment]] = {
        "camvid": ({}, 4, every),
        "digits": ({}, 16, Augment()),
    }
    rows = []
    for name, (params, batch_size, augment) in cases.items():
        if not data.is_available(name, **params):
            print(f"{name}: left out, its files are not on this machine")
            continue
        dataset = data.load(name, "train", **params)
        report = measure(
            dataset,
            training_step(dataset, device),
            batch_size=batch_size,
            steps=options.steps,
            device=device,
            augment=augment,
        )
        height, width = dataset.images.shape[1:3]
        rows.append(
            {
                "data": name,
                "size": f"{height}x{width}",
                "batch": batch_size,
                "device": device,
                "feed_images_per_s": f"{report.images_per_s:.4g}",
                "step_images_per_s": f"{batch_size / report.step_s:.4g}",
                "step_share": f"{report.step_share:.4f}",
            }
        )
        print(rows[-1])
    if rows:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "feeding.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
