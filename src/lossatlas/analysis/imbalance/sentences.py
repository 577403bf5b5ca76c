"""Sentences of the report on a study of imbalance, as Markdown. Their wording follows the numbers.

"Wins" is said of a loss that is told apart from every other one; "ahead" of a difference above 0 that is
not shown to be smaller than the smallest effect of interest. No sentence says "better" without a
difference, an interval and n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from lossatlas.analysis.imbalance.checks import (
    Check,
    brief,
    listed,
    precise,
    significant,
    spread,
)
from lossatlas.analysis.imbalance.figures import improvement_over
from lossatlas.analysis.imbalance.predictions import Outcome, judge
from lossatlas.analysis.imbalance.share import explained, gap_to_best
from lossatlas.analysis.imbalance.study import (
    CALIBRATION,
    CONSTANT,
    RULE_NAMES,
    Fraction,
    Imbalance,
    Leader,
)
from lossatlas.analysis.imbalance.tables import order_agreement
from lossatlas.analysis.imbalance.training import WORKS, early_share_interval, sensitivity
from lossatlas.analysis.style import per_cent
from lossatlas.statistics.intervals import number
from lossatlas.statistics.paired import minimum_detectable_effect

#: The loss that differences are told from where there is no other reason.
BASELINE = "ce"
#: A loss has learnt something where its validation Dice, at the best rate, is above this.
LEARNT = 0.1
#: A validation curve is flat where its last quarter adds less than this much Dice.
FLAT = 0.01

#: A logit beyond which a probability is within 10⁻⁶ of 0 or 1.
FAR = 13.8

_RULES = {"argmax": "At ½", "tuned": "At the threshold tuned on validation"}


# ---------------------------------------------------------------- what there is


def completeness(study: Imbalance) -> str:
    """How many of the study's runs are there, and which did not end as planned."""
    runs, asked = len(study.runs), study.asked_runs
    if study.records.missing_runs:
        lines = [
            f"**{runs} of {asked} runs are there.** What follows is preliminary: it is computed from "
            f"those, and predictions and claims that need a missing run are not judged."
        ]
        if study.absent_fractions:
            lines.append(f"Without any run: {_names(study.absent_fractions)}.")
        losses = [loss for loss in study.records.losses if loss not in study.losses]
        if losses:
            lines.append(f"Losses without any run: {_names(losses)}.")
    else:
        lines = [f"All {asked} runs that the study asks for are there."]
    ended = study.diverged
    if len(ended):
        by_loss = ended.groupby("loss", sort=False).size()
        words = [f"`{loss}` {count}" for loss, count in by_loss.items()]
        lines.append(
            f"{len(ended)} of them diverged ({', '.join(words)}); they count with the network that they "
            f"had before."
        )
    return " ".join(lines)


def design(study: Imbalance) -> str:
    """What was run, in a Markdown list."""
    described = study.records.study
    seeds, training = len(described["seeds"]), described.get("training", {})
    lines = [
        f"{_data_sets(study)}. One network, `{described['models'][0]}`; "
        f"{len(study.losses)} losses: {_names(study.losses)}.",
        f"{seeds} paired seed{'s' * (seeds != 1)}: for a seed, initial weights, batches and "
        f"augmentation are the same under every loss. {described['steps']} steps, batches of "
        f"{training.get('batch_size', '?')}.",
    ]
    tuning = described.get("tuning")
    if tuning:
        rates = listed([f"{rate:g}" for rate in tuning["lr"]])
        steps = tuning.get("steps") or described["steps"]
        lines.append(
            f"Learning rate of each loss at each fraction chosen among {rates} by "
            f"{len(tuning['seeds'])} other seed{'s' * (len(tuning['seeds']) != 1)}, {steps} steps each: "
            f"{tuning['rule']}."
        )
    lines.append(
        "Three thresholds: ½; tuned for the largest Dice on the validation split; and what theory gives "
        "(half of the best validation Dice, class weights undone). None has seen the test split."
    )
    lines.append(
        f"Smallest effect of interest, set beforehand: {study.margin:g} of Dice. With {seeds} pairs a "
        f"t-test finds {minimum_detectable_effect(seeds):.2f} standard deviations of the difference "
        f"with 80 % power."
        if seeds > 2
        else f"Smallest effect of interest, set beforehand: {study.margin:g} of Dice."
    )
    return "\n".join(f"- {line}" for line in lines)


