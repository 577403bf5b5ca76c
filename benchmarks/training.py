"""What the training loop costs beside a bare one, what its measuring costs, and how much of a study is training.

    python benchmarks/training.py --out results/bench            # minutes on a CPU; the published sizes on a GPU
    python benchmarks/training.py --out /tmp/bench --quick       # a smoke test (seconds)

Three tables, in one file each:

``training.csv``         images a second of U-Net and SegNet at 360×480, batch 4: our loop as a study runs it (batches
                         ahead, gradient norm, the foreground's share of the gradient, heartbeat), a bare PyTorch
                         loop, and Lightning's Trainer where ``lightning`` is installed. Same network, loss, optimiser
                         and pixels. On a GPU also with bfloat16, channels-last and torch.compile.
``instrumentation.csv``  a step with and without all that is measured in it, in turns (on the CPU: time on a core).
``share.csv``            a process that trains several small runs: seconds in the training loop over all of its
                         seconds, the start of Python included; and the same sums of finished studies.

Contenders take turns in every round; a number is the median over the rounds, a ratio the median of the ratios within
a round, so that a busy machine slows all alike. One thread on the CPU. ``training.json`` says where and when.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import itertools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from lossatlas import losses, models
from lossatlas.data.dataset import SegmentationDataset
from lossatlas.experiments import RunConfig, training
from lossatlas.experiments.checkpoint import Checkpoints
from lossatlas.experiments.gradients import BatchGradient
from lossatlas.experiments.heartbeat import Heartbeat
from lossatlas.experiments.instrumentation import ForegroundShare
from lossatlas.experiments.processes import OneProcess
from lossatlas.experiments.seeding import batch_indices
from lossatlas.experiments.stopping import StopSignals

CLASSES = ("background", *(f"class {k}" for k in range(1, 11)))
#: Steps before the clock starts: allocations, the choice of convolution algorithms.
WARM_UP = 2
#: The smallest network of the studies, where what surrounds a step weighs most.
SMALL = {"dataset_params": {"image_size": 64}, "model_params": {"width": 8}, "batch_size": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bf16-mixed"},
    "bfloat16, channels last": {"precision": "bf16-mixed", "channels_last": True},
    "bfloat16, channels last, compiled": {
        "precision": "bf16-mixed",
        "channels_last": True,
        "compile": True,
    },
}


def scenes(count: int, height: int, width: int, channels: int) -> SegmentationDataset:
    """Random pixels and labels: only their number matters here."""
    random = np.random.default_rng(0)
    return SegmentationDataset(
        name="random",
        split="train",
        classes=CLASSES,
        mode="multiclass",
        images=random.integers(0, 256, (count, height, width, channels), dtype=np.uint8),
        labels=random.integers(0, len(CLASSES), (count, height, width), dtype=np.uint8),
        ids=[str(k) for k in range(count)],
        groups=[str(k) for k in range(count)],
        mean=[0.5] * channels,
        std=[0.25] * channels,
    )


def build(config: RunConfig, dataset: SegmentationDataset) -> torch.nn.Module:
    """The network of ``config``, from its seed."""
    torch.manual_seed(config.seed)
    return models.build(
        config.model, dataset.in_channels, dataset.out_channels, **config.model_params
    )


def seconds_per_step(moments: list[float]) -> float:
    """Mean duration of the steps after the warm-up, from the moments at which steps ended."""
    return (moments[-1] - moments[WARM_UP - 1]) / (len(moments) - WARM_UP)


def ours(config: RunConfig, dataset: SegmentationDataset, accelerator: str) -> float:
    """Seconds a step of ``training.fit``."""
    moments: list[float] = []
    processes = OneProcess(accelerator, config.precision)
    with tempfile.TemporaryDirectory() as folder, StopSignals() as stop:
        heartbeat = Heartbeat(folder, "benchmark", "benchmark", config.steps)

        def beat(step: int, loss: float) -> None:
            heartbeat.beat(step, loss)
            moments.append(time.perf_counter())

        with heartbeat:
            training.fit(
                processes,
                build(config, dataset),
                losses.build(config.loss).to(processes.fabric.device),
                config,
                dataset,
                lambda: {},
                beat,
                Checkpoints(Path(folder) / "partial", {}, every_s=1e9),
                stop,
            )
    return seconds_per_step(moments)


def bare(config: RunConfig, dataset: SegmentationDataset, accelerator: str) -> float:
    """Seconds a step of the loop that a tutorial would show, with the same optimiser and pixels."""
    device = torch.device("cuda" if accelerator == "cuda" else "cpu")
    model, criterion = build(config, dataset).to(device), losses.build(config.loss).to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    network = torch.compile(model) if config.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, fused=True)
    moments = []
    order = batch_indices(len(dataset), config.batch_size, config.seed)
    for indices in itertools.islice(order, config.steps):
        images, target = (values.to(device, non_blocking=True) for values in dataset.batch(indices))
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision != "32-true"):
            logits = network(images)
        loss = criterion(logits.float(), target)
        loss.backward()
        optimizer.step()
        loss.item()  # every loop prints its loss; on a GPU this is what waits for the step
        moments.append(time.perf_counter())
    return seconds_per_step(moments)


def trainer(config: RunConfig, dataset: SegmentationDataset, accelerator: str) -> float:
    """Seconds a step of Lightning's Trainer, with logging, checkpoints and the progress bar off."""
    lightning = lightning_module()
    model, criterion = build(config, dataset), losses.build(config.loss)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    moments: list[float] = []

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.compile(model) if config.compile else model
            self.criterion = criterion

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            images, target = batch
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            return self.criterion(self.network(images).float(), target)

        def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
            outputs["loss"].item()
            moments.append(time.perf_counter())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(model.parameters(), lr=config.lr, fused=True)

    order = [
        list(indices)
        for indices in itertools.islice(
            batch_indices(len(dataset), config.batch_size, config.seed), config.steps
        )
    ]

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            images, target = dataset.batch([index])
            return images[0], target[0]

    loader = torch.utils.data.DataLoader(Images(), batch_sampler=order)
    with tempfile.TemporaryDirectory() as folder:
        lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=config.precision,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        ).fit(Module(), loader)
    return seconds_per_step(moments)


