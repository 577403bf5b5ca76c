"""What each of two processes computes in ``test_processes.py``: a module that both can import."""

from __future__ import annotations

from pathlib import Path

import torch
from cases import SPECS, VOID, example

from lossatlas import losses

NAMES = [n for n in SPECS if "process_group" in losses.parameters(n)]


def options(name: str) -> list[tuple[str, dict]]:
    """The reductions of a loss that differ in what they sum."""
    out = [("mean", {}), ("sum", {"reduction": "sum"})]
    if SPECS[name].is_region:
        out.append(("per image", {"per_image": True}))
    return [o for o in out if o[1].get("reduction", "mean") in SPECS[name].reductions]


def model_gradient(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value, and gradient of two parameters that every process shares: a bias per channel and a scale."""
    bias = torch.zeros(logits.shape[1], dtype=logits.dtype, requires_grad=True)
    scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
    value = loss(scale * logits + bias.view(-1, 1, 1), target)
    grads = torch.autograd.grad(value, (bias, scale))
    return value.detach(), *grads


def half(rank: int, port: int, out: Path) -> None:
    """The part of process ``rank``: unequal (3 + 1 images), so that an average of two losses would be wrong."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    part, found = slice(0, 3) if rank == 0 else slice(3, 4), {}
    for name in NAMES:
        for mode in ("multiclass", "binary"):
            for label, given in options(name):
                logits, target = example(mode, images=4, void=0.2, seed=11)
                loss = SPECS[name].build(mode, ignore_index=VOID, process_group="world", **given)
                value, *grads = model_gradient(loss, logits[part], target[part])
                for grad in grads:  # what DistributedDataParallel does with a parameter's gradient
                    torch.distributed.all_reduce(grad)
                    grad /= 2
                found[name, mode, label] = (value, *grads)
    torch.save(found, out)
    torch.distributed.destroy_process_group()
