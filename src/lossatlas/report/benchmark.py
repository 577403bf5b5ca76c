"""The losses' speed and memory beside their peers: tables and figures from ``results/bench``."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.report.style import FIGURE_WIDTH

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
_FILES = ("losses.csv", "scaling.csv", "floor.csv", "losses.json")

_REGION = [
    "dice",
    "dice_squared",
    "weighted_dice",
    "inverse_dice",
    "generalized_dice",
    "log_cosh_dice",
    "jaccard",
    "tversky",
    "focal_tversky",
    "dice_semimetric",
]


@dataclass(frozen=True)
class Target:
    """What the library set itself on the CPU: at most so many times cross-entropy's time and memory."""

    losses: tuple[str, ...]
    shapes: tuple[str, ...]
    time: float
    memory: float | None = None


#: Written down before they were reached; what is missed stays here, and on the page.
TARGETS = (
    Target(("ce", "focal"), ("S1", "S3"), 1.1, 0.5),
    Target(("ce", "focal"), ("S2",), 1.1, 1.0),
    Target(tuple(_REGION), ("S1",), 0.7, 0.5),
    Target(("dice", "jaccard", "tversky"), ("S2",), 0.7, 1.0),
    Target(tuple(_REGION), ("S3",), 1.1, 0.5),
    Target(("ohem_ce", "topk_ce"), ("S1", "S2", "S3"), 1.3, 1.0),
    Target(("lovasz_softmax",), ("S1",), 3.5, 1.0),
    Target(("lovasz_softmax",), ("S2",), 5.0, 1.0),
    Target(("lovasz_softmax",), ("S3",), 6.0, 1.0),
    Target(("lovasz_softmax 4096 bins",), ("S1", "S2", "S3"), 2.2, 1.0),
    Target(("lovasz_hinge",), ("S2",), 3.5, 2.0),
    Target(("dice_ce",), ("S1",), 1.1),
    Target(("dice_ce",), ("S2", "S3"), 1.4),
)


@dataclass(frozen=True)
class Benchmark:
    """What a run of ``benchmarks/losses.py`` wrote: a row a shape, loss and library, and the machine."""

    rows: pd.DataFrame
    scaling: pd.DataFrame
    floor: pd.DataFrame
    machine: dict[str, Any]

    def stale(self, folder: str | Path) -> str:
        """Markdown that says so where the code of the losses has changed since they were measured; else empty.

        Their ``VERSION`` does not say it: it rises with their bits, and speed changes without them.

        Args:
            folder: of the losses' modules today.
        """
        if self.machine.get("losses_code") == code(folder):
            return ""
        measured = self.machine.get("measured_utc", "an unknown date")[:10]
        return (
            ":::{admonition} Measured with other losses\n:class: warning\n"
            f"The code of the losses has changed since this record of {measured}. This page does not show the speed of "
            "today's; `make bench` measures again.\n:::"
        )

    @property
    def panels(self) -> list[tuple[str, str]]:
        """Device and shape of each table, in the order of the file."""
        return list(dict.fromkeys(zip(self.rows.device, self.rows["shape"], strict=True)))


def code(folder: str | Path) -> str:
    """A digest of the modules of a folder that changes with what runs, not with comments or docstrings."""
    found = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
                node
            ):
                del node.body[0]
        found.update(f"{path.name}\n{ast.dump(tree)}\n".encode())
    return found.hexdigest()[:16]


def load(folder: str | Path) -> Benchmark:
    """Read ``losses.csv``, ``scaling.csv``, ``floor.csv`` and ``losses.json``.

    Raises:
        FileNotFoundError: one is missing; says which command writes it.
    """
    folder = Path(folder)
    for name in _FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"expected {folder / name}, got no such file: run `make bench`")
    return Benchmark(
        by_threads(pd.read_csv(folder / "losses.csv")),
        pd.read_csv(folder / "scaling.csv"),
        pd.read_csv(folder / "floor.csv"),
        json.loads((folder / "losses.json").read_text()),
    )


