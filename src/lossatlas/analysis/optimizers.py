"""What two optimisers make of losses of different scale: which learning rates work under each.

A loss may be multiplied by any constant: SGD's steps grow by it, AdamW's do not. The scale of a loss is stated as
the Euclidean norm of its gradient in the weights at the first step, where every loss of a seed has the same network
and the same batch. What the rates give is read from the tuning runs, which are judged on the validation split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from scipy import stats

from lossatlas.analysis.figures import Drawing, Missing, _figure
from lossatlas.analysis.imbalance.training import WORKS
from lossatlas.analysis.records import Part, Records, RecordsError
from lossatlas.analysis.style import per_cent
from lossatlas.analysis.tables import Table
from lossatlas.statistics.intervals import number

#: What pages call the optimisers.
NAMES = {"adamw": "AdamW", "sgd": "SGD"}
_LINES: dict[str, str] = {"adamw": "-", "sgd": "--"}
#: What is a lead where a study names no smallest effect: one point of Dice.
SMALLEST_EFFECT = 0.01


@dataclass(frozen=True, eq=False)
class Sweep:
    """One loss under one optimiser and every learning rate that was tried.

    Attributes
    ----------
    rates
        Learning rates, ascending.
    scores
        (rates, seeds) validation Dice at the threshold tuned there; 0 where a run diverged.
    diverged
        How many of the runs diverged.
    """

    loss: str
    optimizer: str
    rates: tuple[float, ...]
    scores: np.ndarray
    diverged: int

    @property
    def mean(self) -> np.ndarray:
        """(rates,) mean over the tuning seeds."""
        return self.scores.mean(1)

    @property
    def best(self) -> float:
        """The rate with the largest mean; of equals the lowest."""
        return self.rates[int(self.mean.argmax())]

    @property
    def best_score(self) -> float:
        """The largest mean."""
        return float(self.mean.max())

    @property
    def at_edge(self) -> bool:
        """Whether a rate outside those tried may be better still."""
        return self.best in (self.rates[0], self.rates[-1])

    def working(self, reference: float) -> int:
        """How many rates reach `WORKS` of `reference` in the mean."""
        return int((self.mean >= WORKS * reference).sum()) if reference > 0 else 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """One data set and one network under every loss and optimiser.

    Attributes
    ----------
    part
        The reporting runs.
    sweeps
        By (loss, optimiser), in the book's order of the losses.
    """

    part: Part
    sweeps: Mapping[tuple[str, str], Sweep]

    @property
    def fraction(self) -> float:
        """The foreground's part of the labelled test pixels."""
        return float(self.part.fractions[self.part.foreground].sum())

    @property
    def text(self) -> str:
        """The fraction in per cent."""
        return per_cent(self.fraction)

    @property
    def losses(self) -> list[str]:
        """Losses that were swept under every optimiser."""
        return [
            loss
            for loss in self.part.losses
            if all((loss, optimizer) in self.sweeps for optimizer in self.optimizers)
        ]

    @property
    def optimizers(self) -> list[str]:
        """Optimisers, in the order of `NAMES`."""
        there = {optimizer for _, optimizer in self.sweeps}
        return [name for name in NAMES if name in there]

    def gradient_norms(self, loss: str) -> np.ndarray:
        """(seeds,) norm of the gradient at the first step."""
        return self._first(loss, "grad_norm")

    def first_values(self, loss: str) -> np.ndarray:
        """(seeds,) the loss at the first step."""
        return self._first(loss, "loss_value")

    def _first(self, loss: str, column: str) -> np.ndarray:
        rows = self.part.curves[self.part.curves.loss == loss].sort_values("step")
        return rows.groupby("seed")[column].first().dropna().to_numpy()

    def best_of(self, optimizer: str) -> dict[str, float]:
        """The best rate of every loss."""
        return {loss: self.sweeps[loss, optimizer].best for loss in self.losses}

    def span(self, optimizer: str) -> float:
        """The largest best rate of a loss over the smallest."""
        best = self.best_of(optimizer).values()
        return max(best) / min(best)

    def order(self, optimizer: str) -> list[str]:
        """The losses by their best score, highest first."""
        return sorted(self.losses, key=lambda loss: -self.sweeps[loss, optimizer].best_score)


