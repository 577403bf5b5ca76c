"""The two gradients people quote, and what they are in one and the same coordinate.

Cross-entropy is quoted by its derivative at the logit, p − t; Dice by the derivative of the
*coefficient* of a *single pixel* at the *probability*. This module has both losses in both
coordinates, the bound on the set-level gradient, and numbers taken from :mod:`lossatlas.losses`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import sympy as sp
import torch

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError, by_logit, by_probability, prove_equal
from lossatlas.theory.check import Array, at_constant
from lossatlas.theory.descent import Adam
from lossatlas.theory.forms import FORMS, check_form, check_softmax
from lossatlas.theory.symbols import I, S, T, n, p, t
from lossatlas.theory.verdict import Verdict, decide, settles

#: The Dice coefficient of one pixel, in the two forms that are quoted.
one_pixel_squared = 2 * p * t / (p**2 + t**2)
one_pixel_linear = 2 * p * t / (p + t)

#: Their derivatives at p as people quote them.
quoted_squared = 2 * t * (t**2 - p**2) / (p**2 + t**2) ** 2
quoted_linear = 2 * t**2 / (p + t) ** 2

cross_entropy = -(t * sp.log(p) + (1 - t) * sp.log(1 - p))

#: The largest gradient of 1 − D at one logit, hard labels, an object of T pixels.
bound = 1 / (2 * (T + 1))
#: Where it is attained: the probability of one foreground pixel, all others 0.
bound_at = T / (2 * T + 1)
#: Supremum at one foreground logit of Dice's gradient over that of cross-entropy, a mean over N pixels, in one state.
#: N times `bound` is less: the ratio of two largest gradients, which belong to different states.
largest_ratio = 2 * n * T / (T + 1) ** 2
#: The same where the whole object has p near 1 and nothing else is marked; at a background logit the supremum.
ratio_once_found = n / (2 * T)


def prove_quoted() -> dict[str, str]:
    """The quoted derivatives are right for what they are: one pixel's coefficient, at p."""
    return {
        "squared": prove_equal(quoted_squared, by_probability(one_pixel_squared), "squared form"),
        "linear": prove_equal(quoted_linear, by_probability(one_pixel_linear), "linear form"),
    }


def scaling_degrees() -> dict[str, sp.Expr]:
    """The power of λ that (p, t) → (λp, λt) multiplies each quoted derivative by.

    −1 means that it grows without limit as p and t shrink together; 0 that it does not.
    """
    scale = sp.Symbol("lambda", positive=True)
    degrees = {}
    for name, quoted in (("squared", quoted_squared), ("linear", quoted_linear)):
        ratio = sp.simplify(quoted.subs({p: scale * p, t: scale * t}, simultaneous=True) / quoted)
        degrees[name] = sp.simplify(sp.log(ratio) / sp.log(scale))
    return degrees


def softmax_gradient(classes: int = 3) -> tuple[sp.Matrix, sp.Matrix]:
    """∂CE/∂z of a softmax over some classes, for a target that sums to 1, and p − t.

    Raises:
        ClosedFormError: the two differ.
    """
    logits = sp.symbols(f"z1:{classes + 1}", real=True)
    # A target that sums to 1: its last entry is what the others leave.
    free = sp.symbols(f"t1:{classes}", nonnegative=True)
    target = [*free, 1 - sum(free)]
    total = sum(sp.exp(logit) for logit in logits)
    probs = [sp.exp(logit) / total for logit in logits]
    loss = -sum(
        label * (logit - sp.log(total)) for label, logit in zip(target, logits, strict=True)
    )
    derived = sp.Matrix([sp.diff(loss, logit) for logit in logits])
    stated = sp.Matrix([prob - label for prob, label in zip(probs, target, strict=True)])
    if sp.simplify(derived - stated) != sp.zeros(classes, 1):
        raise ClosedFormError(f"softmax: p − t is {stated}, the derivative is {derived}.")
    names = sp.symbols(f"p1:{classes + 1}"), sp.symbols(f"t1:{classes + 1}")
    return derived, sp.Matrix([a - b for a, b in zip(*names, strict=True)])