def lightning_module() -> Any:
    """The package of the Trainer, under either of its names; None if it is not installed."""
    with contextlib.suppress(ImportError):
        import lightning

        return lightning
    with contextlib.suppress(ImportError):
        import pytorch_lightning

        return pytorch_lightning
    return None


def throughput(accelerator: str, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Images a second of every contender, model and variant."""
    height, width = (48, 64) if quick else (360, 480)
    size = "published" if accelerator == "cuda" and not quick else "small"
    batch, steps = (2, 4) if quick else (4, 60 if accelerator == "cuda" else 7)
    dataset = scenes(batch * 3, height, width, channels=3)
    contenders: dict[str, Callable[..., float]] = {"Loss Atlas": ours, "bare PyTorch": bare}
    if lightning_module() is not None:
        contenders["Lightning Trainer"] = trainer
    rows = []
    variants = VARIANTS if accelerator == "cuda" else {"float32": {}}
    for model, (variant, options) in itertools.product(("unet", "segnet"), variants.items()):
        config = RunConfig(
            model=model,
            model_params={"size": size},
            batch_size=batch,
            steps=steps,
            augment={},
            **options,
        )
        parameters = models.count_parameters(build(config, dataset))
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, contender in contenders.items():
                times[name].append(contender(config, dataset, accelerator))
        for name, found in times.items():
            ratios = [t / b for t, b in zip(found, times["bare PyTorch"], strict=True)]
            rows.append(
                {
                    "device": accelerator,
                    "model": model,
                    "parameters": parameters,
                    "pixels": f"{height}x{width}",
                    "batch": batch,
                    "variant": variant,
                    "loop": name,
                    "ms_per_step": 1e3 * statistics.median(found),
                    "images_per_s": batch / statistics.median(found),
                    "time_to_bare": statistics.median(ratios),
                }
            )
            show(rows[-1])
    return rows


def instrumentation(accelerator: str, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A step with and without the gradient norm, the foreground's share and the row of the curves, in turns.

    A turn is 25 steps, the interval at which the share is measured by default. Whoever begins alternates.
    """
    every = 2 if quick else RunConfig().share_every
    rows = []
    for model in ("unet", "segnet"):
        config = RunConfig(**SMALL, model=model)
        turn = turns(config, accelerator, every)
        for measuring in (True, False):
            turn(measuring)
        pairs = []
        for k in range(rounds):
            order = (True, False) if k % 2 else (False, True)
            pairs.append({measuring: turn(measuring) for measuring in order})
        rows.append(
            {
                "device": accelerator,
                "model": model,
                "pixels": "64x64",
                "batch": config.batch_size,
                "ms_with": 1e3 * statistics.median(pair[True] for pair in pairs),
                "ms_without": 1e3 * statistics.median(pair[False] for pair in pairs),
                "overhead": statistics.median(pair[True] / pair[False] for pair in pairs) - 1,
                "turns": rounds,
            }
        )
        show(rows[-1])
    return rows


def turns(config: RunConfig, accelerator: str, every: int) -> Callable[[bool], float]:
    """A function that makes ``every`` steps, measuring or not, and returns seconds a step.

    On the CPU they are seconds of this process on a core, which others on the machine disturb least.
    """
    dataset = scenes(64, 64, 64, channels=1)
    processes = OneProcess(accelerator, config.precision)
    network = build(config, dataset)
    optimizer = training.build_optimizer(network, config)
    wrapped, optimizer = processes.fabric.setup(network, optimizer)
    device = processes.fabric.device
    gradient = BatchGradient(processes.fabric, wrapped, losses.build("dice").to(device), None)
    share = ForegroundShare.of(dataset)
    images, target = (v.to(device) for v in dataset.batch(np.arange(config.batch_size)))
    curves: list[dict[str, float]] = []
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def turn(measuring: bool) -> float:
        with tempfile.TemporaryDirectory() as folder:
            heartbeat = Heartbeat(folder, "benchmark", "benchmark", every)
            wait_for(device)
            began = clock()
            for step in range(every):
                measure = share if measuring and step == 0 else None
                loss, found = gradient(images, target, measure)
                if measuring:
                    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters()])
                    values = [loss, norm, *([] if found is None else found)]
                    value, *_ = torch.stack(values).tolist()
                    curves.append({"step": step, "loss_value": value, "grad_norm": value})
                    heartbeat.beat(step, value)
                else:
                    loss.item()
                optimizer.step()
            wait_for(device)
            return (clock() - began) / every

    return turn


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_PROCESS = """
import json, sys
from lossatlas.experiments import RunConfig
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.training import train_run
configs = [RunConfig(**values) for values in json.loads(sys.argv[1])]
datasets = load_datasets(configs[0])
for config in configs:
    train_run(config, datasets, runs_dir=sys.argv[2], accelerator=sys.argv[3])
"""


