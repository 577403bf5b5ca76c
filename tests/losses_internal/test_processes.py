"""Statistics summed over two real processes give the loss and gradient of the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import torch
import torch.multiprocessing as mp

from lossatlas import losses

NAMES = ["ce", "focal", "balanced_ce", "dice", "generalized_dice", "unified_focal", "boundary"]


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 6, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (4, 6, 5), generator=generator)
    target[:2][target[:2] == 2] = 0  # the first process has no pixel of class 2
    target[0] = 255  # nor as many valid ones
    return logits, target


def _work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    logits, target = _batch()
    mine = slice(2 * rank, 2 * rank + 2)
    results = {}
    for name in NAMES:
        part = logits[mine].clone().requires_grad_()
        loss = losses.build(name, ignore_index=255, process_group="world")
        value = loss(part, target[mine])
        value.backward()
        results[name] = (value.detach(), part.grad)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_work, args=(port, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    logits, target = _batch()
    for name in NAMES:
        whole = logits.clone().requires_grad_()
        value = losses.build(name, ignore_index=255)(whole, target)
        value.backward()
        for part in parts:
            torch.testing.assert_close(part[name][0], value.detach())
        # DistributedDataParallel averages over the processes: half of each process's gradient.
        gathered = torch.cat([part[name][1] for part in parts]) / 2
        torch.testing.assert_close(gathered, whole.grad)
