"""The losses' speed and memory beside their peers: tables and figures from ``results/bench``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.analysis.style import FIGURE_WIDTH, loss_style

OURS = "lossatlas"
#: Marker and colour of each library; ours is filled and drawn last.
LIBRARIES = {
    "torch": ("s", "#000000"),
    "smp": ("^", "#D55E00"),
    "monai": ("v", "#009E73"),
    "kornia": ("D", "#CC79A7"),
    "lossatlas compiled": ("o", "#56B4E9"),
    OURS: ("o", "#0072B2"),
}
_RAN = {"losses.csv": "make bench", "scaling.csv": "make bench", "losses.json": "make bench"}


@dataclass(frozen=True)
class Benchmark:
    """What a run of ``benchmarks/losses.py`` wrote: a row a shape, loss and library, and the machine."""

    rows: pd.DataFrame
    scaling: pd.DataFrame
    machine: dict[str, Any]

    @property
    def panels(self) -> list[tuple[str, str]]:
        """Device and shape of each table, in the order of the file."""
        return list(dict.fromkeys(zip(self.rows.device, self.rows["shape"], strict=True)))


def load(folder: str | Path) -> Benchmark:
    """Read ``losses.csv``, ``scaling.csv`` and ``losses.json``.

    Raises:
        FileNotFoundError: one is missing; says which command writes it.
    """
    folder = Path(folder)
    for name, command in _RAN.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"expected {folder / name}, got no such file: run `{command}`")
    return Benchmark(
        pd.read_csv(folder / "losses.csv"),
        pd.read_csv(folder / "scaling.csv"),
        json.loads((folder / "losses.json").read_text()),
    )


def table(benchmark: Benchmark, device: str, shape: str) -> pd.DataFrame:
    """Ratios of time and peak memory to torch's cross-entropy: ours, and the fastest and lightest peer's.

    Losses that only we have show no peer.
    """
    here = benchmark.rows[(benchmark.rows.device == device) & (benchmark.rows["shape"] == shape)]
    rows = []
    for loss in dict.fromkeys(here.loss):
        mine = here[(here.loss == loss) & (here.library == OURS)]
        if mine.empty:
            continue
        peers = here[(here.loss == loss) & ~here.library.str.startswith(OURS)]
        fastest = _least(peers, "time_ratio") if len(peers) else None
        lightest = _least(peers, "memory_ratio") if len(peers) else None
        rows.append(
            {
                "loss": loss,
                "time": f"{mine.time_ratio.iloc[0]:.2f}×",
                "fastest peer": _peer(fastest, "time_ratio"),
                "memory": f"{mine.memory_ratio.iloc[0]:.2f}×",
                "lightest peer": _peer(lightest, "memory_ratio"),
            }
        )
    return pd.DataFrame(rows).set_index("loss")


def behind(benchmark: Benchmark, tolerance: float = 1.0) -> pd.DataFrame:
    """The cells in which a peer is faster or lighter than ours: what remains to be done.

    Args:
        benchmark: as loaded.
        tolerance: ours counts as behind where its ratio exceeds ``tolerance`` times the peer's.
    """
    found = []
    for (device, shape, loss), group in benchmark.rows.groupby(
        ["device", "shape", "loss"], sort=False
    ):
        mine = group[group.library == OURS]
        peers = group[~group.library.str.startswith(OURS)]
        if mine.empty or peers.empty:
            continue
        for measure, column in (("time", "time_ratio"), ("memory", "memory_ratio")):
            best = _least(peers, column)
            if mine[column].iloc[0] > tolerance * best[column]:
                found.append(
                    {
                        "device": device,
                        "shape": shape,
                        "loss": loss,
                        "what": measure,
                        "ours": f"{mine[column].iloc[0]:.2f}×",
                        "peer": _peer(best, column),
                    }
                )
    return pd.DataFrame(found, columns=["device", "shape", "loss", "what", "ours", "peer"])


def finding(benchmark: Benchmark) -> str:
    """In how many cells a peer is ahead, in a sentence."""
    compared = 0
    for _, group in benchmark.rows.groupby(["device", "shape", "loss"], sort=False):
        libraries = set(group.library)
        compared += OURS in libraries and any(not name.startswith(OURS) for name in libraries)
    counts = behind(benchmark).what.value_counts()
    return (
        f"Of {compared} pairs of a shape and a loss that another library has too, a peer is faster in "
        f"**{counts.get('time', 0)}** and lighter in **{counts.get('memory', 0)}**."
    )


def plot(benchmark: Benchmark) -> Figure:
    """Time over cross-entropy's, a panel a shape and a row a loss; left of the line is faster than it."""
    panels = benchmark.panels
    counts = [len(set(_panel(benchmark, *panel).loss)) for panel in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(FIGURE_WIDTH, 0.2 * sum(counts) + 0.9 * len(panels)),
        height_ratios=counts,
        sharex=True,
        squeeze=False,
        constrained_layout=True,
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        here = _panel(benchmark, *panel)
        names = list(dict.fromkeys(here.loss))[::-1]
        for library, (marker, colour) in LIBRARIES.items():
            mine = here[here.library == library]
            axis.scatter(
                mine.time_ratio,
                [names.index(name) for name in mine.loss],
                marker=marker,
                color=colour,
                s=22,
                zorder=3,
                label=library if library in set(benchmark.rows.library) else None,
            )
        axis.axvline(1, color="0.5", lw=1)
        axis.set_xscale("log")
        axis.set_yticks(range(len(names)), names, fontsize="small")
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.set_title(f"{panel[1]}: {here['size'].iloc[0].replace('x', '×')}, {panel[0]}")
    axes[-1, 0].set_xlabel("time ÷ torch's cross-entropy (logarithmic)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def plot_scaling(benchmark: Benchmark) -> Figure:
    """Nanoseconds a logit against the number of pixels, and of classes: flat is linear cost."""
    figure, axes = plt.subplots(2, 1, figsize=(FIGURE_WIDTH, 5.0), constrained_layout=True)
    for axis, (kind, title) in zip(
        axes, (("pixels", "4 classes"), ("classes", "256×256 pixels")), strict=True
    ):
        here = benchmark.scaling[benchmark.scaling.axis == kind]
        for loss, group in here.groupby("loss", sort=False):
            style = dict(loss_style(str(loss).split()[0]))
            if " " in str(loss):  # the histogram form of a loss
                style["linestyle"] = ":"
            axis.plot(group[kind], group.ns_per_logit, label=loss, **style)
        axis.set_xscale("log")
        axis.set_ylim(0, None)
        axis.set(xlabel=kind, ylabel="ns a logit", title=f"cost of a logit, {title}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def provenance(benchmark: Benchmark) -> str:
    """Machine, versions and method as a Markdown list."""
    machine = benchmark.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no GPU"
    return (
        f"- Machine: {machine['cpu']}{gpu}, {machine['capability']}, {machine['threads']} thread; "
        f"{machine['measured_utc']}\n- Versions: python {machine['python']}, {versions}\n- Method: {machine['how']}"
    )


def _panel(benchmark: Benchmark, device: str, shape: str) -> pd.DataFrame:
    rows = benchmark.rows
    return rows[(rows.device == device) & (rows["shape"] == shape)]


def _least(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows.sort_values(column, kind="stable").iloc[0]


def _peer(row: pd.Series | None, column: str) -> str:
    return "–" if row is None else f"{row[column]:.2f}× ({row.library})"