def prove_bound() -> pd.DataFrame:
    """Proves sup |∂(1−D)/∂z| = 1/(2(T+1)) for hard labels, step by step.

    B is the background's share of S, so S = B + I, with I ≤ T and B ≥ 0. The gradient at a
    foreground pixel is −p(1−p)·2(B+T)/(B+I+T)², at a background pixel p(1−p)·2I/(B+I+T)².

    Returns:
        One row a step: what is claimed, and the expression that shows it.

    Raises:
        ClosedFormError: a step fails.
    """
    background = sp.Symbol("B", nonnegative=True)
    slack = sp.Symbol("T - I", nonnegative=True)
    dice = 2 * I / (S + T)
    whole = {S: background + I}
    foreground = ((2 - dice) / (S + T)).subs(whole)
    on_background = (dice / (S + T)).subs(whole)
    steps = []

    def step(claim: str, difference: sp.Expr, holds: bool) -> None:
        if not holds:
            raise ClosedFormError(f"the bound's proof fails at: {claim}; got {difference}.")
        steps.append({"step": claim, "shown by": difference})

    slope = sp.factor(sp.diff(foreground, background))
    # With T = I + slack the numerator is −2(B + slack): never positive.
    sign = sp.simplify(sp.numer(sp.together(slope)).subs(T, I + slack).expand())
    step("foreground: falls as B grows, so B = 0", slope, bool(sp.simplify(-sign).is_nonnegative))
    slope = sp.factor(sp.diff(foreground.subs(background, 0), I))
    step("foreground: falls as I grows, so I = p", slope, bool(slope.is_nonpositive))

    alone = sp.factor((p * (1 - p) * foreground).subs({background: 0, I: p}))
    best = sp.solve(sp.Eq(sp.diff(alone, p), 0), p)
    step("foreground: one stationary point", sp.FiniteSet(*best), best == [bound_at])
    highest = sp.simplify(alone.subs(p, bound_at))
    step("foreground: its value", highest, sp.simplify(highest - bound) == 0)

    slope = sp.factor(sp.diff(on_background, I))
    rising = sp.simplify(sp.numer(sp.together(slope)).subs(T, I + slack).expand())
    step("background: grows with I, so I = T", slope, bool(rising.is_nonnegative))
    slope = sp.factor(sp.diff(on_background, background))
    step("background: falls as B grows, so B = p", slope, bool(slope.is_nonpositive))
    lone = sp.factor((p * (1 - p) * on_background).subs({I: T, background: p}))
    best = sp.solve(sp.Eq(sp.diff(lone, p), 0), p)
    value = sp.factor(sp.simplify(lone.subs(p, best[0])))
    step("background: its largest value", value, len(best) == 1)
    gap = sp.factor(bound - value)
    step("and that is smaller", gap, bool(gap.is_positive))
    return pd.DataFrame(steps)


def prove_ratio() -> dict[str, sp.Expr]:
    """Proves how far Dice's gradient at a logit exceeds that of cross-entropy in the same state, hard labels, T ≥ 1.

    Cross-entropy gives (1−p)/N at a foreground pixel and p/N at a background pixel, so the ratios are
    2Np(B+T)/(B+I+T)² and 2N(1−p)I/(B+I+T)². By :func:`prove_bound` the first falls as B and I grow, so
    B = 0 and I = p; the second falls as B grows and grows with I, so B = p and I = T.

    Returns:
        The ratio at ``one foreground pixel`` and at ``one background pixel`` with those values, and at
        the ``whole object``, all of it at p.

    Raises:
        ClosedFormError: a ratio does not grow towards its end, or is not what the module states there.
    """
    prove_bound()
    above, below = sp.Symbol("T - p", nonnegative=True), sp.Symbol("p_1", positive=True)
    ends = {
        # the ratio, a substitution that holds p within its range, its end, the value there
        "one foreground pixel": (2 * n * p * T / (p + T) ** 2, {T: p + above}, 1, largest_ratio),
        "whole object": (
            2 * n * p / (T * (1 + p) ** 2),
            {p: 1 / (1 + below)},
            1,
            ratio_once_found,
        ),
        "one background pixel": (
            2 * n * (1 - p) * T / (p + 2 * T) ** 2,
            {p: 1 / (1 + below)},
            0,
            ratio_once_found,
        ),
    }
    for where, (ratio, within, end, value) in ends.items():
        slope = sp.factor(sp.simplify(sp.diff(ratio, p).subs(within)))
        grows = slope.is_nonnegative if end else slope.is_nonpositive
        prove_equal(value, ratio.subs(p, end), where)
        if not grows:
            raise ClosedFormError(
                f"{where}: expected the ratio to grow as p → {end}; its slope is {slope}."
            )
    return {where: ratio for where, (ratio, *_) in ends.items()}


