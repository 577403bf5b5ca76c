"""What is the same to the bit when a training is repeated, and what it costs to have it so.

    python benchmarks/determinism.py --out results/bench           # on a GPU: the table that matters
    python benchmarks/determinism.py --out /tmp/bench --quick      # a smoke test (seconds)

Each network and loss is trained twice from the same seed, in one process, for a few steps: as it comes; with
cuDNN's deterministic convolutions; and with ``torch.use_deterministic_algorithms``, where an operation without a
deterministic form raises. ``determinism.csv`` says whether the weights are equal to the bit after the last step, how
far the losses drift apart if they are not, which operation stood in the way, and the time of a step over that of the
first setting. On the CPU everything is expected to be equal; the tests hold that.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# cuBLAS is deterministic only with this, and reads it when it starts
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from lossatlas import losses
from lossatlas.experiments import RunConfig, training
from lossatlas.experiments.checkpoint import Checkpoints
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.processes import OneProcess
from lossatlas.experiments.stopping import StopSignals

SETTINGS = ("as it comes", "deterministic convolutions", "deterministic algorithms")
#: SciPy's distance transform on the host sets their pace.
_LEFT_OUT = ("boundary", "hausdorff")


def choose(setting: str) -> None:
    """Switch torch to one of ``SETTINGS``."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = setting != SETTINGS[0]
    torch.use_deterministic_algorithms(setting == SETTINGS[2])


def train(
    config: RunConfig, dataset: Any, accelerator: str
) -> tuple[list[float], dict[str, torch.Tensor], float]:
    """Losses of all steps, the final weights, and the median duration of a step in seconds."""
    processes = OneProcess(accelerator, config.precision)
    model = training.build_model_for(config, dataset)
    criterion = training.build_loss_on(config, dataset).to(processes.fabric.device)
    values: list[float] = []
    moments: list[float] = []

    def beat(step: int, loss: float) -> None:
        values.append(loss)
        moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, StopSignals() as stop:
        checkpoints = Checkpoints(Path(folder), {}, every_s=1e9)
        training.fit(
            processes, model, criterion, config, dataset, lambda: {}, beat, checkpoints, stop
        )
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    steps = [after - before for before, after in itertools.pairwise(moments)]
    return values, weights, statistics.median(steps)


def row(config: RunConfig, dataset: Any, accelerator: str, setting: str) -> dict[str, Any]:
    """One line of the table: the training twice under one setting."""
    found: dict[str, Any] = {
        "device": accelerator,
        "model": config.model,
        "loss": config.loss,
        "precision": config.precision,
        "setting": setting,
        "equal": False,
        "largest_loss_difference": None,
        "ms_per_step": None,
        "obstacle": "",
    }
    choose(setting)
    try:
        first, second = (train(config, dataset, accelerator) for _ in range(2))
    except RuntimeError as error:
        if "determinis" not in str(error):
            raise
        # "max_unpooling2d_forward_out does not have a deterministic implementation, but …"
        return found | {"obstacle": str(error).split(" does not")[0].splitlines()[0]}
    finally:
        choose(SETTINGS[0])
    return found | {
        "equal": first[0] == second[0]
        and all(torch.equal(tensor, second[1][name]) for name, tensor in first[1].items()),
        "largest_loss_difference": max(
            abs(a - b) for a, b in zip(first[0], second[0], strict=True)
        ),
        "ms_per_step": 1e3 * min(first[2], second[2]),
    }


def table(accelerator: str, quick: bool, names: Iterable[str]) -> list[dict[str, Any]]:
    """All lines; ``time_ratio`` is to the first setting of the same network, loss and precision."""
    names = [name for name in names if name not in _LEFT_OUT]
    data = {"image_size": 32, "train_size": 8, "val_size": 1, "test_size": 1} if quick else {}
    base = RunConfig(
        dataset_params=data or {"image_size": 128, "train_size": 64, "val_size": 1, "test_size": 1},
        steps=3 if quick else 30,
        batch_size=4 if quick else 16,
    )
    dataset = load_datasets(base, splits=("train",))["train"]
    size = {"width": 4, "depth": 2} if quick else {"size": "published"}
    precisions = ("32-true", "bf16-mixed") if accelerator == "cuda" else ("32-true",)
    rows = []
    for model in ("unet", "segnet"):
        # every loss on the U-Net; the network is what differs on the other
        for loss in names if model == "unet" and not quick else ("ce", "lovasz_softmax"):
            for precision in precisions:
                config = base.model_copy(
                    update={
                        "model": model,
                        "model_params": size,
                        "loss": loss,
                        "precision": precision,
                    }
                )
                lines = [row(config, dataset, accelerator, setting) for setting in SETTINGS]
                for line in lines:
                    times = line["ms_per_step"], lines[0]["ms_per_step"]
                    line["time_ratio"] = times[0] / times[1] if all(times) else None
                    print("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()))  # fmt: skip
                rows += lines
    return rows


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="tiny inputs: a smoke test")
    parser.add_argument(
        "--names", nargs="+", choices=losses.names(), default=losses.names(), help="of losses"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    warnings.filterwarnings("ignore")
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu":
        torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = table(accelerator, options.quick, options.names)
    with (options.out / "determinism.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    described = {
        "gpu": torch.cuda.get_device_name() if accelerator == "cuda" else None,
        "torch": str(torch.__version__),
        "cudnn": torch.backends.cudnn.version() if accelerator == "cuda" else None,
    }
    (options.out / "determinism.json").write_text(json.dumps(described, indent=2) + "\n")
    equal = sum(line["equal"] for line in rows)
    print(f"equal to the bit: {equal} of {len(rows)}; written: {options.out}")


if __name__ == "__main__":
    main()
