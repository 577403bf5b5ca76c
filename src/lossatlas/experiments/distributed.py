r"""One large training on several devices: every process takes its images of the batch, the result is one process's.

What makes it one training and not an average of several:

- every process draws the whole batch and its augmentation and keeps its part, so that the images are those of one
  process;
- batch normalisation takes the statistics of the whole batch (torch's on a GPU; :class:`SynchronisedBatchNorm2d` on
  the CPU, where torch has none), so that the network is the same function;
- the loss is that of the whole batch: losses that sum their statistics over a process group are told to, for the
  others (Lovász, OHEM, top-k: they sort) the logits of all processes are gathered.

::

    python -m torch.distributed.run --standalone --nproc-per-node 2 \
        -m lossatlas.experiments.distributed runs cpu '[{"loss": "dice", "steps": 20}]'

is what :func:`train_cell` types for ``devices=2``; with ``--nnodes`` it goes over several machines.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from lossatlas.experiments import training
from lossatlas.experiments.components import load_datasets, require_same_shape
from lossatlas.experiments.config import Precision, RunConfig, TrainParameters, validated
from lossatlas.experiments.processes import OneProcess
from lossatlas.experiments.record import is_complete, require_same_data, run_path
from lossatlas.experiments.stopping import StopSignals
from lossatlas.losses._processes import sum_over_processes

_Result = TypeVar("_Result")


class SeveralProcesses(OneProcess):
    """The processes that ``torch.distributed.run`` started, each with its part of every batch.

    Args:
        accelerator: Fabric's name of the devices.
        precision: of the forward pass.
    """

    def __init__(self, accelerator: str, precision: Precision) -> None:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        self.fabric = _Fabric(
            accelerator=accelerator,
            devices=local,
            num_nodes=world // local,
            strategy=DDPStrategy(),
            precision=precision,
        )
        self.fabric.launch()
        self.size, self.rank = self.fabric.world_size, self.fabric.global_rank
        self.is_first = self.rank == 0
        self.description = {"count": self.size, "backend": torch.distributed.get_backend()}

    def network(self, model: nn.Module) -> nn.Module:
        """``model`` with batch normalisation over the whole batch."""
        return synchronised(model, self.fabric.device)

    def loss(self, criterion: nn.Module) -> nn.Module:
        """``criterion`` of the whole batch."""
        return criterion if sums_over_processes(criterion) else Gathered(criterion)

    def part(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """An equal part of the batch for each process.

        Raises:
            ValueError: the batch does not divide into equal parts.
        """
        if len(images) % self.size:
            raise ValueError(
                f"batch_size: expected a multiple of the {self.size} processes, got {len(images)}"
            )
        return images.chunk(self.size)[self.rank], target.chunk(self.size)[self.rank]

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def anyone(self, asked: bool) -> bool:
        """Whether any process asks for it."""
        return bool(self.total(torch.tensor(float(asked), device=self.fabric.device)))

    def first(self, work: Callable[[], _Result]) -> _Result:
        """``work()``, done by the first process, the result known to all; the others wait."""
        return cast(_Result, self.fabric.broadcast(work() if self.is_first else None))

    def wait(self) -> None:
        """Until all processes have come here."""
        self.fabric.barrier()


class _Fabric(Fabric):
    """Fabric, but what the first process alone saves the others do not wait for."""

    def save(self, path: str | Path, state: dict[str, Any], filter: Any = None) -> None:
        """Write ``state``; Fabric's own ``save`` must be called in all processes."""
        torch.save(state, path)


def sums_over_processes(criterion: nn.Module) -> bool:
    """Have ``criterion`` sum its statistics over all processes, if all its parts can; whether they can."""
    parts = [m for m in criterion.modules() if not hasattr(m, "parts") and hasattr(m, "reduction")]
    # by what a loss takes, not by what it has: the Lovász losses inherit the attribute and cannot use it
    if not parts or not all(
        "process_group" in inspect.signature(type(part)).parameters for part in parts
    ):
        return False
    for part in parts:
        setattr(part, "process_group", "world")  # noqa: B010 — of type Module, mypy knows no such attribute
    return True


class Gathered(nn.Module):
    """A loss of the logits of all processes, for losses that are no function of sums.

    Every process holds the value of the whole batch. The gradient at a process's own logits is multiplied by the
    number of processes, so that the average that DistributedDataParallel takes is the whole batch's gradient.

    Args:
        criterion: takes (logits, target), gives a scalar.
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of the whole batch; every process brings as many images."""
        size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        all_logits, all_targets = _gathered(logits.detach(), size), _gathered(target, size)
        all_logits[rank] = logits
        if logits.requires_grad:
            all_logits[rank] = logits.clone()
            all_logits[rank].register_hook(lambda gradient: gradient * size)
        loss: Tensor = self.criterion(torch.cat(all_logits), torch.cat(all_targets))
        return loss


