"""What the training loop costs beside others, from the tables of ``benchmarks/training.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lossatlas.report.costs import head, require_measured, row

#: What `benchmarks/training.py` leaves.
FILES = ("training.csv", "instrumentation.csv", "share.csv", "training.json")
#: What measuring may add to a step, set before anything was measured.
OVERHEAD = 0.03
#: Least part of a study's time that is training, set before too.
SHARE = 0.85
_MODELS = {"unet": "U-Net", "segnet": "SegNet"}


def page(bench: str | Path = "results/bench") -> str:
    """The tables and what they say of the aims, as Markdown.

    Raises:
        FileNotFoundError: the benchmark has not been run.
    """
    folder = require_measured(bench, FILES)
    training, measuring, share = (pd.read_csv(folder / name) for name in FILES[:3])
    machine = json.loads((folder / FILES[3]).read_text())
    parts = [_throughput(training, machine), _measuring(measuring), _share(share)]
    return "\n\n".join(parts) + "\n"


def _throughput(table: pd.DataFrame, machine: dict[str, Any]) -> str:
    where = machine["gpu"] or f"one thread of a CPU with {machine['cores']} cores"
    first = _rows(table)[0]
    lines = [
        f"The same network, loss (cross-entropy), optimiser and pixels ({first['pixels'].replace('x', '×')}, "
        f"batches of {first['batch']}) in three loops, on {where}. Ours measures as it does in a study.",
        "",
        row("network", "arithmetic", "loop", "images/s", "time of a step, bare loop = 1"),
        "| --- | --- | --- | ---: | ---: |",
    ]
    for each in _rows(table):
        network = f"{_MODELS[each['model']]}, {each['parameters'] / 1e6:.2g} M parameters"
        speed = f"{each['images_per_s']:.3g}", f"{each['time_to_bare']:.2f}"
        lines.append(row(network, each["variant"], each["loop"], *speed))
    if "Lightning Trainer" not in set(table.loop):
        lines += ["", "Lightning's Trainer was not installed where this was measured."]
    return "\n".join(lines)


def _measuring(table: pd.DataFrame) -> str:
    words = " and ".join(
        f"{100 * row['overhead']:.1f} % of a step with {_MODELS[row['model']]} ({row['ms_without']:.3g} ms without)"
        for row in _rows(table)
    )
    said = "kept" if (table.overhead <= OVERHEAD).all() else "missed"
    first = _rows(table)[0]
    return (
        f"Loss, gradient norm, the foreground's share of the gradient and the heartbeat together add {words}, at "
        f"{first['pixels'].replace('x', '×')} and batches of {first['batch']}, the smallest networks of the studies, "
        f"where they weigh most. The aim of at most {100 * OVERHEAD:g} % is {said}."
    )


def _share(table: pd.DataFrame) -> str:
    columns = ["what", "runs", "train_s", "wall_s", "share"]
    lines = head("all that was done", "runs", "training, s", "all, s", "share")
    lines += [
        row(what, runs, f"{train_s:,.0f}", f"{wall_s:,.0f}", f"{share:.1%}")
        for what, runs, train_s, wall_s, share in table[columns].to_numpy()
    ]
    reached = int((table.share >= SHARE).sum())
    said = "all" if reached == len(table) else f"{reached} of the {len(table)}"
    lines += [
        "",
        f"The rest is starting, evaluating on the test set at three thresholds, and writing. At least {SHARE:.0%} of "
        f"the time should be training: so it is in {said} rows.",
    ]
    return "\n".join(lines)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]
