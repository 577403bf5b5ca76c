"""Tables of a page: numbers with their intervals, and how many seeds stand behind them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lossatlas.report.records import Part, Records
from lossatlas.report.scores import Scores
from lossatlas.report.style import CAPTION_STYLE
from lossatlas.statistics.counts import METRICS
from lossatlas.statistics.intervals import MIN_SEEDS, number

#: Marks a loss that is not significantly lower than the highest.
NOT_LOWER = "◦"


@dataclass(frozen=True)
class Table:
    """A table of a page: `frame` as text, and how the page shows it."""

    frame: pd.DataFrame
    caption: str
    swatches: Mapping[str, str]
    bold: frozenset[tuple[str, str]] = frozenset()

    def _repr_html_(self) -> str:
        frame = self.frame
        head = "".join(
            f'<th scope="col" style="text-align:right">{html.escape(str(c))}</th>'
            for c in frame.columns
        )
        corner = f'<th scope="col" style="text-align:left">{html.escape(str(frame.index.name or ""))}</th>'
        rows = []
        for label, row in frame.iterrows():
            cells = [self._row_head(str(label))]
            for column, value in row.items():
                text = html.escape(str(value))
                if (label, column) in self.bold:
                    text = f"<strong>{text}</strong>"
                cells.append(f'<td style="text-align:right;white-space:nowrap">{text}</td>')
            rows.append(f"<tr>{''.join(cells)}</tr>")
        # The caption stands outside the box that scrolls, so that a narrow page wraps it.
        text = html.escape(self.caption)
        return (
            '<div style="overflow-x:auto">'
            f'<table class="dataframe table" style="font-size:0.85em" aria-label="{text}">'
            f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
            f'<p style="{CAPTION_STYLE}">{text}</p>'
        )

    def _row_head(self, label: str) -> str:
        """The row's name, behind a square of the loss's colour."""
        colour = self.swatches.get(label)
        square = f'<span aria-hidden="true" style="color:{colour}">■</span> ' if colour else ""
        name = f"<code>{html.escape(label)}</code>" if colour else html.escape(label)
        return f'<th scope="row" style="text-align:left;white-space:nowrap">{square}{name}</th>'


def comparison(
    several: Sequence[Scores], losses: Sequence[str], metric: str = "foreground_dice"
) -> Table:
    """Loss × model (and data set): mean over the seeds with its interval.

    A loss without a run has "–". The highest mean of a column is bold; `NOT_LOWER` marks those that are
    not significantly lower. A last row has the best constant prediction (Dice only).
    """
    two_sets = len({s.part.dataset for s in several}) > 1
    columns: dict[str, dict[str, str]] = {}
    bold, swatches = set(), {}
    for scores in several:
        part = scores.part
        title = f"{part.model}, {part.dataset}" if two_sets else part.model
        asked = max(len(seeds) for seeds in part.seeds.values())
        compared = min(len(seeds) for seeds in part.seeds.values()) >= MIN_SEEDS
        leader = scores.leader(metric) if compared else None
        level = scores.level_with_leader(metric) if compared else []
        cells = dict.fromkeys(losses, "–")
        for loss in part.losses:
            interval = scores.interval(loss, metric)
            fewer = f" (n = {interval.seeds})" if interval.seeds != asked else ""
            mark = f" {NOT_LOWER}" if loss != leader and loss in level else ""
            cells[loss] = interval.text() + fewer + mark
            swatches[loss] = part.styles[loss]["color"]
        if metric == "foreground_dice":
            cells["best constant"] = number(part.constant_dice)
        if leader is not None:
            bold.add((leader, title))
        columns[title] = cells
    frame = pd.DataFrame(columns)
    frame.index.name = "loss"
    caption = (
        f"Test {METRICS[metric]}, mean over the foreground classes and over "
        f"{_seeds(several)}. {several[0].meaning()}"
    )
    if bold:
        caption += (
            f" Bold: the highest mean of a column; {NOT_LOWER}: not significantly lower (paired, after Holm's "
            "correction)."
        )
    return Table(frame, caption, swatches, frozenset(bold))


def details(scores: Scores, baseline: str = "ce") -> Table:
    """One row a loss: Dice, its paired difference from `baseline`, and the other metrics' means."""
    part = scores.part
    rows: dict[str, dict[str, str]] = {}
    for loss in part.losses:
        row = {"Dice": scores.interval(loss).text()}
        if baseline in part.losses:
            difference = scores.difference(loss, baseline) if loss != baseline else None
            row[f"Dice − {baseline}"] = "–" if difference is None else difference.text(n=False)
        for metric, title in METRICS.items():
            if metric != "foreground_dice":
                row[title] = number(scores.mean(loss, metric))
        of_loss = part.runs[part.runs.loss == loss]
        row["training (s)"] = f"{of_loss.train_s.mean():.0f}"
        row["seeds"] = str(len(part.seeds[loss]))
        rows[loss] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "loss"
    caption = (
        f"{part.model} on {part.dataset}: test metrics, means over the seeds; Dice, IoU, precision "
        f"and recall are means over the {len(part.foreground)} foreground classes. "
        f"{scores.meaning()}"
    )
    colours = {loss: part.styles[loss]["color"] for loss in part.losses}
    return Table(frame, caption, colours)


def runs(records: Records) -> str:
    """HTML list, folded, of every cell's run folders and the command that repeats them."""
    items = []
    for part in records.parts:
        for loss in part.losses:
            of_loss = part.runs[part.runs.loss == loss].sort_values("seed")
            ids = ", ".join(f"<code>{html.escape(str(i))}</code>" for i in of_loss.run_id)
            items.append(
                f"<li>{html.escape(part.model)}, {html.escape(part.dataset)}, "
                f"{html.escape(loss)}: {ids}<br><code>{html.escape(command(part, loss))}</code></li>"
            )
    return (
        f"<details><summary>The {len(records.runs)} run folders and the commands that repeat "
        f"them</summary><ul>{''.join(items)}</ul></details>"
    )


def command(part: Part, loss: str) -> str:
    """The papermill command of one cell of the study, from the configuration of its runs."""
    config: dict[str, Any] = json.loads(part.runs[part.runs.loss == loss].iloc[0].config)
    config.pop("seed", None)
    config["seeds"] = part.seeds[loss]
    text = json.dumps(config, sort_keys=True)
    return f"papermill notebooks/train.ipynb out.ipynb -k python3 -y '{text}'"


def _seeds(several: Sequence[Scores]) -> str:
    counts = sorted({len(seeds) for s in several for seeds in s.part.seeds.values()})
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
