"""Two real processes with half a batch each equal one process with the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import processes
import pytest
import torch
from cases import SPECS, VOID, Spec, each, example, named
from processes import NAMES, model_gradient

from lossatlas import losses


@pytest.fixture(scope="module")
def computed(
    tmp_path_factory: pytest.TempPathFactory,
    side_by_side: Callable[..., None],
    free_port: Callable[[], int],
) -> list[dict]:
    """What each of the two processes computed."""
    out = [tmp_path_factory.mktemp("gloo") / f"{rank}.pt" for rank in (0, 1)]
    port = free_port()
    side_by_side(processes.half, [(rank, port, out[rank]) for rank in (0, 1)])
    return [torch.load(path) for path in out]


@each(*NAMES)
def test_two_processes_have_the_loss_and_the_gradient_of_the_whole_batch(
    computed: list[dict], spec: Spec
) -> None:
    for mode in ("multiclass", "binary"):
        logits, target = example(mode, images=4, void=0.2, seed=11)
        for text, options in processes.options(spec.name):
            loss = spec.build(mode, ignore_index=VOID, **options)
            expected = model_gradient(loss, logits, target)
            for rank in (0, 1):
                with named(mode, text, f"process {rank}"):
                    for got, want in zip(
                        computed[rank][spec.name, mode, text], expected, strict=True
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
    sorting = {"ohem_ce", "topk_ce", "lovasz_softmax", "lovasz_hinge"}
    assert missing <= sorting | {"dice_ce", "dice_focal", "dice_topk", "ce_lovasz"}


def test_a_process_group_without_processes_is_an_error_that_says_what_to_call() -> None:
    logits, target = example("multiclass")
    with pytest.raises(ValueError, match="init_process_group"):
        losses.build("dice", process_group="world")(logits, target)
