"""How the parts of a compound loss share the push, at a network that answers the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lossatlas import losses
from lossatlas.theory.atlas import share_by_autograd
from lossatlas.theory.check import Loss, at_constant

#: The names of the tables' columns, and the losses.
PARTS = {
    "cross-entropy": losses.CrossEntropyLoss(mode="binary"),
    "Dice": losses.DiceLoss(mode="binary"),
    "Dice + CE": losses.build("dice_ce", mode="binary"),
}


def _push(loss: Loss, fraction: float, prob: float, pixels: int) -> float:
    """Size of the gradient at the logit of one foreground pixel."""
    size = max(1, round(fraction * pixels))
    return float(at_constant(loss, size, np.log(prob / (1 - prob)), pixels)[0])


def push(fraction: float, pixels: int, probs: Sequence[float] | None = None) -> pd.DataFrame:
    """The push on one foreground pixel against the constant answer p, a column a loss, in units of 1/`pixels`.

    Args:
        fraction: foreground fraction π.
        pixels: pixels of the image.
        probs: the answers; twenty from 0.001 to 0.99 by default, evenly in the logit.
    """
    if probs is None:
        probs = list(1 / (1 + np.exp(-np.linspace(-6.9, 4.6, 20))))
    return pd.DataFrame(
        {
            "p": list(probs),
            **{
                name: [pixels * _push(loss, fraction, p, pixels) for p in probs]
                for name, loss in PARTS.items()
            },
        }
    )


def balance(fractions: Sequence[float], pixels: int, prob: float | None = 0.5) -> pd.DataFrame:
    """Who pushes the foreground, and how much of each gradient falls on it; a row a foreground fraction.

    Args:
        fractions: foreground fractions π.
        pixels: pixels of the image.
        prob: the constant answer; None for the prior, each row's π.
    """
    rows = []
    for fraction in fractions:
        answer = fraction if prob is None else prob
        dice = _push(PARTS["Dice"], fraction, answer, pixels)
        entropy = _push(PARTS["cross-entropy"], fraction, answer, pixels)
        told = {
            "π": f"{100 * fraction:g} %",
            "answer": "π" if prob is None else f"{prob:g}",
            "Dice's part": f"{100 * dice / (dice + entropy):.0f} %",
        }
        for name, loss in PARTS.items():
            share = share_by_autograd(loss, fraction, answer, pixels)
            told[f"share, {name.replace('cross-entropy', 'CE')}"] = f"{100 * share:.1f} %"
        rows.append(told)
    return pd.DataFrame(rows)