# ---------------------------------------------------------------- predictions


_TITLES = {
    "contradicted": "Contradicted",
    "held": "Held",
    "open": "Left open",
    "not judged": "Not judged",
}


def predictions(study: Imbalance) -> str:
    """What became of the predictions, those that the records contradict first."""
    outcomes = judge(study)
    if not outcomes:
        return "The study wrote down no predictions."
    counts = Counter(outcome.outcome for outcome in outcomes)
    wrong, judged = counts["contradicted"], len(outcomes) - counts["not judged"]
    of_all = f"{len(outcomes)} prediction{'s' * (len(outcomes) != 1)}"
    if not judged:
        lead = f"{of_all}, and none could be judged."
    else:
        held, left = counts["held"], counts["not judged"]
        lead = (
            f"The records contradict {wrong or 'none'} of {of_all}, bear out {held or 'none'} and leave "
            f"{counts['open'] or 'none'} open"
        )
        lead += f"; {left} could not be judged." if left else "."
    blocks = [f"**{lead}** They were written down before the study ran."]
    for kind, title in _TITLES.items():
        of_kind = [outcome for outcome in outcomes if outcome.outcome == kind]
        if of_kind:
            blocks.append(f"**{title}**\n\n" + "\n".join(_prediction(o) for o in of_kind))
    return "\n\n".join(blocks)


def _prediction(outcome: Outcome) -> str:
    """One prediction as a list item with its statements."""
    text = f"- [Claim {outcome.claim}](#claim-{outcome.claim.lower()}): “{outcome.text}”"
    if outcome.outcome == "not judged":
        return f"{text} Not judged: {outcome.reason}."
    lines = [
        f"    - {part.statement}: {spread(part.checks) or 'nothing to decide'}. {_found(part.checks)}"
        for part in outcome.parts
    ]
    return "\n".join([text, *lines])


def _found(checks: Sequence[Check]) -> str:
    return "; ".join(f"{check.where}: {check.found}" for check in checks) + "."


# ---------------------------------------------------------------- the answer


def answer(study: Imbalance) -> str:
    """Who wins at ½ and at tuned thresholds, a sentence each with difference, interval and n."""
    return "\n".join(f"- **{title}:** {_wins(study, rule)}." for rule, title in _RULES.items())


def _wins(study: Imbalance, rule: str) -> str:
    """Who wins where, who is never behind, and where the baseline is."""
    leaders = [(at, study.leader(at, rule)) for at in study.fractions]
    compared = [(at, leader) for at, leader in leaders if leader.runner_up is not None]
    if not compared:
        return f"there is one loss only, `{leaders[0][1].loss}`"
    if not any(leader.tested for _, leader in compared):
        return f"too few seeds to say which loss wins; {_baseline(study, compared, rule)}"
    alone = {at.text: leader.loss for at, leader in compared if leader.alone}
    winners = list(dict.fromkeys(alone.values()))
    everywhere = len(alone) == len(leaders)
    if not alone:
        words = ["no loss wins alone at any fraction"]
    elif len(winners) == 1 and everywhere:
        words = [f"`{winners[0]}` wins at every fraction"]
    else:
        words = [
            f"`{loss}` wins at {listed([where for where, each in alone.items() if each == loss])}"
            for loss in winners
        ]
        words += [] if everywhere else ["no loss wins alone at the other fractions"]
    fronts = [{leader.loss, *leader.level} for _, leader in leaders]
    never = [loss for loss in study.losses if all(loss in front for front in fronts)]
    if len(never) == len(study.losses):
        words.append("none is shown to be behind the highest anywhere")
    elif not everywhere:
        words.append(
            f"never shown to be behind the highest: {_names(never)}"
            if never
            else "each is shown to be behind the highest somewhere"
        )
    words.append(_baseline(study, compared, rule))
    return "; ".join(word for word in words if word)