def by_threads(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the number of threads in the name of the device, where it is not one."""
    named = rows.device + ", " + rows.threads.astype(str) + " threads"
    return rows.assign(
        device=rows.device.where((rows.threads == 1) | (rows.device != "cpu"), named)
    )


def _cells(benchmark: Benchmark) -> Iterator[tuple[Any, pd.Series, pd.DataFrame]]:
    """Each device, shape and loss that we have, with our row and the rows of its peers."""
    for key, rows in benchmark.rows.groupby(["device", "shape", "loss"], sort=False):
        for _, mine in rows[rows.library == OURS].iterrows():
            yield key, mine, rows[~rows.library.str.startswith(OURS)]


def missed(rows: pd.DataFrame) -> pd.DataFrame:
    """What a run of the benchmark has missed: a target on one thread, or a peer that is faster or lighter.

    Args:
        rows: as ``losses.csv`` has them.

    Returns:
        columns device, shape, loss, what ("target", "time" or "memory" of the best peer), ours and limit.
    """
    benchmark = Benchmark(by_threads(rows), pd.DataFrame(), pd.DataFrame(), {})
    found = targets(benchmark)
    found = found[found[""] == "missed"]
    below = found.assign(
        device="cpu",
        what="target",
        ours=found.time + " time, " + found.memory + " memory",
        limit=found.target + " time, " + found["memory target"] + " memory",
    )
    ahead = behind(benchmark).rename(columns={"peer": "limit"})
    return pd.concat([below[ahead.columns], ahead], ignore_index=True)


def table(benchmark: Benchmark, device: str, shape: str) -> pd.DataFrame:
    """Ratios of time and peak memory to torch's cross-entropy: ours, and the fastest and lightest peer's.

    Losses that only we have show no peer.
    """
    rows = {
        loss: {
            "time": f"{mine.time_ratio:.2f}×",
            "fastest peer": _peer(peers, "time_ratio"),
            "memory": f"{mine.memory_ratio:.2f}×",
            "lightest peer": _peer(peers, "memory_ratio"),
        }
        for (*here, loss), mine, peers in _cells(benchmark)
        if here == [device, shape]
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("loss")


def behind(benchmark: Benchmark) -> pd.DataFrame:
    """The cells in which a peer is faster or lighter than ours: what remains to be done."""
    found = [
        (*key, measure, f"{mine[column]:.2f}×", _peer(peers, column))
        for key, mine, peers in _cells(benchmark)
        for measure, column in (("time", "time_ratio"), ("memory", "memory_ratio"))
        if mine[column] > peers[column].min()
    ]
    return pd.DataFrame(found, columns=["device", "shape", "loss", "what", "ours", "peer"])


def targets(benchmark: Benchmark) -> pd.DataFrame:
    """Every target beside what was measured on the CPU; "missed" where either ratio is above its limit."""
    ours = {key: mine for key, mine, _ in _cells(benchmark)}
    found = []
    for target in TARGETS:
        for shape, loss in itertools.product(target.shapes, target.losses):
            if (mine := ours.get(("cpu", shape, loss))) is None:
                continue
            time, memory = mine.time_ratio, mine.memory_ratio
            met = time <= target.time and (target.memory is None or memory <= target.memory)
            limit = "–" if target.memory is None else f"≤ {target.memory:g}×"
            at_most = f"≤ {target.time:g}×"
            judged = f"{memory:.2f}×", limit, "met" if met else "missed"
            found.append((shape, loss, f"{time:.2f}×", at_most, *judged))
    columns = ["shape", "loss", "time", "target", "memory", "memory target", ""]
    return pd.DataFrame(found, columns=columns)


def compared(benchmark: Benchmark) -> int:
    """Pairs of a shape and a loss that another library has too."""
    return sum(not peers.empty for *_, peers in _cells(benchmark))


def plot(benchmark: Benchmark) -> Figure:
    """Time over cross-entropy's, a panel a shape and a row a loss; left of the line is faster than it."""
    panels = list(benchmark.rows.groupby(["device", "shape"], sort=False))
    counts = [here.loss.nunique() for _, here in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(FIGURE_WIDTH, 0.2 * sum(counts) + 0.9 * len(panels)),
        height_ratios=counts,
        sharex=True,
        squeeze=False,
        constrained_layout=True,
    )
    for axis, ((device, shape), here) in zip(axes[:, 0], panels, strict=True):
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
        axis.set_title(f"{shape}: {here['size'].iloc[0].replace('x', '×')}, {device}")
    axes[-1, 0].set_xlabel("time ÷ torch's cross-entropy (logarithmic)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def machines(folder: str | Path) -> pd.DataFrame:
    """What each processor that has measured found: that of the folder first, then those of its ``machines/*``.

    Columns: ``processor``, ``measured`` (the day), ``code`` (the losses' digest), ``timed after`` (what ran before a
    timed step), ``targets met`` of ``targets``, and ``a peer is faster``, in how many of the ``pairs`` of a shape and a
    loss that another library has too.
    """
    others = sorted(path for path in Path(folder, "machines").glob("*") if path.is_dir())
    rows = []
    for measured in map(load, (folder, *others)):
        verdicts = targets(measured).iloc[:, -1]
        rows.append(
            {
                "processor": f"{measured.machine['cpu']}, {measured.machine['capability']}",
                "measured": measured.machine["measured_utc"][:10],
                "code": measured.machine.get("losses_code", "–")[:7],
                "timed after": measured.machine.get("timed_after", "another loss"),
                "targets met": int((verdicts == "met").sum()),
                "targets": len(verdicts),
                "a peer is faster": int((behind(measured).what == "time").sum()),
                "pairs": compared(measured),
            }
        )
    return pd.DataFrame(rows)


def _peer(peers: pd.DataFrame, column: str) -> str:
    """The least of the peers, with its name; a dash where there are none."""
    if peers.empty:
        return "–"
    best = peers.sort_values(column, kind="stable").iloc[0]
    return f"{best[column]:.2f}× ({best.library})"