def _gathered(value: Tensor, size: int) -> list[Tensor]:
    parts = [torch.empty_like(value.contiguous()) for _ in range(size)]
    torch.distributed.all_gather(parts, value.contiguous())
    return parts


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the mean and the variance over the images of all processes, on any device.

    With n values a channel in all processes together::

        μ = Σ x / n,   σ² = Σ (x − μ)² / n,   y = (x − μ) / √(σ² + ε) · weight + bias

    and running statistics from μ and n σ² / (n − 1), as ``nn.BatchNorm2d`` has them for a whole batch.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W); in evaluation mode by the running statistics."""
        if not self.training:
            return super().forward(images)
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        values = images.float()
        count = torch.full((1,), values.numel() / values.shape[1], device=values.device)
        sums = sum_over_processes(torch.cat([values.sum(axes), count]), "world")
        mean, n = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.reshape(shape)
        variance = sum_over_processes(centred.square().sum(axes), "world") / n
        with torch.no_grad():
            if self.running_mean is not None and self.running_var is not None:
                assert self.momentum is not None and self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        result = centred * scale.reshape(shape)
        if self.affine:
            result = result + self.bias.reshape(shape)
        return result.to(images.dtype)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with every batch normalisation over all processes; the same weights under the same names."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, module in model.named_children():
        if isinstance(module, nn.BatchNorm2d):
            replacement = SynchronisedBatchNorm2d(
                module.num_features,
                eps=module.eps,
                momentum=module.momentum,
                affine=module.affine,
                track_running_stats=module.track_running_stats,
            )
            replacement.load_state_dict(module.state_dict())
            setattr(model, name, replacement)
        else:
            synchronised(module, device)
    return model


def train_cell(parameters: TrainParameters, datasets: dict[str, Any] | None = None) -> list[Path]:
    """Train every seed of ``parameters``, on ``parameters.devices`` devices each; the run folders.

    Args:
        parameters: the notebook's.
        datasets: ``train``, ``val`` and ``test``, if they are loaded already; several processes load their own.

    Raises:
        Interrupted: SIGTERM came; the run is saved.
        RuntimeError: a process failed; its error stands above.
    """
    if parameters.devices == 1:
        return training.train_cell(parameters, datasets)
    configs = parameters.runs()
    require_same_data(parameters.runs_dir, configs, datasets or {})
    waiting = [c for c in configs if not is_complete(parameters.runs_dir, c)]
    if waiting:
        launch(waiting, parameters.runs_dir, parameters.accelerator, parameters.devices)
    return [run_path(parameters.runs_dir, config) for config in configs]


def launch(
    configs: Sequence[RunConfig], runs_dir: str | Path, accelerator: str, devices: int
) -> None:
    """Train ``configs`` one after the other, each in ``devices`` processes of this machine.

    Raises:
        Interrupted: SIGTERM came; the run under way is saved.
        RuntimeError: a process failed.
    """
    described = json.dumps([config.model_dump() for config in configs])
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(devices), "-m", "lossatlas.experiments.distributed"),
        *(str(runs_dir), accelerator, described),
    ]
    # without a number of threads each process takes one for each core
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with StopSignals() as stop:
        stop.defer()
        process = subprocess.Popen(command, env=environment)
        passed_on = False
        while process.poll() is None:
            if stop.requested is not None and not passed_on:
                process.terminate()  # the launcher passes it on to the processes
                passed_on = True
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        stop.obey()
    if process.returncode:
        raise RuntimeError(
            f"training in {devices} processes failed with status {process.returncode}: their output says why"
        )


def main(arguments: Sequence[str]) -> None:
    """What each process does: RUNS_DIR ACCELERATOR CONFIGURATIONS (a list, as JSON)."""
    runs_dir, accelerator, described = arguments
    configs = [validated(RunConfig, values, what="parameter") for values in json.loads(described)]
    processes: dict[str, SeveralProcesses] = {}
    for config in configs:
        if config.precision not in processes:
            processes[config.precision] = SeveralProcesses(accelerator, config.precision)
        several = processes[config.precision]
        datasets = load_datasets(config)
        require_same_shape(datasets)
        training.train_run(config, datasets, runs_dir=runs_dir, processes=several)
        if several.is_first:
            print(f"seed {config.seed}: run {config.run_id} trained by {several.size}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
