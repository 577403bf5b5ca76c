"""Logit-adjusted cross-entropy, the asymmetric loss, and the compounds of nnU-Net and SAM 2."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CLASSES, SPECS, VOID, Scene, example, gradient, named

from lossatlas import losses, metrics

close = torch.testing.assert_close
PRIOR = [0.7, 0.2, 0.06, 0.04]
PRIORS = [
    ("multiclass", PRIOR),
    ("binary", [0.9, 0.1]),
    ("binary", [0.1]),
    ("multilabel", [0.4, 0.1, 0.5, 0.02]),
]


def test_with_a_prior_it_equals_the_oracle_in_every_mode_and_reduction() -> None:
    for mode, prior in PRIORS:
        for kind in ("hard", "soft"):
            logits, target = example(mode, kind, void=0.2)
            for reduction in ("mean", "sum", "none"):
                params = {"prior": prior, "tau": 1.5, "ignore_index": VOID, "reduction": reduction}
                scene = Scene(SPECS["logit_adjusted_ce"], params, mode, kind)
                got, expected = scene.build()(logits, target), scene.expect(logits, target)
                with named(scene):
                    close(got, torch.as_tensor(expected), rtol=1e-6, atol=1e-7)


def test_the_gradient_is_the_adjusted_probability_minus_the_target() -> None:
    logits, target = example("multiclass")
    loss = losses.LogitAdjustedCrossEntropyLoss(prior=torch.tensor(PRIOR).double(), tau=0.5)
    _, found = gradient(loss, logits, target)
    shift = 0.5 * torch.tensor(PRIOR).double().log()[:, None, None]
    p, t = torch.softmax(logits + shift, 1), F.one_hot(target, CLASSES).movedim(-1, 1)
    close(found, (p - t) / target.numel())
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.clone().requires_grad_())


def test_counts_and_shares_are_the_same_prior_and_equal_shares_are_no_prior() -> None:
    logits, target = example("multiclass")
    build = losses.LogitAdjustedCrossEntropyLoss
    shares = build(prior=[0.5, 0.25, 0.125, 0.125])(logits, target)
    close(build(prior=[400, 200, 100, 100])(logits, target), shares)
    plain = losses.CrossEntropyLoss()(logits, target)
    close(build(prior=[1, 1, 1, 1])(logits, target), plain)
    close(build(prior=PRIOR, tau=0.0)(logits, target), plain)
    compound = build(prior=PRIOR) + losses.CrossEntropyLoss()
    close(compound(logits, target), build(prior=PRIOR)(logits, target) + plain)


def test_the_loss_and_the_rule_after_training_correct_by_the_same_shift() -> None:
    """A network z* that is optimal for cross-entropy is, minus tau ln pi, optimal for the loss."""
    for mode, prior in PRIORS[:3]:
        logits, target = example(mode)
        shares = prior if mode == "multiclass" else prior[-1:]
        rule = metrics.DecisionRule.logit_adjustment(shares, tau=1.0)
        moved = logits + torch.tensor(rule.offsets).reshape(1, -1, 1, 1)
        adjusted = losses.LogitAdjustedCrossEntropyLoss(mode=mode, prior=prior)
        plain = losses.CrossEntropyLoss(mode=mode)
        close(adjusted(moved, target), plain(logits, target), rtol=1e-6, atol=0)
        decided = moved.argmax(1) if mode == "multiclass" else (moved[:, 0] > 0).long()
        assert torch.equal(rule(logits), decided)


def test_the_rule_after_training_has_the_least_balanced_error_of_true_posteriors() -> None:
    prior = torch.tensor([0.9, 0.1]).double()
    likelihood = torch.tensor([[0.6, 0.31, 0.09], [0.2, 0.3, 0.5]]).double()  # class x observation
    logits = (prior[:, None] * likelihood).log()[None]
    found = metrics.DecisionRule.logit_adjustment(prior.tolist())(logits)[0]
    # each observation goes to the class under which it is likelier
    assert found.tolist() == [0, 0, 1]
    assert logits.argmax(1)[0].tolist() == [0, 0, 0]


def test_a_prior_that_is_no_share_is_refused() -> None:
    for params in (
        {"prior": [0.0, 1.0]},
        {"prior": [0.5, 1.0], "mode": "multilabel"},
        {"prior": 1.0, "mode": "binary"},
        {"tau": -1.0},
    ):
        with pytest.raises(ValueError, match=r"prior must be above 0|tau must be"):
            losses.LogitAdjustedCrossEntropyLoss(**params)
    with pytest.raises(ValueError, match="prior must have 4 entries"):
        losses.LogitAdjustedCrossEntropyLoss(prior=[0.5, 0.5])(*example("multiclass"))
    for prior in ([], [0.0, 1.0], [1.0]):
        with pytest.raises(ValueError, match="prior: expected positive shares"):
            metrics.DecisionRule.logit_adjustment(prior)
    with pytest.raises(ValueError, match="tau"):
        metrics.DecisionRule.logit_adjustment([0.5, 0.5], tau=-1)


def test_the_asymmetric_sum_is_that_of_its_published_code() -> None:
    """ASL, src/loss_functions/losses.py, in NumPy: 1 - p is shifted by the margin and cut at 1."""
    for gammas, margin in (((0.0, 4.0), 0.05), ((1.0, 4.0), 0.05), ((2.0, 0.5), 0.3)):
        logits, target = example("multilabel", images=3)
        p, y = 1 / (1 + np.exp(-logits.numpy())), target.numpy()
        right = np.where(y == 1, p, np.minimum(1 - p + margin, 1))
        exponent = np.where(y == 1, *gammas)
        expected = -(np.log(right) * (1 - right) ** exponent).sum()
        parameters = dict(zip(("gamma_positive", "gamma_negative"), gammas, strict=True))
        common = {"mode": "multilabel", "reduction": "sum"}
        loss = losses.build("asymmetric", margin=margin, **parameters, **common)
        assert loss(logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_without_a_margin_the_asymmetric_loss_is_focal_or_one_vs_all() -> None:
    for mode in ("binary", "multilabel"):
        for gamma in (0.0, 0.5, 2.0):
            gammas = {"gamma_positive": gamma, "gamma_negative": gamma}
            loss = losses.build("asymmetric", mode=mode, margin=0, **gammas)
            focal = losses.build("focal", mode=mode, gamma=gamma)
            for kind in ("hard", "soft"):
                inputs = example(mode, kind)
                close(gradient(loss, *inputs), gradient(focal, *inputs))
    inputs, weight = example("multiclass"), [0.5, 1.0, 2.0, 3.5]
    loss = losses.build("asymmetric", weight=weight, gamma_negative=0, margin=0)
    plain = losses.build("one_vs_all_ce", weight=weight)
    close(gradient(loss, *inputs), gradient(plain, *inputs))


def test_a_negative_below_the_margin_costs_exactly_nothing() -> None:
    logits = torch.tensor([[-3.0, -20.0, -2.9, -torch.inf]])  # sigmoid(-2.9) is 0.052
    for gamma in (0.0, 0.5, 4.0):
        loss = losses.build("asymmetric", mode="multilabel", reduction="none", gamma_negative=gamma)
        value, slope = gradient(loss, logits, torch.zeros(1, 4, dtype=torch.long))
        assert value[0].tolist().count(0) == slope[0].tolist().count(0) == 3
        assert value[0, 2] > 0 and slope[0, 2] > 0


def test_the_asymmetric_loss_is_unbounded_for_positives_alone() -> None:
    loss = losses.build("asymmetric", mode="multilabel", reduction="none")
    logits, target = torch.tensor([[-torch.inf, torch.inf, 1e4]]), torch.tensor([[1, 0, 0]])
    bound = 0.95**4 * -math.log(0.05)
    assert loss(logits, target)[0].tolist() == pytest.approx([math.inf, bound, bound])
    none = losses.build("asymmetric", mode="multilabel", reduction="none", margin=0)
    assert none(logits, target)[0, 1] == math.inf


def test_the_asymmetric_minimiser_exceeds_the_true_probability() -> None:
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    target = torch.full((1, 1, 99), 0.3, dtype=torch.float64)
    found = []
    for params in ({}, {"gamma_negative": 0, "margin": 0}):
        loss = losses.build("asymmetric", mode="binary", reduction="none", **params)
        found.append(p[loss(p.logit()[None, None], target)[0].argmin()].item())
    assert found[0] > 0.5
    assert found[1] == pytest.approx(0.3)


def published_nnunet(
    z: torch.Tensor, target: torch.Tensor, *, batch_dice: bool, do_bg: bool
) -> torch.Tensor:
    """nnU-Net's DC_and_CE_loss with MemoryEfficientSoftDiceLoss and an ignore label, in our words."""
    log_p = torch.log_softmax(z.flatten(2), 1)
    label = target.flatten(1)
    mask = (label != VOID).double()
    onehot = F.one_hot(label.masked_fill(label == VOID, 0), CLASSES).movedim(-1, 1).double()
    first = 0 if do_bg else 1
    p, t = log_p.exp()[:, first:], onehot[:, first:]
    sums = [(x * mask[:, None]).sum(2) for x in (p * t, p, t)]
    both, predicted, true = (x.sum(0) if batch_dice else x for x in sums)
    dice = (2 * both + 1e-5) / (predicted + true + 1e-5).clamp_min(1e-8)
    surprisal = -(log_p * onehot).sum(1)
    return (surprisal * mask).sum() / mask.sum() - dice.mean()


