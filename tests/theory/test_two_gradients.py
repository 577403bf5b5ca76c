"""The chapter on the two gradients: its numbers, and that a wrong formula stops it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

from lossatlas import losses
from lossatlas.theory import ClosedFormError, two_gradients
from lossatlas.theory.symbols import T, p, t


def test_the_quoted_formulas_are_the_derivatives_of_one_pixels_coefficient() -> None:
    assert set(two_gradients.prove_quoted()) == {"squared", "linear"}


def test_a_misquoted_formula_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_gradients, "quoted_linear", 2 * t**2 / (p + t))
    with pytest.raises(ClosedFormError, match="linear"):
        two_gradients.prove_quoted()


def test_only_the_squared_form_grows_as_both_shrink() -> None:
    assert two_gradients.scaling_degrees() == {"squared": -1, "linear": 0}


def test_the_softmax_gradient_holds_for_any_number_of_classes() -> None:
    for classes in (2, 4):
        _, stated = two_gradients.softmax_gradient(classes)
        assert stated.shape == (classes, 1)


def test_the_bound_is_proved_and_its_value_is_known() -> None:
    assert len(two_gradients.prove_bound()) == 8
    # One object of one pixel: 1/(2·2), at p = 1/3.
    assert two_gradients.bound.subs(T, 1) == sp.Rational(1, 4)
    assert two_gradients.bound_at.subs(T, 1) == sp.Rational(1, 3)


def test_a_wrong_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_gradients, "bound", 1 / (2 * T + 1))
    with pytest.raises(ClosedFormError):
        two_gradients.prove_bound()


def by_both(probs: torch.Tensor, size: int) -> torch.Tensor:
    """|∂(1−D)/∂z| over |∂CE/∂z| at each pixel, from the library, for an object of the first pixels."""
    truth = (torch.arange(len(probs)) < size).double()[None, None]
    logits = probs.logit()[None, None].requires_grad_()
    dice, ce = (
        torch.autograd.grad(losses.build(name, mode="binary")(logits, truth), logits)[0].abs()
        for name in ("dice", "ce")
    )
    return (dice / ce)[0, 0]


@pytest.mark.parametrize("size", [1, 5, 20])
def test_in_one_state_dice_exceeds_cross_entropy_by_the_ratios_that_are_proved(size: int) -> None:
    assert set(two_gradients.prove_ratio()) >= {"one foreground pixel", "whole object"}
    pixels, values = 1000, {two_gradients.n: 1000, T: size}
    most = float(two_gradients.largest_ratio.subs(values))
    found = float(two_gradients.ratio_once_found.subs(values))
    assert most == pytest.approx({1: 500, 5: 277.78, 20: 90.70}[size], abs=0.01)
    missed = torch.full((pixels,), 1e-9).double()
    one = missed.clone()
    one[0] = 1 - 1e-6
    assert by_both(one, size)[0].item() == pytest.approx(most, rel=1e-4)
    whole = missed.clone()
    whole[:size] = 1 - 1e-6
    assert by_both(whole, size) == pytest.approx(np.full(pixels, found), rel=1e-4)
    # where Dice's own gradient is largest, the ratio is neither N times that bound nor the largest
    one[0] = size / (2 * size + 1)
    assert pixels / (2 * (size + 1)) < by_both(one, size)[0].item() < most
    draw = torch.Generator().manual_seed(size)
    for spread in (1, 4, 12):
        for shift in (0, -8):
            random = (shift + spread * torch.randn(pixels, generator=draw).double()).sigmoid()
            ratio = by_both(random, size)
            assert ratio[:size].max() <= most and ratio[size:].max() <= found


def test_a_wrong_ratio_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_gradients, "largest_ratio", two_gradients.n * two_gradients.bound)
    with pytest.raises(ClosedFormError, match="one foreground pixel"):
        two_gradients.prove_ratio()


def test_a_search_reaches_the_bound_and_does_not_pass_it() -> None:
    found = two_gradients.largest_observed((1, 4))["found / bound"]
    assert (found <= 1 + 1e-12).all()
    assert (found > 0.99).all()


def test_dice_vanishes_where_cross_entropy_does_not() -> None:
    rows = two_gradients.vanishing(-10.0, 0.01, 10_000).set_index("loss")
    assert rows.loc["ce", "on a foreground pixel"] == pytest.approx(1e-4, rel=1e-3)
    assert rows.loc["dice", "on a foreground pixel"] == pytest.approx(9.04e-7, rel=1e-2)


def test_the_chapter_runs_with_other_parameters(run_notebook: Any) -> None:
    left = run_notebook("two_gradients", object_size=3, seed=4)
    assert set(left["table"]["loss"]) == {"ce", "dice"}
    # In p the soft one-pixel form reaches 2/t; at the logit nothing passes 1.
    assert left["table"]["by p"].max() > 100
    assert left["table"]["by z"].max() <= 1