def compare(records: Records) -> list[Comparison]:
    """Every data set of a study that tuned with two optimisers, the most foreground first.

    Raises
    ------
    RecordsError
        The study tuned nothing, with one optimiser only, or a tuning run is missing.
    """
    table = records.tuning
    there = [] if table is None else sorted(set(table.optimizer))
    if table is None or len(there) < 2:
        raise RecordsError(
            f"study {records.name}: expected tuning runs of two optimisers, got {there or 'none'}: name them under "
            "tuning.optimizer in the study's file"
        )
    missing = int((table.status == "missing").sum())
    if missing:
        raise RecordsError(
            f"study {records.name}: expected all tuning runs, {missing} are missing: "
            f"lossatlas run {records.name} && lossatlas collect {records.name}"
        )
    found = []
    for part in records.parts:
        rows = table[(table.dataset == part.dataset) & (table.model == part.model)]
        sweeps = {
            (loss, str(optimizer)): _sweep(loss, str(optimizer), group)
            for loss in part.losses
            for optimizer, group in rows[rows.loss == loss].groupby("optimizer")
        }
        found.append(Comparison(part, sweeps))
    return sorted(found, key=lambda comparison: -comparison.fraction)


def _sweep(loss: str, optimizer: str, rows: pd.DataFrame) -> Sweep:
    ended = rows.status.str.startswith("diverged")
    score = rows.val_foreground_dice_tuned.where(~ended, 0.0).fillna(0.0)
    scores = rows.assign(score=score).pivot(index="lr", columns="seed", values="score").sort_index()
    rates = tuple(float(rate) for rate in scores.index)
    return Sweep(loss, optimizer, rates, scores.to_numpy(), int(ended.sum()))


# --- sentences


def answer(comparisons: Iterable[Comparison], margin: float = SMALLEST_EFFECT) -> str:
    """The question's answer in one paragraph a data set, as Markdown."""
    return "\n".join(f"- {line}" for line in _answers(comparisons, margin))


def _answers(comparisons: Iterable[Comparison], margin: float) -> Iterator[str]:
    for one in comparisons:
        spans = ", ".join(
            f"a factor of {one.span(optimizer):.3g} with {NAMES[optimizer]}"
            for optimizer in one.optimizers
        )
        orders = {
            optimizer: [f"`{loss}`" for loss in one.order(optimizer)]
            for optimizer in one.optimizers
        }
        same = len({tuple(order) for order in orders.values()}) == 1
        told = "; ".join(
            f"{' > '.join(order)} with {NAMES[name]}" for name, order in orders.items()
        )
        yield (
            f"**{one.text} of foreground.** From loss to loss the best rate differs by {spans}. By the best mean "
            f"validation Dice the order is {'the same' if same else 'not the same'}: {told}. "
            f"{_behind(one, margin)}"
        )


def _behind(one: Comparison, margin: float) -> str:
    """Where one optimiser is behind the other, each at its own best rate."""
    if {"adamw", "sgd"} - set(one.optimizers):
        return ""
    lost = {
        loss: one.sweeps[loss, "sgd"].best_score - one.sweeps[loss, "adamw"].best_score
        for loss in one.losses
    }
    apart = {loss: by for loss, by in lost.items() if abs(by) > margin}
    if not apart:
        return f"Each at its own best rate, SGD is within {100 * margin:g} point of AdamW for every loss."
    words = ", ".join(f"`{loss}` {number(by, sign=True)}" for loss, by in apart.items())
    return (
        f"Each at its own best rate, SGD minus AdamW is beyond {100 * margin:g} point for {words}."
    )


