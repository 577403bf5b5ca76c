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
from lossatlas.report.scores import Scores
from lossatlas.report.style import per_cent
from lossatlas.statistics.intervals import MIN_SEEDS, Interval, number


def part_findings(scores: Scores, baseline: str = "ce") -> str:
    """What one model on one data set shows, as a Markdown list."""
    sentences = [
        leader(scores, baseline),
        *constant(scores),
        separating_classes(scores),
        precision_recall(scores),
        *stopped(scores.part),
    ]
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def leader(scores: Scores, baseline: str = "ce") -> str:
    """Which loss has the highest mean, its difference from `baseline`, and which are not significantly lower."""
    part = scores.part
    if few := too_few(scores):
        return few
    first = scores.leader()
    interval = scores.interval(first)
    text = f"**`{first}` has the highest mean Dice, {interval.text()}** ({_n(interval, part)})"
    if first != baseline and baseline in part.losses:
        difference = scores.difference(first, baseline)
        if difference is not None:
            text += f"; over `{baseline}` the paired difference is {difference.text(n=False)}"
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
        f"**Too few trainings to compare losses**: {least} seed{'s' * (least != 1)} a loss, at least {MIN_SEEDS} "
        "are needed. The table shows what these networks do, and says nothing of another training"
    ) + "."


def constant(scores: Scores) -> list[str]:
    """For each loss that does not exceed the best constant prediction: so, and what the runs show."""
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
            f"`{loss}` {how} the best constant prediction ({number(part.constant_dice)}): its "
            f"mean Dice is {interval.text()}. {symptoms(part, loss)}"
        )
    if not sentences:
        sentences.append(
            f"Every loss lies above the best constant prediction ({number(part.constant_dice)})."
        )
    return sentences


