"""Two real processes with half a batch each equal one process with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from cases import SPECS, VOID, Spec, each, example, named

from lossatlas import losses

HERE = Path(__file__).parent

# Unequal halves (3 + 1 images), so that an average of the processes' losses would be wrong.
WORKER = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    import torch, torch.distributed as dist
    from cases import SPECS, VOID, WEIGHT, example
    from test_processes import NAMES, OPTIONS, model_gradient
    torch.set_num_threads(1)
    rank = int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[3]}", rank=rank, world_size=2)
    out = {}
    for name in NAMES:
        for mode in ("multiclass", "binary"):
            for label, options in OPTIONS(name):
                logits, target = example(mode, images=4, void=0.2, seed=11)
                part = slice(0, 3) if rank == 0 else slice(3, 4)
                loss = SPECS[name].build(mode, ignore_index=VOID, process_group="world", **options)
                value, grad, scale = model_gradient(loss, logits[part], target[part])
                for g in (grad, scale):  # what DistributedDataParallel does with the gradients of the parameters
                    dist.all_reduce(g)
                    g /= 2
                out[name, mode, label] = (value, grad, scale)
    torch.save(out, sys.argv[4])
    dist.destroy_process_group()
    """
)

NAMES = [n for n, s in SPECS.items() if "process_group" in losses.parameters(n)]


def OPTIONS(name: str) -> list[tuple[str, dict]]:
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


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the two processes computed."""
    folder = tmp_path_factory.mktemp("gloo")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                str(HERE),
                str(rank),
                str(port),
                str(folder / f"{rank}.pt"),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@each(*NAMES)
def test_two_processes_have_the_loss_and_the_gradient_of_the_whole_batch(
    processes: list[dict], spec: Spec
) -> None:
    for mode in ("multiclass", "binary"):
        logits, target = example(mode, images=4, void=0.2, seed=11)
        for text, options in OPTIONS(spec.name):
            loss = spec.build(mode, ignore_index=VOID, **options)
            expected = model_gradient(loss, logits, target)
            for rank in (0, 1):
                with named(mode, text, f"process {rank}"):
                    for got, want in zip(
                        processes[rank][spec.name, mode, text], expected, strict=True
                    ):
                        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)


def test_averaging_the_losses_of_the_processes_would_be_wrong() -> None:
    """The control: without the sum over processes the mean of the halves is another number."""
    logits, target = example("multiclass", images=4, void=0.2, seed=11)
    loss = losses.build("dice", ignore_index=VOID)
    halves = (loss(logits[:3], target[:3]) + loss(logits[3:], target[3:])) / 2
    assert abs(halves - loss(logits, target)) > 1e-3


def test_every_loss_whose_statistics_cross_images_can_sum_over_processes() -> None:
    missing = {n for n in SPECS if n not in NAMES}
    # Sorting and choosing pixels would need every process's pixels; compounds take losses that carry their own group.
    assert missing <= {
        "ohem_ce",
        "topk_ce",
        "lovasz_softmax",
        "lovasz_hinge",
        "dice_ce",
        "dice_focal",
        "dice_topk",
        "ce_lovasz",
    }


def test_a_process_group_without_processes_is_an_error_that_says_what_to_call() -> None:
    logits, target = example("multiclass")
    with pytest.raises(ValueError, match="init_process_group"):
        losses.build("dice", process_group="world")(logits, target)