def scale(comparisons: Iterable[Comparison]) -> str:
    """How the best rate follows the gradient's norm: rank correlation over the losses, as Markdown."""
    lines = []
    for one in comparisons:
        all_norms = {loss: float(np.median(one.gradient_norms(loss))) for loss in one.losses}
        norms = {loss: norm for loss, norm in all_norms.items() if norm > 0}
        zero = [f"`{loss}`" for loss in all_norms if loss not in norms]
        words = []
        for optimizer in one.optimizers:
            best = [one.best_of(optimizer)[loss] for loss in norms]
            if len(set(best)) == 1:
                words.append(f"with {NAMES[optimizer]} every loss has the same best rate")
            elif len(best) > 1:
                rho = stats.spearmanr(list(norms.values()), best).statistic
                words.append(f"ρ = {number(rho)} with {NAMES[optimizer]}")
        line = f"- At {one.text} the first step "
        if zero:
            line += (
                f"gives {' and '.join(zero)} no gradient (the batch has no foreground in the median of the seeds). Of "
                f"the others the largest "
            )
        else:
            line = f"- At {one.text} the largest "
        if len(norms) > 1:
            ratio = max(norms.values()) / min(norms.values())
            line += f"gradient of a loss is {ratio:.3g} times the smallest."
        else:
            line += "gradient cannot be compared."
        if words:
            line += (
                f" Rank correlation of the gradient's norm and the best rate over {len(norms)} losses: "
                f"{', '.join(words)}."
            )
        lines.append(line)
    return "\n".join(lines)


#: The predictions for which the checks below were written.
_PREDICTED = {
    (
        "4",
        "With AdamW at least as many rates work for Dice as for cross-entropy; with SGD, at 0.1 % of foreground, fewer "
        "do.",
    ),
    (
        "24",
        "At one and the same SGD rate Dice lags behind cross-entropy until the rate is above 0.1: its gradient is "
        "smaller; under AdamW the same rates serve both.",
    ),
}


def predictions(
    records: Records, comparisons: Sequence[Comparison], dice: str = "dice", ce: str = "ce"
) -> str:
    """What became of the two predictions of the study `optimizers`, contradictions first, as Markdown.

    Empty for a study that does not predict the same.

    The tuning runs have two seeds and no intervals: a statement holds or fails in these runs, and no more is said.
    """
    if {(p["claim"], p["text"]) for p in records.study.get("predictions", [])} != _PREDICTED:
        return ""
    both = [one for one in comparisons if {dice, ce} <= set(one.losses)]
    if not both or any({"adamw", "sgd"} - set(one.optimizers) for one in both):
        return "The study does not have both losses under both optimisers: its predictions are not judged."
    rarest = both[-1]
    parts = {
        "Claim 4": [
            (
                f"with AdamW at least as many rates work for `{dice}` as for `{ce}`",
                all(_works(one, "adamw", dice) >= _works(one, "adamw", ce) for one in both),
            ),
            (
                f"with SGD, at {rarest.text}, fewer do",
                _works(rarest, "sgd", dice) < _works(rarest, "sgd", ce),
            ),
        ],
        "Claim 24": [
            (
                f"at every SGD rate up to 0.1 `{dice}` lags behind `{ce}`",
                all(_lags(one, "sgd", dice, ce, up_to=0.1) for one in both),
            ),
            (
                f"with AdamW the best rate of one serves the other too ({per_cent(WORKS)} of its best)",
                all(_serves(one, "adamw", dice, ce) for one in both),
            ),
        ],
    }
    lines = []
    for holds, word in ((False, "Contradicted"), (True, "Held")):
        lines += [
            f"- **{word}** ([{claim}](#claim-{claim.split()[1]})): {statement}."
            for claim, of_claim in parts.items()
            for statement, found in of_claim
            if found is holds
        ]
    return "\n".join(lines)


def _works(one: Comparison, optimizer: str, loss: str) -> int:
    sweep = one.sweeps[loss, optimizer]
    return sweep.working(sweep.best_score)


def _lags(one: Comparison, optimizer: str, loss: str, other: str, *, up_to: float) -> bool:
    """Whether `loss` scores less than `other` at every rate up to a bound."""
    mine, theirs = one.sweeps[loss, optimizer], one.sweeps[other, optimizer]
    low = np.array(mine.rates) <= up_to
    return bool((mine.mean[low] < theirs.mean[low]).all())


def _serves(one: Comparison, optimizer: str, loss: str, other: str) -> bool:
    """Whether each of two losses works at the other's best rate."""
    sweeps = one.sweeps[loss, optimizer], one.sweeps[other, optimizer]
    return all(
        mine.mean[mine.rates.index(theirs.best)] >= WORKS * mine.best_score
        for mine, theirs in (sweeps, sweeps[::-1])
    )


