"""The gradient by micro-batches is that of the whole batch's loss."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from lossatlas import losses
from lossatlas.experiments.gradients import BatchGradient


def setting(loss, micro_batch, *layers, precision="32-true"):
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.ReLU(), nn.Conv2d(4, 3, 1))
    network = fabric.setup_module(model)
    return model, BatchGradient(fabric, network, losses.build(loss), micro_batch)


def batch(images=6):
    torch.manual_seed(1)
    return torch.randn(images, 1, 8, 8), torch.randint(3, (images, 8, 8))


def gradients(loss, micro_batch, *layers, measure=None):
    model, gradient = setting(loss, micro_batch, *layers)
    value, _ = gradient(*batch(), measure)
    return value.item(), [p.grad for p in model.parameters()], model


@pytest.mark.parametrize("loss", ["ce", "focal", "ohem_ce", "dice", "lovasz_softmax"])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_give_the_loss_and_the_gradient_of_the_whole_batch(loss, micro_batch):
    whole, expected, _ = gradients(loss, None)
    value, found, _ = gradients(loss, micro_batch)
    assert value == pytest.approx(whole, rel=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_micro_batches_work_under_autocast():
    found = []
    for micro_batch in (None, 4):
        model, gradient = setting("dice", micro_batch, precision="bf16-mixed")
        gradient(*batch())
        found.append(model[0].weight.grad)
    # bfloat16 has 8 significant bits, and the sums are taken in another order
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=1e-4)


def test_adding_up_the_losses_of_the_micro_batches_would_be_another_loss():
    """Why the loss is taken once: the mean of Dice losses of parts is not the Dice loss of the whole."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0, 0], target[1] = 1, 1
    dice = losses.build("dice")
    parts = torch.stack([dice(logits[k : k + 1], target[k : k + 1]) for k in range(2)])
    assert abs(parts.mean() - dice(logits, target)) > 0.01


def test_what_is_measured_sees_the_same_gradient_at_the_logits():
    seen = []

    def measure(logits, gradient, target):
        seen.append(gradient.clone())
        return gradient.abs().sum()

    for micro_batch in (None, 4):
        gradients("dice", micro_batch, measure=measure)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-8)


def test_dropout_drops_the_same_units_in_both_passes():
    model, gradient = setting("dice", 3, nn.Dropout(0.5))
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    gradient(*batch())
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


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


class Short(nn.Module):
    """Runs out of memory for more than `most` images at a time, in the middle of the forward pass."""

    def __init__(self, most, failing_call=1):
        super().__init__()
        self.most, self.failing_call, self.calls = most, failing_call, 0

    def forward(self, features):
        self.calls += 1
        if self.calls >= self.failing_call and len(features) > self.most:
            raise torch.cuda.OutOfMemoryError("the test's device is full")
        return features


@pytest.mark.parametrize("loss", ["ce", "dice", "lovasz_softmax"])
def test_where_memory_is_short_the_micro_batch_is_halved_and_the_step_is_the_same(loss):
    layers = (nn.Dropout(0.5), Short(6))
    whole, expected, _ = gradients(loss, 2, *layers)  # dropout's draws are per micro-batch
    model, gradient = setting(loss, None, nn.Dropout(0.5), Short(3))
    gradient.micro_batch = 4
    value, _ = gradient(*batch())
    assert gradient.halved == [[1, 2]]
    assert value.item() == pytest.approx(whole, rel=1e-6)
    for ours, theirs in zip((p.grad for p in model.parameters()), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    gradient(*batch())
    assert gradient.halved == [[1, 2]]
    assert gradient.describe()["halved"] == [{"step": 1, "to": 2}]


def test_running_statistics_do_not_remember_the_step_that_did_not_fit():
    model, gradient = setting("ce", None, nn.BatchNorm2d(4), Short(2))
    gradient(*batch(8))
    assert gradient.halved == [[1, 4], [1, 2]]
    assert model[1].num_batches_tracked == 4
    assert "each micro-batch" in gradient.describe()["batch_normalisation"]


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do():
    _, gradient = setting("ce", None, Short(0))
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        gradient(*batch(4))
    assert "smaller images" in caught.value.__notes__[0]


def test_a_batch_that_goes_through_whole_is_nothing_to_record():
    assert setting("ce", None)[1].describe() is None
