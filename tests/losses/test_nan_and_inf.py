"""NaN in, NaN out; an infinite logit is certainty, and the losses are their limits there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from cases import MODES, Spec, each, example, gradient, named
from torch import Tensor

from lossatlas import losses

INF = math.inf
#: With means over pixels of an unbounded loss: a pixel that is wrong with certainty costs inf.
UNBOUNDED = (
    "ce", "weighted_ce", "one_vs_all_ce", "balanced_ce", "ohem_ce", "topk_ce", "focal", "poly1",
    "unified_focal", "dice_focal", "sam2_focal_dice",
)  # fmt: skip


def built(spec: Spec) -> Iterator[tuple[str, str, losses.SegmentationLoss]]:
    """The loss with every mode, reduction and (where it has them) bins that it takes."""
    binned = [{"bins": 64}] if "bins" in losses.parameters(spec.name) else []
    for mode in MODES:
        for reduction in spec.reductions:
            for params in [{}, *binned]:
                yield mode, reduction, spec.build(mode, reduction=reduction, **params)


def drawn(mode: str) -> tuple[Tensor, Tensor]:
    """Logits and labels in float32, the binary labels with their channel."""
    logits, target = example(mode, shape=(4, 5), dtype=torch.float32)
    return logits, target if mode != "binary" else target.unsqueeze(1)


@each()
def test_nan_in_nan_out(spec: Spec) -> None:
    places = {
        "everywhere": ...,
        "one channel": (slice(None), 0),
        "one number": (0, -1, 1, 1),
    }
    for mode, reduction, loss in built(spec):
        for where, place in places.items():
            logits, target = drawn(mode)
            logits[place] = math.nan
            value = loss(logits, target)
            assert value.isnan().any(), (mode, reduction, where, value)


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


# The hinge is linear in the logit: its limit for the wrong classes is none.
@each(where=lambda spec: spec.name != "lovasz_hinge")
def test_what_is_right_with_certainty_costs_its_limit_and_has_its_gradient(spec: Spec) -> None:
    for mode, reduction, loss in built(spec):
        for what, logits, target in certainties(mode):
            value, slope = gradient(loss, logits, target)
            limit, limit_slope = gradient(loss, logits.clamp(-1e4, 1e4), target)
            with named(mode, reduction, what):
                torch.testing.assert_close(value, limit, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(slope, limit_slope, atol=1e-5, rtol=1e-3)


@each(*UNBOUNDED)
def test_what_is_wrong_with_certainty_costs_inf(spec: Spec) -> None:
    for mode, reduction, loss in built(spec):
        logits, target = drawn(mode)
        if mode == "multiclass":
            logits[0, int(target[0, 1, 1]), 1, 1] = -INF
        else:
            logits[0, 0, 1, 1] = -INF if target[0, 0, 1, 1] else INF
        value, slope = gradient(loss, logits, target)
        plain = torch.vmap(loss)(logits[None], target[None])
        with named(mode, reduction):
            assert value.isposinf().any() and not value.isnan().any()
            assert slope.isfinite().all()
            assert plain.isposinf().any() and not plain.isnan().any()


def test_a_certain_error_of_a_class_without_weight_costs_nothing():
    for mode, logits, target in (
        ("binary", [[[INF, 1.0]]], [[0, 1]]),
        ("multiclass", [[[-INF, 1.0], [0.0, 0.0]]], [[0, 1]]),
    ):
        logits, target = torch.tensor(logits), torch.tensor(target)
        for name in ("weighted_ce", "focal", "poly1"):
            loss = losses.build(name, mode=mode, weight=[0.0, 1.0])
            value, slope = gradient(loss, logits, target)
            assert value == loss(logits.nan_to_num(posinf=5, neginf=-5), target), name
            assert slope.isfinite().all()
    soft = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])  # the multiclass labels, as probabilities
    for name in ("weighted_ce", "focal"):
        loss = losses.build(name, weight=[0.0, 1.0])
        assert loss(logits, soft) == pytest.approx(loss(logits, target).item())
    one = losses.build("balanced_ce", mode="binary")
    assert one(torch.tensor([[[-INF, -INF]]]), torch.tensor([[1, 1]])) == 0


@pytest.mark.parametrize("name", [*UNBOUNDED[:-1], "logit_adjusted_ce", "asymmetric", "dice_ce"])
def test_the_slope_of_a_certain_error_is_the_same_in_every_form(name: str) -> None:
    target = torch.tensor([[0, 1]])
    params = {"weight": [1.0, 2.0, 3.0]} if name.startswith("weighted") else {}
    loss = losses.build(name, **params)
    for first in ((0.0, INF, 0.5), (-INF, 1.0, 0.5), (-INF, INF, 0.5)):
        logits = torch.tensor([first, (0.0, 0.3, 0.2)]).mT[None]
        _, eager = gradient(loss, logits, target)
        plain = torch.func.grad(loss)(logits, target)
        torch.testing.assert_close(plain, eager, atol=1e-5, rtol=1e-4)
        assert plain.isfinite().all()
        if name == "ce":  # p − t
            p = torch.softmax(logits.nan_to_num(posinf=1e4, neginf=-1e4), 1)
            torch.testing.assert_close(plain, (p - torch.eye(3)[target].mT) / 2)
            _, summed = gradient(losses.build("ce", reduction="sum"), logits, target)
            torch.testing.assert_close(summed, 2 * plain)


@pytest.mark.parametrize("form", ["eager", "plain"])
@pytest.mark.parametrize(
    "name",
    ["dice", "dice_squared", "inverse_dice", "generalized_dice", "log_cosh_dice", "jaccard", "tversky",
     "focal_tversky", "dice_semimetric", "unified_focal", "dice_ce"],
)  # fmt: skip
def test_a_region_of_hardly_any_probability_has_a_finite_slope(name: str, form: str) -> None:
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
                with named(dtype, depth, loss.mode):
                    if form == "plain":
                        slope = torch.func.grad(loss)(logits, target)
                    else:
                        value, slope = gradient(loss, logits, target)
                        assert value.isfinite()
                    assert slope.isfinite().all()


@pytest.mark.parametrize("params", [{"gamma_positive": 1.0}, {"margin": 0.0}])
def test_a_certain_error_has_a_finite_slope_under_the_asymmetric_loss(params):
    loss = losses.build("asymmetric", mode="binary", **params)
    wrong = -INF if "gamma_positive" in params else INF
    target = torch.tensor([[int(wrong < 0), 1]])
    value, slope = gradient(loss, torch.tensor([[[wrong, 1.0]]]), target)
    assert value == INF and slope.isfinite().all() and slope[0, 0, 0] != 0


def test_an_infinite_error_leaves_the_finite_ones_in_bins_of_their_own():
    hinge = losses.LovaszHingeLoss(bins=64)
    z, target = torch.tensor([[[INF, 0.5, -0.2, 0.3]]]), torch.tensor([[0, 1, 0, 1]])
    _, slope = gradient(hinge, z, target)
    torch.testing.assert_close(torch.func.grad(hinge)(z, target), slope)


@pytest.mark.parametrize("bins", [None, 64])
def test_the_hinge_of_infinite_logits_is_that_of_the_errors(bins):
    hinge = losses.LovaszHingeLoss(bins=bins)
    right, *wrong = [INF, -INF], [INF, INF], [-INF, INF], [-INF, -INF]
    for logits, cost in ((right, 0), *((logits, INF) for logits in wrong)):
        z, target = torch.tensor([[logits]]), torch.tensor([[1, 0]])
        value, slope = gradient(hinge, z, target)
        assert value == cost == hinge(z.double(), target), logits
        assert slope.isfinite().all()
        assert torch.vmap(hinge)(z[None], target[None]) == cost
    # among several classes a class's own logit counts alone: the error of class 1 here is 1
    several = losses.LovaszHingeLoss(mode="multiclass", bins=bins)
    z, target = torch.tensor([[[INF, 0.0], [0.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1, 1]])
    assert several(z, target) == torch.vmap(several)(z[None], target[None]) == 1


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
            got, expected = (gradient(form, logits, target) for form in (compiled, loss))
            torch.testing.assert_close(got, expected)
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
