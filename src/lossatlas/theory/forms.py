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
from numpy.typing import NDArray

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError, by_logit, prove_equal
from lossatlas.theory.check import Array, check
from lossatlas.theory.symbols import (
    TI,
    A,
    A_rest,
    D,
    G,
    H,
    I,
    I_rest,
    J,
    S,
    S_rest,
    T,
    W,
    alpha,
    beta,
    delta,
    eps,
    gamma,
    lam,
    n,
    p,
    p_t,
    phi,
    t,
    w,
    w0,
    w1,
    y,
)

Sums = Callable[[Array, Array], Mapping[sp.Symbol, Any]]


def linear_sums(probs: Array, target: Array) -> dict[sp.Symbol, float]:
    """S = Σp, T = Σt, I = Σpt."""
    return {S: probs.sum(), T: target.sum(), I: (probs * target).sum()}


def squared_sums(probs: Array, target: Array) -> dict[sp.Symbol, float]:
    """S = Σp², T = Σt², I = Σpt."""
    return {S: (probs**2).sum(), T: (target**2).sum(), I: (probs * target).sum()}


def distance_sums(probs: Array, target: Array) -> dict[sp.Symbol, Array]:
    """φ = signed distance to the target's boundary, H = d_T² + d_P², by comparing all pairs."""
    truth = _signed_distance(target[0, 0] > 0.5)
    guess = _signed_distance(probs[0, 0] > 0.5)
    return {phi: truth[None, None], H: (truth**2 + guess**2)[None, None]}


def _signed_distance(mask: NDArray[np.bool_]) -> Array:
    places = np.arange(mask.size)
    if mask.all() or not mask.any():  # no boundary
        return np.zeros(mask.size)
    gaps = np.abs(places[:, None] - places[None, :])
    to_other = np.where(mask[None, :] != mask[:, None], gaps, mask.size).min(axis=1)
    return np.where(mask, -to_other, to_other).astype(float)


class TwoChannels(torch.nn.Module):
    """A multi-class loss seen through one logit: a softmax over (0, z) is a sigmoid of z."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits and target (N, 1, …) put into two channels."""
        both = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return self.loss(both, torch.cat([1 - target, target], dim=1))


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
        return by_logit(self.loss.subs(true_class))

    def expanded(self) -> sp.Expr:
        """The stated gradient with its abbreviations written out."""
        return self.gradient.subs(dict(self.definitions))

    def prove(self) -> str:
        """Proves that the stated gradient is the derivative; see ``prove_equal``."""
        # What ``whole`` maps to itself is constant in z and stays a letter: the proof is shorter.
        kept = {symbol for symbol, value in self.whole.items() if symbol == value}
        written = {symbol: d for symbol, d in self.definitions.items() if symbol not in kept}
        stated = self.gradient.subs(written).subs(dict(self.whole))
        return _proof(stated, self.derive(), self.hard_only, self.title)

    def evaluate(self, logits: Array, target: Array, **parameters: float) -> Array:
        """The stated gradient, in numbers, at every logit."""
        probs = 1.0 / (1.0 + np.exp(-logits))
        values: dict[str, Any] = {**self.parameters, **parameters}
        values[n.name] = probs.size
        if self.sums is not None:
            values |= {symbol.name: value for symbol, value in self.sums(probs, target).items()}
        # Sums that are the same for every loss, unless the loss has its own (Σp², Σt²).
        common = linear_sums(probs, target) | {A: np.abs(probs - target).sum()}
        values = {symbol.name: value for symbol, value in common.items()} | values
        names, function = _compiled(self.expanded())
        missing = [name for name in names if name not in {*values, p.name, t.name}]
        if missing:
            raise ValueError(f"{self.title}: no value for {missing}; expected them as parameters.")
        arguments = {p.name: probs, t.name: target, **values}
        result = function(*(arguments[name] for name in names))
        return np.broadcast_to(np.asarray(result, dtype=np.float64), probs.shape)