def symptoms(part: Part, loss: str) -> str:
    """What the records of a loss that did not learn show: predictions, loss and gradient."""
    pooled = part.counts[loss].sum(1).astype(float)[:, part.foreground]  # (S, C, 3)
    total = max(part.counts[loss][:, :, :, [0, 2]].sum() / len(part.counts[loss]), 1.0)
    predicted = pooled[..., [0, 1]].sum((1, 2)).mean() / total
    truth = pooled[..., [0, 2]].sum((1, 2)).mean() / total
    never = int((pooled[..., [0, 1]].sum(-1) == 0).all(0).sum())
    text = (
        f"The records show: {per_cent(predicted)} of the pixels predicted as foreground, where the "
        f"truth has {per_cent(truth)}, and {never} of {len(part.foreground)} foreground classes "
        f"never predicted"
    )
    curves = part.curves[part.curves.loss == loss]
    if not curves.empty:
        steps = int(curves.step.max())
        window = max(1, steps // 20)
        early = curves[curves.step <= window]
        late = curves[curves.step > steps - window]
        text += (
            f"; over {steps} steps the training loss went from {early.loss_value.mean():.3g} to "
            f"{late.loss_value.mean():.3g} and the norm of the gradient from "
            f"{early.grad_norm.mean():.2g} to {late.grad_norm.mean():.2g}"
        )
    return text + "." + channels(part, loss)


def channels(part: Part, loss: str) -> str:
    """What the foreground classes' channels say on their own pixels and elsewhere, and what that means."""
    rows = part.per_class[
        (part.per_class.loss == loss) & part.per_class.class_index.isin(part.foreground)
    ]
    if "logit_own" not in rows or len(part.foreground) < 2:
        return ""
    own, other, background = (
        rows[name].mean() for name in ("logit_own", "logit_other", "logit_background")
    )
    text = (
        f" The foreground classes' channels have a mean logit of {number(own)} on their own pixels, "
        f"{number(other)} on those of the other foreground classes"
    )
    text += "." if np.isnan(background) else f" and {number(background)} on the background."
    apart = abs(own - other) > 0.1 * max(abs(own - background), abs(own), 1e-9)
    if apart or np.isnan(background) or own <= background:
        return text
    text += " So they find the foreground and do not tell its classes apart"
    name = part.runs[part.runs.loss == loss].loss_name.iloc[0]
    if name == "lovasz_hinge" and abs(own) < 0.1:
        text += (
            ": they rest at logit 0, the kink of the hinge. For a class that covers less than half of the pixels "
            "which the network cannot yet tell apart, 0 is the best constant logit, with a loss of exactly 1, and "
            "every small step away from it costs"
        )
    return text + "."


def separating_classes(scores: Scores, count: int = 2) -> str:
    """The classes on which the losses' mean Dice differs most, and the rarer half as a whole."""
    part = scores.part
    if len(part.losses) < 2 or len(part.foreground) < 2:
        return ""
    dice = np.array([scores.class_means(loss) for loss in part.losses])  # (L, C)
    known = [c for c in part.foreground if not np.isnan(dice[:, c]).any()]
    spread = {c: np.ptp(dice[:, c]) for c in known}
    words = []
    for c in sorted(known, key=lambda c: (-spread[c], c))[:count]:
        low, high = int(dice[:, c].argmin()), int(dice[:, c].argmax())
        words.append(
            f"class {part.classes[c]} ({per_cent(part.fractions[c])} of the pixels; "
            f"{number(dice[low, c])} under `{part.losses[low]}`, "
            f"{number(dice[high, c])} under `{part.losses[high]}`)"
        )
    if not words:
        return ""
    order = [c for c in part.by_rarity if c in known]
    halves = order[: -(-len(order) // 2)], order[-(-len(order) // 2) :]
    text = f"The losses differ most on {' and '.join(words)}"
    if all(halves):
        frequent, rare = (np.ptp(dice[:, half].mean(1)) for half in halves)
        text += (
            f". Between the losses, the mean Dice differs by up to {number(frequent)} on the "
            f"{len(halves[0])} more frequent classes and by up to {number(rare)} on the "
            f"{len(halves[1])} rarer ones"
        )
    return text + "."


def precision_recall(scores: Scores) -> str:
    """The losses that lean most to recall and most to precision."""
    part = scores.part
    if len(part.losses) < 2:
        return ""
    recall = {loss: scores.mean(loss, "mean_recall") for loss in part.losses}
    precision = {loss: scores.mean(loss, "mean_precision") for loss in part.losses}
    lean = {loss: recall[loss] - precision[loss] for loss in part.losses}
    lean = {loss: value for loss, value in lean.items() if np.isfinite(value)}
    if len(lean) < 2:
        return ""
    ends = [max(lean, key=lambda loss: lean[loss]), min(lean, key=lambda loss: lean[loss])]
    words = [
        f"`{loss}` (recall {number(recall[loss])}, precision {number(precision[loss])})"
        for loss in ends
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


def question(records: Records) -> str:
    """The study's question in bold."""
    return f"**{records.study['question'].strip()}**"


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
    if {"batch_size", "lr"} <= set(training):
        lines.append(
            f"AdamW with a learning rate of {training['lr']:g} for every loss, "
            f"batches of {training['batch_size']}."
        )
    for part in records.parts:
        if part.model == records.parts[0].model:
            foreground = part.fractions[part.foreground]
            lines.append(
                f"`{part.dataset}`: {len(part.image_ids)} test images, {len(part.foreground)} "
                f"classes of interest, from {per_cent(foreground.max())} down to "
                f"{per_cent(foreground.min())} of the test pixels."
            )
    if records.missing_runs:
        lines.append(
            f"**{records.missing_runs} of the study's runs are missing**; what follows is from the "
            f"{len(records.runs)} that finished."
        )
    return "\n".join(f"- {line}" for line in lines)


def answer(several: Sequence[Scores], baseline: str = "ce") -> str:
    """The study's answer: who leads where, and whether that agrees, as Markdown."""
    paragraphs = []
    leaders = {}
    for scores in several:
        part = scores.part
        if few := too_few(scores):
            paragraphs.append(f"With {part.title}: {few}")
            continue
        first = scores.leader()
        leaders[part.title] = first
        means = [scores.mean(loss) for loss in part.losses]
        text = (
            f"With {part.title} the losses span a mean Dice from {number(np.nanmin(means))} to "
            f"{number(np.nanmax(means))}, `{first}` highest"
        )
        if baseline in part.losses and first != baseline:
            difference = scores.difference(first, baseline)
            if difference is not None:
                text += f" (over `{baseline}`: {difference.text()})"
        paragraphs.append(text + ".")
    several = [each for each in several if not too_few(each)]
    if len(several) > 1:
        level = [set(s.level_with_leader()) for s in several]
        shared = [loss for loss in several[0].part.losses if all(loss in s for s in level)]
        if shared:
            paragraphs.append(
                f"Highest, or not significantly lower than the highest, everywhere: {_names(shared)}."
            )
        else:
            paragraphs.append("Every loss is significantly lower than the highest one somewhere.")
    return " ".join(paragraphs)


def limits(records: Records, several: Sequence[Scores]) -> str:
    """What the study cannot say, from its own design, as a Markdown list."""
    study = records.study
    decision = (
        "the sign of the logit"
        if set(study["mode"].values()) == {"binary"}
        else ("the class with the largest logit")
    )
    lines = [
        several[0].meaning(),
        f"{study['steps']} steps measure how fast a loss learns as much as where it ends.",
        "One learning rate for all losses: a loss may do otherwise at its own best one.",
        f"The prediction is {decision}; no threshold was tuned for any loss.",
    ]
    rare = [
        f"class {part.classes[c]} in {images}"
        for part in [s.part for s in several[:1]]
        for c, images in _images_with(part)
        if images < 10
    ]
    if rare:
        lines.append(
            f"Some classes are in few test images ({', '.join(rare)}): their Dice rests on those."
        )
    return "\n".join(f"- {line}" for line in lines)


def provenance(records: Records) -> str:
    """Where the numbers come from: code, machine, time and the command, as Markdown."""
    source = records.study["provenance"]
    hardware = source.get("hardware", {})
    packages = source.get("packages", {})
    commit = source.get("commit") or "unknown"
    state = " with uncommitted changes" if source.get("dirty") else ""
    lines = [f"- Code: commit `{commit}`{state}."]
    versions = _versions(records)
    if versions:
        lines.append(f"- Versions of the components: {versions}.")
    again = source.get("evaluated_again")
    if again:
        state = " with uncommitted changes" if again.get("dirty") else ""
        lines.append(
            f"- {again['runs']} of {len(records.runs)} trained networks were re-evaluated, at commit "
            f"`{again.get('commit') or 'unknown'}`{state}, the last on {again['utc']}; none was retrained."
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


def _n(interval: Interval, part: Part) -> str:
    """``3 seeds, 100 test images``."""
    return (
        f"{interval.seeds} seed{'s' if interval.seeds != 1 else ''}, "
        f"{len(part.image_ids)} test images"
    )
