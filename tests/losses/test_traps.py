"""Traps that a reader of the code set for it: each was fallen into once."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from cases import SPECS, assert_equal, default_dtype, gradient, named

from lossatlas import losses

# one name each of what needs no weights and no distances
NAMES = [
    name
    for name in losses.names()
    if name not in ("boundary", "hausdorff", "weighted_ce", "weighted_dice")
]


# what takes one number a class besides the weights
TAKES_A_VECTOR = {
    "focal": "alpha",
    "dice_focal": "alpha",
    "sam2_focal_dice": "alpha",
    "logit_adjusted_ce": "prior",
}


def test_a_handful_of_rare_pixels_is_not_lost_in_the_sum_over_a_million() -> None:
    labels = torch.zeros(1, 1 << 20, dtype=torch.long)
    labels[0, :3] = 1
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(1, 2, 1 << 20)
    logits[:, 0] = 14 + torch.randn(1 << 20, generator=generator)
    logits[0, :, :3] = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]])
    for name in ("inverse_dice", "tversky", "focal_tversky"):
        loss = losses.build(name)
        value, grad = gradient(loss, logits, labels)
        exact, exact_grad = gradient(loss, logits.double(), labels)
        with named(name):
            assert value.item() == pytest.approx(exact.item(), rel=2e-5)
            rare, exact_rare = grad[0, :, :3].double(), exact_grad[0, :, :3]
            torch.testing.assert_close(rare, exact_rare, rtol=2e-4, atol=0)


def test_the_default_dtype_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    scenes = []
    modes = ("multiclass", 3), ("multiclass", 300), ("binary", 1), ("multilabel", 3)
    for mode, channels in modes:
        logits = torch.randn(2, channels, 60, generator=generator)
        hard = torch.randint(0, channels, (2, 60), generator=generator)
        soft = torch.rand(logits.shape, generator=generator)
        exclusive = mode == "multiclass"
        targets = [hard if exclusive else (soft < 0.3).long(), torch.softmax(soft, 1)]
        for target in targets:
            target[..., ::7] = 999
        weight = torch.rand(max(channels, 2), generator=generator).tolist()
        scenes += [(mode, logits, target, weight) for target in targets]
    for name in NAMES:
        for mode, logits, target, weight in scenes:
            if logits.shape[1] > 3 and SPECS[name].on_grid:
                continue
            options = [{}, {"weight": weight}, {"weight": torch.tensor(weight)}]
            if more := TAKES_A_VECTOR.get(name):
                options.append({more: [0.5 * w / sum(weight) for w in weight]})
            for params in options:
                build = partial(losses.build, name, mode=mode, ignore_index=999, **params)
                expected = gradient(build(), logits, target)
                for default in (torch.float64, torch.float16, torch.bfloat16):
                    with named(name, mode, logits.shape, target.dtype, *params, default):
                        with default_dtype(default):
                            got = gradient(build(), logits, target)
                        assert_equal(got, expected)


def test_void_pixels_of_a_large_mask_are_left_out_under_any_default_dtype() -> None:
    target = torch.zeros(1, 300, 300, dtype=torch.long)
    target[0, 0] = 255
    with default_dtype(torch.float16):
        weight = torch.tensor([2.5], dtype=torch.float32)
        loss = losses.CrossEntropyLoss(mode="binary", weight=weight, ignore_index=255)
        value = loss(torch.zeros(1, 1, 300, 300, dtype=torch.float32), target)
    assert value.item() == pytest.approx(math.log(2))


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