def largest_observed(objects: tuple[int, ...], pixels: int = 64, seed: int = 0) -> pd.DataFrame:
    """The largest |∂(1−D)/∂z| found by gradient ascent on the logits, beside the bound.

    The value comes from ``lossatlas.losses`` and autograd; the search starts at random logits.
    """
    loss = losses.build("dice", mode="binary")
    rows = []
    for size in objects:
        torch.manual_seed(seed)
        target = torch.zeros(1, 1, pixels, dtype=torch.float64)
        target[..., :size] = 1.0
        logits = torch.randn(1, 1, pixels, dtype=torch.float64).requires_grad_()
        search = Adam([logits], lr=1.0)
        highest = 0.0
        for _ in range(60):
            (gradient,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
            largest = gradient.abs().max()
            highest = max(highest, largest.item())
            search.step(-largest)
        limit = float(bound.subs(T, size))
        rows.append((size, highest, limit, highest / limit))
    return pd.DataFrame(rows, columns=["T", "largest found", "bound", "found / bound"])


def vanishing(logit: float, fraction: float, pixels: int) -> pd.DataFrame:
    """The gradient on one foreground pixel when every pixel has the same, very low logit.

    Args:
        logit: the logit everywhere, for example −10: the network has ruled the object out.
        fraction: foreground fraction π.
        pixels: number of pixels N; losses are means or sets over them.
    """
    size = round(fraction * pixels)
    rows = []
    for name in ("ce", "dice"):
        sizes = at_constant(losses.build(name, mode="binary"), size, logit, pixels)
        on = {"on a foreground pixel": sizes[0], "on a background pixel": sizes[-1]}
        rows.append({"loss": name} | on)
    return pd.DataFrame(rows)


def curves(probs: Array, soft_target: float, object_size: float) -> pd.DataFrame:
    """|gradient| against p in both coordinates, for the curves of the chapter's figure.

    Four losses at a pixel that is foreground: cross-entropy; the coefficient of a single pixel,
    squared form, with a hard label and with a soft one; Dice of an object of ``object_size``
    pixels of which the others are missed (where its gradient is largest).

    Returns:
        Columns ``loss``, ``label``, ``p``, ``by p``, ``by z``.
    """
    set_level = 1 - 2 * p / (p + T)
    squared = 1 - one_pixel_squared.subs(t, soft_target)
    wanted = [
        ("ce", "cross-entropy, t = 1", cross_entropy.subs(t, 1)),
        ("dice", "Dice of one pixel, t = 1", 1 - one_pixel_squared.subs(t, 1)),
        ("dice", f"Dice of one pixel, t = {soft_target:g}", squared),
        ("dice", f"Dice of {object_size:g} pixels", set_level.subs(T, object_size)),
    ]
    parts = []
    for name, label, loss in wanted:
        sizes = {
            column: np.abs(sp.lambdify(p, slope(loss), "numpy")(probs)) + 0 * probs
            for column, slope in (("by p", by_probability), ("by z", by_logit))
        }
        parts.append(pd.DataFrame({"loss": name, "label": label, "p": probs} | sizes))
    return pd.concat(parts, ignore_index=True)


def finding(object_size: int, logit: float, fraction: float, pixels: int) -> str:
    """The chapter's answer, with its numbers computed from the code."""
    limit = float(bound.subs(T, object_size))
    rows = vanishing(logit, fraction, pixels).set_index("loss")["on a foreground pixel"]
    return (
        f"**Finding.** With respect to the logits, no pixel of an object of {object_size} pixels "
        f"ever gets more than {limit:.3g} from Dice. The gradient that explodes is that of a soft "
        "label in one pixel with respect to its probability, and by that measure cross-entropy "
        f"explodes too. At $z = {logit:g}$ everywhere and a foreground fraction of {fraction:.3g}, "
        f"a missed pixel gets {rows['ce'] / rows['dice']:.0f} times less from Dice than from "
        "cross-entropy: there its gradient vanishes."
    )


@settles(1)
def gradient_is_p_minus_t() -> Verdict:
    """∂CE/∂z = p − t, sigmoid and softmax."""
    worst = max(check_form(FORMS["ce"])["vs autograd"].max(), check_softmax()["vs autograd"].max())
    softmax_gradient()
    return decide(
        worst <= 1e-10,
        "Derived for the sigmoid and the softmax; the largest relative difference to autograd is "
        f"{worst:.1e}.",
        "With respect to the logits.",
    )


@settles(2)
def quoted_formulas() -> Verdict:
    """The quoted formulas are right for one pixel's coefficient."""
    proofs = prove_quoted()
    return decide(
        len(proofs) == 2,
        "Both equal the derivative by computer algebra: of the *coefficient* of *one pixel* with "
        "respect to its *probability*. The loss that is trained sums over a set of pixels first.",
        "Not the set-level loss, and not the logit.",
    )


@settles(3)
def gradient_explodes() -> Verdict:
    """Only with squares, only in p, only for soft labels near 0."""
    degrees = scaling_degrees()
    small = 1e-4
    probs = np.logspace(-9, 0, 4001)[:-1]

    def peak(quoted: sp.Expr, label: float, at_logit: bool) -> float:
        expression = quoted.subs(t, label) * (p * (1 - p) if at_logit else 1)
        return float(np.abs(sp.lambdify(p, expression, "numpy")(probs)).max())

    soft = peak(quoted_squared, small, False)
    hard = peak(quoted_squared, 1, False)
    at_logit = peak(quoted_squared, small, True)
    linear = peak(quoted_linear, small, False)
    linear_at_logit = peak(quoted_linear, small, True)
    explodes = degrees["squared"] == -1 and soft > 1e3
    bounded = hard <= 2 + 1e-9 and linear <= 2 + 1e-9 and at_logit <= 0.5 and linear_at_logit < 1e-3
    return Verdict(
        "conditional" if explodes and bounded else "false",
        f"With a soft label of {small:g} the squared form reaches {soft:.3g} in p; with a hard label "
        f"at most {hard:.2g}. The form without squares never passes {linear:.2g}. Through the "
        f"sigmoid the two reach {at_logit:.2g} and {linear_at_logit:.1g}.",
        "Squared form, derivative by p, soft labels near 0.",
    )


@settles("H1")
def artefact_of_coordinates() -> Verdict:
    """sup |∂D/∂z| = 1/(2(T+1)), while CE in p is unbounded; the real pathology is vanishing."""
    prove_bound()
    in_p = sp.limit(sp.Abs(by_probability(cross_entropy.subs(t, 1))), p, 0, "+")
    rows = vanishing(-10.0, 0.01, 10_000).set_index("loss")["on a foreground pixel"]
    return decide(
        in_p == sp.oo and rows["dice"] < rows["ce"] / 50,
        "Proved: with hard labels no logit gets more than 1/(2(T+1)) from Dice, whereas "
        "cross-entropy by p grows without limit. At z = −10, π = 1 %, N = 10⁴ a foreground pixel "
        f"gets {rows['dice']:.1e} from Dice and {rows['ce']:.1e} from cross-entropy: Dice vanishes.",
    )
