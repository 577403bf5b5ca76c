"""Lovász losses: submodularity, the extension, its increments, and the hinge."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import torch

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError
from lossatlas.theory.check import Array, check


def jaccard_set_loss(wrong: Array, truth: Array) -> float:
    """Jaccard loss of a hard prediction that errs on the pixels ``wrong``."""
    predicted = truth ^ wrong
    union = (predicted | truth).sum()
    return 0.0 if union == 0 else float(1 - (predicted & truth).sum() / union)


def is_submodular(truth: Array) -> pd.DataFrame:
    """F(A∪{i}) − F(A) ≥ F(B∪{i}) − F(B) for every A ⊂ B and i ∉ B, by going through all of them.

    Raises:
        ClosedFormError: a pair violates it.
    """
    size = truth.size
    value = {
        bits: jaccard_set_loss(np.array(bits, dtype=bool), truth)
        for bits in itertools.product((False, True), repeat=size)
    }
    pairs, worst = 0, np.inf
    for small, large in itertools.product(value, repeat=2):
        if any(a > b for a, b in zip(small, large, strict=True)):
            continue
        for place in (k for k in range(size) if not large[k]):
            grown = ((*bits[:place], True, *bits[place + 1 :]) for bits in (small, large))
            gains = [
                value[more] - value[bits] for more, bits in zip(grown, (small, large), strict=True)
            ]
            pairs, worst = pairs + 1, min(worst, gains[0] - gains[1])
    if worst < -1e-12:
        raise ClosedFormError(f"the Jaccard loss is not submodular: a gain grows by {-worst:g}")
    return pd.DataFrame([{"pixels": size, "inequalities": pairs, "least difference": worst}])


def increments(errors: Array, truth: Array) -> Array:
    """Closed-form increments of the Jaccard loss along the sorted errors, in the pixels' order.

    With U the union before a pixel is added and I the intersection: a foreground pixel adds 1/U, a
    background pixel I/(U(U+1)).
    """
    order = np.argsort(-errors, kind="stable")
    hit, union = int(truth.sum()), int(truth.sum())
    result = np.zeros(errors.size)
    for place in order:
        if truth[place]:
            result[place] = 1 / union
            hit -= 1
        else:
            result[place] = hit / (union * (union + 1))
            union += 1
    return result


def check_lovasz(seed: int = 0) -> pd.DataFrame:
    """The gradient −y·Δ·p(1−p) of the sigmoid form and −y·Δ·1[e>0] of the hinge.

    Raises:
        ClosedFormError: closed form, autograd and finite differences disagree.
    """

    def softmax_form(logits: Array, target: Array) -> Array:
        probs = 1 / (1 + np.exp(-logits))
        steps = increments(np.abs(target - probs).ravel(), target.ravel() > 0.5)
        return -(2 * target - 1) * steps.reshape(logits.shape) * probs * (1 - probs)

    def hinge_form(logits: Array, target: Array) -> Array:
        sign = 2 * target - 1
        errors = 1 - logits * sign
        steps = increments(errors.ravel(), target.ravel() > 0.5).reshape(logits.shape)
        return -sign * steps * (errors > 0)

    # Distinct margins, far apart: a finite difference must not cross a tie, where there is a kink.
    draw = np.random.default_rng(seed)
    cases = []
    for fraction in (0.2, 0.5):
        target = (np.arange(12) < round(12 * fraction)).astype(float)[None, None]
        margins = draw.permutation(np.linspace(-3.1, 3.1, 12))[None, None]
        cases.append((f"hard labels, {fraction:.0%}", (2 * target - 1) * margins, target))
    loss = losses.build("lovasz_softmax", mode="binary")
    both = [
        check("Lovász-softmax, sigmoid", softmax_form, loss, cases),
        check("Lovász hinge", hinge_form, losses.build("lovasz_hinge"), cases),
    ]
    return pd.concat(both, ignore_index=True)


def equals_jaccard_at_vertices(seed: int = 0, draws: int = 30) -> float:
    """Largest |Lovász − (1 − IoU)| over hard predictions."""
    draw = np.random.default_rng(seed)
    loss = losses.build("lovasz_softmax", mode="binary")
    apart = []
    for _ in range(draws):
        truth = draw.random(15) < 0.4
        truth[0] = True
        predicted = draw.random(15) < 0.5
        logits = torch.tensor(np.where(predicted, 60.0, -60.0))[None, None]
        value = loss(logits, torch.tensor(truth.astype(float))[None, None]).item()
        apart.append(abs(value - jaccard_set_loss(truth ^ predicted, truth)))
    return float(np.max(apart))  # Python's max would pass over a NaN


def is_convex(seed: int = 0, draws: int = 300) -> float:
    """Least slack of convexity in the errors over random segments; never negative beyond rounding."""
    draw = np.random.default_rng(seed)
    truth = draw.random(20) < 0.4
    least = np.inf
    for _ in range(draws):
        a, b, part = draw.random(20), draw.random(20), draw.random()
        values = [float(e @ increments(e, truth)) for e in (a, b, part * a + (1 - part) * b)]
        least = min(least, part * values[0] + (1 - part) * values[1] - values[2])
    return least


def constant_answers(
    fractions: tuple[float, ...] = (0.01, 0.1, 0.3), jaccard: float = 0.4, pixels: int = 3000
) -> pd.DataFrame:
    """What three constant answers and a mask cost by one sigmoid, by two softmax channels, and by the hinge.

    With the share π < ½ of foreground the answer p everywhere costs max(1 − p, p + π − 2πp) by one sigmoid. That is
    smallest at p = ½, where it is ½ for every π, so a mask whose Jaccard index J is below ½ costs more. The
    foreground at ½ and the background anywhere below cost ½ as well. By two channels the mean over both classes counts.
    By the hinge the logit 0 costs 1, and a mask with the logits ±1 costs 2(1 − J).

    Args:
        fractions: the shares π.
        jaccard: index of the mask, which misses as many pixels as it adds.
        pixels: of the image.

    Returns:
        a row for each π and answer; columns ``one sigmoid``, ``two channels``, ``hinge``.

    Raises:
        ClosedFormError: the library's loss differs from a formula, or ½ is not the cheapest constant answer.
    """
    one, two = losses.build("lovasz_softmax", mode="binary"), losses.build("lovasz_softmax")
    hinge = losses.build("lovasz_hinge")
    rows = []
    for share in fractions:
        size = round(share * pixels)
        pi, truth = size / pixels, torch.arange(pixels) < size
        found = round(
            size * 2 * jaccard / (1 + jaccard)
        )  # of as many as there are foreground pixels
        mask = (torch.arange(pixels) >= size - found) & (torch.arange(pixels) < 2 * size - found)
        none = torch.zeros_like(truth)
        signs = {"½ everywhere": none.double(), "nothing": none.double() - 1,
                 "everything": none.double() + 1, "mask": 2 * mask.double() - 1}  # fmt: skip
        target = truth[None, None].double()
        for name, sign in signs.items():
            z = 60.0 * sign  # p is 0 or 1, but for ½
            channels = torch.stack([-z / 2, z / 2])[None]
            rows.append(
                {
                    "foreground": share,
                    "answer": name,
                    "one sigmoid": one(z[None, None], target).item(),
                    "two channels": two(channels, truth[None].long()).item(),
                    "hinge": hinge(sign[None, None], target).item(),
                }
            )
        below = torch.where(truth, 0.0, -torch.linspace(0, 9, pixels, dtype=torch.float64))
        if abs(one(below[None, None], target).item() - 0.5) > 1e-9:
            raise ClosedFormError("the foreground at ½ costs another value than ½")
        for p in np.linspace(0.02, 0.98, 49):
            z = torch.full_like(target, float(np.log(p / (1 - p))))
            value, formula = one(z, target).item(), max(1 - p, p + pi - 2 * pi * p)
            if abs(value - formula) > 1e-9 or value < 0.5 - 1e-9:
                raise ClosedFormError(
                    f"at π = {pi:g} the answer {p:g} costs {value}, not {formula}"
                )
    return pd.DataFrame(rows)


def float32_differences(
    pixels: int = 1_000_000, fraction: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Differencing the Jaccard curve in float32 against the closed-form increments.

    The curve's values are near 1 and its steps near 1/N: their difference loses most digits.
    """
    draw = np.random.default_rng(seed)
    truth = draw.random(pixels) < fraction
    position = np.arange(1, pixels + 1, dtype=np.float64)
    found = np.cumsum(truth)
    total = int(truth.sum())
    left, union = total - found, total + position - found
    exact = np.where(truth, 1 / union, (total - found) / (union * (union - 1)))
    curve = (1 - left.astype(np.float32) / union.astype(np.float32)).astype(np.float32)
    differenced = np.diff(curve, prepend=np.float32(0)).astype(np.float64)
    closed = exact.astype(np.float32).astype(np.float64)
    found = {"differences in float32": differenced, "closed form in float32": closed}
    scale = np.maximum(exact, 1e-300)
    rows = [
        {
            "increments": name,
            "median relative error": float(np.median(np.abs(values - exact) / scale)),
            "exactly zero": float((values == 0).mean()),
        }
        for name, values in found.items()
    ]
    return pd.DataFrame(rows)


def histogram_error(bins: tuple[int, ...] = (16, 256, 4096), seed: int = 0) -> pd.DataFrame:
    """The histogram form's error beside its bound 1/bins."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 1, 4000, generator=draw, dtype=torch.float64) * 2
    target = (torch.rand(1, 1, 4000, generator=draw) < 0.1).double()
    exact, *values = (
        losses.build("lovasz_softmax", mode="binary", bins=count)(logits, target).item()
        for count in (None, *bins)
    )
    errors, bounds = exact - np.array(values), 1 / np.array(bins)
    return pd.DataFrame({"bins": bins, "exact − histogram": errors, "bound": bounds})