@cache
def _proof(stated: sp.Expr, derived: sp.Expr, hard_only: bool, title: str) -> str:
    if not hard_only:
        return prove_equal(stated, derived, title)
    return max(
        prove_equal(stated.subs(t, label), derived.subs(t, label), f"{title}, t={label}")
        for label in (0, 1)
    )


@cache
def _compiled(expression: sp.Expr) -> tuple[tuple[str, ...], Callable[..., Any]]:
    symbols = sorted(expression.free_symbols, key=str)
    return tuple(symbol.name for symbol in symbols), sp.lambdify(symbols, expression, "numpy")


def binary_cases(
    seed: int = 0, pixels: int = 12, hard_only: bool = False
) -> list[tuple[str, Array, Array]]:
    """Draws of (label, logits, target) for one channel: rare and common foreground, soft labels."""
    draw = np.random.default_rng(seed)
    shape = (1, 1, pixels)
    rare = np.zeros(shape)
    rare[..., :2] = 1.0
    half = (draw.random(shape) < 0.5).astype(float)
    half[..., 0], half[..., 1] = 0.0, 1.0
    cases = [
        ("hard labels, 2 of 12 pixels", draw.normal(0, 2, shape), rare),
        ("hard labels, half", draw.normal(0, 2, shape), half),
        ("confident and wrong", np.where(rare > 0, -6.0, 4.0) + draw.normal(0, 0.3, shape), rare),
    ]
    if not hard_only:
        cases.append(("soft labels", draw.normal(0, 2, shape), draw.random(shape)))
    return cases


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
    told = [
        f"{sp.pretty(sp.Symbol(name.removeprefix('var')), use_unicode=True)} = {value:g}"
        for name, value in parameters.items()
    ]
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

surprisal = -sp.log(p_t)
true_class = {p_t: t * p + (1 - t) * (1 - p), y: 2 * t - 1}

cross_entropy = -(t * sp.log(p) + (1 - t) * sp.log(1 - p))
dice_coefficient = (2 * I + eps) / (S + T + eps)
jaccard_coefficient = (I + eps) / (S + T - I + eps)
tversky_denominator = I + alpha * (S - I) + beta * (T - I) + eps
tversky_index = (I + eps) / tversky_denominator
inverse_coefficient = (2 * (n - S - T + I) + eps) / (2 * n - S - T + eps)
generalised_denominator = w1 * (S + T) + w0 * (2 * n - S - T) + eps
generalised_coefficient = (2 * (w1 * I + w0 * (n - S - T + I)) + eps) / generalised_denominator

dice_gradient = -p * (1 - p) * (2 * t - D) / (S + T + eps)
tversky_gradient = (
    -p * (1 - p) * (t - TI * (alpha * (1 - t) + (1 - beta) * t)) / tversky_denominator
)
inverse_gradient = p * (1 - p) * (2 * (1 - t) - D) / (2 * n - S - T + eps)

_DICE_TVERSKY = {alpha: 1 - delta, beta: delta}


def _one_pixel(coefficient: sp.Expr, whole: Mapping[sp.Symbol, sp.Expr] = _ONE_PIXEL) -> sp.Expr:
    return coefficient.subs(dict(whole))


def _library(name: str, **options: str) -> Callable[[Mapping[str, float]], torch.nn.Module]:
    """Builds a loss of one channel; its options have the values of the symbols named here."""
    return lambda values: losses.build(
        name, mode="binary", **{option: values[symbol] for option, symbol in options.items()}
    )


def _overlap(name: str, parameters: Mapping[str, float] | None = None, **given: Any) -> ClosedForm:
    """A form of whole sums with a smoothing constant, whose `parameters` the library calls by their symbols."""
    own = parameters or {}
    usual = {
        "library": _library(name, smooth="varepsilon", **{symbol: symbol for symbol in own}),
        "whole": _ONE_PIXEL,
        "parameters": {**own, "varepsilon": 0.0},
    }
    return ClosedForm(name=name, **usual | given)