def instability(comparisons: Iterable[Comparison], dice: str = "dice", ce: str = "ce") -> str:
    """How many rates work for Dice and for cross-entropy, and how many runs diverged, as Markdown."""
    lines = []
    for one in comparisons:
        if dice not in one.losses or ce not in one.losses:
            continue
        for optimizer in one.optimizers:
            mine, theirs = one.sweeps[dice, optimizer], one.sweeps[ce, optimizer]
            counts = mine.working(mine.best_score), theirs.working(theirs.best_score)
            verdict = "fewer" if counts[0] < counts[1] else "not fewer"
            lines.append(
                f"- {one.text}, {NAMES[optimizer]}: {counts[0]} of {len(mine.rates)} rates reach {per_cent(WORKS)} of "
                f"the loss's best with `{dice}`, {counts[1]} with `{ce}`: {verdict}. Runs that diverged: "
                f"{mine.diverged} and {theirs.diverged} of {mine.scores.size}."
            )
    return "\n".join(lines) or f"The study does not have both `{dice}` and `{ce}`."


def at_equal_rates(
    comparisons: Iterable[Comparison],
    margin: float = SMALLEST_EFFECT,
    dice: str = "dice",
    ce: str = "ce",
) -> str:
    """At which one rate for both Dice lags behind cross-entropy, as Markdown."""
    lines = []
    for one in comparisons:
        if dice not in one.losses or ce not in one.losses:
            continue
        for optimizer in one.optimizers:
            mine, theirs = one.sweeps[dice, optimizer], one.sweeps[ce, optimizer]
            apart = mine.mean - theirs.mean
            words = ", ".join(
                f"{number(by, sign=True)} at {rate:g}"
                for rate, by in zip(mine.rates, apart, strict=True)
            )
            behind = int((apart < -margin).sum())
            lines.append(
                f"- {one.text}, {NAMES[optimizer]}: `{dice}` minus `{ce}` is {words}; behind at {behind} of "
                f"{len(mine.rates)} rates."
            )
    return "\n".join(lines) or f"The study does not have both `{dice}` and `{ce}`."


def limits(records: Records, comparisons: Iterable[Comparison]) -> str:
    """What these runs cannot say, as Markdown."""
    some = next(iter(next(iter(comparisons)).sweeps.values()))
    edge = [
        f"`{sweep.loss}` with {NAMES[sweep.optimizer]} at {one.text} ({sweep.best:g})"
        for one in comparisons
        for sweep in one.sweeps.values()
        if sweep.at_edge
    ]
    tuned = records.study.get("tuning") or {}
    lines = [
        f"{some.scores.shape[1]} tuning seeds a rate, so that no interval is given: a difference of a few points "
        "between two rates is within what a seed changes.",
        f"Tuning runs have {tuned.get('steps') or records.study['steps']} steps: with more, low rates come closer.",
        "SGD has momentum 0.9 and no Nesterov step; both optimisers have warm-up, cosine decay and the same weight "
        "decay, which for SGD is part of the gradient.",
        f"At the edge of the rates that were tried: {'; '.join(edge)}."
        if edge
        else "No best rate is at the edge of those tried.",
    ]
    return "\n".join(f"- {line}" for line in lines)


# --- table and figures


def table(one: Comparison) -> Table:
    """Loss × optimiser: the scale at the first step, the best rate, what it gives, how many rates work."""
    rows: dict[str, dict[str, Any]] = {}
    for loss in one.losses:
        row = {
            "loss at step 1": f"{np.median(one.first_values(loss)):.3g}",
            "gradient at step 1": f"{np.median(one.gradient_norms(loss)):.3g}",
        }
        for optimizer in one.optimizers:
            sweep, name = one.sweeps[loss, optimizer], NAMES[optimizer]
            row[f"{name}: best rate"] = f"{sweep.best:g}{' (edge)' if sweep.at_edge else ''}"
            row[f"{name}: Dice"] = number(sweep.best_score)
            row[f"{name}: rates that work"] = (
                f"{sweep.working(sweep.best_score)} of {len(sweep.rates)}"
            )
        rows[loss] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "loss"
    seeds = next(iter(one.sweeps.values())).scores.shape[1]
    caption = (
        f"{one.text} of foreground. Scale: median over {len(one.part.seeds[one.losses[0]])} seeds. Dice: validation, "
        f"at the threshold tuned there, mean over {seeds} tuning seeds. A rate works that reaches {per_cent(WORKS)} "
        "of the best."
    )
    return Table(frame, caption, {loss: one.part.styles[loss]["color"] for loss in one.losses})


