"""Overlap losses: relations between them, set against pixel, smoothing, noise and minimisers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import sympy as sp
import torch

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError
from lossatlas.theory.check import at_constant, autograd
from lossatlas.theory.descent import Adam, Descent
from lossatlas.theory.forms import FORMS, binary_cases
from lossatlas.theory.symbols import I, J, S, T
from lossatlas.theory.verdict import Verdict, decide, notes, settles


def dice_of_jaccard() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """D as a function of J, and the largest D − J with the J where it is attained.

    Raises:
        ClosedFormError: D = 2J/(1+J) fails.
    """
    dice, jaccard = 2 * I / (S + T), I / (S + T - I)
    stated = 2 * J / (1 + J)
    if sp.simplify(stated.subs(J, jaccard) - dice) != 0:
        raise ClosedFormError("D = 2J/(1+J) does not hold.")
    (best,) = [root for root in sp.solve(sp.diff(stated - J, J), J) if root >= 0]
    return stated, sp.nsimplify(sp.expand(sp.radsimp((stated - J).subs(J, best)))), best


def gradients_are_parallel(seed: int = 0) -> pd.DataFrame:
    """∇D = 2/(1+J)²·∇J on draws, from autograd of the library: the largest departure.

    Raises:
        ClosedFormError: they are not parallel by that factor.
    """
    rows = []
    for label, logits, target in binary_cases(seed):
        dice = autograd(losses.build("dice", mode="binary"), logits, target)
        jaccard = autograd(losses.build("jaccard", mode="binary"), logits, target)
        probs = 1 / (1 + np.exp(-logits))
        overlap = (probs * target).sum()
        value = overlap / (probs.sum() + target.sum() - overlap)
        factor = 2 / (1 + value) ** 2
        apart = float(np.abs(dice - factor * jaccard).max() / np.abs(dice).max())
        if not apart < 1e-10:
            raise ClosedFormError(f"{label}: ∇D departs from 2/(1+J)²∇J by {apart:g} relative.")
        rows.append({"case": label, "J": value, "2/(1+J)²": factor, "largest departure": apart})
    return pd.DataFrame(rows)


def rank_reversal() -> pd.DataFrame:
    """Two methods on two classes: one has the higher mean IoU, the other the higher mean Dice."""
    table = pd.DataFrame(
        {"method": ["first", "second"], "IoU of the classes": [(0.2, 0.9), (0.5, 0.58)]}
    )
    jaccard = np.array(table["IoU of the classes"].tolist())
    means = {"mean IoU": jaccard.mean(1), "mean Dice": (2 * jaccard / (1 + jaccard)).mean(1)}
    return table.astype({"IoU of the classes": str}).assign(**means)


def per_image_against_batch() -> pd.DataFrame:
    """A big object found well and a small one found badly: Dice per image, and over the batch."""
    target = torch.zeros(2, 1, 1000, dtype=torch.float64)
    target[0, :, :500] = 1.0
    target[1, :, :10] = 1.0
    logits = torch.full_like(target, -12.0)
    logits[0, :, :460] = 12.0  # 460 of 500
    logits[1, :, 8:24] = 12.0  # 2 of 10, 14 elsewhere
    ways = {"per image, then the mean": True, "over the batch": False}
    found = [
        1 - losses.build("dice", mode="binary", per_image=each)(logits, target).item()
        for each in ways.values()
    ]
    return pd.DataFrame({"Dice": list(ways), "coefficient": found})


def empty_mask(pixels: int = 65_536) -> pd.DataFrame:
    """The gradient on one pixel of an image without foreground, at q = ½, by smoothing."""
    of = {"": losses.build("ce", mode="binary")} | {
        f"{smooth:g}": losses.build("dice", mode="binary", smooth=smooth)
        for smooth in (1.0, 1e-6, 0.0)
    }
    names = ["cross-entropy", "Dice", "Dice", "Dice"]
    sizes = [float(at_constant(loss, 0, 0.0, pixels).max()) for loss in of.values()]
    return pd.DataFrame({"loss": names, "ε": list(of), "gradient": sizes})


def soft_label_minimisers(label: float = 0.3) -> pd.DataFrame:
    """One pixel with a soft label: where each loss is least, searched on a grid of p."""
    probs = np.linspace(1e-4, 1 - 1e-4, 9999)
    logits = torch.tensor(np.log(probs / (1 - probs)))[:, None, None]
    target = torch.full_like(logits, label)
    rows = []
    for name in ("ce", "dice", "dice_squared", "dice_semimetric", "jaccard"):
        options = {} if name == "ce" else {"per_image": True}
        loss = losses.build(name, mode="binary", reduction="none", **options)
        least = float(probs[int(loss(logits, target).reshape(probs.size).argmin())])
        rows.append({"loss": FORMS[name].title, "label t": label, "least at p": least})
    return pd.DataFrame(rows)


def best_answers(steps: int = 400) -> tuple[pd.DataFrame, dict[str, float]]:
    """What plain and squared Dice make of many pixels whose class is uncertain, by descent.

    Pixels with one chance q of being foreground share a logit: of 50, the share q is foreground. Setting the
    derivative of D by p to zero gives the answers: 1 where q > D/2 and 0 elsewhere for plain Dice, min(1, q/D) with
    squares.

    Returns:
        A row for each chance: ``chance``, the answers of ``Dice`` and of ``Dice, squared``, and ``q / D`` (at most 1)
        with the D that the squares reach; and by loss the Dice reached.
    """
    chances, copies = torch.arange(2, 99, 2, dtype=torch.float64) / 100, 50
    target = (torch.arange(copies) + 0.5 < copies * chances[:, None]).double()[None, None]
    answers, reached = {}, {}
    for squared, name in ((False, "Dice"), (True, "Dice, squared")):
        logits = torch.zeros(len(chances), 1, dtype=torch.float64, requires_grad=True)
        loss = losses.build("dice", mode="binary", squared=squared)
        search = Adam([logits], lr=0.2)  # steps without a scale: the slopes vanish near 0 and 1
        for _ in range(steps):
            search.step(loss(logits.expand(-1, copies)[None, None], target))
        answers[name] = logits.detach().sigmoid().flatten().numpy()
        reached[name] = 1 - loss(logits.expand(-1, copies)[None, None], target).item()
    asked = (chances / reached["Dice, squared"]).clamp(max=1).numpy()
    return pd.DataFrame({"chance": chances.numpy(), **answers, "q / D": asked}), reached


def batch_noise(
    log_sds: tuple[float, ...] = (0.2, 0.7, 1.2), batch: int = 8, batches: int = 60, seed: int = 0
) -> pd.DataFrame:
    """Noise of the batch loss for a network that does not change: coefficient of variation.

    Images of 32² pixels with one object of log-normal size (median 40 pixels); logits are normal
    around 1 on foreground and −3 elsewhere. Nothing is trained: all variation is sampling.
    """
    draw = np.random.default_rng(seed)
    entropy = losses.build("ce", mode="binary")
    dice = losses.build("dice", mode="binary", per_image=True)
    rows = []
    for log_sd in log_sds:
        values = []
        for _ in range(batches):
            sizes = np.clip(40 * np.exp(draw.normal(0, log_sd, batch)), 1, 900).astype(int)
            target = (np.arange(1024)[None] < sizes[:, None]).astype(float)[:, None]
            logits = draw.normal(np.where(target > 0, 1.0, -3.0), 1.0)
            scores, labels = torch.tensor(logits), torch.tensor(target)
            values.append([loss(scores, labels).item() for loss in (entropy, dice)])
        spread = np.std(values, axis=0) / np.mean(values, axis=0)
        rows.append({"log-sd of sizes": log_sd, "CE": float(spread[0]), "Dice": float(spread[1])})
    return pd.DataFrame(rows)


#: Steps after which the small training of :func:`convergence` gives up.
CONVERGENCE_STEPS = 150


def convergence(
    optimiser: str, name: str, lr: float, steps: int = CONVERGENCE_STEPS, seed: int = 0
) -> int:
    """Steps until a linear classifier's hard Dice passes 0.8 on separable pixels, or ``steps``."""
    draw = torch.Generator().manual_seed(seed)
    target = (torch.arange(500) < 10).double()[None, None]
    features = torch.randn(500, 2, generator=draw, dtype=torch.float64)
    features[:10, 0] += 5.0
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    inputs = torch.cat([features, torch.ones(500, 1, dtype=torch.float64)], dim=1)
    makers = {"SGD": Descent, "Adam": Adam}
    search = makers[optimiser]([weights], lr=lr)
    loss = losses.build(name, mode="binary")
    for step in range(steps):
        logits = (inputs @ weights)[None, None]
        called = (logits > 0).double()
        if 2 * (called * target).sum() / (called.sum() + target.sum()) > 0.8:
            return step
        search.step(loss(logits, target))
    return steps


