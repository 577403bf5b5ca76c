"""Closed forms: derivative, library and finite differences agree, and a wrong one is caught."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sympy as sp
import torch

from lossatlas.theory import FORMS, ClosedFormError, check, check_form, check_softmax
from lossatlas.theory.check import finite_differences, relative_difference
from lossatlas.theory.printing import latex
from lossatlas.theory.symbols import D, S, T, eps, p, t


@pytest.mark.parametrize("name", list(FORMS))
def test_closed_form_autograd_and_differences_agree(name: str) -> None:
    table = check_form(FORMS[name], seed=3)
    assert len(table) >= 2
    assert (table["vs autograd"] <= 1e-10).all()
    assert (table["largest"] > 0).all()


@pytest.mark.parametrize("smooth", [1e-6, 1.0, 10.0])
def test_dice_agrees_for_every_smoothing(smooth: float) -> None:
    check_form(FORMS["dice"], varepsilon=smooth)


def test_the_softmax_gradient_is_p_minus_t() -> None:
    assert (check_softmax()["vs autograd"] <= 1e-10).all()


def test_a_formula_with_a_wrong_sign_or_without_the_smoothing_fails_the_proof() -> None:
    for wrong in (-FORMS["dice"].gradient, -p * (1 - p) * (2 * t - D) / (S + T)):
        with pytest.raises(ClosedFormError, match="not the derivative"):
            check_form(dataclasses.replace(FORMS["dice"], gradient=wrong))


def test_a_library_that_computes_another_loss_fails_the_comparison() -> None:
    # The formula is right, the code is not: the proof passes, autograd does not.
    wrong = dataclasses.replace(FORMS["dice"], library=lambda v: _Scaled(1.0 + 1e-9))
    with pytest.raises(ClosedFormError, match="vs autograd"):
        check_form(wrong)


class _Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        probs = logits.sigmoid()
        return self.factor * (1 - 2 * (probs * target).sum() / (probs.sum() + target.sum()))


def test_a_backward_that_is_wrong_fails_against_finite_differences() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(z)
            return (z**2).sum()

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g * 3 * ctx.saved_tensors[0]

    logits = np.linspace(-1, 1, 5)
    with pytest.raises(ClosedFormError, match="vs differences"):
        check("wrong", lambda z, t: 3 * z, lambda z, t: Wrong.apply(z), [("", logits, logits)])


def test_a_gradient_that_is_not_a_number_is_refused() -> None:
    logits = np.ones(3)
    with pytest.raises(ClosedFormError):
        check("nan", lambda z, t: z * np.nan, lambda z, t: z.sum(), [("", logits, logits)])


def test_finite_differences_of_a_cubic_are_exact() -> None:
    logits = np.array([-1.0, 0.5, 2.0])
    found = finite_differences(lambda z, t: (z**3).sum(), logits, logits)
    np.testing.assert_allclose(found, 3 * logits**2, rtol=1e-10)


def test_relative_difference_sees_a_small_entry_beside_a_large_one() -> None:
    assert relative_difference(np.array([1.0, 1.1e-3]), np.array([1.0, 1e-3])) > 0.09


def test_an_unknown_parameter_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="varepsilon"):
        check_form(FORMS["dice"], smoothing=1.0)


def test_the_printed_formula_is_the_checked_expression() -> None:
    form = FORMS["dice"]
    printed = r"- \frac{p \left(1 - p\right) \left(2 t - D\right)}{S + T + \varepsilon}"
    assert latex(form.gradient) == printed
    value = form.gradient.subs(
        {p: sp.Rational(1, 2), t: 1, D: sp.Rational(1, 2), S: 1, T: 1, eps: 0}
    )
    # By hand: -(1/2)(1/2)(2 - 1/2)/2 = -3/16.
    assert value == sp.Rational(-3, 16)
