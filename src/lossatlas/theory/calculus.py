"""Derivatives by computer algebra, and the proof that a stated formula equals them."""

from __future__ import annotations

import random
from functools import cache

import sympy as sp

from lossatlas.theory.symbols import p, z


class ClosedFormError(AssertionError):
    """A stated formula differs from what it claims to be."""


@cache
def sigmoid_slope() -> sp.Expr:
    """The derivative of p = 1/(1+e^{-z}) with respect to z, expressed in p: p(1−p)."""
    slope = sp.diff(1 / (1 + sp.exp(-z)), z).subs(z, sp.log(p / (1 - p)))
    stated = p * (1 - p)
    if sp.simplify(slope - stated) != 0:
        raise ClosedFormError(f"the sigmoid's slope is {slope}, not {stated}.")
    return stated


def by_probability(loss: sp.Expr) -> sp.Expr:
    """∂loss/∂p, for a loss written in p."""
    return sp.diff(loss, p)


def by_logit(loss: sp.Expr) -> sp.Expr:
    """∂loss/∂z, for a loss written in p: the chain rule through the sigmoid."""
    return by_probability(loss) * sigmoid_slope()


def _is_awkward(expression: sp.Expr) -> bool:
    """Whether expanding could take minutes: a long expression with symbols as exponents."""
    powers = any(power.exp.free_symbols for power in expression.atoms(sp.Pow))
    special = expression.has(sp.tanh, sp.cosh, sp.sinh, sp.Abs)
    return (powers or special) and expression.count_ops() > 60


def prove_equal(stated: sp.Expr, derived: sp.Expr, what: str, points: int = 8) -> str:
    """Proves that two expressions are the same function, or raises.

    The numerator of their difference is expanded: for rational functions it is 0 exactly when
    they are equal. Where that does not decide, or would take minutes (long expressions with a
    symbol as exponent), the difference is evaluated to 50 digits at random rational points
    between 0 and 1.

    Returns:
        How it was proved: ``"symbolic"`` or ``"50 digits"``.

    Raises:
        ClosedFormError: they differ; the message shows both.
    """
    difference = stated - derived
    if not _is_awkward(difference) and sp.expand(sp.together(difference).as_numer_denom()[0]) == 0:
        return "symbolic"
    draw = random.Random(0)
    symbols = sorted(stated.free_symbols | derived.free_symbols, key=str)
    for _ in range(points):
        at = {symbol: sp.Rational(draw.randint(1, 96), 97) for symbol in symbols}
        scale = 1 + abs(stated.evalf(50, subs=at))
        if abs(difference.evalf(50, subs=at)) > 1e-40 * scale:
            raise ClosedFormError(
                f"{what}: the stated formula {stated} is not the derivative {derived}; "
                f"they differ by {difference.evalf(6, subs=at)} at {at}."
            )
    return "50 digits"
