"""The closed form of every loss's gradient at the logits, for one channel and a sigmoid.

Each entry of :data:`FORMS` states three things: the loss as a function of one pixel's probability,
the formula for its derivative at the logit as the book prints it, and the class of
:mod:`lossatlas.losses` it belongs to. :func:`check_form` proves the formula from the loss by
computer algebra and compares its values with autograd and finite differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import sympy as sp
import torch

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError, by_logit, prove_equal
from lossatlas.theory.check import Array, check
from lossatlas.theory.printing import latex
from lossatlas.theory.symbols import (
    D,
    I,
    I_rest,
    J,
    S,
    S_rest,
    T,
    alpha,
    beta,
    eps,
    gamma,
    n,
    p,
    t,
    w,
)

Sums = Callable[[Array, Array], Mapping[sp.Symbol, float]]


def linear_sums(probs: Array, target: Array) -> dict[sp.Symbol, float]:
    """S = Σp, T = Σt, I = Σpt."""
    return {S: probs.sum(), T: target.sum(), I: (probs * target).sum()}


def squared_sums(probs: Array, target: Array) -> dict[sp.Symbol, float]:
    """S = Σp², T = Σt², I = Σpt."""
    return {S: (probs**2).sum(), T: (target**2).sum(), I: (probs * target).sum()}


@dataclass(frozen=True)
class ClosedForm:
    """A loss, its stated gradient at the logit, and how to compare the two with the library.

    Attributes:
        name: the name in this book, mostly the one of ``lossatlas.losses``.
        title: for people.
        loss: the loss in p, t and what the other pixels contribute.
        gradient: ∂loss/∂z as stated, in p, t and whole sums.
        definitions: abbreviations used in ``gradient``, for example D for the Dice coefficient.
        whole: each whole sum in terms of this pixel and the rest.
        sums: the values of the whole sums.
        library: the registry's name and parameters in ``lossatlas.losses``.
        parameters: default values of the symbols that are parameters.
        hard_only: the formula holds for t ∈ {0, 1} only.
    """

    name: str
    title: str
    loss: sp.Expr
    gradient: sp.Expr
    library: Callable[[Mapping[str, float]], torch.nn.Module]
    definitions: Mapping[sp.Symbol, sp.Expr] = field(default_factory=dict)
    whole: Mapping[sp.Symbol, sp.Expr] = field(default_factory=dict)
    sums: Sums | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    hard_only: bool = False

    def derive(self) -> sp.Expr:
        """∂loss/∂z by SymPy, from the loss."""
        return by_logit(self.loss)

    def expanded(self) -> sp.Expr:
        """The stated gradient with its abbreviations written out."""
        return self.gradient.subs(dict(self.definitions))

    def prove(self) -> str:
        """Proves that the stated gradient is the derivative; see ``prove_equal``."""
        stated = self.expanded().subs(dict(self.whole))
        derived = self.derive()
        if not self.hard_only:
            return prove_equal(stated, derived, self.title)
        proofs = {
            prove_equal(stated.subs(t, label), derived.subs(t, label), f"{self.title}, t={label}")
            for label in (0, 1)
        }
        return max(proofs)

    def evaluate(self, logits: Array, target: Array, **parameters: float) -> Array:
        """The stated gradient, in numbers, at every logit."""
        probs = 1.0 / (1.0 + np.exp(-logits))
        values: dict[str, Any] = {**self.parameters, **parameters}
        values[n.name] = probs.size
        if self.sums is not None:
            values |= {symbol.name: value for symbol, value in self.sums(probs, target).items()}
        names, function = _compiled(self.expanded())
        missing = [name for name in names if name not in {*values, p.name, t.name}]
        if missing:
            raise ValueError(f"{self.title}: no value for {missing}; expected them as parameters.")
        arguments = {p.name: probs, t.name: target, **values}
        result = function(*(arguments[name] for name in names))
        return np.broadcast_to(np.asarray(result, dtype=np.float64), probs.shape)

    def latex(self) -> str:
        """The stated gradient as TeX, from SymPy's own expression."""
        return latex(self.gradient)


