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
from torch import Tensor, nn

#: Told the gradient at the logits and the target of the same images.
Watch = Callable[[Tensor, Tensor], None]


class BatchGradient:
    """Fills the parameters' ``grad`` with the gradient of the whole batch's loss.

    Args:
        fabric: device, precision, processes.
        model: as ``fabric.setup`` returned it.
        criterion: takes (logits, target), gives a scalar.
        micro_batch: images that pass through the network at a time; None takes the whole batch.
    """

    def __init__(
        self, fabric: Fabric, model: nn.Module, criterion: nn.Module, micro_batch: int | None
    ) -> None:
        self.fabric, self.model, self.criterion = fabric, model, criterion
        self.micro_batch = micro_batch
        self._buffers = list(model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._random: Any = None

    def __call__(self, images: Tensor, target: Tensor, watch: Watch | None = None) -> Tensor:
        """The loss, detached; the gradients are added to those that are there.

        Args:
            images: (B, C, H, W).
            target: (B, H, W).
            watch: told the gradient at the logits, which costs no second backward pass.
        """
        if self.micro_batch is None or self.micro_batch >= len(images):
            logits = self.model(images)
            if watch is not None:
                logits.register_hook(lambda gradient: watch(gradient, target))
            loss = self.criterion(logits, target)
            self.fabric.backward(loss)
            return loss.detach()
        return self._by_micro_batches(images, target, watch)

    def _by_micro_batches(self, images: Tensor, target: Tensor, watch: Watch | None) -> Tensor:
        parts = images.split(self.micro_batch)
        self.remember()
        drawn, kept = [], []
        with torch.no_grad():
            for part in parts:
                drawn.append(_random_state(images.device))
                kept.append(self.model(part))
        self._restore_buffers()  # running statistics count the second pass alone
        logits = torch.cat(kept).requires_grad_()
        loss = self.criterion(logits, target)
        (gradient,) = torch.autograd.grad(loss, logits)
        if watch is not None:
            watch(gradient, target)
        after = _random_state(images.device)
        for k, (part, part_gradient) in enumerate(
            zip(parts, gradient.split(self.micro_batch), strict=True)
        ):
            _set_random_state(images.device, drawn[k])  # dropout drops the same units again
            # several processes: gradients are exchanged once, with the last part
            with self.fabric.no_backward_sync(self.model, enabled=k < len(parts) - 1):
                torch.autograd.backward(self.model(part), part_gradient)
        _set_random_state(images.device, after)
        return loss.detach()

    def remember(self) -> None:
        """Keep what a forward pass changes: running statistics and the state of the random numbers."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        self._random = _random_state(self.fabric.device)

    def restore(self) -> None:
        """Undo a forward pass that failed: the state of the last :meth:`remember`."""
        self._restore_buffers()
        _set_random_state(self.fabric.device, self._random)

    def _restore_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
