r"""How far probabilities can be taken at their word: calibration error, log loss, Brier score.

With :math:`n` labelled pixels, :math:`y` the truth and :math:`p` the softmax (sigmoid) of the logits:

.. math::

    \mathrm{NLL} = -\frac1n\sum_i \ln p_{i,y_i}, \qquad
    \mathrm{Brier} = \frac1n\sum_i\sum_c (p_{i,c}-[y_i=c])^2, \qquad
    \mathrm{ECE} = \sum_b \frac{n_b}{n}\,\bigl|\overline{s}_b-\overline{a}_b\bigr|.

ECE puts the pixels in bins of equal width by a score s and compares the mean score with the mean
outcome a. With two classes s is the probability of the foreground and a whether the pixel is
foreground (Naeini et al. 2015); with more, s is the probability of the likeliest class and a whether
that is right (Guo et al. 2017). One sigmoid and two softmax channels give the same numbers. The Brier
score of two classes is that of the foreground alone, 0 to 1; the sum over more classes is 0 to 2
(Brier 1950; scikit-learn has the same two scales).

**The foreground's ECE.** Over a whole image the error is that of the background, where every network
is sure and right. ``ece_foreground`` keeps the pixels to which the model gives the foreground (all
classes but the background) a probability above ``foreground_above``, 0.01 if not said otherwise: the
thresholding of Nixon et al. 2019, applied to the foreground. The pixels are chosen by what the model
says, never by the truth. Among pixels chosen as "truth or prediction is foreground" the missed ones
are wrong by construction, so that even true probabilities would seem miscalibrated; chosen by the
probability alone, true probabilities have an error of zero in either set (a test shows both). What a
model misses with p ≤ 0.01 is therefore no part of it; NLL has that.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lossatlas.metrics.overlap import (
    Float64Array,
    Labels,
    _check_ignore_index,
    _check_integer,
    _index,
    _is_number,
    _Summed,
)
from lossatlas.metrics.thresholds import _labelled

#: Probability of the foreground above which a pixel counts for ``ece_foreground``.
FOREGROUND_ABOVE = 0.01


class Calibration(_Summed):
    """ECE (whole image and foreground), NLL and Brier score, summed batch by batch.

    Memory is a few numbers a bin, whatever the size of the set. Void pixels leave every sum. An infinite
    logit is certainty, which several of one pixel share equally.

    Args:
        channels: channels of the logits; 1 for a sigmoid.
        bins: bins of equal width between 0 and 1, open below: (0, 1/bins], …; 15 as in Guo et al.
        background: index of the background, or None if every class is foreground; then
            ``ece_foreground`` equals ``ece``. One channel says class 1; class 0 is what it does not say.
        foreground_above: probability of the foreground above which a pixel counts for
            ``ece_foreground``.
        ignore_index: value of the target that leaves every sum, or None.

    >>> calibration = Calibration(channels=1)
    >>> said = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.001])
    >>> calibration.update(said.logit().reshape(1, 1, -1), torch.tensor([[1, 1, 1, 0, 0]]))
    >>> {name: round(value, 4) for name, value in calibration.compute().items()}
    {'ece': 0.0402, 'ece_foreground': 0.05, 'nll': 0.456, 'brier': 0.152}
    """

    _SUMS = ("_sums", "_nll", "_brier")

    def __init__(
        self,
        channels: int,
        *,
        bins: int = 15,
        background: int | None = 0,
        foreground_above: float = FOREGROUND_ABOVE,
        ignore_index: int | None = None,
    ) -> None:
        channels = _check_integer(channels, "channels", 1)
        bins = _check_integer(bins, "bins", 1)
        index = None if background is None else _index(background)
        if background is not None and (index is None or not 0 <= index < max(channels, 2)):
            raise ValueError(
                f"background: expected a class index 0…{max(channels, 2) - 1} or None, got "
                f"{background!r}"
            )
        if not _is_number(foreground_above, 0, 1) or foreground_above == 1:
            raise ValueError(
                f"foreground_above: expected a probability below 1, got {foreground_above!r}"
            )
        self.channels, self.bins, self.background = channels, bins, index
        self.foreground_above = foreground_above
        self.ignore_index = _check_ignore_index(ignore_index)
        # [whole, foreground] × bin × [pixels, sum of scores, sum of outcomes]
        self._sums: Float64Array = np.zeros((2, bins, 3))
        self._nll = self._brier = 0.0

    def update(self, logits: Tensor, target: Labels) -> None:
        """Add a batch: logits (N, C, *S), class indices (N, *S).

        Raises:
            TypeError: a target that holds no integers.
            ValueError: shapes that disagree, or a label outside the classes. The sums then stay as
                they were.
        """
        classes = max(self.channels, 2)
        values, labels = _labelled(logits, target, self.channels, classes, self.ignore_index)
        if labels.numel() == 0:
            return
        if self.channels == 1:
            said = torch.sigmoid(values[0])
            outcome = labels.to(said)
            foreground: Tensor | None = said if self.background == 0 else 1 - said
            if self.background is None:
                foreground = None
            self._nll += float(F.softplus(values[0] * (1 - 2 * outcome)).double().sum())
            self._brier += float((said - outcome).square().double().sum())
        else:
            log_probs = _without_infinite(values).log_softmax(0)
            probs = log_probs.exp()
            own = log_probs.gather(0, labels[None])[0]
            self._nll -= float(own.double().sum())
            foreground = 1 - probs[self.background] if self.background is not None else None
            if self.channels == 2:
                said, outcome = probs[1], labels.to(probs)
                self._brier += float((said - outcome).square().double().sum())
            else:
                said, likeliest = probs.max(0)
                outcome = (likeliest == labels).to(probs)
                # Σ_c (p_c − [y=c])² = Σ_c p_c² − 2 p_y + 1
                square = probs.square().sum(0) - 2 * own.exp() + 1
                self._brier += float(square.double().sum())
        self._bin(0, said, outcome)
        if foreground is None:
            self._sums[1] = self._sums[0]
        else:
            keep = ~(foreground <= self.foreground_above)  # NaN in, NaN out
            self._bin(1, said[keep], outcome[keep])

    def _bin(self, row: int, said: Tensor, outcome: Tensor) -> None:
        index = (said * self.bins).ceil_().long().sub_(1).clamp_(0, self.bins - 1)
        columns = [torch.ones_like(said), said, outcome]
        for column, values in enumerate(columns):
            self._sums[row, :, column] += _sum_by_bin(index, values.double(), self.bins)

    def compute(self) -> dict[str, float]:
        """``ece``, ``ece_foreground``, ``nll`` (nats) and ``brier``; NaN where there is no pixel."""
        total = float(self._sums[0, :, 0].sum())
        return {
            "ece": self._ece(0),
            "ece_foreground": self._ece(1),
            "nll": self._nll / total if total else float("nan"),
            "brier": self._brier / total if total else float("nan"),
        }

    def _ece(self, row: int) -> float:
        pixels, scores, outcomes = self._sums[row].T
        total = float(pixels.sum())
        return float(abs(scores - outcomes).sum() / total) if total else float("nan")


def _without_infinite(logits: Tensor) -> Tensor:
    """Logits (C, M) whose softmax is defined: where the largest is infinite, those equal to it share it all."""
    top = logits.amax(0)
    if not top.isinf().any():
        return logits
    return torch.where(top.isinf(), torch.where(logits == top, 0.0, -math.inf), logits)


def _sum_by_bin(index: Tensor, values: Tensor, bins: int) -> Float64Array:
    """Sums of the values of each bin, in an order that does not change from run to run."""
    if index.device.type == "cpu":
        return torch.bincount(index, values, bins).numpy()
    return _sum_bin_after_bin(index, values, bins).cpu().numpy()


def _sum_bin_after_bin(index: Tensor, values: Tensor, bins: int) -> Tensor:
    """The same where a weighted bincount would add in whatever order the threads come (on a GPU)."""
    return torch.stack([torch.where(index == b, values, 0).sum() for b in range(bins)])