def _baseline(study: Imbalance, leaders: Sequence[tuple[Fraction, Leader]], rule: str) -> str:
    """Where cross-entropy is behind and by how much; by how much it leads where it wins."""
    baseline = study.named(BASELINE)
    there = [(at, leader) for at, leader in leaders if baseline in at.part.losses]
    if baseline is None or not there:
        at, leader = leaders[-1]
        return f"at {at.text} the highest, `{leader.loss}`, is above the second by " + _above(
            study, leader.loss, leader.runner_up or leader.loss, at, rule
        )
    behind = [(at, leader) for at, leader in there if baseline not in (leader.loss, *leader.level)]
    if behind:
        at, leader = max(
            behind,
            key=lambda each: (
                study.mean(each[1].loss, each[0], rule=rule)
                - study.mean(baseline, each[0], rule=rule)
            ),
        )
        most = f", most at {at.text}" if len(behind) > 1 else ""
        return (
            f"`{baseline}` is behind at {listed([at.text for at, _ in behind])}{most}, where "
            f"`{leader.loss}` is above it by {_above(study, leader.loss, baseline, at, rule)}"
        )
    at, leader = there[-1]
    if leader.loss == baseline:
        second = leader.runner_up or baseline
        return (
            f"at {at.text} `{baseline}` is highest, above `{second}` by "
            f"{_above(study, baseline, second, at, rule)}"
        )
    return (
        f"at {at.text} the highest, `{leader.loss}`, is above `{baseline}` by "
        f"{_above(study, leader.loss, baseline, at, rule)}"
    )


def _above(study: Imbalance, loss: str, other: str, at: Fraction, rule: str) -> str:
    difference = study.difference(loss, other, at, rule=rule)
    if difference is not None:
        return difference.text() + _with_foreground(at)
    apart = study.mean(loss, at, rule=rule) - study.mean(other, at, rule=rule)
    return f"{number(apart, True)} (too few seeds in common for an interval)"


def _with_foreground(at: Fraction) -> str:
    """How many of the test images have foreground, where few do."""
    few = at.images_with_foreground < at.images / 4
    return f" ({at.images_with_foreground} of them with foreground)" if few else ""


def asked_again(study: Imbalance) -> str:
    """What its follow-ups say of Dice minus cross-entropy, a line each with a link; empty where there are none."""
    lines = [followup(other, link=True) for other in study.followups()]
    if not any(lines):
        return ""
    return "\n".join(["Asked again under other conditions:", "", *filter(None, lines)])


def followup(study: Imbalance, *, link: bool = False) -> str:
    """Dice minus cross-entropy at every fraction under both rules, for a page that names several studies."""
    ce, dice = study.named(BASELINE), study.named("dice")
    if ce is None or dice is None:
        return ""
    words = []
    for rule in _RULES:
        found = [
            f"{brief(difference)} at {at.text}"
            for at in study.fractions
            if (difference := study.difference(dice, ce, at, rule=rule)) is not None
        ]
        words.append(f"{RULE_NAMES[rule]} {listed(found)}" if found else "")
    told = "; ".join(word for word in words if word)
    described = study.records.study
    name = f"[`{study.name}`]({study.name}.ipynb)" if link else f"`{study.name}`"
    tuning = described.get("tuning")
    steps = (tuning.get("steps") or described["steps"]) if tuning else None
    rates = f"rates tuned with {steps:,}" if steps else "one rate for all"
    return f"- {name}, {described['steps']:,} steps, {rates}: `{dice}` minus `{ce}` is {told}."


def by_fraction(study: Imbalance) -> str:
    """For each fraction who is highest at ½ and tuned, and who is not behind, as a Markdown list."""
    lines = []
    for at in study.fractions:
        words = [
            f"At ½ {_highest(study, at, 'argmax')}.",
            f"Tuned, {_highest(study, at, 'tuned')}.",
        ]
        lines.append(f"- **{at.text}**: {' '.join(words)}")
    return "\n".join(lines)


def _highest(study: Imbalance, at: Fraction, rule: str) -> str:
    leader = study.leader(at, rule)
    text = f"`{leader.loss}` is highest, {study.value(leader.loss, at, rule=rule).text()}"
    others = len(at.part.losses) - 1
    if leader.runner_up is None:
        return text
    if not leader.tested:
        return f"{text}; too few seeds to say which others are behind"
    if not leader.level:
        return f"{text}, and ahead of every other loss"
    if len(leader.equal) == others:
        return f"{text}; all others are shown to be equal to it within {study.margin:g}"
    text += (
        "; no other loss is shown to be behind it"
        if len(leader.level) == others
        else f"; not shown to be behind it: {_names(leader.level)}"
    )
    if leader.equal:
        text += f" (shown to be equal within {study.margin:g}: {_names(leader.equal)})"
    return text