@cache
def _compiled(expression: sp.Expr) -> tuple[tuple[str, ...], Callable[..., Any]]:
    symbols = sorted(expression.free_symbols, key=str)
    return tuple(symbol.name for symbol in symbols), sp.lambdify(symbols, expression, "numpy")


def binary_cases(
    seed: int = 0, pixels: int = 24, hard_only: bool = False
) -> list[tuple[str, Array, Array]]:
    """Draws of (label, logits, target) for one channel: rare and common foreground, soft labels."""
    draw = np.random.default_rng(seed)
    shape = (1, 1, pixels)
    rare = np.zeros(shape)
    rare[..., :2] = 1.0
    half = (draw.random(shape) < 0.5).astype(float)
    half[..., 0], half[..., 1] = 0.0, 1.0
    cases = [
        ("hard labels, 2 of 24 pixels", draw.normal(0, 2, shape), rare),
        ("hard labels, half", draw.normal(0, 2, shape), half),
        ("confident and wrong", np.where(rare > 0, -6.0, 4.0) + draw.normal(0, 0.3, shape), rare),
    ]
    if not hard_only:
        cases.append(("soft labels", draw.normal(0, 2, shape), draw.random(shape)))
    return cases


_PRINTED = {"varepsilon": "ε", "gamma": "γ", "alpha": "α", "beta": "β"}


def check_form(form: ClosedForm, seed: int = 0, **parameters: float) -> pd.DataFrame:
    """Proves a closed form and compares it with autograd and finite differences.

    Returns:
        The table of :func:`lossatlas.theory.check.check`, with a column for the proof.

    Raises:
        ClosedFormError: any of the three disagrees.
    """
    values = {**form.parameters, **parameters}
    unknown = set(parameters) - set(form.parameters)
    if unknown:
        raise ValueError(
            f"{form.title} has no parameter {sorted(unknown)}; it has {sorted(form.parameters)}."
        )
    proof = form.prove()
    told = [f"{_PRINTED.get(name, name)} = {value:g}" for name, value in parameters.items()]
    table = check(
        ", ".join([form.title, *told]),
        lambda logits, target: form.evaluate(logits, target, **values),
        form.library(values),
        binary_cases(seed, hard_only=form.hard_only),
    )
    table.insert(2, "proof", proof)
    return table


def check_softmax(seed: int = 0, classes: int = 4, pixels: int = 6) -> pd.DataFrame:
    """(p − t)/N of multi-class cross-entropy against autograd and finite differences.

    Raises:
        ClosedFormError: they disagree.
    """
    draw = np.random.default_rng(seed)

    def closed(logits: Array, target: Array) -> Array:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs = powers / powers.sum(axis=1, keepdims=True)
        if target.ndim < logits.ndim:  # class numbers: (1, N) → one-hot (1, C, N)
            target = np.moveaxis(np.eye(logits.shape[1])[target], -1, 1)
        return (probs - target) / target[:, 0].size

    logits = draw.normal(0, 2, (1, classes, pixels))
    labels = draw.integers(0, classes, (1, pixels))
    soft = np.moveaxis(draw.dirichlet(np.ones(classes), (1, pixels)), -1, 1)
    table = check(
        "cross-entropy, softmax",
        closed,
        losses.build("ce"),
        [("class numbers", logits, labels), ("soft labels", logits, soft)],
    )
    table.insert(2, "proof", "symbolic")
    return table


# --- The losses -------------------------------------------------------------------------------

_ONE_PIXEL = {S: S_rest + p, I: I_rest + p * t}
_ONE_PIXEL_SQUARED = {S: S_rest + p**2, I: I_rest + p * t}

