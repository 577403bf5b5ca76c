"""NaN in, NaN out; an infinite logit is certainty, and the losses are their limits there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lossatlas import losses

MODES = ("multiclass", "binary", "multilabel")
INF = math.inf
#: With means over pixels of an unbounded loss: a pixel that is wrong with certainty costs inf.
UNBOUNDED = (
    "ce", "weighted_ce", "one_vs_all_ce", "balanced_ce", "ohem_ce", "topk_ce", "focal", "poly1",
    "unified_focal", "dice_focal", "sam2_focal_dice",
)  # fmt: skip


def built(name: str):
    """The loss with every mode, reduction and (where it has them) bins that it takes."""
    known = losses.parameters(name)
    for mode in MODES:
        for reduction in ("mean", "sum", "none"):
            for bins in (None, 64) if "bins" in known else (None,):
                params = {"mode": mode, "reduction": reduction}
                if bins:
                    params["bins"] = bins
                if name.startswith("weighted"):
                    params["weight"] = [1.0, 2.0] if mode == "binary" else [1.0, 2.0, 3.0]
                try:
                    yield mode, reduction, losses.build(name, **params)
                except (TypeError, ValueError):
                    continue  # a mode or a reduction that this loss refuses


def drawn(mode: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels = 1 if mode == "binary" else 3
    logits = torch.randn(2, channels, 4, 5, generator=generator)
    shape = (2, 4, 5) if mode == "multiclass" else (2, channels, 4, 5)
    return logits, torch.randint(0, 3 if mode == "multiclass" else 2, shape, generator=generator)


@pytest.mark.parametrize("name", losses.names())
def test_nan_in_nan_out(name):
    tried = 0
    for mode, reduction, loss in built(name):
        for where in ("everywhere", "one channel", "one number"):
            logits, target = drawn(mode)
            if where == "everywhere":
                logits[:] = math.nan
            elif where == "one channel":
                logits[:, 0] = math.nan
            else:
                logits[0, -1, 1, 1] = math.nan
            value = loss(logits, target)
            assert value.isnan().any(), (mode, reduction, where, value)
            tried += 1
    assert tried >= 3


def certainties(mode: str):
    """Logits with certainty at right answers alone, and their target."""
    logits, target = drawn(mode)
    if mode == "multiclass":
        target[target == 2] = 1  # class 2 is absent, and masked
        masked = logits.clone()
        masked[:, 2] = -INF
        yield "an absent class is masked by -inf", masked, target
        sure = logits.clone()
        sure[0, int(target[0, 1, 1]), 1, 1] = INF
        yield "+inf on the right class", sure, target
        return
    for label, value, what in ((0, -INF, "-inf on negatives"), (1, INF, "+inf on positives")):
        sure = logits.clone()
        for place in (target == label).nonzero()[:4]:
            sure[tuple(place)] = value
        yield what, sure, target


@pytest.mark.parametrize("name", [name for name in losses.names() if name != "lovasz_hinge"])
def test_what_is_right_with_certainty_costs_its_limit_and_has_its_gradient(name):
    # The hinge is linear in the logit: its limit for the wrong classes is none.
    for mode, reduction, loss in built(name):
        for what, logits, target in certainties(mode):
            limit = logits.clamp(-1e4, 1e4).requires_grad_()
            logits.requires_grad_()
            value, expected = loss(logits, target), loss(limit, target)
            (gradient,) = torch.autograd.grad(value.sum(), logits)
            (slope,) = torch.autograd.grad(expected.sum(), limit)
            scene = f"{mode}, {reduction}, {what}"
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4, msg=scene)
            torch.testing.assert_close(gradient, slope, atol=1e-5, rtol=1e-3, msg=scene)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_is_wrong_with_certainty_costs_inf(name):
    for mode, reduction, loss in built(name):
        logits, target = drawn(mode)
        if mode == "multiclass":
            logits[0, int(target[0, 1, 1]), 1, 1] = -INF
        else:
            logits[0, 0, 1, 1] = -INF if target[0, 0, 1, 1] else INF
        scene = (mode, reduction)
        value = loss(logits.requires_grad_(), target)
        assert value.isposinf().any() and not value.isnan().any(), scene
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert gradient.isfinite().all(), scene
        plain = torch.vmap(lambda z, t, loss=loss: loss(z, t))(logits[None], target[None])
        assert plain.isposinf().any() and not plain.isnan().any(), scene


def test_a_certain_error_of_a_class_without_weight_costs_nothing():
    for mode, logits, target in (
        ("binary", [[[INF, 1.0]]], [[0, 1]]),
        ("multiclass", [[[-INF, 1.0], [0.0, 0.0]]], [[0, 1]]),
    ):
        logits, target = torch.tensor(logits, requires_grad=True), torch.tensor(target)
        for name in ("weighted_ce", "focal", "poly1"):
            loss = losses.build(name, mode=mode, weight=[0.0, 1.0])
            value, slope_ = slope(loss, logits.detach(), target)
            assert value == loss(logits.detach().nan_to_num(posinf=5, neginf=-5), target), name
            assert slope_.isfinite().all()
    soft = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # the multiclass labels, as probabilities
    for name in ("weighted_ce", "focal"):
        loss = losses.build(name, weight=[0.0, 1.0])
        assert loss(logits.detach(), soft) == pytest.approx(loss(logits.detach(), target).item())
    one = losses.build("balanced_ce", mode="binary")
    assert one(torch.tensor([[[-INF, -INF]]]), torch.tensor([[1, 1]])) == 0


@pytest.mark.parametrize("name", [*UNBOUNDED[:-1], "logit_adjusted_ce", "asymmetric", "dice_ce"])
def test_the_slope_of_a_certain_error_is_the_same_in_every_form(name):
    target = torch.tensor([[0, 1]])
    for first in ((0.0, INF, 0.5), (-INF, 1.0, 0.5), (-INF, INF, 0.5)):
        logits = torch.tensor([[list(each) for each in zip(first, (0.0, 0.3, 0.2), strict=True)]])
        params = {"weight": [1.0, 2.0, 3.0]} if name.startswith("weighted") else {}
        loss = losses.build(name, **params)
        _, eager = slope(loss, logits, target)
        plain = torch.func.grad(loss)(logits, target)
        torch.testing.assert_close(plain, eager, atol=1e-5, rtol=1e-4)
        assert plain.isfinite().all()
        if name == "ce":  # p − t
            p = torch.softmax(logits.nan_to_num(posinf=1e4, neginf=-1e4), 1)
            torch.testing.assert_close(plain, (p - torch.eye(3)[target].mT) / 2)
            _, summed = slope(losses.build("ce", reduction="sum"), logits, target)
            torch.testing.assert_close(summed, 2 * plain)


@pytest.mark.parametrize("form", ["eager", "plain"])
@pytest.mark.parametrize(
    "name",
    ["dice", "dice_squared", "inverse_dice", "generalized_dice", "log_cosh_dice", "jaccard", "tversky",
     "focal_tversky", "dice_semimetric", "unified_focal", "dice_ce"],
)  # fmt: skip
def test_a_region_of_hardly_any_probability_has_a_finite_slope(name, form):
    # Its sum of p or p² is a denormal number: one over it overflows.
    deep = {torch.float32: (-45, -48, -51, -91, -96, -101), torch.float64: (-365, -372, -731, -738)}
    for dtype, depths in deep.items():
        for depth in depths:
            absent = torch.tensor([0.0, 0.0, depth], dtype=dtype).view(1, 3, 1).expand(1, 3, 8)
            empty = torch.full((1, 1, 8), float(depth), dtype=dtype)
            for loss, logits, target in (
                (losses.build(name, classes="all"), absent, torch.arange(8)[None] % 2),
                (losses.build(name, mode="binary"), empty, torch.zeros(1, 8, dtype=torch.long)),
            ):
                if form == "plain":
                    gradient = torch.func.grad(loss)(logits, target)
                else:
                    value, gradient = slope(loss, logits, target)
                    assert value.isfinite()
                assert gradient.isfinite().all(), (dtype, depth, loss.mode)


@pytest.mark.parametrize("params", [{"gamma_positive": 1.0}, {"margin": 0.0}])
def test_a_certain_error_has_a_finite_slope_under_the_asymmetric_loss(params):
    loss = losses.build("asymmetric", mode="binary", **params)
    wrong = -INF if "gamma_positive" in params else INF
    target = torch.tensor([[int(wrong < 0), 1]])
    value, gradient = slope(loss, torch.tensor([[[wrong, 1.0]]]), target)
    assert value == INF and gradient.isfinite().all() and gradient[0, 0, 0] != 0


def test_an_infinite_error_leaves_the_finite_ones_in_bins_of_their_own():
    hinge = losses.LovaszHingeLoss(bins=64)
    z, target = torch.tensor([[[INF, 0.5, -0.2, 0.3]]]), torch.tensor([[0, 1, 0, 1]])
    _, gradient = slope(hinge, z, target)
    torch.testing.assert_close(torch.func.grad(lambda z: hinge(z, target))(z), gradient)


@pytest.mark.parametrize("bins", [None, 64])
def test_the_hinge_of_infinite_logits_is_that_of_the_errors(bins):
    hinge = losses.LovaszHingeLoss(bins=bins)
    for logits, cost in (
        ([INF, -INF], 0),
        ([INF, INF], INF),
        ([-INF, INF], INF),
        ([-INF, -INF], INF),
    ):
        z, target = torch.tensor([[logits]]), torch.tensor([[1, 0]])
        value, gradient = slope(hinge, z, target)
        assert value == cost == hinge(z.double(), target), logits
        assert gradient.isfinite().all()
        assert torch.vmap(hinge)(z[None], target[None]) == cost
    # among several classes a class's own logit counts alone: the error of class 1 here is 1
    several = losses.LovaszHingeLoss(mode="multiclass", bins=bins)
    z, target = torch.tensor([[[INF, 0.0], [0.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1, 1]])
    assert several(z, target) == torch.vmap(several)(z[None], target[None]) == 1


def slope(loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    z = logits.clone().requires_grad_()
    value = loss(z, target)
    return value.detach(), torch.autograd.grad(value, z)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ce", "focal", "ohem_ce", "one_vs_all_ce", "dice", "lovasz_softmax"]
)
def test_compiled_agrees_where_logits_are_infinite_or_undefined(name):
    torch._dynamo.reset()  # what other tests compiled counts against its limit
    for mode in ("multiclass", "binary"):
        loss = losses.build(name, mode=mode)
        compiled = torch.compile(loss, fullgraph=True)
        if name == "dice":  # the backward takes seconds to compile, and losses share how they do it
            logits, target = drawn(mode)
            torch.testing.assert_close(slope(compiled, logits, target), slope(loss, logits, target))
        for what, logits, target in certainties(mode):
            torch.testing.assert_close(
                compiled(logits, target), loss(logits, target), atol=1e-5, rtol=1e-4, msg=what
            )
        undefined = logits.clone()
        undefined[0, 0, 0, 0] = math.nan
        assert compiled(undefined, target).isnan()


def test_smoothing_costs_nothing_at_a_masked_class_of_weight_zero():
    z, y = torch.tensor([[1.0, 2.0, -INF]]), torch.tensor([0])
    loss = losses.CrossEntropyLoss(label_smoothing=0.1, weight=[1, 1, 0.0])
    rest = math.log(1 + math.e)  # -log p of class 0; class 1 has 1 less
    expected = 0.9 * rest + 0.1 * (rest + rest - 1) / 3
    assert loss(z, y).item() == pytest.approx(expected, rel=1e-6)
    binary = losses.CrossEntropyLoss(mode="binary", weight=[0.0, 1.0], label_smoothing=0.1)
    assert binary(torch.tensor([[INF]]), torch.tensor([1])) == 0
    whole = losses.CrossEntropyLoss(label_smoothing=1.0)
    assert whole(torch.tensor([[0.0, -INF]]), torch.tensor([1])) == INF
