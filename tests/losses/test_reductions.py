"""Where one loss is another: special parameters, special inputs, sums of losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import VOID, WEIGHT, example, gradient, have

from lossatlas import losses


def same(
    a: torch.nn.Module,
    b: torch.nn.Module,
    logits: torch.Tensor,
    target: torch.Tensor,
    rtol: float = 1e-11,
) -> None:
    """Equal value and equal gradient."""
    for x, y in zip(gradient(a, logits, target), gradient(b, logits, target), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=1e-15)


MODES = pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])
KINDS = pytest.mark.parametrize("kind", ["hard", "soft"])
SOFT_OR_WEIGHTED = pytest.mark.parametrize(
    ("kind", "weighted"),
    [
        ("hard", False),
        ("hard", True),
        ("soft", False),
        ("soft", True),
    ],
)


def needs(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(len(have(*names)) < len(names), reason="not registered")


@MODES
@KINDS
def test_focal_with_gamma_0_is_cross_entropy(mode: str, kind: str) -> None:
    logits, target = example(mode, kind, void=0.2)
    common = {"mode": mode, "ignore_index": VOID, "weight": WEIGHT[mode]}
    same(losses.build("focal", gamma=0.0, **common), losses.build("ce", **common), logits, target)


@needs("poly1")
@MODES
@KINDS
def test_poly1_with_epsilon_0_is_cross_entropy(mode: str, kind: str) -> None:
    logits, target = example(mode, kind, void=0.2)
    common = {"mode": mode, "ignore_index": VOID}
    same(losses.build("poly1", epsilon=0.0, **common), losses.build("ce", **common), logits, target)


@needs("tversky", "jaccard")
@MODES
@KINDS
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_tversky_at_a_half_is_dice_and_at_one_is_jaccard(
    mode: str, kind: str, smooth: float
) -> None:
    logits, target = example(mode, kind, void=0.2)
    common = {"mode": mode, "ignore_index": VOID}
    # (I + s/2) / (I + FP/2 + FN/2 + s/2) = (2I + s) / (S + T + s)
    same(
        losses.build("tversky", alpha=0.5, beta=0.5, smooth=smooth / 2, **common),
        losses.build("dice", smooth=smooth, **common),
        logits,
        target,
    )
    same(
        losses.build("tversky", alpha=1.0, beta=1.0, smooth=smooth, **common),
        losses.build("jaccard", smooth=smooth, **common),
        logits,
        target,
    )


@needs("focal_tversky", "tversky")
@MODES
def test_focal_tversky_with_gamma_1_is_tversky(mode: str) -> None:
    logits, target = example(mode)
    same(
        losses.build("focal_tversky", gamma=1.0, mode=mode),
        losses.build("tversky", mode=mode),
        logits,
        target,
    )


@needs("ohem_ce")
@MODES
@SOFT_OR_WEIGHTED
def test_ohem_that_keeps_every_pixel_is_cross_entropy(mode: str, kind: str, weighted: bool) -> None:
    logits, target = example(mode, kind, void=0.2)
    common = {"mode": mode, "ignore_index": VOID, "weight": WEIGHT[mode] if weighted else None}
    same(
        losses.build("ohem_ce", threshold=1.0, min_kept=0, **common),
        losses.build("ce", **common),
        logits,
        target,
    )
    same(
        losses.build("ohem_ce", threshold=1e-6, min_kept=1.0, **common),
        losses.build("ce", **common),
        logits,
        target,
    )


@needs("topk_ce")
@MODES
@SOFT_OR_WEIGHTED
def test_topk_with_k_1_is_cross_entropy(mode: str, kind: str, weighted: bool) -> None:
    logits, target = example(mode, kind, void=0.2)
    common = {"mode": mode, "ignore_index": VOID, "weight": WEIGHT[mode] if weighted else None}
    same(losses.build("topk_ce", k=1.0, **common), losses.build("ce", **common), logits, target)


@needs("one_vs_all_ce")
@SOFT_OR_WEIGHTED
def test_one_vs_all_without_negatives_is_cross_entropy(kind: str, weighted: bool) -> None:
    logits, target = example("multiclass", kind, void=0.2)
    common = {"ignore_index": VOID, "weight": WEIGHT["multiclass"] if weighted else None}
    same(
        losses.build("one_vs_all_ce", negative_weight=0.0, **common),
        losses.build("ce", **common),
        logits,
        target,
    )


@needs("one_vs_all_ce")
@SOFT_OR_WEIGHTED
def test_one_vs_all_of_a_single_channel_is_binary_cross_entropy(kind: str, weighted: bool) -> None:
    logits, target = example("binary", kind, void=0.2)
    common = {
        "mode": "binary",
        "ignore_index": VOID,
        "weight": WEIGHT["binary"] if weighted else None,
    }
    same(losses.build("one_vs_all_ce", **common), losses.build("ce", **common), logits, target)


@needs("balanced_ce")
@MODES
def test_balanced_cross_entropy_at_a_half_is_half_of_cross_entropy(mode: str) -> None:
    logits, target = example(mode, void=0.2)
    common = {"mode": mode, "ignore_index": VOID}
    same(
        losses.build("balanced_ce", alpha=0.5, **common),
        0.5 * losses.build("ce", **common),
        logits,
        target,
    )


@needs("dice_semimetric")
@MODES
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_the_dice_semimetric_loss_is_dice_on_hard_labels(mode: str, smooth: float) -> None:
    logits, target = example(mode, void=0.2)
    common = {"mode": mode, "ignore_index": VOID, "smooth": smooth}
    same(losses.build("dice_semimetric", **common), losses.build("dice", **common), logits, target)


@needs("inverse_dice")
def test_inverse_dice_is_dice_of_the_complement() -> None:
    logits, target = example("binary")
    same(losses.build("inverse_dice", mode="binary"), Flipped(), logits, target)


class Flipped(torch.nn.Module):
    """Dice of -z against 1 - t."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return losses.build("dice", mode="binary")(-logits, 1 - target)


