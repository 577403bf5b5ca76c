"""The chapter on the two gradients: its numbers, and that a wrong formula stops it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import sympy as sp

from lossatlas import theory
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


def test_a_search_reaches_the_bound_and_does_not_pass_it() -> None:
    found = two_gradients.largest_observed((1, 4))["found / bound"]
    assert (found <= 1 + 1e-12).all()
    assert (found > 0.99).all()


def test_random_predictions_stay_under_the_bound() -> None:
    draw = np.random.default_rng(5)
    for _ in range(300):
        size = int(draw.integers(1, 12))
        target = np.zeros((1, 1, 16))
        target[..., :size] = 1
        logits = draw.normal(0, 4, target.shape)
        gradient = theory.FORMS["dice"].evaluate(logits, target)
        assert np.abs(gradient).max() <= 1 / (2 * (size + 1))


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


def test_a_wrong_closed_form_stops_the_chapter(
    run_notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = theory.FORMS["dice"]
    wrong = dataclasses.replace(right, gradient=right.gradient * 2)
    monkeypatch.setitem(theory.FORMS, "dice", wrong)
    with pytest.raises(ClosedFormError):
        run_notebook("two_gradients")