@pytest.mark.parametrize("do_bg", [True, False])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("void", [0.0, 0.2])
def test_nnunet_has_the_gradient_of_its_published_code_and_a_value_one_higher(
    void: float, per_image: bool, do_bg: bool
) -> None:
    """An image that is ignored as a whole has D = 1 there, and counts; so does a class that is absent."""
    logits, target = example("multiclass", images=3, void=void)
    target[target == 3] = 0
    if void:
        target[1] = VOID
    loss = losses.build("nnunet_dice_ce", per_image=per_image, do_bg=do_bg, ignore_index=VOID)
    z = logits.clone().requires_grad_()
    reference = published_nnunet(z, target, batch_dice=not per_image, do_bg=do_bg)
    (expected,) = torch.autograd.grad(reference, z)
    value, found = gradient(loss, logits, target)
    close(value, reference.detach() + 1)
    close(found, expected)


def test_sam2_is_its_published_code_and_its_dice_the_semimetric_of_soft_masks() -> None:
    """sigmoid_focal_loss and dice_loss of SAM 2 in NumPy."""
    for kind, scales in (("hard", (20.0, 1.0)), ("soft", (0.0, 1.0))):
        logits, target = example("binary", kind, images=3)
        z = logits.numpy().reshape(3, -1)
        t = target.numpy().reshape(3, -1).astype(float)
        p = 1 / (1 + np.exp(-z))
        ce = -t * np.log(p) - (1 - t) * np.log(1 - p)
        focal = ce * (p + t - 2 * p * t) ** 2 * (0.25 * t + 0.75 * (1 - t))
        total = p.sum(1) + t.sum(1)
        dice = 1 - (total - np.abs(p - t).sum(1) + 1) / (total + 1)
        expected = scales[0] * focal.mean(1).sum() / 3 + scales[1] * dice.sum() / 3
        found = losses.build("sam2_focal_dice", scales=scales)(logits, target).item()
        assert found == pytest.approx(expected, rel=1e-12), kind


def test_nnunet_counts_exactly_the_classes_that_are_listed():
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (2, 6), generator=torch.Generator().manual_seed(1))
    build = partial(losses.build, "nnunet_dice_ce")
    for classes in ([0], [0, 2], [1]):
        dice = losses.DiceLoss(classes=classes, per_image=True, smooth=1e-5)(logits, target)
        assert dice > 0
        for do_bg in (False, True):
            loss = build(classes=classes, do_bg=do_bg, scales=(1.0, 0.0))
            assert loss(logits, target).item() == pytest.approx(dice.item())
    assert build()(logits, target) != build(do_bg=True)(logits, target)
