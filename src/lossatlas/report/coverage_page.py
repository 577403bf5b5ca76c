"""The page on how differences are judged: what ``results/statistics/coverage.csv`` says of the intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.report.figures import Drawing, _figure
from lossatlas.report.tables import Table

#: The method that pages use.
OURS = "studentised"
#: What an interval of 95 % should cover.
AIM = (0.93, 0.97)
_RAN = "python benchmarks/coverage.py --out results/statistics/coverage.csv"
_COLUMNS = {
    "purpose",
    "quantity",
    "seeds",
    "images",
    "clusters",
    "mix",
    "shape",
    "method",
    "replications",
    "coverage",
    "standard_error",
    "above",
    "below",
    "width",
    "false_01",
    "false_001",
}
#: Methods as the figure draws them: name, marker, colour.
_LOOKS = {
    "studentised": ("used on these pages: studentised bootstrap", "o", "#0072B2"),
    "student": ("Student's quantiles, no bootstrap", "D", "#009E73"),
    "percentile": ("percentile bootstrap", "s", "#D55E00"),
    "bca": ("BCa bootstrap", "^", "#CC79A7"),
}
_MIXES = {
    "seeds": "from the seeds",
    "clusters": "from the images",
    "interaction": "from seed × image",
    "even": "from all alike",
}


def load(path: str | Path) -> pd.DataFrame:
    """The simulation's table.

    Raises
    ------
    FileNotFoundError
        It is not there; says which command writes it.
    ValueError
        Columns are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected {path}, got no such file: run `{_RAN}`")
    table = pd.read_csv(path)
    missing = sorted(_COLUMNS - set(table.columns))
    if missing:
        raise ValueError(f"{path}: expected the columns {', '.join(missing)}: run `{_RAN} --fresh`")
    return table


def finding(table: pd.DataFrame) -> str:
    """How many designs the intervals in use cover as they should, and where they do not."""
    differences = table[(table.method == OURS) & (table.purpose == "claim")]
    inside = differences[differences.coverage.between(*AIM)]
    aim = f"{100 * AIM[0]:.0f} to {100 * AIM[1]:.0f} %"
    words = [
        f"**In {len(inside)} of {len(differences)} designs the 95 % interval of a paired difference held the truth in "
        f"{aim} of the simulated studies, {_thousands(table.replications.min())} each.**"
    ]
    outside = differences[~differences.index.isin(inside.index)]
    if len(outside):
        cases = "; ".join(f"{_design(row)}: {_percent(row.coverage)}" for row in _rows(outside))
        words.append(f"Outside: {cases}.")
    percentile = table[(table.method == "percentile") & (table.purpose == "claim")]
    if len(percentile):
        words.append(
            f"The plain percentile bootstrap, which we do not use, held it in {_range(percentile.coverage)}."
        )
    collapses = table[table["shape"].str.endswith("collapses") & (table.method == "studentised")]
    if len(collapses):
        worst = next(_rows(collapses.nsmallest(1, "coverage")))
        words.append(
            f"The interval fails where few trainings collapse and none of the seeds at hand does "
            f"({worst.shape}: {_percent(worst.coverage)}): a page therefore counts the trainings that collapsed."
        )
    return " ".join(words)


def false_findings(table: pd.DataFrame) -> str:
    """How often p-values of a true null fall below small α: what corrections for many tests rest on."""
    rows = table[(table.method == "studentised") & (table.purpose == "claim")]
    return (
        f"Corrections for many tests need p-values that are right far out. Where the truth is the null, "
        f"p ≤ 0.01 was found in {_range(rows.false_01)} of the studies, p ≤ 0.001 in {_range(rows.false_001)}."
    )


def differences(table: pd.DataFrame) -> Table:
    """A row a design of paired differences: coverage by kind of interval, in per cent."""
    rows = table[table.method.isin(_LOOKS)]
    shown = {
        "studentised": "in use",
        "student": "Student",
        "percentile": "percentile",
        "bca": "BCa",
    }
    return _by_method(
        rows,
        shown,
        "Coverage of 95 % intervals of the difference of two losses, in per cent of the simulated studies. "
        "Their own standard error is at most a point. Spread: where most of the chance comes from. Limit: a design "
        "that was simulated to see where an interval fails.",
    )


def figure(table: pd.DataFrame) -> Drawing:
    """Coverage of every design of paired differences that is a claim, by kind of interval."""
    rows = table[table.method.isin(_LOOKS) & (table.purpose == "claim")]
    names = list(dict.fromkeys(_design(row) for row in _rows(rows)))
    figure = _figure(1.3 + 0.2 * len(names))
    axis = figure.subplots()
    axis.axvspan(*(100 * end for end in AIM), color="0.9", lw=0, zorder=0)
    axis.axvline(95, color="black", lw=0.8)
    words = []
    for method in reversed(_LOOKS):
        label, marker, colour = _LOOKS[method]
        mine = rows[rows.method == method]
        places = [names.index(_design(row)) for row in _rows(mine)]
        axis.plot(
            100 * mine.coverage, places, marker=marker, color=colour, ls="", ms=4.5, label=label
        )
        words.append(f"{label}: {_range(mine.coverage)}")
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("held the truth, per cent")
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=1, reverse=True)
    caption = (
        f"How often 95 % intervals hold the truth, a row a simulated design: seeds × images, and where the "
        f"spread comes from. Grey: {100 * AIM[0]:.0f} to {100 * AIM[1]:.0f} %. "
        f"{_thousands(rows.replications.min())} studies each."
    )
    return Drawing(figure, caption, f"Coverage by kind of interval. {'; '.join(words)}.")


def _by_method(rows: pd.DataFrame, methods: dict[str, str], caption: str) -> Table:
    columns: dict[str, dict[str, str]] = {}
    for row in _rows(rows):
        name = _design(row) + (" (limit)" if row.purpose == "limit" else "")
        cells = columns.setdefault(name, dict.fromkeys(methods.values(), "–"))
        if row.method in methods:
            cells[methods[str(row.method)]] = f"{100 * row.coverage:.1f}"
    frame = pd.DataFrame.from_dict(columns, orient="index")
    frame.index.name = "design"
    return Table(frame, caption, {})


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    """The rows with their columns as attributes, of types that nobody declares."""
    return iter(table.itertuples())


def _design(row: Any) -> str:
    """``8 × 400 in 50, from the seeds``; what is not normal numbers is named."""
    seeds, images, clusters = (int(getattr(row, name)) for name in ("seeds", "images", "clusters"))
    text = f"{seeds} × {images}" + (f" in {clusters}" if clusters < images else "")
    quantity, shape = str(row.quantity), str(row.shape)
    kind = {"pooled Dice": "Dice", "pooled Dice, mostly empty images": "Dice, mostly empty"}
    what = kind.get(quantity, shape if shape != "normal" else "")
    return f"{what + ': ' if what else ''}{text}, {_MIXES[str(row.mix)]}"


def _range(values: pd.Series) -> str:
    low, high = np.min(values), np.max(values)
    return f"{_percent(low)} to {_percent(high)}" if low < high else _percent(low)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _thousands(value: float) -> str:
    return f"{int(value):,}"