def sensitivity(comparisons: list[Comparison]) -> Drawing | Missing:
    """Validation Dice against the rate: a row a loss, a column a fraction, a line an optimiser."""
    losses = list(dict.fromkeys(loss for one in comparisons for loss in one.losses))
    if not losses:
        return Missing("No loss was tuned under every optimiser.")
    figure = _figure(0.9 + 1.35 * len(losses))
    axes = figure.subplots(len(losses), len(comparisons), sharex=True, sharey=True, squeeze=False)
    words = []
    for column, one in enumerate(comparisons):
        for row, loss in enumerate(losses):
            axis, colour = axes[row, column], one.part.styles[loss]["color"]
            for optimizer in one.optimizers:
                sweep = one.sweeps.get((loss, optimizer))
                if sweep is None:
                    continue
                axis.plot(sweep.rates, sweep.mean, color=colour, ls=_LINES[optimizer], lw=1.4)
                for seed in sweep.scores.T:
                    axis.plot(sweep.rates, seed, ".", color=colour, ms=3)
                words.append(f"{loss} at {one.text} {NAMES[optimizer]} best {sweep.best:g}")
            axis.set_title(f"{loss}, {one.text}", pad=3)
            axis.set_xscale("log")
            axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylim(0, 1)
    for axis in axes[-1]:
        axis.set_xlabel("learning rate")
    figure.supylabel("validation Dice, tuned threshold", fontsize="medium")
    handles = [
        Line2D([], [], color="0.2", ls=_LINES[optimizer], label=NAMES[optimizer])
        for optimizer in comparisons[0].optimizers
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    caption = (
        "Validation Dice at the threshold tuned there against the learning rate: the line is the mean over the tuning "
        "seeds, a point a seed; a run that diverged counts 0."
    )
    return Drawing(figure, caption, "; ".join(words) + ".")


def best_against_scale(comparisons: list[Comparison]) -> Drawing:
    """The best rate against the gradient's norm at the first step, one panel a fraction."""
    figure = _figure(3.3)
    axes = figure.subplots(1, len(comparisons), sharey=True, squeeze=False)[0]
    words = []
    for axis, one in zip(axes, comparisons, strict=True):
        for loss in one.losses:
            norm = float(np.median(one.gradient_norms(loss)))
            style = one.part.styles[loss]
            if norm <= 0:  # has no place on a logarithmic axis
                words.append(f"{loss} at {one.text}: no gradient")
                continue
            for optimizer in one.optimizers:
                best = one.sweeps[loss, optimizer].best
                face = style["color"] if optimizer == "adamw" else "none"
                axis.plot(norm, best, style["marker"], ms=8, mew=1.6, mec=style["color"], mfc=face)
                words.append(f"{loss} at {one.text}: norm {norm:.2g}, {NAMES[optimizer]} {best:g}")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(one.text)
        axis.set_xlabel("‖gradient‖ at step 1")
    axes[0].set_ylabel("best learning rate")
    styles = {loss: one.part.styles[loss] for one in comparisons for loss in one.losses}
    handles = [
        *(
            Line2D([], [], ls="", marker=style["marker"], color=style["color"], label=loss)
            for loss, style in styles.items()
        ),
        *(
            Line2D([], [], ls="", marker="o", color="0.2", mfc=face, label=name)
            for name, face in (("AdamW", "0.2"), ("SGD", "none"))
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    caption = (
        "The learning rate with the best validation Dice against the norm of the loss's gradient at the first step: "
        "filled AdamW, hollow SGD. Under SGD a loss that is multiplied by c needs a rate divided by c. A loss whose "
        "first batch gives no gradient is left out."
    )
    return Drawing(figure, caption, "; ".join(words) + ".")
