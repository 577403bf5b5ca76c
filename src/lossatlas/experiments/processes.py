"""Who trains a run: one process on one device. Several are in :mod:`lossatlas.experiments.distributed`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn

from lossatlas.experiments.config import Precision

_Result = TypeVar("_Result")


class OneProcess:
    """One process on one device; what several would have to agree on it decides alone.

    Args:
        accelerator: Fabric's name of the device; ``"auto"`` takes a GPU where there is one.
        precision: of the forward pass.
    """

    #: Whether this process writes the record.
    is_first = True
    #: What a record says of the processes; None for one.
    description: dict[str, Any] | None = None

    def __init__(self, accelerator: str, precision: Precision) -> None:
        self.fabric = _fabric(accelerator, precision)

    def network(self, model: nn.Module) -> nn.Module:
        """``model`` with statistics of the whole batch."""
        return model

    def loss(self, criterion: nn.Module) -> nn.Module:
        """``criterion`` of the whole batch."""
        return criterion

    def part(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """This process's images of the batch."""
        return images, target

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        return value

    def anyone(self, asked: bool) -> bool:
        """Whether any process asks for it."""
        return asked

    def first(self, work: Callable[[], _Result]) -> _Result:
        """``work()``, done by the first process, the result known to all; the others wait."""
        return work()

    def wait(self) -> None:
        """Until all processes have come here."""


@cache  # finding out what there is takes a tenth of a second, a tiny run a few
def _fabric(accelerator: str, precision: Precision) -> Fabric:
    """One device; the environment is named, so that a run in a Slurm job does not take its tasks for its own."""
    return Fabric(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        plugins=[LightningEnvironment()],
    )
