"""From information content to cross-entropy: entropy, divergence, and what a soft label changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sympy as sp
import torch
from numpy.typing import ArrayLike

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError
from lossatlas.theory.check import Array, autograd
from lossatlas.theory.verdict import Verdict, decide, settles


def entropy(probs: ArrayLike) -> float:
    """H(t) = −Σ t ln t in nats; 0 ln 0 counts as 0."""
    t = np.asarray(probs, dtype=float)
    kept = t[t > 0]
    return float(-(kept * np.log(kept)).sum())


def cross_entropy(target: ArrayLike, probs: ArrayLike) -> float:
    """CE(t, p) = −Σ t ln p in nats; infinite where p = 0 < t."""
    t, p = np.asarray(target, dtype=float), np.asarray(probs, dtype=float)
    with np.errstate(divide="ignore"):
        return float(-(t[t > 0] * np.log(p[t > 0])).sum())


def divergence(target: ArrayLike, probs: ArrayLike) -> float:
    """KL(t‖p) = CE(t, p) − H(t) in nats."""
    return cross_entropy(target, probs) - entropy(target)


def binary(probability: float) -> Array:
    """A distribution over two outcomes."""
    return np.array([probability, 1 - probability])


def identity(draws: int = 200, outcomes: int = 5, seed: int = 0) -> pd.DataFrame:
    """CE = KL + H and KL ≥ 0 on random pairs of distributions.

    Raises:
        ClosedFormError: one of them fails.
    """
    draw = np.random.default_rng(seed)
    smallest, gap = np.inf, 0.0
    for _ in range(draws):
        t, p = draw.dirichlet(np.ones(outcomes), 2)
        direct = float((t * np.log(t / p)).sum())
        gap = max(gap, abs(direct - divergence(t, p)))
        smallest = min(smallest, direct)
    if gap > 1e-12 or smallest < 0:
        raise ClosedFormError(f"CE − H − KL is {gap:g} (expected 0), least KL {smallest:g} (≥ 0).")
    return pd.DataFrame(
        [{"pairs": draws, "largest |CE − H − KL|": gap, "smallest KL found": smallest}]
    )


def curvature_of_log() -> tuple[sp.Expr, sp.Expr]:
    """The second derivatives of ln x and of −ln x, for x > 0."""
    x = sp.Symbol("x", positive=True)
    return sp.diff(sp.log(x), x, 2), sp.diff(-sp.log(x), x, 2)


def counterexamples() -> pd.DataFrame:
    """Distributions for which KL is not symmetric, and longer directly than by way of a third."""
    a, b, c = binary(0.5), binary(0.25), binary(0.1)
    rows = [
        ("KL(½‖0.1)", divergence(a, c)),
        ("KL(0.1‖½)", divergence(c, a)),
        ("KL(½‖¼) + KL(¼‖0.1)", divergence(a, b) + divergence(b, c)),
    ]
    return pd.DataFrame(rows, columns=["divergence", "nats"])


def soft_label_floor(labels: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5)) -> pd.DataFrame:
    """The least value of ``lossatlas`` cross-entropy at p = t, beside the label's entropy."""
    loss = losses.build("ce", mode="binary")
    rows = []
    for label in labels:
        target = np.full((1, 1, 1), label)
        logits = np.full((1, 1, 1), np.log(label / (1 - label)) if label > 0 else -40.0)
        value = loss(torch.tensor(logits), torch.tensor(target)).item()
        largest = float(np.abs(autograd(loss, logits, target)).max())
        rows.append((label, value, entropy(binary(label)), largest))
    columns = ["soft label t", "CE at p = t", "H(t)", "gradient there"]
    return pd.DataFrame(rows, columns=columns)


@settles(14)
def log_is_convex() -> Verdict:
    """Of "log is convex, so KL ≥ 0" the conclusion holds and the premise does not."""
    log, minus_log = curvature_of_log()
    identity()
    return decide(
        bool(log.is_positive),
        f"$(\\ln x)'' = {sp.latex(log)} < 0$: the logarithm is concave. KL ≥ 0 follows by Jensen's "
        f"inequality because $-\\ln$ is convex, $(-\\ln x)'' = {sp.latex(minus_log)} > 0$; on 200 "
        "random pairs no divergence is negative.",
    )


@settles(15)
def divergence_is_no_distance() -> Verdict:
    """KL is not symmetric and breaks the triangle inequality."""
    direct, reverse, detour = counterexamples()["nats"]
    return decide(
        not np.isclose(direct, reverse) and detour < direct,
        f"KL(½‖0.1) = {direct:.3f} but KL(0.1‖½) = {reverse:.3f}; and by way of ¼ the sum is "
        f"{detour:.3f}, shorter than {direct:.3f} directly.",
    )


@settles(16)
def entropy_is_constant() -> Verdict:
    """Only CE matters where the labels do not move; where a teacher is learned, they do."""
    z, s = sp.symbols("z s", real=True)
    p, t = 1 / (1 + sp.exp(-z)), 1 / (1 + sp.exp(-s))
    ce = -(t * sp.log(p) + (1 - t) * sp.log(1 - p))
    h = -(t * sp.log(t) + (1 - t) * sp.log(1 - t))
    by_student = sp.simplify(sp.diff(ce, z) - sp.diff(ce - h, z))
    by_teacher = sp.diff(h, s).subs(s, 1).evalf()
    return decide(
        by_student == 0 and by_teacher != 0,
        "The derivatives of CE and of KL with respect to the prediction are identical. With "
        f"respect to a label that is itself learned they differ by H', here {by_teacher:.3f} at a "
        "teacher's logit of 1.",
        "The labels are fixed; a learned teacher's entropy is not constant.",
    )


@settles(43)
def cross_entropy_as_difference() -> Verdict:
    """CE(p, p) = H(p), not 0: a difference only up to the entropy of the labels."""
    p = np.array([0.7, 0.2, 0.1])
    own, floor = cross_entropy(p, p), entropy(p)
    hard = cross_entropy([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    other = cross_entropy(p, [0.6, 0.3, 0.1])
    holds = np.isclose(own, floor) and own > 0 and other > own and hard == 0
    return Verdict(
        "conditional" if holds else "false",
        f"For p = (0.7, 0.2, 0.1), CE(p, p) = {own:.3f} = H(p), not 0. It is least there "
        f"({other:.3f} for another prediction), so it ranks predictions as KL does.",
        "A difference only after H is subtracted; with hard labels H = 0.",
    )