# ---------------------------------------------------------------- what explains it


def threshold(study: Imbalance) -> str:
    """How much of the gaps at ½ is a threshold: cross-entropy to Dice, and all to the highest."""
    ce, dice = study.named(BASELINE), study.named("dice")
    blocks = []
    if ce and dice:
        lines = [
            _share_line(at.text, study, (at, dice, [ce]))
            for at in study.fractions
            if {ce, dice} <= set(at.part.losses)
        ]
        blocks.append(f"From `{ce}` to `{dice}`:\n\n" + "\n".join(lines))
    lines = []
    for at in study.fractions:
        gap = gap_to_best(study, at)
        if gap[2]:
            lines.append(_share_line(f"{at.text}, to `{gap[1]}`", study, gap))
    if lines:
        blocks.append(
            "From all losses to the one that is highest at ½, mean gap:\n\n" + "\n".join(lines)
        )
    return "\n\n".join(blocks)


def collapses(study: Imbalance) -> str:
    """Trainings that came to nothing, and what Dice minus cross-entropy is in the middle of the seeds."""
    cells = [(loss, at) for at in study.fractions for loss in at.part.losses]
    found = {cell: study.collapsed(*cell, "tuned") for cell in cells}
    count = sum(map(len, found.values()))
    blind = {cell: set(study.collapsed(*cell, "argmax")) - set(found[cell]) for cell in cells}
    runs = sum(len(at.part.seeds[loss]) for loss, at in cells)
    if not count:
        return "Every run is better than a constant prediction at its tuned threshold." + _blind(
            study, blind
        )
    by_loss: dict[str, int] = {}
    for (loss, _), seeds in found.items():
        by_loss[loss] = by_loss.get(loss, 0) + len(seeds)
    words = [f"`{loss}` {number_of}" for loss, number_of in by_loss.items() if number_of]
    text = (
        f"{count} of {runs} runs are no better than a constant prediction, even at their tuned threshold "
        f"({listed(words)}): such a training has collapsed or has not begun. A mean over seeds then lies where "
        f"no run does, and its interval is wide.{_blind(study, blind)}"
    )
    ce, dice = study.named(BASELINE), study.named("dice")
    if ce and dice:
        words = []
        for rule, title in RULE_NAMES.items():
            middle = [
                f"{number(float(np.median(difference.per_seed)), True)} at {at.text}"
                for at in study.fractions
                if (difference := study.difference(dice, ce, at, rule=rule)) is not None
            ]
            if middle and rule != "theory":
                words.append(f"{title} {listed(middle)}")
        if words:
            text += (
                f" In the middle of the seeds (median) `{dice}` minus `{ce}` is {'; '.join(words)}."
            )
    return text


def _blind(study: Imbalance, blind: dict[tuple[str, Fraction], set[int]]) -> str:
    """Runs that find nothing at ½ and something at their tuned threshold."""
    count = sum(map(len, blind.values()))
    if not count:
        return ""
    (loss, at), most = max(blind.items(), key=lambda item: len(item[1]))
    tuned = study.per_seed(loss, at, rule="tuned")
    seeds = at.part.seeds[loss]
    found = [float(tuned[seeds.index(seed)]) for seed in most]
    return (
        f" {count} more are no better than that at ½ alone: they order the pixels and leave all of them on one side "
        f"of ½. So do {len(most)} of {len(seeds)} seeds of `{loss}` at {at.text}, with a tuned Dice of "
        f"{number(min(found))} to {number(max(found))}. A mean at ½ is then one of zeros and of runs that work."
    )


def thresholds(study: Imbalance) -> str:
    """Where a tuned threshold is a probability that can hardly be told from 1 or 0."""
    far = []
    for at in study.fractions:
        for loss in at.part.losses:
            logit = study.tuned_logits(loss, at)
            if len(logit) and abs(np.median(logit)) > FAR:
                far.append(f"`{loss}` at {at.text} ({float(np.median(logit)):+.1f})")
    if not far:
        return ""
    return (
        f"A logit of {FAR:g} is a probability of 1 − 10⁻⁶: a map of probabilities in few digits cannot express the "
        f"thresholds of {listed(far)} (median over the seeds). They have to be set on the logits."
    )


