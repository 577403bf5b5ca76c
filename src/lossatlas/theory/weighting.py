"""Class weights, thresholds and hard examples: what weighting does to the optimum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sympy as sp
import torch
from scipy.optimize import brentq
from scipy.stats import beta as beta_distribution

from lossatlas import losses
from lossatlas.losses import weights as library_weights
from lossatlas.theory.calculus import ClosedFormError
from lossatlas.theory.check import Array, check
from lossatlas.theory.symbols import eta, p, w
from lossatlas.theory.verdict import Verdict, decide, notes, settles


def weighted_minimiser() -> tuple[sp.Expr, sp.Expr]:
    """The p that minimises −wη ln p − (1−η) ln(1−p), and its logit minus the logit of η.

    Raises:
        ClosedFormError: the shift is not ln w.
    """
    loss = -(w * eta * sp.log(p) + (1 - eta) * sp.log(1 - p))
    (best,) = sp.solve(sp.Eq(sp.diff(loss, p), 0), p)
    odds = sp.simplify((best / (1 - best)) / (eta / (1 - eta)))
    if sp.simplify(odds - w) != 0:
        raise ClosedFormError(f"the weighted odds are {odds} times the plain ones, expected w.")
    return sp.factor(best), sp.log(odds)


def shift_by_batches(
    batches: tuple[tuple[float, ...], ...] = ((0.02, 0.02), (0.01, 0.03), (0, 0.04)),
    pixels: int = 1000,
) -> pd.DataFrame:
    """How far a weight moves the best constant logit when the loss divides by each batch's sum of weights.

    Batches of equal size come equally often. With T foreground pixels of N the divisor is W = N − T + wT, so a
    batch with more foreground counts less: the odds become w E[T/W] / E[(N−T)/W] instead of w E[T] / E[N−T].

    Args:
        batches: foreground shares of the batches of a data set, a tuple a data set; w is its inverse frequency.
        pixels: N.

    Returns:
        a row a data set; columns ``shares in the batches``, ``ln w``, ``shift: weighted_ce`` and
        ``shift: balanced_ce``, in logits.

    Raises:
        ClosedFormError: the library's losses are least elsewhere.
    """
    rows = []
    for shares in batches:
        truth = np.array([round(share * pixels) for share in shares])
        mean = truth.mean() / pixels
        weight = (1 - mean) / mean
        divisor = pixels - truth + weight * truth
        odds = weight * (truth / divisor).sum() / ((pixels - truth) / divisor).sum()
        plain = np.log(mean / (1 - mean))
        weighted = losses.build("weighted_ce", mode="binary", weight=[1.0, weight])
        found = {
            "weighted_ce": _best_constant(weighted, truth, pixels),
            "balanced_ce": _best_constant(
                losses.build("balanced_ce", mode="binary"), truth, pixels
            ),
        }
        if abs(found["weighted_ce"] - np.log(odds)) > 1e-6:
            raise ClosedFormError(f"batches {shares}: {found}, expected {np.log(odds)}")
        told = " and ".join(f"{100 * share:g}\N{NO-BREAK SPACE}%" for share in shares)
        rows.append(
            {"shares in the batches": told, "ln w": np.log(weight)}
            | {f"shift: {name}": value - plain for name, value in found.items()}
        )
    return pd.DataFrame(rows)


def _best_constant(loss: losses.SegmentationLoss, truth: Array, pixels: int) -> float:
    """The logit everywhere at which the mean loss over the batches is least."""
    targets = [(torch.arange(pixels) < size).double()[None, None] for size in truth]

    def slope(level: float) -> float:
        z = torch.tensor(level, dtype=torch.double, requires_grad=True)
        total = torch.stack([loss(z.expand(1, 1, pixels), target) for target in targets]).sum()
        return float(torch.autograd.grad(total, z)[0])

    return float(brentq(slope, -12, 12, xtol=1e-9))


def posterior(fraction: float, sharpness: float = 0.3, points: int = 20_000) -> Array:
    """Pixels' true foreground probabilities η, descending: quantiles of a Beta distribution.

    Mean ``fraction``; a smaller ``sharpness`` puts more of them near 0 and 1.
    """
    other = sharpness * (1 - fraction) / fraction
    levels = (np.arange(points) + 0.5) / points
    return beta_distribution.ppf(levels, sharpness, other)[::-1]


def dice_by_threshold(truth: Array) -> Array:
    """Expected Dice (large images) when the k likeliest pixels are called foreground, for each k."""
    chosen = np.arange(1, truth.size + 1)
    return 2 * np.cumsum(truth) / (chosen + truth.sum())


def threshold_facts(fraction: float = 0.02, sharpness: float = 0.3) -> dict[str, float]:
    """Dice at the threshold ½, at the best one, at D*/2, and with inverse-frequency weights."""
    truth = posterior(fraction, sharpness)
    dice = dice_by_threshold(truth)
    best = int(dice.argmax())
    weight = (1 - fraction) / fraction
    weighted = weight * truth / (weight * truth + 1 - truth)
    at_half = int((truth > 0.5).sum())  # 0: no posterior exceeds ½, and nothing is found there
    at_weighted = int((weighted > 0.5).sum())
    return {
        "Dice at ½": float(dice[at_half - 1]) if at_half else 0.0,
        "Dice at the best threshold": float(dice[best]),
        "best threshold": float(truth[best]),
        "D*/2": float(dice[best] / 2),
        "Dice of weighted CE at ½": float(dice[at_weighted - 1]) if at_weighted else 0.0,
        "recall of weighted CE": float(truth[:at_weighted].sum() / truth.sum()),
        "precision of weighted CE": float(truth[:at_weighted].mean()),
        "volume ratio of weighted CE": float(at_weighted / truth.sum()),
    }


def weight_spread(
    log_sds: tuple[float, ...] = (0.5, 1.0, 1.5),
    images: tuple[int, ...] = (50, 100),
    draws: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """How uncertain a weight 1/(mean pixels) is when the mean comes from n images.

    Object sizes are log-normal. ``spread`` is the coefficient of variation of the weight, ``bias``
    its mean relative to 1/(true mean): by Jensen's inequality never negative in expectation.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for log_sd in log_sds:
        for count in images:
            sizes = np.exp(draw.normal(-(log_sd**2) / 2, log_sd, (draws, count)))
            weight = 1 / sizes.mean(axis=1)
            spread, bias = float(weight.std() / weight.mean()), float(weight.mean() - 1)
            rows.append((log_sd, count, spread, bias))
    return pd.DataFrame(rows, columns=["log-sd of sizes", "images", "spread", "bias"])


