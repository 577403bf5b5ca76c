"""Where one loss is another: special parameters, special inputs, sums of losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import MODES, VOID, WEIGHT, example, gradient, named

from lossatlas import losses


def same(a: torch.nn.Module, b: torch.nn.Module, *inputs: torch.Tensor) -> None:
    """Equal value and equal gradient."""
    target = inputs[1]
    with named(f"{a!r} against {b!r}, target {target.dtype} {tuple(target.shape)}"):
        for x, y in zip(gradient(a, *inputs), gradient(b, *inputs), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-15)


def calls(
    *modes: str, kinds: tuple[str, ...] = ("hard", "soft")
) -> Iterator[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]:
    """Common keywords, logits and target over modes and kinds of target, without and with class weights."""
    for mode in modes or MODES:
        for kind in kinds:
            for weight in (None, WEIGHT[mode]):
                keywords = {"mode": mode, "ignore_index": VOID, "weight": weight}
                yield keywords, *example(mode, kind, void=0.2)


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    for common, *inputs in calls():
        same(losses.build("focal", gamma=0.0, **common), losses.build("ce", **common), *inputs)


def test_poly1_with_epsilon_0_is_cross_entropy() -> None:
    for common, *inputs in calls():
        same(losses.build("poly1", epsilon=0.0, **common), losses.build("ce", **common), *inputs)


def test_tversky_at_a_half_is_dice_and_at_one_is_jaccard() -> None:
    for common, *inputs in calls():
        for smooth in (0.0, 1.0):
            # (I + s/2) / (I + FP/2 + FN/2 + s/2) = (2I + s) / (S + T + s)
            same(
                losses.build("tversky", alpha=0.5, beta=0.5, smooth=smooth / 2, **common),
                losses.build("dice", smooth=smooth, **common),
                *inputs,
            )
            same(
                losses.build("tversky", alpha=1.0, beta=1.0, smooth=smooth, **common),
                losses.build("jaccard", smooth=smooth, **common),
                *inputs,
            )


def test_focal_tversky_with_gamma_1_is_tversky() -> None:
    for common, *inputs in calls(kinds=("hard",)):
        same(
            losses.build("focal_tversky", gamma=1.0, **common),
            losses.build("tversky", **common),
            *inputs,
        )


def test_ohem_that_keeps_every_pixel_is_cross_entropy() -> None:
    for common, *inputs in calls():
        for all_kept in (
            {"threshold": 1.0, "min_kept": 0},
            {"threshold": 1e-6, "min_kept": 1.0},
        ):
            same(
                losses.build("ohem_ce", **all_kept, **common), losses.build("ce", **common), *inputs
            )


def test_topk_with_k_1_is_cross_entropy() -> None:
    for common, *inputs in calls():
        same(losses.build("topk_ce", k=1.0, **common), losses.build("ce", **common), *inputs)


def test_one_vs_all_without_negatives_is_cross_entropy() -> None:
    for common, *inputs in calls("multiclass"):
        same(
            losses.build("one_vs_all_ce", negative_weight=0.0, **common),
            losses.build("ce", **common),
            *inputs,
        )


def test_one_vs_all_of_a_single_channel_is_binary_cross_entropy() -> None:
    for common, *inputs in calls("binary"):
        same(losses.build("one_vs_all_ce", **common), losses.build("ce", **common), *inputs)


def test_balanced_cross_entropy_at_a_half_is_half_of_cross_entropy() -> None:
    for common, *inputs in calls(kinds=("hard",)):
        same(
            losses.build("balanced_ce", alpha=0.5, **common),
            0.5 * losses.build("ce", **common),
            *inputs,
        )


def test_the_dice_semimetric_loss_is_dice_on_hard_labels() -> None:
    for common, *inputs in calls(kinds=("hard",)):
        for smooth in (0.0, 1.0):
            same(
                losses.build("dice_semimetric", smooth=smooth, **common),
                losses.build("dice", smooth=smooth, **common),
                *inputs,
            )


def test_inverse_dice_is_dice_of_the_complement() -> None:
    same(losses.build("inverse_dice", mode="binary"), Flipped(), *example("binary"))


class Flipped(torch.nn.Module):
    """Dice of -z against 1 - t."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return losses.build("dice", mode="binary")(-logits, 1 - target)


def test_log_cosh_dice_of_one_class_is_the_log_cosh_of_its_dice_loss() -> None:
    logits, target = example("binary")
    dice = losses.build("dice", mode="binary")(logits, target).item()
    assert losses.build("log_cosh_dice", mode="binary")(logits, target).item() == pytest.approx(
        math.log(math.cosh(dice)), rel=1e-12
    )


def test_hard_cross_entropy_is_that_of_torch() -> None:
    logits, target = example("multiclass", void=0.2)
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            for weight in (None, WEIGHT["multiclass"]):
                options: dict[str, Any] = {
                    "weight": weight,
                    "ignore_index": VOID,
                    "reduction": reduction,
                    "label_smoothing": smoothing,
                }
                with named(options):
                    torch.testing.assert_close(
                        losses.build("ce", **options)(logits, target),
                        F.cross_entropy(logits, target, **options),
                        rtol=1e-12,
                        atol=1e-14,
                    )


