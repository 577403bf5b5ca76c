"""Several classes: which class each score asks for, given the chances of every pixel.

Pixels have the chances q of the classes. In an image so large that sums are their expectations, a choice of classes
has, for class c, the overlap I = Σ q over the pixels that chose it, the predicted size S (their number) and the true
size T = Σ q over all pixels. One more pixel in class c changes I by its q and S by 1. So it adds, to first order,

    share of right pixels   q
    mean recall             q / T
    mean Dice               (2q − D) / (S + T)
    mean IoU                ((1 + J) q − J) / (S + T − I)

up to one factor for all classes, where D and J are the Dice and the IoU that the class reaches. The best class of a
pixel is the one to which it adds most. For one class, whose background is no part of the mean, the third line is the
threshold q > D/2 of Lipton et al. (2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import special

from lossatlas import metrics
from lossatlas.theory.check import Array

#: Shares of the classes before their logits are spread: from half of the pixels to half a percent.
SHARES = (0.5, 0.35, 0.12, 0.025, 0.005)
#: Scores of a choice of classes; the last three are means over the classes.
SCORES = ("share of right pixels", "mean recall", "mean Dice", "mean IoU")

#: The best rule of each score, in words.
_RULES = ("largest q", "largest q/T", "best for the mean Dice", "best for the mean IoU")
#: Colours of three classes; no loss has them.
_CLASSES = ("#BBBBBB", "#88CCEE", "#332288")


@dataclass(frozen=True)
class Totals:
    """Sums over the pixels, a number a class.

    Attributes:
        overlap: of the chances of the pixels that the class got.
        size: how many pixels it got.
        truth: of the chances of all pixels.
    """

    overlap: Array
    size: Array
    truth: Array

    @classmethod
    def of(cls, q: Array, chosen: Array) -> Totals:
        """Of the chances (pixels, classes) and the (pixels,) chosen classes."""
        taken = np.eye(q.shape[1])[chosen]
        return cls((q * taken).sum(0), taken.sum(0), q.sum(0))

    def scores(self) -> dict[str, float]:
        """What is expected, by the names of `SCORES`."""
        found = (
            self.overlap.sum() / self.truth.sum(),
            (self.overlap / self.truth).mean(),
            (2 * self.overlap / (self.size + self.truth)).mean(),
            (self.overlap / (self.size + self.truth - self.overlap)).mean(),
        )
        return dict(zip(SCORES, map(float, found), strict=True))

    def gains(self, q: Array, score: str) -> Array:
        """(pixels, classes): what a pixel of chances q adds to a score in each class, up to one factor."""
        both = self.size + self.truth
        dice, union = 2 * self.overlap / both, both - self.overlap
        iou = self.overlap / union
        return {
            "share of right pixels": q,
            "mean recall": q / self.truth,
            "mean Dice": (2 * q - dice) / both,
            "mean IoU": ((1 + iou) * q - iou) / union,
        }[score]


def drawn_chances(
    shares: Sequence[float] = SHARES, pixels: int = 20_000, spread: float = 2.0, seed: int = 0
) -> Array:
    """(pixels, classes) chances: a softmax of normal logits about the logarithms of the shares.

    Args:
        shares: of the classes, if the logits had no spread.
        pixels: number of pixels.
        spread: standard deviation of a logit.
        seed: of the draw.
    """
    noise = np.random.default_rng(seed).normal(scale=spread, size=(pixels, len(shares)))
    return special.softmax(noise + np.log(shares), axis=1)


def best_totals(q: Array, score: str, rounds: int = 100) -> Totals:
    """Sums with the best score, by the method of Frank and Wolfe.

    Each round takes a step from the sums that it has towards those of the choice that adds most to them, so a kind of
    pixels may be shared by two classes. Means of ratios have several ends: it begins at the largest q and at the
    largest q/T, and the better end counts.

    Args:
        q: (pixels, classes) chances.
        score: one of `SCORES`.
        rounds: steps from each beginning; the length of step k is 2/(k + 2).
    """
    ends = []
    for start in (q, q / q.sum(0)):
        totals = Totals.of(q, start.argmax(1))
        for k in range(1, rounds + 1):
            step, towards = 2 / (k + 2), Totals.of(q, totals.gains(q, score).argmax(1))
            totals = Totals(
                totals.overlap + step * (towards.overlap - totals.overlap),
                totals.size + step * (towards.size - totals.size),
                totals.truth,
            )
        ends.append(totals)
    return max(ends, key=lambda end: end.scores()[score])


def best_choice(q: Array, score: str) -> Array:
    """(pixels,) classes with the best score: each pixel goes where it adds most to the best sums."""
    return best_totals(q, score).gains(q, score).argmax(1)


def offset_choice(q: Array, seed: int = 0) -> Array:
    """(pixels,) classes by the offsets of the logits that have the best mean Dice on classes drawn from the chances."""
    logits = torch.from_numpy(np.log(q)).T[None, :, :, None]
    uniform = np.random.default_rng(seed).uniform(size=(len(q), 1))
    drawn = (q.cumsum(1) < uniform).sum(1).clip(max=q.shape[1] - 1)
    search = metrics.OffsetSearch(np.bincount(drawn, minlength=q.shape[1]), max_pixels=len(q))
    search.update(logits.float(), torch.from_numpy(drawn)[None, :, None])
    return search.best()[0](logits).flatten().numpy()


def rules(seed: int = 0) -> pd.DataFrame:
    """Four scores of five rules on one set of chances: the best rule of each score, and one offset a class.

    Args:
        seed: of the chances.
    """
    q = drawn_chances(seed=seed)
    choices = {words: best_choice(q, score) for words, score in zip(_RULES, SCORES, strict=True)}
    choices["an offset a class"] = offset_choice(q, seed)
    rows = {words: Totals.of(q, chosen).scores() for words, chosen in choices.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule").reset_index()


def regions_figure(shares: Sequence[float] = (0.75, 0.2, 0.05), seed: int = 0) -> Figure:
    """Which of three classes a pixel gets by three rules, over all chances that it may have.

    Args:
        shares: of the three classes, as for `drawn_chances`.
        seed: of the chances.
    """
    q = drawn_chances(shares, seed=seed)
    steps = np.linspace(0, 1, 241)
    grid = np.array([(1 - b - c, b, c) for b in steps for c in steps if b + c <= 1])
    x, y = grid[:, 1] + grid[:, 2] / 2, grid[:, 2]
    figure, panels = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
    corners = {
        "frequent": (0, -0.04, "top"),
        "less so": (1, -0.04, "top"),
        "rare": (0.5, 1.02, "bottom"),
    }
    for panel, rule, score in zip(panels, _RULES[:3], SCORES[:3], strict=True):
        taken = best_totals(q, score).gains(grid, score).argmax(1)
        panel.scatter(x, y, s=1.5, c=np.array(_CLASSES)[taken], lw=0)
        for word, (right, up, side) in corners.items():
            panel.text(right, up, word, ha="center", va=side, fontsize=9)
        panel.set(xlim=(-0.15, 1.15), ylim=(-0.16, 1.14), xticks=[], yticks=[])
        panel.set_title(rule, fontsize=10, loc="center")
        panel.spines[:].set_visible(False)
    return figure