cross_entropy = -(t * sp.log(p) + (1 - t) * sp.log(1 - p))
weighted_cross_entropy = -(w * t * sp.log(p) + (1 - t) * sp.log(1 - p))
dice_coefficient = (2 * I + eps) / (S + T + eps)
jaccard_coefficient = (I + eps) / (S + T - I + eps)
tversky_denominator = I + alpha * (S - I) + beta * (T - I) + eps
tversky_index = (I + eps) / tversky_denominator

p_t = t * p + (1 - t) * (1 - p)
sign = 2 * t - 1
TI = sp.Symbol("TI", nonnegative=True)


def _in_one_pixel(coefficient: sp.Expr, whole: Mapping[sp.Symbol, sp.Expr]) -> sp.Expr:
    return coefficient.subs(dict(whole))


_ALL = [
    ClosedForm(
        name="ce",
        title="cross-entropy",
        loss=cross_entropy / n,
        gradient=(p - t) / n,
        library=lambda v: losses.build("ce", mode="binary"),
    ),
    ClosedForm(
        name="focal",
        title="focal loss",
        loss=-((1 - p_t) ** gamma) * sp.log(p_t) / n,
        gradient=sign * (1 - p_t) ** gamma * (gamma * p_t * sp.log(p_t) + p_t - 1) / n,
        library=lambda v: losses.build("focal", mode="binary", gamma=v["gamma"]),
        parameters={"gamma": 2.0},
        hard_only=True,
    ),
    ClosedForm(
        name="dice",
        title="Dice",
        loss=1 - _in_one_pixel(dice_coefficient, _ONE_PIXEL),
        gradient=-p * (1 - p) * (2 * t - D) / (S + T + eps),
        definitions={D: dice_coefficient},
        whole=_ONE_PIXEL,
        sums=linear_sums,
        library=lambda v: losses.build("dice", mode="binary", smooth=v["varepsilon"]),
        parameters={"varepsilon": 0.0},
    ),
    ClosedForm(
        name="dice_squared",
        title="Dice, squared denominator",
        loss=1 - _in_one_pixel(dice_coefficient, _ONE_PIXEL_SQUARED),
        gradient=-2 * p * (1 - p) * (t - p * D) / (S + T + eps),
        definitions={D: dice_coefficient},
        whole=_ONE_PIXEL_SQUARED,
        sums=squared_sums,
        library=lambda v: losses.build("dice_squared", mode="binary", smooth=v["varepsilon"]),
        parameters={"varepsilon": 0.0},
    ),
    ClosedForm(
        name="jaccard",
        title="Jaccard",
        loss=1 - _in_one_pixel(jaccard_coefficient, _ONE_PIXEL),
        gradient=-p * (1 - p) * (t - J * (1 - t)) / (S + T - I + eps),
        definitions={J: jaccard_coefficient},
        whole=_ONE_PIXEL,
        sums=linear_sums,
        library=lambda v: losses.build("jaccard", mode="binary", smooth=v["varepsilon"]),
        parameters={"varepsilon": 0.0},
    ),
    ClosedForm(
        name="tversky",
        title="Tversky",
        loss=1 - _in_one_pixel(tversky_index, _ONE_PIXEL),
        gradient=-p * (1 - p) * (t - TI * (t + alpha * (1 - t) - beta * t)) / tversky_denominator,
        definitions={TI: tversky_index},
        whole=_ONE_PIXEL,
        sums=linear_sums,
        library=lambda v: losses.build(
            "tversky", mode="binary", alpha=v["alpha"], beta=v["beta"], smooth=v["varepsilon"]
        ),
        parameters={"alpha": 0.3, "beta": 0.7, "varepsilon": 0.0},
    ),
]

#: Every closed form by its name.
FORMS: dict[str, ClosedForm] = {form.name: form for form in _ALL}

__all__ = ["FORMS", "ClosedForm", "ClosedFormError", "binary_cases", "check_form", "check_softmax"]