def theory(study: Imbalance) -> str:
    """How far theory's threshold is from the tuned one, in test Dice of the same networks."""
    found = {
        (loss, at): difference
        for at in study.fractions
        for loss in at.part.losses
        if (difference := study.difference(loss, loss, at, rule="theory", other_rule="tuned"))
        is not None
    }
    if not found:
        return ""
    near = sum(difference.low > -study.margin for difference in found.values())
    text = (
        f"The threshold that theory gives, with nothing to tune but the best validation Dice, is shown to lose "
        f"less than {study.margin:g} of Dice to the tuned one in {near} of {len(found)} cases (95 % intervals, one "
        f"by one)"
    )
    (loss, at), worst = min(found.items(), key=lambda item: item[1].estimate)
    if worst.high < -study.margin:
        text += f"; it loses most with `{loss}` at {at.text}, {worst.text()}"
    for why in dict.fromkeys(study.without_theory.values()):
        names = [name for name, reason in study.without_theory.items() if reason == why]
        text += f". It is not shown for {_names(names)}: {why}"
    return text + "."


def _share_line(where: str, study: Imbalance, gap: tuple[Fraction, str, Sequence[str]]) -> str:
    found = explained(study, *gap)
    if found is None:
        return f"- {where}: fewer than two seeds in common."
    if found.share is None:
        why = "too uncertain a gap" if found.gap else f"no gap of {study.margin:g} or more"
        return f"- {where}: {why} at ½ ({found.half.text()})."
    word = "whether the threshold explains most of it is open"
    if found.share.low > 0.5:
        word = "the threshold explains most of it"
    elif found.share.high < 0:
        word = "tuned thresholds widen it"
    elif found.share.high < 0.5:
        word = "the threshold explains less than half of it"
    return (
        f"- {where}: {word}, {found.text()} of {found.half.text()}; what is left is "
        f"{brief(found.tuned)}."
    )


def precision_recall(study: Imbalance) -> str:
    """At the rarest fraction: which losses lean to precision and recall at ½, and after tuning."""
    at = study.fractions[-1]
    lean = {
        loss: study.mean(loss, at, "mean_recall") - study.mean(loss, at, "mean_precision")
        for loss in at.part.losses
    }
    if len(lean) < 2:
        return ""
    ends = [max(lean, key=lambda loss: lean[loss]), min(lean, key=lambda loss: lean[loss])]
    words = []
    for loss in ends:
        numbers = [
            f"recall {number(study.mean(loss, at, 'mean_recall', rule))} and precision "
            f"{number(study.mean(loss, at, 'mean_precision', rule))} {RULE_NAMES[rule]}"
            for rule in ("argmax", "tuned")
        ]
        words.append(f"`{loss}` ({'; '.join(numbers)})")
    return f"At {at.text} and ½, recall exceeds precision most for {words[0]} and least for {words[1]}."


def volume(study: Imbalance) -> str:
    """The losses that predict most and least foreground at ½ at the rarest fraction."""
    at = study.fractions[-1]
    means = {loss: study.column_mean(loss, at, "volume_ratio") for loss in at.part.losses}
    means = {loss: mean for loss, mean in means.items() if np.isfinite(mean.estimate)}
    if not means:
        return ""
    words = []
    for loss in dict.fromkeys(
        (max(means, key=lambda x: means[x].estimate), min(means, key=lambda x: means[x].estimate))
    ):
        tuned = study.column_mean(loss, at, "volume_ratio_tuned")
        words.append(f"`{loss}` {means[loss].text()} (tuned: {tuned.text()})")
    return (
        f"At {at.text} the foreground that is predicted at ½ over the true one runs from "
        f"{' down to '.join(words)}."
    )