def schemes(counts: tuple[int, ...] = (900_000, 90_000, 9_000, 1_000)) -> pd.DataFrame:
    """The weights of one data set by every scheme of the library, relative to the first class."""
    # Two images, so that the two definitions of median frequency differ: the rare classes occur in one.
    half = [counts[0] // 2, counts[1] // 2, counts[2], 0]
    table = torch.tensor([half, [each - own for each, own in zip(counts, half, strict=True)]])
    total = table.sum(0)
    made = {
        "inverse frequency": library_weights.inverse_frequency(total),
        "median frequency, images with the class": library_weights.median_frequency(table),
        "median frequency, whole set": library_weights.median_frequency(
            table, definition="dataset"
        ),
        "ENet": library_weights.enet_log(total),
        "effective number, β = 0.9999": library_weights.effective_number(total, beta=0.9999),
    }
    relative = [(values / values[0]).tolist() for values in made.values()]
    columns = [f"class {i}" for i in range(len(counts))]
    return pd.DataFrame(relative, columns=columns).assign(scheme=list(made))[["scheme", *columns]]


def check_hard_examples(seed: int = 0) -> pd.DataFrame:
    """OHEM and top-k: the gradient is cross-entropy's on the kept pixels, divided by their number.

    Raises:
        ClosedFormError: it is not.
    """
    draw = np.random.default_rng(seed)
    target = (draw.random((1, 1, 20)) < 0.3).astype(float)
    logits = draw.normal(0, 2, target.shape)

    def mean_over(kept: Array, scores: Array, labels: Array) -> Array:
        return kept * (1 / (1 + np.exp(-scores)) - labels) / kept.sum()

    def losses_of(scores: Array, labels: Array) -> Array:
        return np.log1p(np.exp(-(2 * labels - 1) * scores))

    def top(scores: Array, labels: Array) -> Array:
        values = losses_of(scores, labels)
        kept = values >= np.sort(values.ravel())[-4]  # k = 0.2 of 20
        return mean_over(kept.astype(float), scores, labels)

    def hard(scores: Array, labels: Array) -> Array:
        kept = losses_of(scores, labels) > -np.log(0.7)
        return mean_over(kept.astype(float), scores, labels)

    case = [("hard labels", logits, target)]
    loss = losses.build("ohem_ce", mode="binary", threshold=0.7, min_kept=0.05)
    both = [
        check("top-k cross-entropy", top, losses.build("topk_ce", mode="binary", k=0.2), case),
        check("OHEM", hard, loss, case),
    ]
    return pd.concat(both, ignore_index=True)


def noise_among_kept(
    noise: float = 0.05, kept: float = 0.1, fraction: float = 0.1
) -> dict[str, float]:
    """How many of the hardest pixels are mislabelled, for a network that knows the true posterior.

    A share ``noise`` of the labels is flipped at random.
    """
    draw = np.random.default_rng(0)
    truth = posterior(fraction, 0.1, 50_000)
    label = draw.random(truth.size) < truth
    flipped = draw.random(truth.size) < noise
    seen = label ^ flipped
    clipped = np.clip(truth, 1e-6, 1 - 1e-6)
    loss = -np.where(seen, np.log(clipped), np.log(1 - clipped))
    hardest = np.argsort(loss)[-round(kept * truth.size) :]
    return {
        "mislabelled among all": float(flipped.mean()),
        "mislabelled among the kept": float(flipped[hardest].mean()),
    }


@settles(6)
def cross_entropy_is_a_proxy() -> Verdict:
    """Thresholded at D*/2 the posterior is Dice-optimal; at ½ it is not."""
    found = threshold_facts()
    exact = abs(found["best threshold"] - found["D*/2"]) < 1e-3
    gap = found["Dice at the best threshold"] - found["Dice at ½"]
    return Verdict(
        "conditional" if exact and gap > 0.01 else "true",
        "Cross-entropy's optimum is the posterior η. Over a spread of η (2 % foreground) the best "
        f"expected Dice is {found['Dice at the best threshold']:.3f}, reached at the threshold "
        f"{found['best threshold']:.3f} $= D^\\ast/2 =$ {found['D*/2']:.3f}; at ½ it is "
        f"{found['Dice at ½']:.3f}.",
        "A proxy at the threshold ½; at $D^\\ast/2$ it attains the optimum (in the population).",
    )


@settles(5)
def maximising_dice_takes_no_dice_loss() -> Verdict:
    """Cross-entropy's optimum, thresholded at D*/2, attains the best Dice as well."""
    found = threshold_facts()
    attained = abs(found["best threshold"] - found["D*/2"]) < 1e-3
    return Verdict(
        "conditional" if attained else "true",
        "Why people use a loss is their motive; no computation tests it. The reason behind it holds in "
        "part: cross-entropy maximises Dice as well once its answer is thresholded. Over a spread "
        f"of posteriors (2 % foreground) the best Dice is {found['Dice at the best threshold']:.3f}, which "
        f"cross-entropy's optimum reaches at the threshold {found['best threshold']:.3f} "
        f"$= D^\\ast/2$; at ½ it has {found['Dice at ½']:.3f}.",
        "A statement on motive. As a reason it holds at the threshold ½, and where Dice is the metric.",
    )


@notes(8)
def a_factor_is_a_shift() -> str:
    """Weights shift the optimum's logit by ln w, and overshoot at ½."""
    weighted_minimiser()
    found = threshold_facts()
    return (
        "In the population, and with a divisor that is the same for every batch, a weight w moves the optimum's "
        "logit by exactly ln w, so it changes the threshold and not the order of the pixels. Dividing by each batch's "
        "own sum of weights makes the shift smaller where batches differ. With inverse frequency, at ½, recall is "
        f"{found['recall of weighted CE']:.2f}, precision {found['precision of weighted CE']:.2f}, and the "
        f"predicted volume {found['volume ratio of weighted CE']:.1f} times the true one (2 % foreground). "
        "The source goes on to ask whether Dice is needed then: that compares trained networks."
    )


@settles(9)
def factors_for_the_frequent_class() -> Verdict:
    """The factors raise the infrequent class: the sentence is mistranslated."""
    frequent, rare = library_weights.inverse_frequency(torch.tensor([900, 100])).tolist()
    return decide(
        frequent > rare,
        f"With 900 and 100 pixels the weights are {frequent:.2f} and {rare:.2f}: it is the infrequent "
        "class that may not be ignored. The English original says “infrequently”.",
        "A mistranslation.",
    )


@settles(17)
def hard_examples_are_high_loss() -> Verdict:
    """OHEM selects by loss alone, so label noise is what it keeps."""
    check_hard_examples()
    found = noise_among_kept()
    return Verdict(
        "conditional"
        if found["mislabelled among the kept"] > 2 * found["mislabelled among all"]
        else "true",
        "OHEM and top-k choose by loss and nothing else. With 5 % of labels flipped, a network that "
        f"knows the true posterior has {100 * found['mislabelled among the kept']:.0f} % mislabelled "
        "pixels among its hardest tenth.",
        "High-loss by construction; diverse only as far as the labels are right.",
    )


@settles(34)
def weights_from_few_images() -> Verdict:
    """Weights from 50 to 100 images vary by 5 to 33 %, and are biased upward."""
    table = weight_spread().set_index(["log-sd of sizes", "images"])
    small, large = table.loc[(0.5, 100)], table.loc[(1.5, 50)]
    return Verdict(
        "conditional" if small["spread"] < 0.1 < large["spread"] else "true",
        f"Log-normal object sizes: from 100 images with log-sd 0.5 the weight varies by "
        f"{100 * small['spread']:.0f} %, from 50 images with log-sd 1.5 by {100 * large['spread']:.0f} %, "
        f"and is {100 * large['bias']:.0f} % too large on average.",
        "Enough where object sizes vary little; not where they vary much.",
    )
