"""Sums over the processes of a group, differentiable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Sum(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce: each process's loss depends on every part."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = value.detach().clone().contiguous()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.group), None


def sum_over_processes(value: Tensor, group: Any) -> Tensor:
    """Sum of `value` over the processes of `group`: None (this one), "world", or a ProcessGroup."""
    if group is None:
        return value
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        raise ValueError(
            f"process_group={group!r} needs an initialised process group; call "
            "torch.distributed.init_process_group first, or leave process_group out."
        )
    result: Tensor = _Sum.apply(value, None if group == "world" else group)
    return result
