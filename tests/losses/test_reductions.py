"""Where one loss is another: special parameters, special inputs, sums of losses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import MODES, VOID, WEIGHT, assert_equal, example, gradient, named

from lossatlas import losses


def same(a: torch.nn.Module, b: torch.nn.Module, *inputs: torch.Tensor) -> None:
    """Equal value and equal gradient."""
    target = inputs[1]
    with named(f"{a!r} against {b!r}, target {target.dtype} {tuple(target.shape)}"):
        got, expected = gradient(a, *inputs), gradient(b, *inputs)
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-15)


HARD = {"kinds": ["hard"]}


def calls(
    modes: Sequence[str] = MODES, kinds: Sequence[str] = ("hard", "soft")
) -> Iterator[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]:
    """Common keywords, logits and target over modes and kinds of target, without and with class weights."""
    for mode in modes:
        for kind in kinds:
            for weight in (None, WEIGHT[mode]):
                keywords = {"mode": mode, "ignore_index": VOID, "weight": weight}
                yield keywords, *example(mode, kind, void=0.2)


#: A loss with parameters, and the loss that it then is; on which calls.
EQUAL: list[tuple[str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = [
    ("focal", {"gamma": 0.0}, "ce", {}, {}),
    ("poly1", {"epsilon": 0.0}, "ce", {}, {}),
    # (I + s/2) / (I + FP/2 + FN/2 + s/2) = (2I + s) / (S + T + s)
    ("tversky", {"alpha": 0.5, "beta": 0.5}, "dice", {}, {}),
    ("tversky", {"alpha": 0.5, "beta": 0.5, "smooth": 0.5}, "dice", {"smooth": 1.0}, {}),
    ("tversky", {"alpha": 1.0, "beta": 1.0}, "jaccard", {}, {}),
    ("tversky", {"alpha": 1.0, "beta": 1.0, "smooth": 1.0}, "jaccard", {"smooth": 1.0}, {}),
    ("focal_tversky", {"gamma": 1.0}, "tversky", {}, HARD),
    ("ohem_ce", {"threshold": 1.0, "min_kept": 0}, "ce", {}, {}),
    ("ohem_ce", {"threshold": 1e-6, "min_kept": 1.0}, "ce", {}, {}),
    ("topk_ce", {"k": 1.0}, "ce", {}, {}),
    ("one_vs_all_ce", {"negative_weight": 0.0}, "ce", {}, {"modes": ["multiclass"]}),
    ("one_vs_all_ce", {}, "ce", {}, {"modes": ["binary"]}),
    ("dice_semimetric", {}, "dice", {}, HARD),
    ("dice_semimetric", {"smooth": 1.0}, "dice", {"smooth": 1.0}, HARD),
]


@pytest.mark.parametrize(("name", "params", "other", "others", "which"), EQUAL, ids=str)
def test_one_loss_is_another(
    name: str, params: dict, other: str, others: dict, which: dict
) -> None:
    for common, *inputs in calls(**which):
        one, another = (
            losses.build(name, **params, **common),
            losses.build(other, **others, **common),
        )
        same(one, another, *inputs)


def test_balanced_cross_entropy_at_a_half_is_half_of_cross_entropy() -> None:
    for common, *inputs in calls(**HARD):
        half = 0.5 * losses.build("ce", **common)
        same(losses.build("balanced_ce", alpha=0.5, **common), half, *inputs)


def test_hard_cross_entropy_is_that_of_torch() -> None:
    logits, target = example("multiclass", void=0.2)
    for reduction, smoothing, weight in itertools.product(
        ("mean", "sum", "none"), (0.0, 0.1), (None, WEIGHT["multiclass"])
    ):
        options: dict[str, Any] = {
            "weight": weight,
            "ignore_index": VOID,
            "reduction": reduction,
            "label_smoothing": smoothing,
        }
        got = losses.build("ce", **options)(logits, target)
        expected = F.cross_entropy(logits, target, **options)
        with named(options):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_binary_and_unweighted_soft_cross_entropy_are_those_of_torch() -> None:
    for kind in ("hard", "soft"):
        logits, target = example("binary", kind)
        expected = F.binary_cross_entropy_with_logits(logits, target.reshape(logits.shape).double())
        with named(kind):
            torch.testing.assert_close(losses.build("ce", mode="binary")(logits, target), expected)
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
        expected = (1 - iou) * (2 if hinge else 1)
        with named(mode):
            torch.testing.assert_close(
                loss(logits.double(), labels), expected, rtol=1e-12, atol=1e-14
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


def test_a_part_of_scale_0_costs_nothing_and_changes_nothing() -> None:
    logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    logits[0, 0, 2] = torch.inf  # cross-entropy is infinite
    dice, ce = losses.DiceLoss(), losses.CrossEntropyLoss()
    boundary = losses.BoundaryLoss()
    for compound in (dice + 0 * ce, 0 * ce + dice, dice + 0 * boundary, 1 * (dice + 0 * ce)):
        assert_equal(gradient(compound, logits, target), gradient(dice, logits, target))
    value, grad = gradient(0 * ce + 0 * dice, logits, target)
    assert value == 0 and not grad.any()
    with pytest.raises(ValueError, match="integer labels from 0 to 1"):
        (0 * ce)(logits, target + 1)
    nan = torch.full_like(logits, torch.nan)
    assert (dice + 0 * ce)(nan, target).isnan()
    with pytest.raises(RuntimeError, match="not called"):

        class Counted(losses.DiceLoss):
            def of(self, s):
                raise RuntimeError("not called")

        assert (ce + 0 * Counted())(nan, target).isnan()
        (ce + Counted())(nan, target)


def test_a_share_of_0_within_a_loss_drops_what_is_infinite() -> None:
    logits, target = torch.zeros(1, 3, 4), torch.tensor([[0, 0, 1, 1]])
    logits[0, 0, 2] = torch.inf
    region, both = (losses.UnifiedFocalLoss(weight_lambda=share) for share in (0.0, 0.5))
    assert region(logits, target).isfinite() and both(logits, target) == torch.inf
    logits[0, 0, 2] = 0.0
    pixels = losses.UnifiedFocalLoss(weight_lambda=1.0)
    torch.testing.assert_close(
        (region(logits, target) + pixels(logits, target)) / 2, both(logits, target)
    )
    logits[0, 2, 0] = torch.inf  # class 2 with certainty
    yes_only = losses.OneVsAllCrossEntropyLoss(negative_weight=0.0)
    assert yes_only(logits, target) == losses.CrossEntropyLoss()(logits, target) == torch.inf