def calibration(study: Imbalance) -> str:
    """Which loss has the least ECE and NLL at each fraction, and Dice's difference from CE's."""
    lines = []
    empty = False
    for name in ("ece", "nll"):
        best = []
        for at in study.fractions:
            learnt = [
                loss
                for loss in at.part.losses
                if len(study.collapsed(loss, at, "argmax")) <= len(at.part.seeds[loss]) / 2
            ]
            empty |= len(learnt) < len(at.part.losses)
            means = {loss: study.column_mean(loss, at, name).estimate for loss in learnt}
            known = {loss: mean for loss, mean in means.items() if np.isfinite(mean)}
            if known:
                loss = min(known, key=lambda x: known[x])
                best.append(f"`{loss}` at {at.text} ({significant(known[loss])})")
        if best:
            lines.append(f"- Least {CALIBRATION[name]}: {', '.join(best)}.")
    if lines and empty:
        lines.append(
            "- Left out there: losses of which more than half of the runs find nothing at ½. Where the foreground is "
            "rare, a network that always says so is well calibrated."
        )
    worse = [words for at in study.fractions if (words := _worse_than_a_constant(study, at))]
    if worse:
        lines.append(
            "- Mean NLL above that of a network that gives every pixel the foreground's fraction: "
            f"{'; '.join(worse)}."
        )
    ce, dice = study.named(BASELINE), study.named("dice")
    at = study.fractions[-1]
    if ce and dice and {ce, dice} <= set(at.part.losses):
        found = study.column_difference(dice, ce, at, "ece")
        if found is not None:
            lines.append(f"- ECE of `{dice}` minus that of `{ce}` at {at.text}: {precise(found)}.")
    return "\n".join(lines)


def _worse_than_a_constant(study: Imbalance, at: Fraction) -> str:
    """The losses whose probabilities are worth less than the fraction itself: ``at 1 % `focal```, or ``every loss``."""
    constant = CONSTANT["nll"](at.value)
    losses = at.part.losses
    above = [x for x in losses if study.column_mean(x, at, "nll").estimate > constant]
    if not above:
        return ""
    named = listed([f"`{loss}`" for loss in above])
    return f"at {at.text} {named if len(above) < len(losses) else 'every loss'}"


# ---------------------------------------------------------------- training


def rates(study: Imbalance) -> str:
    """What the tuning stage says: how wide the range of rates is, and whether the grid was."""
    found = {
        (loss, at): each
        for at in study.fractions
        for loss in study.losses
        if (each := sensitivity(study, loss, at)) is not None
    }
    if not found:
        return "The study tuned no learning rate."
    chosen = [each for each in found.values() if each.chosen is not None]
    edge = [each for each in chosen if each.at_edge]
    tried = next(iter(found.values())).rates
    lines = [
        f"Of {len(tried)} rates the lowest or the highest was chosen in {len(edge)} of {len(chosen)} "
        f"cases" + (": a better one may lie outside." if edge else ": the grid was wide enough.")
    ]
    learnt = {key: each for key, each in found.items() if np.nanmax(each.mean) > LEARNT}
    widths = {
        loss: float(
            np.mean([each.working().mean() for (name, _), each in learnt.items() if name == loss])
        )
        for loss in study.losses
        if any(name == loss for name, _ in learnt)
    }
    if len(learnt) < len(found):
        nothing = [f"`{loss}` at {at.text}" for loss, at in found if (loss, at) not in learnt]
        lines.append(f"At no rate a validation Dice above {LEARNT:g}: {listed(nothing)}.")
    if len(set(widths.values())) > 1:
        wide, narrow = max(widths, key=lambda x: widths[x]), min(widths, key=lambda x: widths[x])
        lines.append(
            f"On average over the fractions, {widths[wide]:.1f} rates of {len(tried)} reach "
            f"{per_cent(WORKS)} of the loss's best with `{wide}`, the least sensitive, and "
            f"{widths[narrow]:.1f} with `{narrow}`, the most"
            + (", those cases left out." if len(learnt) < len(found) else ".")
        )
    ended = sum(each.diverged for each in found.values())
    lines.append(
        f"{ended} tuning run{'s' * (ended != 1)} diverged." if ended else "No tuning run diverged."
    )
    other = _chosen_at_half(study)
    if other is not None:
        lines.append(
            f"Validation at ½ would have chosen another rate in {other[0]} of {other[1]} cases."
        )
    return " ".join(lines)


def _chosen_at_half(study: Imbalance) -> tuple[int, int] | None:
    """In how many cases validation at ½ ranks another rate first, and of how many."""
    table = study.records.tuning
    if table is None or (table.status == "missing").any():
        return None
    columns = ["val_foreground_dice", "val_foreground_dice_tuned"]
    table = table.assign(
        **{c: table[c].where(~table.status.str.startswith("diverged"), 0.0) for c in columns}
    )
    means = table.groupby(["dataset", "loss", "optimizer", "lr"])[columns].mean()
    by_case = means.groupby(["dataset", "loss"])
    first = by_case[columns[0]].idxmax() != by_case[columns[1]].idxmax()
    return int(first.sum()), len(first)