def share(accelerator: str, quick: bool, results: list[Path]) -> list[dict[str, Any]]:
    """The part of a process's time that it trains, for eight runs of the smallest network; and of studies."""
    steps, count = (3, 2) if quick else (300, 8)
    values = [{**SMALL, "steps": steps, "evaluations": 2, "seed": seed} for seed in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-c", _PROCESS, json.dumps(values), folder, accelerator]
        subprocess.run(command, check=True)
        wall_s = time.perf_counter() - began
        records = [json.loads(p.read_text()) for p in Path(folder).glob("[!.]*/run.json")]
    train_s = sum(record["train_s"] for record in records)
    rows = [
        {
            "what": f"one process, {count} runs of {steps} steps",
            "device": accelerator,
            "runs": count,
            "train_s": train_s,
            "wall_s": wall_s,
            "share": train_s / wall_s,
            "beyond_training_s_per_run": (wall_s - train_s) / count,
        }
    ]
    for path in results:
        import pandas as pd

        runs = pd.read_parquet(path / "runs.parquet")
        train_s, wall_s = float(runs.train_s.sum()), float(runs.wall_s.sum())
        rows.append(
            {
                "what": f"study {path.name}, from the start of each run to its record",
                "device": json.loads((path / "study.json").read_text())["provenance"]["hardware"][
                    "device"
                ],
                "runs": len(runs),
                "train_s": train_s,
                "wall_s": wall_s,
                "share": train_s / wall_s,
                "beyond_training_s_per_run": (wall_s - train_s) / len(runs),
            }
        )
    for row in rows:
        show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    """A row for whoever watches."""
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, floats to four significant digits."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def machine(accelerator: str) -> dict[str, Any]:
    """Where and when this was measured."""
    module = lightning_module()
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if accelerator == "cuda" else None,
        "torch": str(torch.__version__),
        "lightning": None if module is None else module.__version__,
        "measured_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "how": (__doc__ or "").rsplit("\n\n", 1)[-1].replace("\n", " ").strip(),
    }


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender")
    parser.add_argument(
        "--only", nargs="+", choices=["throughput", "instrumentation", "share"], default=None
    )
    parser.add_argument(
        "--studies", type=Path, nargs="*", default=[], help="folders results/STUDY to add up"
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs: a smoke test")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.ERROR)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    rounds = 1 if options.quick else options.rounds
    wanted = options.only or ["throughput", "instrumentation", "share"]
    options.out.mkdir(parents=True, exist_ok=True)
    if "throughput" in wanted:
        write(throughput(accelerator, options.quick, rounds), options.out / "training.csv")
    if "instrumentation" in wanted:
        # short turns: many of them
        rows = instrumentation(accelerator, options.quick, 2 if options.quick else 8 * rounds)
        write(rows, options.out / "instrumentation.csv")
    if "share" in wanted:
        write(share(accelerator, options.quick, options.studies), options.out / "share.csv")
    (options.out / "training.json").write_text(json.dumps(machine(accelerator), indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
