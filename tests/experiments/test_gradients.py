"""The gradient by micro-batches is that of the whole batch's loss."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from lossatlas import losses
from lossatlas.experiments.gradients import BatchGradient


def setting(loss, micro_batch, *layers):
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.ReLU(), nn.Conv2d(4, 3, 1))
    network = fabric.setup_module(model)
    return model, BatchGradient(fabric, network, losses.build(loss), micro_batch)


def gradients(loss, micro_batch, *layers, watch=None):
    model, gradient = setting(loss, micro_batch, *layers)
    torch.manual_seed(1)
    images, target = torch.randn(6, 1, 8, 8), torch.randint(3, (6, 8, 8))
    value = gradient(images, target, watch)
    return value.item(), [p.grad for p in model.parameters()], model


@pytest.mark.parametrize("loss", ["ce", "focal", "ohem_ce", "dice", "lovasz_softmax"])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_give_the_loss_and_the_gradient_of_the_whole_batch(loss, micro_batch):
    whole, expected, _ = gradients(loss, None)
    value, found, _ = gradients(loss, micro_batch)
    assert value == pytest.approx(whole, rel=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_adding_up_the_losses_of_the_micro_batches_would_be_another_loss():
    """Why the loss is taken once: the mean of Dice losses of parts is not the Dice loss of the whole."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0, 0], target[1] = 1, 1
    dice = losses.build("dice")
    parts = torch.stack([dice(logits[k : k + 1], target[k : k + 1]) for k in range(2)])
    assert abs(parts.mean() - dice(logits, target)) > 0.01


def test_the_watch_is_told_the_same_gradient_at_the_logits():
    seen = []
    for micro_batch in (None, 4):
        gradients("dice", micro_batch, watch=lambda gradient, target: seen.append(gradient))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-8)


def test_dropout_drops_the_same_units_in_both_passes():
    _, expected, _ = gradients("dice", None, nn.Dropout(0.5))
    torch.manual_seed(1)
    model, gradient = setting("dice", 3, nn.Dropout(0.5))
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    gradient(torch.randn(6, 1, 8, 8), torch.randint(3, (6, 8, 8)))
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert len(expected) == 4


def test_running_statistics_count_every_image_once():
    _, _, model = gradients("ce", 3, nn.BatchNorm2d(4))
    assert model[1].num_batches_tracked == 2


def test_a_failed_forward_pass_can_be_undone():
    model, gradient = setting("ce", None, nn.BatchNorm2d(4), nn.Dropout(0.5))
    gradient.remember()
    before = model[1].running_mean.clone()
    first = model(torch.ones(2, 1, 8, 8))
    assert not torch.equal(model[1].running_mean, before)
    gradient.restore()
    assert torch.equal(model[1].running_mean, before)
    assert torch.equal(model(torch.ones(2, 1, 8, 8)), first)