def convergence_table() -> pd.DataFrame:
    """Steps to a hard Dice of 0.8 at equal learning rates."""
    rows = [
        {
            "optimiser": optimiser,
            "learning rate": lr,
            "CE": convergence(optimiser, "ce", lr),
            "Dice": convergence(optimiser, "dice", lr),
        }
        for optimiser, lr in (("SGD", 0.5), ("Adam", 0.1))
    ]
    return pd.DataFrame(rows)


@settles(21)
def dice_is_iou() -> Verdict:
    """D = 2J/(1+J), at most 3 − 2√2 apart, and means can reverse the order."""
    stated, gap, at = dice_of_jaccard()
    table = rank_reversal()
    reversed_order = table["mean IoU"].diff().iloc[1] * table["mean Dice"].diff().iloc[1] < 0
    return decide(
        not (gap > 0 and reversed_order),
        f"$D = {sp.latex(stated)}$: never less than J, and up to ${sp.latex(gap)}$ = {float(gap):.3f} "
        f"more, at J = {float(at):.3f}. Class means can even rank two methods in opposite order: mean "
        f"IoU {table['mean IoU'][0]:.2f} > {table['mean IoU'][1]:.2f} but mean Dice "
        f"{table['mean Dice'][0]:.3f} < {table['mean Dice'][1]:.3f}.",
    )