@needs("log_cosh_dice")
def test_log_cosh_dice_of_one_class_is_the_log_cosh_of_its_dice_loss() -> None:
    logits, target = example("binary")
    dice = losses.build("dice", mode="binary")(logits, target).item()
    assert losses.build("log_cosh_dice", mode="binary")(logits, target).item() == pytest.approx(
        math.log(math.cosh(dice)), rel=1e-12
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_hard_cross_entropy_is_that_of_torch(
    reduction: str, smoothing: float, weighted: bool
) -> None:
    logits, target = example("multiclass", void=0.2)
    weight = WEIGHT["multiclass"] if weighted else None
    expected = F.cross_entropy(
        logits,
        target,
        weight=weight,
        ignore_index=VOID,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    got = losses.build(
        "ce", weight=weight, ignore_index=VOID, reduction=reduction, label_smoothing=smoothing
    )(logits, target)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@KINDS
def test_binary_cross_entropy_is_that_of_torch(kind: str) -> None:
    logits, target = example("binary", kind)
    torch.testing.assert_close(
        losses.build("ce", mode="binary")(logits, target),
        F.binary_cross_entropy_with_logits(logits, target.reshape(logits.shape).double()),
    )


def test_unweighted_soft_cross_entropy_is_that_of_torch() -> None:
    logits, target = example("multiclass", "soft")
    torch.testing.assert_close(losses.build("ce")(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])
def test_lovasz_at_the_corners_is_one_minus_the_iou_of_the_prediction(name: str, mode: str) -> None:
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
    loss = losses.build(name, mode=mode, per_image=False, reduction="none")
    got = loss(logits.double(), target if mode == "multiclass" else truth)
    torch.testing.assert_close(got, (1 - iou) * (2 if hinge else 1), rtol=1e-12, atol=1e-14)


@MODES
def test_a_sum_of_losses_is_the_sum_of_their_values_and_gradients(mode: str) -> None:
    logits, target = example(mode, void=0.2)
    dice, ce = (losses.build(n, mode=mode, ignore_index=VOID) for n in ("dice", "ce"))
    value, grad = gradient(0.5 * dice + ce * 2 + ce, logits, target)
    (d, gd), (c, gc) = gradient(dice, logits, target), gradient(ce, logits, target)
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
@MODES
def test_a_compound_of_the_list_is_the_sum_of_its_parts(
    name: str, parts: tuple[str, str], mode: str
) -> None:
    if not have(name):
        pytest.skip("not registered")
    logits, target = example(mode, void=0.2)
    common = {"mode": mode, "ignore_index": VOID}
    (value, grad) = gradient(losses.build(name, **common), logits, target)
    singles = [gradient(losses.build(p, **common), logits, target) for p in parts]
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
