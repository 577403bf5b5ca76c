"""What a make of processor does to a training: the same runs on two, from ``benchmarks/processors.py``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

_SAME = ["foreground", "objects", "batch", "loss"]


def pairs(folder: str | Path) -> pd.DataFrame:
    """The pairs of runs, with ``change``: test Dice of the second less that of the record, in points.

    ``same``: whether Dice and likelihood agree in every digit.

    Args:
        folder: with ``pairs.csv``.
    """
    table = pd.read_csv(Path(folder) / "pairs.csv")
    same = (table.again == table.recorded) & (table.nll_again == table.nll_recorded)
    return table.assign(change=100 * (table.again - table.recorded), same=same)


def limits(folder: str | Path) -> str:
    """A paragraph for the limits of a page whose runs come from two processors, Markdown."""
    table = pairs(folder)
    same = table.groupby("batch").same.all()
    others = table[~table.batch.map(same)]
    means = others.groupby(_SAME).change.mean()
    equal = ""
    if same.any():
        batches = " and ".join(str(batch) for batch in same.index[same])
        equal = f"those with {batches} images a batch agree in every digit of Dice and likelihood; "
    return (
        f"**Processors.** The runs come from several. {len(table)} runs of cross-entropy and Dice were trained a "
        f"second time on another: {equal}of the others one differs by up to {others.change.abs().max():.1f} points, "
        f"and a mean of eight by at most {means.abs().max():.1f}."
    )
