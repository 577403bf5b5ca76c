"""The gradient of one step: of the whole batch at once, or by micro-batches where memory is short.

A loss with batch statistics (soft Dice over the batch, Lovász, OHEM …) of a batch is not the mean of its
micro-batches' losses, so adding up their gradients trains on another loss. Here the loss is always that of the
whole batch: the network runs over the micro-batches without keeping what a backward pass needs, the loss and its
gradient at the logits are taken once for the whole batch, and each micro-batch is run again and takes its part of
that gradient backward. The price is a second forward pass. What remains of the micro-batch is batch
normalisation: its statistics are those of each micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn

#: Of the logits, the gradient there and the target of the same images: numbers to record.
Measure = Callable[[Tensor, Tensor, Tensor], Tensor]


class BatchGradient:
    """Fills the parameters' ``grad`` with the gradient of the whole batch's loss.

    Where a GPU's memory is too short the micro-batch is halved, as often as it takes, and the step is made again
    as if nothing had happened; ``halved`` says when.

    Args:
        fabric: device, precision, processes.
        model: as ``fabric.setup`` returned it.
        criterion: takes (logits, target), gives a scalar.
        micro_batch: images that pass through the network at a time; None takes the whole batch.

    Attributes:
        micro_batch: the size in force.
        halved: ``[call, size]`` of each time that memory was too short: the number of the call, from 1, and the
            size from then on.
        calls: how many batches there were.
    """

    def __init__(
        self, fabric: Fabric, model: _FabricModule, criterion: nn.Module, micro_batch: int | None
    ) -> None:
        self.fabric, self.model, self.criterion = fabric, model, criterion
        self.micro_batch = micro_batch
        self.halved: list[list[int]] = []
        self.calls = 0
        self._buffers = list(model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._random: Any = None

    def __call__(
        self, images: Tensor, target: Tensor, measure: Measure | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The loss, detached, and what ``measure`` says of the logits and the gradient there.

        Args:
            images: (B, C, H, W).
            target: (B, H, W).
            measure: costs no second backward pass.

        Raises:
            torch.OutOfMemoryError: one image alone is too large for the device, or several processes share
                the batch: then they would have to agree, and ``micro_batch`` must be set by hand.
        """
        self.calls += 1
        self.remember()
        while True:
            self.model.zero_grad()
            try:
                if self.micro_batch is None or self.micro_batch >= len(images):
                    return self._at_once(images, target, measure)
                return self._by_micro_batches(images, target, measure)
            except torch.OutOfMemoryError as error:
                if len(images) == 1 or self.micro_batch == 1 or self.fabric.world_size > 1:
                    size = min(self.micro_batch or len(images), len(images))
                    error.add_note(
                        f"a micro-batch of {size} image(s) does not fit: set a smaller micro_batch, or "
                        "take smaller images or a smaller model"
                    )
                    raise
            # outside the except block: the error holds the frames, and they the tensors that must go first
            self.micro_batch = min(self.micro_batch or len(images), len(images)) // 2
            self.halved.append([self.calls, self.micro_batch])
            self.restore()
            if self.fabric.device.type == "cuda":
                torch.cuda.empty_cache()

    def _at_once(
        self, images: Tensor, target: Tensor, measure: Measure | None
    ) -> tuple[Tensor, Tensor | None]:
        logits = self.model(images)
        measured: list[Tensor] = []
        if measure is not None:
            logits.register_hook(
                lambda gradient: measured.append(measure(logits, gradient, target))
            )
        loss = self.criterion(logits, target)
        self.fabric.backward(loss)
        return loss.detach(), measured[0] if measured else None

    def _by_micro_batches(
        self, images: Tensor, target: Tensor, measure: Measure | None
    ) -> tuple[Tensor, Tensor | None]:
        assert self.micro_batch is not None
        parts = images.split(self.micro_batch)
        drawn, kept = [], []
        with torch.no_grad():
            for part in parts:
                drawn.append(random_state(images.device))
                kept.append(self.model(part))
        self._restore_buffers()  # running statistics count the second pass alone
        logits = torch.cat(kept).requires_grad_()
        loss = self.criterion(logits, target)
        (gradient,) = torch.autograd.grad(loss, logits)
        measured = None if measure is None else measure(logits, gradient, target)
        after = random_state(images.device)
        for k, (part, part_gradient) in enumerate(
            zip(parts, gradient.split(self.micro_batch), strict=True)
        ):
            set_random_state(images.device, drawn[k])  # dropout drops the same units again
            # several processes: gradients are exchanged once, with the last part
            with self.fabric.no_backward_sync(self.model, enabled=k < len(parts) - 1):
                self.fabric.backward(self.model(part), part_gradient)
        set_random_state(images.device, after)
        return loss.detach(), measured

    def describe(self) -> dict[str, Any] | None:
        """What a record says of micro-batches; None where every batch went through whole."""
        if self.micro_batch is None:
            return None
        normalised = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules()
        )
        return {
            "images": self.micro_batch,
            "halved": [{"step": call, "to": size} for call, size in self.halved],
            "loss": "of the whole batch, and so is its gradient at the logits: exact for every loss",
            "batch_normalisation": (
                "statistics of each micro-batch, not of the whole batch"
                if normalised
                else "the network has none: the gradient is that of the whole batch"
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"micro_batch": self.micro_batch, "halved": self.halved, "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.micro_batch, self.halved = state["micro_batch"], list(state["halved"])
        self.calls = state["calls"]

    def remember(self) -> None:
        """Keep what a forward pass changes: running statistics and the state of the random numbers."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        self._random = random_state(self.fabric.device)

    def restore(self) -> None:
        """Undo a forward pass: the state of the last :meth:`remember`."""
        self._restore_buffers()
        set_random_state(self.fabric.device, self._random)

    def _restore_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of torch's own generators, of the CPU and of the GPU: dropout and sampling losses draw from them."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    """Put back what :func:`random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
