"""Focal loss: what it does to positives and to negatives, and where its optimum lies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from lossatlas.theory.categorical import AT_NEGATIVE, AT_POSITIVE, thousand_classes
from lossatlas.theory.verdict import Verdict, settles


def modulation(p_t: float, gamma: float = 2.0) -> float:
    """The factor (1−p_t)^γ on a pixel's cross-entropy."""
    return float((1 - p_t) ** gamma)


def gradient_factor(p_t: float, gamma: float = 2.0) -> float:
    """The factor on the gradient of a pixel's cross-entropy at the logit.

    (1−p_t)^γ (1 − γ p_t ln p_t / (1−p_t)): above 1 on hard pixels, because the loss falls along its own factor, too.
    """
    return float((1 - p_t) ** gamma * (1 - gamma * p_t * np.log(p_t) / (1 - p_t)))


def minimiser(eta: float, gamma: float = 2.0) -> float:
    """The p that minimises the expected focal loss of a label that is on with chance η."""

    def expected(prob: float) -> float:
        return -(
            eta * (1 - prob) ** gamma * np.log(prob) + (1 - eta) * prob**gamma * np.log(1 - prob)
        )

    found = minimize_scalar(
        expected, bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x)


def minimisers(
    etas: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9), gamma: float = 2.0
) -> pd.DataFrame:
    """Where focal loss puts the prediction: order kept, probabilities not."""
    found = [minimiser(eta, gamma) for eta in etas]
    return pd.DataFrame({"true chance η": etas, "cross-entropy": etas, "focal": found})


def modulation_table(
    gammas: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0), *, gradient: bool = False
) -> pd.DataFrame:
    """The factor on the loss of an easy, a middling and a hard pixel, or on its gradient at the logit."""
    levels = {"easy, p_t = 0.9": 0.9, "p_t = 0.5": 0.5, "hard, p_t = 0.1": 0.1}
    factor = gradient_factor if gradient else modulation
    what = "on the gradient" if gradient else "on the loss"
    return pd.DataFrame(
        [
            {"factor": what, "γ": g} | {name: factor(level, g) for name, level in levels.items()}
            for g in gammas
        ]
    )


def first_loss(prior: float = 0.01, fraction: float = 0.01) -> pd.DataFrame:
    """Mean loss and foreground's part at the start: from q = ½, and with prior-bias initialisation.

    Prior-bias initialisation sets the last bias to −ln((1−π)/π), so that q = π everywhere.
    """
    rows = []
    for label, prob in (("q = ½", 0.5), (f"q = π = {prior:g}", prior)):
        foreground, background = -fraction * np.log(prob), -(1 - fraction) * np.log(1 - prob)
        mean = foreground + background
        rows.append((label, float(np.log(prob / (1 - prob))), mean, foreground / mean))
    columns = ["start", "bias", "mean CE", "foreground's part of the loss"]
    return pd.DataFrame(rows, columns=columns)


@settles(20)
def alpha_cannot_tell_easy_from_hard() -> Verdict:
    """α multiplies easy and hard alike; (1−p_t)^γ does not."""
    easy, hard = 0.9, 0.1
    alpha_ratio = (0.25 * -np.log(hard)) / (0.25 * -np.log(easy))
    plain_ratio = np.log(hard) / np.log(easy)
    focal_ratio = plain_ratio * modulation(hard) / modulation(easy)
    holds = np.isclose(alpha_ratio, plain_ratio) and focal_ratio > 10 * plain_ratio
    return Verdict(
        "true" if holds else "false",
        f"A hard pixel (p_t = 0.1) weighs {plain_ratio:.1f} times an easy one (0.9) in cross-entropy, "
        f"{alpha_ratio:.1f} times with α, and {focal_ratio:.0f} times with γ = 2.",
    )


@settles(48)
def focal_acts_on_negatives() -> Verdict:
    """On positives too, by (1−p)^γ."""
    plain, focal = thousand_classes(), thousand_classes(gamma=2.0)
    on_positives = focal["positives"] / plain["positives"]
    on_negatives = focal["negatives"] / plain["negatives"]
    both = np.isclose(on_positives, (1 - AT_POSITIVE) ** 2) and np.isclose(
        on_negatives, AT_NEGATIVE**2
    )
    return Verdict(
        "conditional" if both and on_positives < 1 else "true",
        f"With γ = 2 the example's negatives go from {plain['negatives']:.0f} to "
        f"{focal['negatives']:.2f}, and its positives from {plain['positives']:.3f} to "
        f"{focal['positives']:.4f}: the negatives are still "
        f"{focal['negatives'] / focal['positives']:.0f} times the positives.",
        "Negatives are multiplied by p^γ, but positives by (1−p)^γ as well: no balance follows.",
    )


@settles(49)
def shrinks_easy_cases_more() -> Verdict:
    """Easy cases keep less of their loss: what the sentence means by punishing losses."""
    easy, hard = modulation(0.9), modulation(0.1)
    return Verdict(
        "true" if easy < hard else "false",
        f"With γ = 2 an easy pixel (p_t = 0.9) keeps {easy:.2f} of its loss, a hard one (0.1) "
        f"{hard:.2f}.",
        "The sentence speaks of losses being punished, that is made small, so that the many easy "
        "negatives do not drown out the positives. An earlier edition of this ledger took the cases to "
        "be punished and called the sentence false. That was our misreading.",
    )
