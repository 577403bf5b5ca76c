"""The report of a comparison as one HTML page, with the book's tables, figures and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup

from lossatlas.basics import replacing

_METRICS = {
    "foreground_dice": "Dice at ½",
    "foreground_dice_tuned": "Dice at the validation threshold",
    "oracle_dice": "Dice at the best threshold",
    "ece_foreground": "calibration error on foreground",
    "volume_ratio": "volume ratio at ½",
    "lr": "rate",
}


def write_page(path: Path, records: Path) -> Path:
    """Write the page of a study's records; text from the data is escaped.

    Args:
        path: of the HTML file.
        records: the folder that ``collect`` wrote.
    """
    from lossatlas.report import figures, findings, scores, style, tables
    from lossatlas.report.records import load

    style.set_theme()
    loaded = load(records)
    scored = scores.by_dataset(loaded)
    parts = [part for of_dataset in scored.values() for part in of_dataset]
    blocks: list[Any] = [findings.answer(parts), *(_tuned(each.part) for each in parts)]
    blocks += [
        _overview(loaded.runs),
        "The tables and figures that follow are at ½; of several classes, by the largest logit.",
    ]
    for of_dataset in scored.values():
        blocks += [tables.comparison(of_dataset, loaded.losses), figures.intervals(of_dataset)]
    for each in parts:
        part = each.part
        blocks += [findings.heading(part), findings.part_findings(each)]
        blocks += [tables.details(each), figures.training_curves(part)]
        bars = [figures.class_bars(part)] if len(part.foreground) > 1 else []
        blocks += [*bars, figures.predictions(part)]
    blocks += ["## What was run", findings.design(loaded)]
    blocks += [
        "The networks. `lossatlas predict FOLDER images --out masks` takes one of these folders.",
        _networks(loaded.runs, path.parent / "runs"),
    ]
    blocks += ["## Limits", findings.limits(loaded, parts)]
    environment = Environment(loader=PackageLoader("lossatlas.advise", "."), autoescape=True)
    text = environment.get_template("comparison.html.jinja").render(
        title=loaded.study["title"] or "Losses compared",
        question=loaded.study["question"],
        blocks=[_html(block) for block in blocks],
        study=str(records),
    )
    with replacing(path) as whole:
        whole.write_text(text, encoding="utf-8")
    return path


def _tuned(part: Any) -> str:
    """Paired differences where the validation set chose the threshold, against the first loss."""
    from lossatlas.report.scores import Scores

    scores, first = Scores(part, "tuned"), part.losses[0]
    found = [scores.difference(loss, first) for loss in part.losses if loss != first]
    told = "; ".join(f"`{each.first}` − `{first}`: {each.text()}" for each in found if each)
    if not told:
        return (
            "Too few trainings of the same seeds to compare the losses at the validation threshold."
        )
    return f"With the threshold chosen on the validation set, Dice differs by: {told}."


def _overview(runs: Any) -> Markup:
    """Means over the seeds by loss."""
    table = runs.groupby("loss", sort=False)[list(_METRICS)].mean().rename(columns=_METRICS)
    table.insert(0, "trainings", runs.groupby("loss", sort=False).size())
    return Markup(table.round(3).rename_axis(None).to_html(border=0, escape=True))


def _networks(runs: Any, folder: Path) -> Markup:
    """A row a run: loss, seed, its Dice, and the folder that `predict` and `export` take."""
    table = runs[["loss", "seed", "foreground_dice_tuned"]].rename(
        columns={"foreground_dice_tuned": _METRICS["foreground_dice_tuned"]}
    )
    table["folder"] = [str(folder / run_id) for run_id in runs.run_id]
    return Markup(table.round(3).to_html(border=0, escape=True, index=False))


def _html(block: Any) -> Markup:
    """Markdown, whose own HTML is shown as text, or what knows its HTML."""
    if isinstance(block, Markup):
        return block
    if isinstance(block, str):
        return Markup(MarkdownIt("commonmark", {"html": False}).render(block))
    return Markup(block._repr_html_())