def training(study: Imbalance) -> str:
    """Whether validation had flattened by the last step."""
    rising, dead = [], 0
    for at in study.fractions:
        for loss in at.part.losses:
            curve = at.part.curves[at.part.curves.loss == loss].dropna(subset=["val_mean_dice"])
            mean = curve.groupby("step").val_mean_dice.mean()
            if len(mean) < 2:
                continue
            if mean.iloc[-1] < max(LEARNT, at.part.constant_dice + study.margin):
                dead += 1
                continue
            before = mean[mean.index <= 0.8 * mean.index[-1]]
            if len(before):
                rising.append(
                    (float(mean.iloc[-1] - before.iloc[-1]), loss, at.text, before.index[-1])
                )
    hardly = (
        f"{dead} cases had hardly begun: validation Dice at ½ below {LEARNT:g} at the end"
        if dead
        else ""
    )
    if not rising:
        return (
            hardly + "."
            if dead
            else ("The runs were not validated often enough to see whether they had flattened.")
        )
    flat = [each for each in rising if each[0] < FLAT]
    most = max(rising, key=lambda each: each[0])
    text = (
        f"From step {most[3]} to the last, under a rate that falls to 0, validation Dice at ½ rose by less than "
        f"{FLAT:g} in {len(flat)} of {len(rising)} cases"
    )
    if len(flat) < len(rising):
        text += (
            f"; it rose most, by {number(most[0])}, with `{most[1]}` at {most[2]}. There the comparison "
            f"is also one of speed"
        )
    return f"{text}. {hardly}." if dead else f"{text}."


def gradient(study: Imbalance) -> str:
    """Early foreground share of cross-entropy and Dice at the largest and smallest fraction."""
    words = []
    for name in (BASELINE, "dice"):
        loss = study.named(name)
        if loss is None:
            continue
        values = [
            f"{share.text()} at {at.text}"
            for at in dict.fromkeys((study.fractions[0], study.fractions[-1]))
            if np.isfinite((share := early_share_interval(study, loss, at)).estimate)
        ]
        if values:
            words.append(f"under `{loss}` {' and '.join(values)}")
    if not words:
        return "The foreground's share of the gradient was not measured."
    return (
        f"When least is learnt (each seed's first measured batch with foreground, in the first tenth of "
        f"the steps), the foreground's share of the gradient is {', '.join(words)}."
    )


# ---------------------------------------------------------------- how often, and how equal


def improvement(study: Imbalance) -> str:
    """How often the loss that improves on the baseline most does so, at ½ and tuned."""
    baseline = study.named(BASELINE)
    if baseline is None:
        return ""
    sentences = []
    for rule in ("argmax", "tuned"):
        found = {
            loss: each
            for loss in study.losses
            if loss != baseline
            and (each := improvement_over(study, loss, baseline, rule)) is not None
        }
        if not found:
            continue
        best = max(found, key=lambda loss: found[loss].estimate)
        first = [loss for loss in found if found[loss].estimate == found[best].estimate]
        apart = [loss for loss, each in found.items() if each.low > 0.5]
        text = (
            f"{_RULES[rule]}, a run of {_names(first)} scores higher than one of `{baseline}` with probability "
            f"{found[best].text()}, the most of all losses"
        )
        if (
            len(study.fractions) == 1
        ):  # few pairs: the bootstrap's interval is too narrow to conclude from
            sentences.append(f"{text} ({found[best].seeds} pairs, too few to conclude from).")
            continue
        sentences.append(
            f"{text}; the interval lies above ½ for {_names(apart)}."
            if apart
            else f"{text}; no loss's interval lies above ½."
        )
    return " ".join(sentences)


def agreement(study: Imbalance) -> str:
    """Whether the order of the losses at the largest fraction says what it is at the smallest."""
    words = []
    for rule, title in _RULES.items():
        found = order_agreement(study, 0, len(study.fractions) - 1, rule)
        if found is not None:
            words.append(
                f"{title}, Kendall's τ between the orders of {found.losses} losses at "
                f"{study.fractions[0].text} and at {study.fractions[-1].text} is {number(found.tau)} "
                f"[{number(found.low)}, {number(found.high)}] (Spearman's ρ {number(found.rho)}), n = {found.seeds} "
                f"seeds; between two halves of a fraction's own seeds it is {number(found.ceiling)}."
            )
    return " ".join(words)


