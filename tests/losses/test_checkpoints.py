"""What a checkpoint of a loss holds: nothing; what a loss was built with counts."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses

LOGITS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))


def test_a_checkpoint_loads_strictly_with_and_without_class_weights_and_keeps_the_new_ones() -> (
    None
):
    kinds = [None, [1.0, 2.0, 3.0], [3.0, 1.0, 1.0]]
    for name in ("ce", "dice", "focal", "dice_ce"):
        for saved in kinds:
            for built in kinds:
                state = losses.build(name, weight=saved).state_dict()
                loss = losses.build(name, weight=built)
                expected = loss(LOGITS, TARGET)
                loss.load_state_dict(state)
                assert torch.equal(loss(LOGITS, TARGET), expected), (name, saved, built)


def test_weights_of_an_older_checkpoint_do_not_replace_those_of_the_loss() -> None:
    module = torch.nn.ModuleDict(
        {"loss": losses.FocalLoss(weight=[1.0, 2.0, 3.0], alpha=[0.1, 0.2, 0.3])}
    )
    module.load_state_dict({"loss.weight": torch.zeros(3), "loss.alpha": torch.zeros(3)})
    assert module["loss"].weight.tolist() == [1, 2, 3]
    assert module["loss"].alpha.sum() > 0
    plain = losses.CrossEntropyLoss()
    plain.load_state_dict({"weight": torch.zeros(3)})


NUMBERS = {
    "weighted_ce": {"weight": [1e-9, 70_000.0, 3.0]},
    "dice_ce": {"weight": [1e-9, 70_000.0, 3.0]},
    "focal": {"alpha": [1.0, 1e5, 1.0]},
    "logit_adjusted_ce": {"prior": [1e6, 3_000.0, 1e-8]},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_a_class_keep_their_values_where_the_module_gets_narrow(name: str) -> None:
    loss = losses.build(name, **NUMBERS[name])
    expected = loss(LOGITS, TARGET)
    for narrow in (loss.half, loss.bfloat16, lambda: loss.to(torch.float16)):
        narrow()
        assert torch.equal(loss(LOGITS, TARGET), expected)
    assert torch.equal(loss.double()(LOGITS, TARGET), expected)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_a_class_outlive_a_module_without_values(name: str) -> None:
    """Deferred initialisation: built on "meta", made empty elsewhere, then loaded."""
    expected = losses.build(name, **NUMBERS[name])(LOGITS, TARGET)
    with torch.device("meta"):
        network = torch.nn.ModuleDict(
            {"head": torch.nn.Conv2d(3, 3, 1), "loss": losses.build(name, **NUMBERS[name])}
        )
    assert network["head"].weight.is_meta
    network.to_empty(device="cpu")
    assert torch.equal(network["loss"](LOGITS, TARGET), expected)


def test_a_weight_that_came_narrow_stays_so_until_the_module_is_moved_to_another_dtype() -> None:
    loss = losses.build("ce", weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16))
    assert loss.to("cpu").half().weight.dtype == torch.float16
    assert loss.float().weight.dtype == torch.float32


def test_the_batch_balance_is_a_constant_to_the_gradient_of_a_soft_target() -> None:
    """As the docstring says: only the surprisal is differentiated, not alpha."""
    target = torch.softmax(LOGITS.double().flip(0), 1).requires_grad_()
    loss = losses.BalancedCrossEntropyLoss()(LOGITS.double(), target)
    (grad,) = torch.autograd.grad(loss, target)
    share = target.detach().mean((0, 2, 3))
    surprisal = -torch.log_softmax(LOGITS.double(), 1)
    # the divisor, the sum of the target, is differentiated as in cross-entropy
    expected = ((1 - share)[None, :, None, None] * surprisal - loss.detach()) / TARGET.numel()
    assert torch.allclose(grad, expected)