_ALL = [
    ClosedForm(
        name="ce",
        title="cross-entropy",
        loss=cross_entropy / n,
        gradient=(p - t) / n,
        library=_library("ce"),
    ),
    ClosedForm(
        name="weighted_ce",
        title="weighted cross-entropy",
        loss=-(w * t * sp.log(p) + (1 - t) * sp.log(1 - p)) / W,
        gradient=(-w * t * (1 - p) + (1 - t) * p) / W,
        definitions={W: w * T + n - T},
        whole={W: W},
        library=lambda v: losses.build("weighted_ce", mode="binary", weight=[1.0, v["w"]]),
        parameters={"w": 9.0},
        hard_only=True,
    ),
    ClosedForm(
        name="one_vs_all_ce",
        title="one-vs-all cross-entropy",
        loss=-(t * sp.log(p) + lam * (1 - t) * sp.log(1 - p)) / n,
        gradient=(-t * (1 - p) + lam * (1 - t) * p) / n,
        library=_library("one_vs_all_ce", negative_weight="lambda"),
        parameters={"lambda": 0.1},
    ),
    ClosedForm(
        name="balanced_ce",
        title="balanced cross-entropy",
        loss=-(beta * t * sp.log(p) + (1 - beta) * (1 - t) * sp.log(1 - p)) / n,
        gradient=(-beta * t * (1 - p) + (1 - beta) * (1 - t) * p) / n,
        definitions={beta: 1 - T / n},
        whole={beta: beta},
        library=_library("balanced_ce"),
        hard_only=True,
    ),
    ClosedForm(
        name="focal",
        title="focal loss",
        loss=(1 - p_t) ** gamma * surprisal / n,
        gradient=y * (1 - p_t) ** gamma * (gamma * p_t * sp.log(p_t) + p_t - 1) / n,
        definitions=true_class,
        library=_library("focal", gamma="gamma"),
        parameters={"gamma": 2.0},
        hard_only=True,
    ),
    ClosedForm(
        name="poly1",
        title="Poly-1",
        loss=(surprisal + eps * (1 - p_t)) / n,
        gradient=-y * (1 - p_t) * (1 + eps * p_t) / n,
        definitions=true_class,
        library=_library("poly1", epsilon="varepsilon"),
        parameters={"varepsilon": 1.0},
        hard_only=True,
    ),
    _overlap(
        "dice",
        title="Dice",
        loss=1 - _one_pixel(dice_coefficient),
        gradient=dice_gradient,
        definitions={D: dice_coefficient},
    ),
    _overlap(
        "dice_squared",
        title="Dice, squared denominator",
        loss=1 - _one_pixel(dice_coefficient, _ONE_PIXEL_SQUARED),
        gradient=-2 * p * (1 - p) * (t - p * D) / (S + T + eps),
        definitions={D: dice_coefficient},
        whole=_ONE_PIXEL_SQUARED,
        sums=squared_sums,
    ),
    _overlap(
        "inverse_dice",
        title="inverse Dice",
        loss=1 - _one_pixel(inverse_coefficient),
        gradient=inverse_gradient,
        definitions={D: inverse_coefficient},
    ),
    _overlap(
        "mean_dice",
        title="Dice, mean of both classes",
        loss=1 - _one_pixel(dice_coefficient + inverse_coefficient) / 2,
        gradient=(dice_gradient + inverse_gradient.subs(D, G)) / 2,
        definitions={D: dice_coefficient, G: inverse_coefficient},
        library=lambda v: TwoChannels(losses.build("dice", smooth=v["varepsilon"])),
    ),
    _overlap(
        "generalized_dice",
        title="generalised Dice",
        loss=1 - _one_pixel(generalised_coefficient),
        gradient=-p
        * (1 - p)
        * (2 * (w1 * t - w0 * (1 - t)) - G * (w1 - w0))
        / generalised_denominator,
        definitions={G: generalised_coefficient, w1: 1 / T**2, w0: 1 / (n - T) ** 2},
        whole={**_ONE_PIXEL, w1: w1, w0: w0},
        library=lambda v: TwoChannels(losses.build("generalized_dice", smooth=v["varepsilon"])),
    ),
    _overlap(
        "log_cosh_dice",
        title="log-cosh Dice",
        loss=sp.log(sp.cosh(1 - _one_pixel(dice_coefficient))),
        gradient=sp.tanh(1 - D) * dice_gradient,
        definitions={D: dice_coefficient},
    ),
    _overlap(
        "jaccard",
        title="Jaccard",
        loss=1 - _one_pixel(jaccard_coefficient),
        gradient=-p * (1 - p) * (t - J * (1 - t)) / (S + T - I + eps),
        definitions={J: jaccard_coefficient},
    ),
    _overlap(
        "tversky",
        title="Tversky",
        loss=1 - _one_pixel(tversky_index),
        gradient=tversky_gradient,
        definitions={TI: tversky_index},
        parameters={"alpha": 0.3, "beta": 0.7},
    ),
    _overlap(
        "focal_tversky",
        title="focal Tversky",
        loss=(1 - _one_pixel(tversky_index)) ** (1 / gamma),
        gradient=(1 - TI) ** (1 / gamma - 1) / gamma * tversky_gradient,
        definitions={TI: tversky_index},
        parameters={"alpha": 0.3, "beta": 0.7, "gamma": 4 / 3},
    ),
    _overlap(
        "dice_semimetric",
        title="Dice semimetric",
        loss=((A_rest + sp.Abs(p - t)) / (S_rest + p + T + eps)),
        gradient=p * (1 - p) * (sp.sign(p - t) - A / (S + T + eps)) / (S + T + eps),
        whole={**_ONE_PIXEL, A: A_rest + sp.Abs(p - t)},
    ),
    ClosedForm(
        name="unified_focal",
        title="unified focal loss",
        loss=lam * (-delta * t * sp.log(p) - (1 - delta) * (1 - t) * p**gamma * sp.log(1 - p)) / n
        + (1 - lam) * (1 - _one_pixel(tversky_index.subs(_DICE_TVERSKY))) ** (1 - gamma),
        gradient=lam
        * (
            -delta * t * (1 - p)
            + (1 - delta) * (1 - t) * p**gamma * (p - gamma * (1 - p) * sp.log(1 - p))
        )
        / n
        + (1 - lam) * (1 - gamma) * (1 - TI) ** (-gamma) * tversky_gradient.subs(_DICE_TVERSKY),
        definitions={TI: tversky_index.subs(_DICE_TVERSKY)},
        whole=_ONE_PIXEL,
        library=_library(
            "unified_focal",
            weight_lambda="lambda",
            delta="delta",
            gamma="gamma",
            smooth="varepsilon",
        ),
        parameters={"lambda": 0.5, "delta": 0.6, "gamma": 0.5, "varepsilon": 0.0},
        hard_only=True,
    ),
    ClosedForm(
        name="boundary",
        title="boundary loss",
        loss=p * phi / n,
        gradient=p * (1 - p) * phi / n,
        sums=distance_sums,
        library=_library("boundary"),
        hard_only=True,
    ),
    ClosedForm(
        name="hausdorff",
        title="Hausdorff loss",
        loss=(p - t) ** 2 * H / n,
        gradient=2 * p * (1 - p) * (p - t) * H / n,
        sums=distance_sums,
        library=_library("hausdorff"),
        hard_only=True,
    ),
]

#: The overlap losses of one sigmoid channel, in the book's order.
OVERLAP = (
    "dice",
    "dice_squared",
    "inverse_dice",
    "generalized_dice",
    "log_cosh_dice",
    "jaccard",
    "tversky",
    "focal_tversky",
)

#: Every closed form by its name.
FORMS: dict[str, ClosedForm] = {form.name: form for form in _ALL}

__all__ = [
    "FORMS",
    "OVERLAP",
    "ClosedForm",
    "ClosedFormError",
    "binary_cases",
    "check_form",
    "check_softmax",
]