@settles(22)
def pixels_as_one_whole() -> Verdict:
    """One whole per image, or one per batch: they differ."""
    table = per_image_against_batch()["coefficient"]
    return decide(
        bool(abs(table[0] - table[1]) > 0.05),
        "The sums run over the whole class before the ratio is taken. Over which pixels matters: a big "
        f"object found well and a small one found badly have a Dice of {table[0]:.2f} per image and "
        f"{table[1]:.2f} over the batch.",
        "Say whether the whole is an image or a batch.",
    )


@settles(24)
def converges_fast() -> Verdict:
    """Its gradient is smaller; what follows depends on optimiser, rate and the meaning of arrival."""
    ce, dice = (
        at_constant(losses.build(name, mode="binary"), 20, 0.0, 2000).sum()
        for name in ("ce", "dice")
    )
    ratio = ce / dice
    table = convergence_table().set_index("optimiser")
    return Verdict(
        "conditional" if ratio > 1 else "true",
        f"At π = 1 %, q = ½ the whole gradient of Dice is {ratio:.0f} times smaller than "
        "cross-entropy's. Steps of a linear classifier to a Dice of 0.8 at ½, at equal learning rates "
        f"({CONVERGENCE_STEPS} at most): SGD {table.loc['SGD', 'CE']} (CE) and "
        f"{table.loc['SGD', 'Dice']} (Dice), Adam {table.loc['Adam', 'CE']} and "
        f"{table.loc['Adam', 'Dice']}.",
        "Depends on optimiser and learning rate (Adam's steps do not see the gradient's size), and on "
        "the threshold by which arrival is judged: cross-entropy must lift a rare class above ½.",
    )


@notes(12)
def noise_of_sampling() -> str:
    """Noise of the batch loss for a network that does not change."""
    rows = "; ".join(
        f"{row.Dice:.3f} against {row.CE:.3f} at log-sd {row[1]:g}"
        for row in batch_noise().itertuples()
    )
    return (
        "With a network that does not change and batches of 8, the batch loss varies (coefficient of "
        f"variation, Dice against CE): {rows}. This is the noise of sampling alone; a training curve also "
        "has the steps in it."
    )


@settles(25)
def cross_entropy_is_maximised() -> Verdict:
    """It is minimised: a sign slip."""
    label = torch.ones(1, 1, 1, dtype=torch.float64)
    loss = losses.build("ce", mode="binary")
    wrong, right = (loss(torch.full_like(label, z), label).item() for z in (-3.0, 3.0))
    return decide(
        right > wrong,
        f"Cross-entropy is {wrong:.2f} for a wrong answer and {right:.2f} for a right one: what is "
        "maximised is the likelihood, cross-entropy is minimised.",
        "A slip of sign.",
    )