def test_binary_cross_entropy_is_that_of_torch() -> None:
    for kind in ("hard", "soft"):
        logits, target = example("binary", kind)
        expected = F.binary_cross_entropy_with_logits(logits, target.reshape(logits.shape).double())
        with named(kind):
            torch.testing.assert_close(losses.build("ce", mode="binary")(logits, target), expected)


def test_unweighted_soft_cross_entropy_is_that_of_torch() -> None:
    logits, target = example("multiclass", "soft")
    torch.testing.assert_close(losses.build("ce")(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])
def test_lovasz_at_the_corners_is_one_minus_the_iou_of_the_prediction(name: str) -> None:
    """Errors in {0, 1} (softmax) or {0, 2} (hinge at |z| = 1): the extension meets the Jaccard loss."""
    g = torch.Generator().manual_seed(4)
    target = torch.randint(0, 3, (2, 5, 5), generator=g)
    predicted = torch.where(
        torch.rand(2, 5, 5, generator=g) < 0.3, torch.randint(0, 3, (2, 5, 5), generator=g), target
    )
    onehot = F.one_hot(predicted, 3).movedim(-1, 1)
    truth = F.one_hot(target, 3).movedim(-1, 1)
    iou = (onehot * truth).sum((0, 2, 3)).double() / (onehot | truth).sum((0, 2, 3))
    hinge = name == "lovasz_hinge"
    logits = (2.0 * onehot - 1) * (1 if hinge else 400.0)
    for mode, labels in (("multiclass", target), ("multilabel", truth)):
        loss = losses.build(name, mode=mode, per_image=False, reduction="none")
        with named(mode):
            torch.testing.assert_close(
                loss(logits.double(), labels),
                (1 - iou) * (2 if hinge else 1),
                rtol=1e-12,
                atol=1e-14,
            )


def test_a_sum_of_losses_is_the_sum_of_their_values_and_gradients() -> None:
    for mode in MODES:
        logits, target = example(mode, void=0.2)
        dice, ce = (losses.build(n, mode=mode, ignore_index=VOID) for n in ("dice", "ce"))
        value, grad = gradient(0.5 * dice + ce * 2 + ce, logits, target)
        (d, gd), (c, gc) = gradient(dice, logits, target), gradient(ce, logits, target)
        with named(mode):
            torch.testing.assert_close(value, 0.5 * d + 3 * c)
            torch.testing.assert_close(grad, 0.5 * gd + 3 * gc)


def test_a_sum_of_losses_keeps_the_parameters_of_each() -> None:
    logits, target = example("multiclass", void=0.2)
    a = losses.build("dice", ignore_index=VOID, per_image=True, weight=WEIGHT["multiclass"])
    b = losses.build("focal", ignore_index=VOID, gamma=1.0, reduction="sum")
    torch.testing.assert_close((a + b)(logits, target), a(logits, target) + b(logits, target))
    c = losses.build("ce", ignore_index=0)
    ready = torch.where(target == VOID, 1, target)
    torch.testing.assert_close(
        (c + losses.build("dice"))(logits, ready),
        c(logits, ready) + losses.build("dice")(logits, ready),
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("dice_ce", ("dice", "ce")),
        ("dice_focal", ("dice", "focal")),
        ("dice_topk", ("dice", "topk_ce")),
        ("ce_lovasz", ("ce", "lovasz_softmax")),
    ],
)
def test_a_compound_of_the_list_is_the_sum_of_its_parts(name: str, parts: tuple[str, str]) -> None:
    for mode in MODES:
        logits, target = example(mode, void=0.2)
        common = {"mode": mode, "ignore_index": VOID}
        value, grad = gradient(losses.build(name, **common), logits, target)
        singles = [gradient(losses.build(p, **common), logits, target) for p in parts]
        with named(mode):
            torch.testing.assert_close(value, singles[0][0] + singles[1][0])
            torch.testing.assert_close(grad, singles[0][1] + singles[1][1])


def test_functional_forms_are_the_modules() -> None:
    logits, target = example("multiclass", void=0.2)
    f = losses.functional
    for name in ("cross_entropy_loss", "focal_loss", "dice_loss", "lovasz_softmax_loss"):
        module = {
            "cross_entropy_loss": "ce",
            "focal_loss": "focal",
            "dice_loss": "dice",
            "lovasz_softmax_loss": "lovasz_softmax",
        }[name]
        assert torch.equal(
            getattr(f, name)(logits, target, ignore_index=VOID),
            losses.build(module, ignore_index=VOID)(logits, target),
        )
    assert torch.equal(
        f.focal_loss(logits, target, gamma=0.5, ignore_index=VOID),
        losses.FocalLoss(gamma=0.5, ignore_index=VOID)(logits, target),
    )
