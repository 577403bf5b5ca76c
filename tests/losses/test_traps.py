"""Traps that a reader of the code set for it: each was fallen into once."""

from __future__ import annotations

import math

import pytest
import torch
from cases import named

from lossatlas import losses

# one name each of what needs no weights and no distances
NAMES = [
    name
    for name in losses.names()
    if name not in ("boundary", "hausdorff", "weighted_ce", "weighted_dice")
]


def test_a_handful_of_rare_pixels_is_not_lost_in_the_sum_over_a_million() -> None:
    labels = torch.zeros(1, 1 << 20, dtype=torch.long)
    labels[0, :3] = 1
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(1, 2, 1 << 20)
    logits[:, 0] = 14 + torch.randn(1 << 20, generator=generator)
    logits[0, :, :3] = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]])
    for name in ("inverse_dice", "tversky", "focal_tversky"):
        loss = losses.build(name)
        values = []
        for z in (logits.clone(), logits.double()):
            z.requires_grad_()
            value = loss(z, labels)
            value.backward()
            values.append((value.item(), z.grad[0, :, :3].double()))
        assert values[0][0] == pytest.approx(values[1][0], rel=2e-5), name
        torch.testing.assert_close(values[0][1], values[1][1], rtol=2e-4, atol=0)


def test_the_default_dtype_changes_nothing() -> None:
    logits = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 50), generator=torch.Generator().manual_seed(1))
    for name in NAMES:
        loss = losses.build(name, mode="multiclass")
        expected = loss(logits, labels)
        torch.set_default_dtype(torch.float64)
        try:
            got = loss(logits, labels)
        finally:
            torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(got, expected, msg=name)


@pytest.mark.parametrize(("dtype", "void"), [(torch.uint8, -1), (torch.int8, 255)])
def test_a_void_label_that_the_dtype_cannot_hold_voids_nothing(
    dtype: torch.dtype, void: int
) -> None:
    loss = losses.CrossEntropyLoss(ignore_index=void)
    stray = torch.tensor([[void % 256 if dtype == torch.uint8 else -1, 0]]).to(dtype)
    with pytest.raises(ValueError, match="integer labels from 0 to 18"):
        loss(torch.zeros(1, 19, 2), stray)
    labels = torch.tensor([[3, 0]], dtype=dtype)
    assert loss(torch.zeros(1, 19, 2), labels).item() == pytest.approx(math.log(19))


def test_a_soft_pixel_is_void_in_every_class_or_in_none() -> None:
    half = torch.tensor([[[255.0, 0.2], [0.0, 0.3], [0.0, 0.5]]])
    loss = losses.CrossEntropyLoss(ignore_index=255)
    with pytest.raises(ValueError, match="255"):
        loss(torch.zeros(1, 3, 2), half)
    half[0, :, 0] = 255
    assert loss(torch.zeros(1, 3, 2), half).item() == pytest.approx(math.log(3))


def test_surprisals_of_minus_zero_are_chosen_like_others() -> None:
    logits = torch.tensor([[[0.0, 0, 0, 200, 200, 200], [9.0, 9, 9, 0, 0, 0]]])
    with torch.autograd.forward_ad.dual_level():
        value = losses.TopKCrossEntropyLoss(k=4 / 6)(logits, torch.zeros(1, 6, dtype=torch.long))
    assert value.item() == pytest.approx(27 / 4, rel=1e-4)


def test_weights_that_are_learnt_get_their_gradient() -> None:
    logits = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    target = (torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    for name in ("ce", "ohem_ce", "topk_ce", "dice", "lovasz_softmax", "lovasz_hinge"):
        loss = losses.build(name, mode="multilabel", weight=[1.0, 2.0, 3.0])
        loss.weight = loss.weight.clone().requires_grad_()
        loss(logits, target).backward()
        with named(name):
            assert loss.weight.grad is not None
            assert loss.weight.grad.abs().sum() > 0


def test_more_bins_than_float32_can_number_are_refused() -> None:
    with pytest.raises(ValueError, match="bins must be <= 1048576"):
        losses.LovaszSoftmaxLoss(bins=1 << 24)


@pytest.mark.parametrize("name", ["ce", "focal", "dice", "lovasz_hinge"])
def test_a_void_label_that_the_target_s_dtype_rounds_is_void(name: str) -> None:
    # bfloat16 holds 999 as 1000
    target, logits = torch.tensor([[999.0, 1.0, 0.0]]), torch.tensor([[[5.0, 1.0, -0.5]]])
    loss = losses.build(name, mode="binary", ignore_index=999)
    assert loss(logits, target.bfloat16()) == pytest.approx(loss(logits, target).item())
