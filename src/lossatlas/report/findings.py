"""Sentences that the records support, as Markdown: every number in them is computed here.

A sentence gives a difference, its interval and its n; none calls a loss better without them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.report.records import Part, Records
from lossatlas.report.scores import LEVEL, Scores
from lossatlas.report.style import per_cent
from lossatlas.statistics.intervals import MIN_SEEDS, number


def baseline(part: Part) -> str:
    """The loss that the others are compared with: cross-entropy, or the first where it was not trained."""
    return "ce" if "ce" in part.losses else part.losses[0]


def part_findings(scores: Scores) -> str:
    """What one model on one data set shows, as a Markdown list; it compares losses only where seeds are enough."""
    sentences = [too_few(scores) or leader(scores), *constant(scores)]
    if not too_few(scores):
        sentences += [*separating_classes(scores), precision_recall(scores)]
    sentences += stopped(scores.part)
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def leader(scores: Scores) -> str:
    """Which loss has the highest mean, its difference from the baseline, and which are not significantly lower."""
    part = scores.part
    first, base = scores.leader(), baseline(part)
    n = f"{len(part.seeds[first])} seeds, {len(part.image_ids)} test images"
    text = f"**`{first}` has the highest mean Dice** ({n})"
    difference = scores.difference(first, base) if first != base else None
    if difference is not None:
        text += f"; over `{base}` the paired difference is {difference.text(n=False)}"
        if difference.low <= 0:
            text += ", which includes zero"
    level = [loss for loss in scores.level_with_leader() if loss != first]
    if level:
        text += f". Not significantly lower (paired, after Holm's correction): {_names(level)}"
    elif len(part.losses) > 1:
        text += ". Every other loss is significantly lower (paired, after Holm's correction)"
    return text + "."


def too_few(scores: Scores) -> str:
    """Why no loss of a part is called better than another: a sentence, or nothing where there are seeds enough."""
    least = min(len(seeds) for seeds in scores.part.seeds.values())
    if least >= MIN_SEEDS:
        return ""
    return (
        f"Too few trainings to compare losses: {least} seed{'s' * (least != 1)} a loss, at least {MIN_SEEDS} are "
        "needed. The table shows what these networks do, and says nothing of another training."
    )


def constant(scores: Scores) -> list[str]:
    """For each loss that does not exceed the best constant prediction: so, and what its networks predict."""
    part = scores.part
    sentences = []
    for loss in part.losses:
        interval = scores.interval(loss)
        lowest = interval.low if np.isfinite(interval.low) else interval.estimate
        if lowest > part.constant_dice:
            continue
        above = interval.estimate > part.constant_dice
        how = "is not significantly above" if above else "does not exceed"
        sentences.append(
            f"`{loss}` {how} the best constant prediction ({number(part.constant_dice)}). {symptoms(part, loss)}"
        )
    if not sentences:
        sentences.append(
            f"Every loss lies above the best constant prediction ({number(part.constant_dice)})."
        )
    return sentences


def symptoms(part: Part, loss: str) -> str:
    """What the networks of a loss that did not learn predict."""
    pooled = part.counts[loss].sum(1).astype(float)[:, part.foreground]  # (S, C, 3)
    total = max(part.counts[loss][:, :, :, [0, 2]].sum() / len(part.counts[loss]), 1.0)
    predicted, truth = (
        per_cent(pooled[..., kinds].sum((1, 2)).mean() / total) for kinds in ([0, 1], [0, 2])
    )
    never = int((pooled[..., [0, 1]].sum(-1) == 0).all(0).sum())
    text = f"It predicts {predicted} of the pixels as foreground, and the truth has {truth}."
    if never:
        text += f" It never predicts {never} of {len(part.foreground)} foreground classes."
    return text


def separating_classes(scores: Scores) -> list[str]:
    """The class on which the losses' mean Dice differs most, and the rarer half as a whole."""
    part = scores.part
    if len(part.losses) < 2 or len(part.foreground) < 2:
        return []
    dice = np.array([scores.class_means(loss) for loss in part.losses])  # (L, C)
    order = [c for c in part.by_rarity if not np.isnan(dice[:, c]).any()]
    if not order:
        return []
    c = max(order, key=lambda c: np.ptp(dice[:, c]))
    low, high = int(dice[:, c].argmin()), int(dice[:, c].argmax())
    sentences = [
        f"The losses differ most on class {part.classes[c]} ({per_cent(part.fractions[c])} of the pixels): "
        f"{number(dice[low, c])} under `{part.losses[low]}`, {number(dice[high, c])} under `{part.losses[high]}`."
    ]
    halves = order[: -(-len(order) // 2)], order[-(-len(order) // 2) :]
    if all(halves):
        frequent, rare = (np.ptp(dice[:, half].mean(1)) for half in halves)
        sentences.append(
            f"Between the losses, the mean Dice differs by up to {number(frequent)} on the {len(halves[0])} more "
            f"frequent classes and by up to {number(rare)} on the {len(halves[1])} rarer ones."
        )
    return sentences


def precision_recall(scores: Scores) -> str:
    """The losses that lean most to recall and most to precision."""
    part = scores.part
    if len(part.losses) < 2:
        return ""
    recall = {loss: scores.mean(loss, "mean_recall") for loss in part.losses}
    precision = {loss: scores.mean(loss, "mean_precision") for loss in part.losses}
    lean = (pd.Series(recall) - pd.Series(precision)).dropna()
    if len(lean) < 2:
        return ""
    words = [
        f"`{loss}` (recall {number(recall[loss])}, precision {number(precision[loss])})"
        for loss in map(str, (lean.idxmax(), lean.idxmin()))
    ]
    return f"Of recall and precision, recall counts most for {words[0]} and least for {words[1]}."


def stopped(part: Part) -> list[str]:
    """Runs that ended before their last step."""
    ended = part.runs[part.runs.status != "completed"]
    return [
        f"The run of `{run.loss}` with seed {run.seed} was not completed: {run.status}."
        for run in ended.itertuples()
    ]


def heading(part: Part) -> str:
    """The heading of a part's section, Markdown level 2."""
    return f"## {part.model.replace('_', ' ')} on {part.dataset}: what each loss makes of it"


def design(records: Records) -> str:
    """What was run, in a Markdown list."""
    study = records.study
    training: dict[str, Any] = study.get("training", {})
    seeds = len(study["seeds"])
    lines = [
        f"Data: {_names(study['datasets'])}; models: {_names(study['models'])}.",
        f"Losses: {_names(records.losses)}.",
        f"{seeds} seed{'s' if seeds != 1 else ''} for each, {study['steps']} steps. For a seed, "
        f"the initial weights, the order of the batches and the augmentation are the same under "
        f"every loss.",
    ]
    if records.tuning is None and {"batch_size", "lr"} <= set(training):
        lines.append(
            f"AdamW with a learning rate of {training['lr']:g} for every loss, "
            f"batches of {training['batch_size']}."
        )
    for part in records.parts:
        if part.model == records.parts[0].model:
            foreground = part.fractions[part.foreground]
            span = (
                f"one class of interest, {per_cent(foreground.max())}"
                if len(foreground) == 1
                else f"{len(foreground)} classes of interest, from {per_cent(foreground.max())} down to "
                f"{per_cent(foreground.min())}"
            )
            lines.append(
                f"`{part.dataset}`: {len(part.image_ids)} test images, {span} of the test pixels."
            )
    if records.missing_runs:
        lines.append(
            f"**{records.missing_runs} of the study's runs are missing**; what follows is from the "
            f"{len(records.runs)} that finished."
        )
    return "\n".join(f"- {line}" for line in lines)


def answer(several: Sequence[Scores]) -> str:
    """The study's answer in a sentence, then for each model and data set, as Markdown."""
    compared = [scores for scores in several if not too_few(scores)]
    if not compared:
        return f"**Answer: none yet.** {too_few(several[0])}"
    parts = [scores.part for scores in compared]
    base = _names(list(dict.fromkeys(map(baseline, parts))))
    everywhere, somewhere = ahead(compared)
    places = (
        "each network"
        if len({part.dataset for part in parts}) == 1
        else "each network and data set"
    )
    text = f"no loss is ahead of {base} with {places}"
    if everywhere:
        text = f"{_names(everywhere)} {_are(everywhere)} ahead of {base} with {places}"
    if somewhere:
        text += f"; {_names(somewhere)} {_are(somewhere)} ahead with some, not with all"
    if len(parts) == 1:
        text = text.replace(places, parts[0].title)
    lines = [
        f"**Answer: {text}.** Ahead: the {per_cent(LEVEL)} interval of the paired difference of test Dice "
        "lies above zero. Open: it includes zero.\n"
    ]
    for scores in several:
        told = [f"{how}: {_names(losses)}" for how, losses in standing(scores).items() if losses]
        lines.append(f"- With {scores.part.title}: {too_few(scores) or '; '.join(told) + '.'}")
    return "\n".join(lines)


def next_step(several: Sequence[Scores]) -> str:
    """What a reader does with the answer, in a sentence."""
    compared = [scores for scores in several if not too_few(scores)]
    if not compared:
        return f"Train at least {MIN_SEEDS} seeds of each loss before you choose one."
    base, (everywhere, somewhere) = baseline(compared[0].part), ahead(compared)
    rivals = _names(everywhere + somewhere) if everywhere + somewhere else "another loss"
    return f"Compare `{base}` with {rivals} on your own data, over several seeds: `lossatlas compare my/folder`."


def ahead(several: Sequence[Scores]) -> tuple[list[str], list[str]]:
    """The losses that are ahead of the baseline in every part, and those that are in some."""
    found = [standing(scores)["ahead"] for scores in several]
    either = list(dict.fromkeys(loss for losses in found for loss in losses))
    everywhere = [loss for loss in either if all(loss in losses for losses in found)]
    return everywhere, [loss for loss in either if loss not in everywhere]


def standing(scores: Scores) -> dict[str, list[str]]:
    """The losses that are ``ahead`` of the baseline, ``behind`` it, or ``open``, by their paired differences."""
    part = scores.part
    found: dict[str, list[str]] = {"ahead": [], "behind": [], "open": []}
    for loss in part.losses:
        if loss == baseline(part):
            continue
        gap = scores.difference(loss, baseline(part))
        how = "ahead" if gap and gap.low > 0 else "behind" if gap and gap.high < 0 else "open"
        found[how].append(loss)
    return found


def limits(records: Records, several: Sequence[Scores]) -> str:
    """What the study cannot say, from its own design, as a Markdown list."""
    study = records.study
    decision = (
        "the sign of the logit"
        if set(study["mode"].values()) == {"binary"}
        else ("the class with the largest logit")
    )
    lines = [
        several[0].meaning().removeprefix("Brackets: "),
        f"{study['steps']} steps measure how fast a loss learns as much as where it ends.",
        f"Unless a threshold is named, the prediction is {decision}.",
    ]
    if records.tuning is None:
        lines.append(
            "One learning rate for all losses: a loss may do otherwise at its own best one."
        )
    part = several[0].part
    if len(part.losses) > 2 and not too_few(several[0]):
        lines.append(
            "Each interval stands alone: of many losses, one may be ahead by chance. The marks in the table are "
            "corrected for their number."
        )
    rare = [(c, images) for c, images in _images_with(part) if images < 10]
    if rare:
        c, images = rare[-1]
        lines.append(
            f"{len(rare)} of {len(part.foreground)} classes are in fewer than 10 test images ({part.classes[c]} in "
            f"{images}): their Dice rests on those."
        )
    return "\n".join(f"- {line}" for line in lines)


def provenance(records: Records) -> str:
    """Where the numbers come from: code, machine, time and the command, as Markdown."""
    source = records.study["provenance"]
    hardware = source.get("hardware", {})
    packages = source.get("packages", {})
    lines = [f"- Code: commit {_commit(source)}."]
    if versions := _versions(records):
        lines.append(f"- Versions of the components: {versions}.")
    again = source.get("evaluated_again")
    if again:
        lines.append(
            f"- {again['runs']} of {len(records.runs)} trained networks were re-evaluated, at commit "
            f"{_commit(again)}, the last on {again['utc']}; none was retrained."
        )
    if source.get("outdated_runs"):
        names = [f"{name} ({n})" for name, n in source.get("outdated_components", {}).items()]
        what = f"; by component: {', '.join(names)}" if names else ""
        judged = set(source.get("outdated_components", {})) == {"evaluation"}
        again_by = "evaluate" if judged else "run --stale"
        lines.append(
            f"- **{source['outdated_runs']} of {len(records.runs)} runs were made with older versions of their code**"
            f"{what}. `lossatlas {again_by} {records.name}` brings them up to date."
        )
    if hardware:
        device = hardware.get("gpu") or hardware.get("cpu") or hardware.get("machine")
        lines.append(
            f"- Machine: {device}, {hardware.get('cores')} cores, {hardware.get('threads')} "
            f"thread(s) a run, device `{hardware.get('device')}`."
        )
    if packages:
        lines.append("- Packages: " + ", ".join(f"{k} {v}" for k, v in packages.items()) + ".")
    lines.append(f"- Last run begun: {source.get('created_utc', 'unknown')}.")
    lines.append(
        f"- {len(records.runs)} runs, {records.runs.train_s.sum() / 60:.1f} minutes of training, "
        f"{records.runs.wall_s.sum() / 60:.1f} minutes with evaluation."
    )
    lines.append(f"- Records: `results/{records.name}/`, made by `{records.study['command']}`.")
    return "\n".join(lines)


def _commit(source: dict[str, Any]) -> str:
    state = " with uncommitted changes" if source.get("dirty") else ""
    return f"`{source.get('commit') or 'unknown'}`{state}"


def _versions(records: Records) -> str:
    """``data 1, evaluation 1, …``; empty where the records were made before components had versions."""
    found: dict[str, set[Any]] = {}
    for code in records.runs.get("code", pd.Series(dtype=str)):
        for kind, version in json.loads(code).items():
            found.setdefault(kind, set()).add(version)
    if any(isinstance(version, str) for versions in found.values() for version in versions):
        return ""
    return ", ".join(f"{kind} {', '.join(map(str, sorted(v)))}" for kind, v in found.items())


def _images_with(part: Part) -> list[tuple[int, int]]:
    """Each foreground class with the number of test images that have it, rarest last."""
    counts = next(iter(part.counts.values()))[0]
    present = (counts[..., [0, 2]].sum(-1) > 0).sum(0)
    return [(c, int(present[c])) for c in part.by_rarity]


def _names(labels: Sequence[str]) -> str:
    """``a``, ``b`` and ``c`` as Markdown code."""
    words = [f"`{label}`" for label in labels]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _are(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"