def equality(study: Imbalance) -> str:
    """At how many fractions tuned losses are shown to be equal within the smallest effect."""
    leaders = [(at, study.leader(at, "tuned")) for at in study.fractions]
    others = [(at, leader, len(at.part.losses) - 1) for at, leader in leaders]
    pairs = sum(count for *_, count in others)
    if not pairs:
        return ""
    equal = sum(len(leader.equal) for _, leader in leaders)
    behind = sum(count - len(leader.level) for _, leader, count in others)
    everywhere = [at.text for at, leader, count in others if len(leader.equal) == count]
    text = (
        f"At tuned thresholds, of {pairs} differences from the highest loss {equal} are shown to be "
        f"smaller than {study.margin:g} (two one-sided tests, Holm), {behind} to be above 0 and not "
        f"smaller than that, and {pairs - equal - behind} are open."
    )
    if everywhere:
        text += f" All losses are equal within {study.margin:g} at {listed(everywhere)}."
    return text


# ---------------------------------------------------------------- limits


def limits(study: Imbalance) -> str:
    """What the study cannot say, from its own design, as a Markdown list."""
    described = study.records.study
    rarest = study.fractions[-1]
    steps = described["steps"]
    lines = [
        f"One small network ({_network(study)}) on one kind of synthetic canvas, {steps} steps: the order of the "
        f"losses may be another on other images, with other networks and after more steps.",
        f"At {rarest.text} {rarest.images_with_foreground} of {rarest.images} test images have any "
        f"foreground, {_foreground_pixels(rarest)} pixels in all: the Dice there rests on those.",
        "Intervals cover other seeds and other test images of the same kind, not other training sets: "
        "all seeds share one.",
        "A seed has the same initial weights at every fraction: what befalls it may befall it at several, so "
        "that the fractions are not independent of each other.",
        "The highest loss is chosen by the same runs that show its lead, which flatters it a little.",
        "Calibration, volume ratio and rates are judged over the seeds alone, with the test set as "
        "given.",
    ]
    seeds = len(described["seeds"])
    if seeds < 8:
        lines.append(f"{seeds} seed{'s' * (seeds != 1)}: too few to see small differences.")
    tuning = described.get("tuning")
    if tuning:
        names = {"adamw": "AdamW", "sgd": "gradient descent with momentum"}
        optimizers = listed([names.get(name, name) for name in tuning["optimizer"]])
        lines.append(f"Optimiser: {optimizers} only.")
        if tuning.get("steps") and tuning["steps"] != steps:
            lines.append(
                f"Rates were chosen by runs of {tuning['steps']} steps and used for {steps}."
            )
        found = [sensitivity(study, loss, at) for at in study.fractions for loss in study.losses]
        edge = sum(each is not None and each.at_edge for each in found)
        if edge:
            lines.append(
                f"In {edge} of {len(found)} cases the rate is the lowest or the highest that was tried: another may "
                f"be better, for the losses that are behind too."
            )
    else:
        rates = sorted({float(rate) for rate in study.runs.lr.dropna()})
        lines.append(
            f"No rate was tuned: all losses have {listed([f'{rate:g}' for rate in rates])}, which may suit one better."
        )
    if study.records.missing_runs:
        lines.append(f"{study.records.missing_runs} of {study.asked_runs} runs are missing.")
    return "\n".join(f"- {line}" for line in lines)


def _data_sets(study: Imbalance) -> str:
    fractions = listed([at.text for at in study.fractions])
    if len(study.fractions) == 1:
        return f"One data set, with {fractions} of foreground"
    return f"{len(study.fractions)} data sets that differ in the foreground's part of the pixels: {fractions}"


def _network(study: Imbalance) -> str:
    """The network with its size: ``unet, 8,169 parameters``."""
    count = study.runs.parameters.median() if "parameters" in study.runs else np.nan
    name = study.records.study["models"][0]
    label = name["label"] if isinstance(name, dict) else name
    return f"`{label}`" + (f", {count:,.0f} parameters" if np.isfinite(count) else "")


def _foreground_pixels(at: Fraction) -> int:
    counts = next(iter(at.part.counts.values()))[0][:, at.part.foreground]
    return int(counts[..., [0, 2]].sum())


def _names(labels: Iterable[str]) -> str:
    return listed([f"`{label}`" for label in labels])
