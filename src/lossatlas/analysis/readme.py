"""The README's picture and table, written from a study's records and never by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.analysis import withdrawn
from lossatlas.analysis.imbalance import Imbalance, figures, sentences, tables
from lossatlas.analysis.records import load
from lossatlas.analysis.style import loss_style, set_theme

#: The README's blocks: the text between ``<!-- NAME: … -->`` and ``<!-- /NAME -->``.
RESULTS, IMBALANCE = "results", "imbalance"


def summarise(records: str | Path) -> dict[str, Any]:
    """What the README says of a study: per model and loss the seeds' mean Dice, and where it comes from.

    Args:
        records: folder of a study's records (``study.json``, ``runs.parquet``, ``per_class.parquet``).
    """
    records = Path(records)
    study = json.loads((records / "study.json").read_text())
    runs = pd.read_parquet(records / "runs.parquet")
    per_class = pd.read_parquet(records / "per_class.parquet")
    if "rule" in per_class:  # one row a decision rule: the table is of the argmax
        per_class = per_class[per_class.rule == "argmax"]
    rare = _rare_classes(per_class)
    rare_dice = per_class[per_class.class_name.isin(rare)].groupby("run_id").dice.mean()
    runs = runs.assign(rare_dice=runs.run_id.map(rare_dice))
    rows = []
    for (model, loss), group in runs.groupby(["model", "loss"], sort=False):
        rows.append(
            {
                "model": model,
                "loss": loss,
                "loss_name": group.loss_name.iloc[0],
                "seeds": sorted(int(seed) for seed in group.seed),
                "run_ids": list(group.run_id),
                "dice": [round(float(value), 4) for value in group.foreground_dice],
                "rare_dice": [round(float(value), 4) for value in group.rare_dice],
            }
        )
    return {
        "study": study["study"],
        "question": study["question"],
        "command": study["command"],
        "steps": study["steps"],
        "rare_classes": rare,
        "constant_dice": round(float(runs.constant_dice.mean()), 4),
        "provenance": study["provenance"],
        "rows": rows,
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as Markdown: a row a loss, a column a model; mean over the seeds and their range."""
    models = list(dict.fromkeys(row["model"] for row in summary["rows"]))
    losses = list(dict.fromkeys(row["loss"] for row in summary["rows"]))
    cells = {(row["loss"], row["model"]): row for row in summary["rows"]}
    head = [f"{model}: {what}" for model in models for what in ("Dice", "rare classes")]
    lines = ["| loss | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for loss in losses:
        values = []
        for model in models:
            row = cells.get((loss, model))
            values += [_mean(row["dice"]), _mean(row["rare_dice"])] if row else ["–", "–"]
        lines.append(f"| `{loss}` | " + " | ".join(values) + " |")
    count = len(summary["rows"][0]["seeds"])
    hardware = summary["provenance"]["hardware"]
    lines += [
        "",
        f"Study `{summary['study']}`: mean test Dice over the foreground classes (and over the "
        f"{len(summary['rare_classes'])} rarest), {count} paired seeds, their range in brackets, "
        f"{summary['steps']} steps, argmax; the best constant prediction has {summary['constant_dice']:.3f}. "
        f"So short a training measures how fast a loss learns, not where it ends. "
        f"Run ids and provenance: [results/readme/summary.json](results/readme/summary.json); made by "
        f"`{summary['command']}` on {hardware['cores']} cores.",
    ]
    return "\n".join(lines)


def plot(summary: dict[str, Any]) -> Figure:
    """A panel a model: a bar a loss for the mean Dice, a point a seed, a line at the best constant prediction."""
    set_theme()
    models = list(dict.fromkeys(row["model"] for row in summary["rows"]))
    figure, axes = plt.subplots(
        1,
        len(models),
        figsize=(4.2 * len(models), 2.9),
        sharex=True,
        squeeze=False,
        constrained_layout=True,
    )
    for axis, model in zip(axes[0], models, strict=True):
        rows = [row for row in summary["rows"] if row["model"] == model][::-1]
        for place, row in enumerate(rows):
            colour = loss_style(row["loss_name"])["color"]
            axis.barh(
                place, sum(row["dice"]) / len(row["dice"]), color=colour, alpha=0.75, height=0.7
            )
            axis.plot(row["dice"], [place] * len(row["dice"]), "o", color="black", ms=3)
        axis.axvline(summary["constant_dice"], color="black", lw=1, ls=":")
        axis.set_yticks(range(len(rows)), [row["loss"] for row in rows])
        axis.set_title(model, loc="left")
        axis.set_xlabel("test Dice, mean over the digits")
        axis.grid(axis="y", visible=False)
    return figure


def imbalance_block(records: str | Path) -> tuple[str, Imbalance]:
    """The README's block from the records of the study, those of its follow-ups beside them; and the study.

    Of a study whose findings are withdrawn the block says so, and nothing else.
    """
    study = Imbalance(load(records))
    told = withdrawn.text(Path(records).name, Path(records).parent)
    if told:
        link = "[how the error was found](book/retractions.md)"
        return f"**Withdrawn.** {told} The book tells {link}.", study
    return imbalance_text(study, study.followups()), study


def imbalance_text(study: Imbalance, followups: Sequence[Imbalance] = ()) -> str:
    """The answer of the study of imbalance, its picture's link, and the means behind it, as Markdown.

    `followups` asked again under other conditions: a line each says what became of Dice minus cross-entropy.
    """
    dice = tables.dice(study)
    frame = dice.frame
    lines = [
        sentences.answer(study),
        "",
        "![Test Dice of each loss as the foreground falls, at three thresholds]"
        f"(results/readme/{study.records.name}.png)",
        "",
        f"| loss | {' | '.join(map(str, frame.columns))} |",
        "|---" * (1 + len(frame.columns)) + "|",
        *(f"| `{loss}` | {' | '.join(map(str, row))} |" for loss, row in frame.iterrows()),
        "",
        f"Study `{study.records.name}`: {dice.caption.replace(' Bold: the highest of a column at ½.', '')} "
        f"{sentences.collapses(study)}",
        "",
        *(sentences.followup(other) for other in followups),
    ]
    return "\n".join(lines)


def write(
    records: str | Path, root: str | Path = ".", *, imbalance: str | Path | None = None
) -> Path:
    """Write ``results/readme/`` and the README's blocks under ``root``; the README's path.

    Args:
        records: folder of the quick study's records.
        root: folder of the README.
        imbalance: folder of the records of the study of imbalance; None leaves that block as it is.
    """
    root = Path(root)
    summary = summarise(records)
    folder = root / "results" / "readme"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(summary).savefig(folder / f"{summary['study']}.png", dpi=130)
    readme = root / "README.md"
    text = block_replaced(readme.read_text(), RESULTS, table(summary))
    if imbalance is not None:
        block, study = imbalance_block(imbalance)
        picture = folder / f"{study.records.name}.png"
        if withdrawn.is_withdrawn(Path(imbalance).name, Path(imbalance).parent):
            picture.unlink(missing_ok=True)
        else:
            figures.dice_by_loss(study).save(picture)
        text = block_replaced(text, IMBALANCE, block)
    readme.write_text(text)
    return readme


def block_replaced(text: str, name: str, made: str) -> str:
    """``text`` with what stands between ``<!-- name: … -->`` and ``<!-- /name -->`` made anew."""
    block = re.compile(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- /{name} -->)", re.S)
    replaced, count = block.subn(lambda found: f"{found[1]}{made}\n{found[2]}", text)
    if count != 1:
        raise ValueError(
            f"expected one '<!-- {name}: … -->' with its '<!-- /{name} -->' in README.md"
        )
    return replaced


def _rare_classes(per_class: pd.DataFrame) -> list[str]:
    """The rarer half of the foreground classes, by their fraction of the test set's pixels."""
    fractions = per_class.groupby("class_name").target_fraction.mean()
    fractions = fractions.drop("background", errors="ignore").sort_values()
    return list(fractions.index[: len(fractions) // 2])


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.3f} ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else f"{mean:.3f}"
