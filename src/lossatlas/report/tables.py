"""Tables of a page: one number a cell, the ends of intervals in columns of their own."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.report.findings import baseline, too_few
from lossatlas.report.records import Part, Records
from lossatlas.report.scores import Scores
from lossatlas.report.style import CAPTION_STYLE
from lossatlas.statistics.counts import METRICS
from lossatlas.statistics.intervals import number

#: Marks a loss that is not significantly lower than the highest.
NOT_LOWER = "◦"


@dataclass(frozen=True)
class Table:
    """A table of a page: `frame` as text, and how the page shows it; `bold` has row numbers and columns."""

    frame: pd.DataFrame
    caption: str
    swatches: Mapping[str, str]
    bold: frozenset[tuple[int, str]] = frozenset()

    def _repr_html_(self) -> str:
        frame = self.frame
        head = "".join(
            f'<th scope="col" style="text-align:right">{html.escape(str(c))}</th>'
            for c in frame.columns
        )
        corner = f'<th scope="col" style="text-align:left">{html.escape(str(frame.index.name or ""))}</th>'
        rows = []
        for place, (label, row) in enumerate(frame.iterrows()):
            cells = [self._row_head(str(label))]
            for column, value in row.items():
                text = html.escape(str(value))
                if (place, column) in self.bold:
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


def comparison(several: Sequence[Scores], losses: Sequence[str]) -> Table:
    """A row a model and loss: mean Dice, its paired difference from the baseline, the ends of both, and the seeds.

    A loss without a run has "–". The highest mean of a model is bold; `NOT_LOWER` marks those that are not
    significantly lower. Each model has a last row with the best constant prediction. What no row has, such as
    intervals of fewer than three seeds, has no column.
    """
    two_sets = len({s.part.dataset for s in several}) > 1
    rows: list[dict[str, str]] = []
    bold, swatches = set(), {}
    for scores in several:
        part = scores.part
        network = f"{part.model}, {part.dataset}" if two_sets else part.model
        compared = not too_few(scores)
        leader = scores.leader() if compared else None
        level = scores.level_with_leader() if compared else []
        for loss in losses:
            row = {"loss": loss, "network": network}
            rows.append(row)
            if loss not in part.losses:
                continue
            swatches[loss] = part.styles[loss]["color"]
            interval, base = scores.interval(loss), baseline(part)
            difference = scores.difference(loss, base) if loss != base else None
            mark = f" {NOT_LOWER}" if loss != leader and loss in level else ""
            row["Dice"] = number(interval.estimate) + mark
            if np.isfinite(interval.low):
                row |= {"from": number(interval.low), "to": number(interval.high)}
            if difference is not None:
                ends = {"": difference.estimate, " from": difference.low, " to": difference.high}
                row |= {f"minus {base}{end}": number(value, True) for end, value in ends.items()}
            row["seeds"] = str(interval.seeds)
            if loss == leader:
                bold.add((len(rows) - 1, "Dice"))
        rows.append(
            {"loss": "best constant", "network": network, "Dice": number(part.constant_dice)}
        )
    frame = pd.DataFrame(rows).set_index("loss").fillna("–").replace("nan", "–")
    last = frame.pop("seeds")
    frame["seeds"] = last
    caption = "Test Dice, mean over the foreground classes and the seeds"
    if "from" in frame:
        caption += (
            ", with the ends of its interval; minus: the paired difference, with its own ends"
        )
    caption += f". {several[0].meaning().removeprefix('Brackets: ')}"
    if bold:
        caption += (
            f" Bold: the highest mean of a network; {NOT_LOWER}: not significantly lower (paired, after Holm's "
            "correction)."
        )
    return Table(frame, caption, swatches, frozenset(bold))


def details(scores: Scores) -> Table:
    """One row a loss: the means of the other metrics, and loss and gradient at the two ends of the training."""
    part = scores.part
    rows: dict[str, dict[str, str]] = {}
    for loss in part.losses:
        row = {title: scores.mean(loss, metric) for metric, title in METRICS.items()}
        row.pop("Dice")
        rows[loss] = {title: number(value) for title, value in row.items()}
        curves = part.curves[part.curves.loss == loss]
        window = max(1, int(curves.step.max()) // 20) if len(curves) else 1
        early, late = curves.step <= window, curves.step > curves.step.max() - window
        for column, title in {"loss_value": "loss", "grad_norm": "gradient"}.items():
            for end, steps in {"first": early, "last": late}.items():
                rows[loss][f"{title}, {end}"] = f"{curves[column][steps].mean():.3g}"
        rows[loss]["training (s)"] = f"{part.runs[part.runs.loss == loss].train_s.mean():.0f}"
    frame = pd.DataFrame.from_dict(rows, orient="index").replace("nan", "–")
    frame.index.name = "loss"
    caption = (
        f"{part.model} on {part.dataset}: test metrics, means over the seeds; IoU, precision and recall are means over "
        f"the {len(part.foreground)} foreground classes. Training loss and norm of the gradient: in the first and the "
        "last twentieth of the steps."
    )
    return Table(frame, caption, {loss: part.styles[loss]["color"] for loss in part.losses})


def runs(records: Records) -> str:
    """HTML list of every cell's run folders and the command that repeats them."""
    items = []
    for part in records.parts:
        for loss in part.losses:
            of_loss = part.runs[part.runs.loss == loss].sort_values("seed")
            ids = ", ".join(f"<code>{html.escape(str(i))}</code>" for i in of_loss.run_id)
            items.append(
                f"<li>{html.escape(part.model)}, {html.escape(part.dataset)}, "
                f"{html.escape(loss)}: {ids}<br><code>{html.escape(command(part, loss))}</code></li>"
            )
    head = f"The {len(records.runs)} run folders, and the commands that repeat them:"
    return f"<p>{head}</p><ul>{''.join(items)}</ul>"


def command(part: Part, loss: str) -> str:
    """The papermill command of one cell of the study, from the configuration of its runs."""
    config: dict[str, Any] = json.loads(part.runs[part.runs.loss == loss].iloc[0].config)
    config.pop("seed", None)
    config["seeds"] = part.seeds[loss]
    text = json.dumps(config, sort_keys=True)
    return f"papermill notebooks/train.ipynb out.ipynb -k python3 -y '{text}'"
