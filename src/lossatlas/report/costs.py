"""What a large study costs, from what small ones were measured to cost: the arithmetic of a page of the book."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Sizes that the page adds up: a thorough comparison, and one of every loss on every data set with many seeds.
SIZES = (1_200, 100_000)
#: Cores of the cluster of which the page speaks.
CORES = 100
#: The studies whose runs the arithmetic takes, the first that has records; else any.
REFERENCE = ("imbalance", "quick")
#: Seconds of engine a run beyond a kernel's start, set before anything was measured.
TARGET_S = 3.0
#: What `benchmarks/workflow.py` leaves.
FILES = ("workflow.csv", "engine.csv", "workflow.json")


@dataclass(frozen=True)
class Measured:
    """The tables of ``benchmarks/workflow.py`` and the seconds that the runs of finished studies took.

    Attributes:
        workflow: a row a stage and size.
        engine: a row a kernel, notebook or job.
        machine: where and when; ``runs_per_job`` of the studies.
        run_s: by study, median seconds of a run on a core, from its start to its record.
        training_share: by study, the part of these seconds that is the training loop.
    """

    workflow: pd.DataFrame
    engine: pd.DataFrame
    machine: dict[str, Any]
    run_s: dict[str, float]
    training_share: dict[str, float]

    @property
    def runs_per_job(self) -> int:
        """Runs that a job of the measured studies has."""
        return int(self.machine["runs_per_job"])

    def core_s(self, what: str, runs: int) -> float:
        """Seconds on a core of a row of the table of processes."""
        rows = self.engine[(self.engine.what == what) & (self.engine.runs == runs)]
        return float(rows.core_s.iloc[0])

    @property
    def study(self) -> str:
        """The study whose runs the arithmetic takes."""
        return next((name for name in REFERENCE if name in self.run_s), next(iter(self.run_s)))

    def per_run_s(self, what: str) -> float:
        """What each further run of one step adds to a ``job`` or a ``notebook``: all that is not training.

        0 where several runs took no longer than one: it is less than two starts differ by.
        """
        rows = self._of(what)
        return max(0.0, float(rows.iloc[-1] - rows.iloc[0]) / (rows.index[-1] - rows.index[0]))

    def start_s(self, what: str) -> float:
        """What a ``job`` or a ``notebook`` takes beside its runs: interpreter, kernel, imports, figures."""
        return float(self._of(what).loc[1]) - self.per_run_s(what)

    def overhead_s(self, what: str, runs: int) -> float:
        """What the engine adds to each of ``runs`` runs beyond a kernel (or process) with the imports it needs."""
        imports = {"job": "a process", "notebook": "a kernel"}[what]
        ready = self.core_s(f"{imports} with the imports of a training", 0)
        return (self.start_s(what) - ready) / runs + self.per_run_s(what)

    @property
    def files_per_run(self) -> float:
        """Files in the folder of a run."""
        return float(self.engine[self.engine.what == "job"].files_per_run.iloc[0])

    def _of(self, what: str) -> pd.Series:
        """Seconds on a core by runs."""
        return self.engine[self.engine.what == what].set_index("runs").core_s.sort_index()

    def stage_s(self, stage: str, size: float) -> float:
        """Seconds on a core of a stage, measured or beyond the largest size that was.

        Beyond it the cost that comes with the size goes on as between the two largest sizes, but never slower than
        in proportion.

        Args:
            stage: ``plan``, ``graph``, ``jobs`` or ``collect``.
            size: runs; for ``graph`` its jobs.
        """
        rows = self._stage(stage)
        return self._grown(rows, rows.core_s.iloc[0], rows.beyond_start_s.iloc[-1], size)

    def engine_s(self, runs: float) -> float:
        """Seconds on a core of Snakemake's own process while it runs the jobs of so many runs.

        Its children, the jobs, run beside each other and are counted with the starts.
        """
        rows = self._stage("jobs")
        first, largest = rows.own_s.iloc[[0, -1]]
        return self._grown(rows, first, largest - first, runs)

    def exponent(self, stage: str) -> float:
        """How a stage's cost beyond its start grows between the two largest sizes: 1 is in proportion.

        NaN where the smaller of the two costs no more than a start.
        """
        return float(self._stage(stage).exponent.iloc[-1])

    def _stage(self, stage: str) -> pd.DataFrame:
        return self.workflow[self.workflow.stage == stage].sort_values("runs")

    @staticmethod
    def _grown(rows: pd.DataFrame, start: float, beyond: float, size: float) -> float:
        """A start and what lies beyond it at the largest size, grown to another size; in proportion at least."""
        exponent = np.fmax(1.0, rows.exponent.iloc[-1])
        return float(start + beyond * (size / rows.runs.iloc[-1]) ** exponent)


def require_measured(bench: str | Path, names: Sequence[str]) -> Path:
    """The folder of the benchmarks' files.

    Raises:
        FileNotFoundError: one of the files is missing.
    """
    missing = [name for name in names if not Path(bench, name).is_file()]
    if missing:
        raise FileNotFoundError(f"expected {', '.join(missing)} in {bench}: run `make bench` first")
    return Path(bench)


def load(bench: str | Path = "results/bench", results: str | Path = "results") -> Measured:
    """Read what the benchmark left, and the times of the studies whose records are there.

    Raises:
        FileNotFoundError: the benchmark has not been run, or no study has.
    """
    folder = require_measured(bench, FILES)
    run_s, share = {}, {}
    for path in sorted(Path(results).glob("*/runs.parquet")):
        runs = pd.read_parquet(path, columns=["wall_s", "train_s"])
        run_s[path.parent.name] = float(runs.wall_s.median())
        share[path.parent.name] = float(runs.train_s.sum() / runs.wall_s.sum())
    if not run_s:
        raise FileNotFoundError(f"no study's runs.parquet in {results}: run `make book` first")
    return Measured(
        workflow=pd.read_csv(folder / "workflow.csv"),
        engine=pd.read_csv(folder / "engine.csv"),
        machine=json.loads((folder / "workflow.json").read_text()),
        run_s=run_s,
        training_share=share,
    )


def bill(measured: Measured, runs: int) -> dict[str, float]:
    """Seconds on a core of everything that a study of ``runs`` runs does, by what it is spent on.

    The runs are as long as those of ``measured.study``, in jobs of ``runs_per_job``.
    """
    jobs = -(-runs // measured.runs_per_job)
    return {
        f"training, as in `{measured.study}`": runs * measured.run_s[measured.study],
        "starts of the jobs": jobs * measured.start_s("job"),
        "Snakemake's graph": measured.stage_s("graph", jobs),
        "Snakemake's own work on the jobs": measured.engine_s(runs),
        "`lossatlas plan`": measured.stage_s("plan", runs),
        "`lossatlas collect`": measured.stage_s("collect", runs),
    }


def bottleneck(costs: dict[str, float], cores: int) -> tuple[str, float]:
    """The longest of what one process does alone, and its share of the time until all is done on ``cores`` cores."""
    parallel, alone = _parts(costs)
    longest = max(alone, key=lambda name: alone[name])
    return longest, alone[longest] / (sum(parallel.values()) / cores + sum(alone.values()))


def _parts(costs: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """What the cores share, and what one process does alone before and after."""
    shared = {name: s for name, s in costs.items() if name.startswith(("training", "starts"))}
    return shared, {name: s for name, s in costs.items() if name not in shared}


def page(measured: Measured, sizes: Sequence[int] = SIZES, cores: int = CORES) -> str:
    """The arithmetic as Markdown: every number of it is measured, or follows from measured ones."""
    bills = {runs: bill(measured, runs) for runs in sizes}
    lines = [*_what_was_measured(measured), "", *_growth(measured), ""]
    lines += head("seconds on a core, one after the other", *map(_count, sizes))
    lines += [row(name, *(_time(bills[runs][name]) for runs in sizes)) for name in bills[sizes[0]]]
    files = (_count(round(runs * measured.files_per_run)) for runs in sizes)
    lines += [row("files", *files), ""]
    for runs in sizes:
        shared, alone = _parts(bills[runs])
        longest, share = bottleneck(bills[runs], cores)
        lines.append(
            f"- **{_count(runs)} runs** on {cores} cores: {_time(sum(shared.values()) / cores)} of training and "
            f"starts, then what one process does alone: {_time(sum(alone.values()))}, most of it {longest} "
            f"({share:.0%} of the time until the records are there)."
        )
    each = sizes[-1]
    notebooks = each * measured.start_s("notebook")
    lines.append(
        f"- The same {_count(each)} runs with a notebook for each instead of jobs of {measured.runs_per_job}: "
        f"{_time(notebooks)} on a core for starts alone, and a graph of {_time(measured.stage_s('graph', each))}."
    )
    return "\n".join(lines) + "\n"


def _what_was_measured(measured: Measured) -> list[str]:
    kernel = measured.core_s("a kernel with the imports of a training", 0)
    process = measured.core_s("a process with the imports of a training", 0)
    seconds, shares = measured.run_s.values(), measured.training_share.values()
    jobs = measured.overhead_s("job", measured.runs_per_job)
    seeds = ", ".join(
        f"{measured.overhead_s('notebook', count):.1f} s with {words}"
        for count, words in ((1, "one seed"), (3, "three"), (8, "eight"))
    )
    cores, load = measured.machine["cores"], max(measured.machine["load_average_before_and_after"])
    busy = (
        f" The machine was busy (a load of {load:.0f} on {cores} cores), which makes seconds on a core longer too."
        if load > cores + 0.5
        else ""
    )
    adds = {
        what: f"{seconds:.2f} s" if seconds else "less than can be measured"
        for what in ("job", "notebook")
        for seconds in [measured.per_run_s(what)]
    }
    return [
        f"A run takes {min(seconds):.0f} to {max(seconds):.0f} s (means of {len(seconds)} studies), of which "
        f"{min(shares):.0%} to {max(shares):.0%} are the training loop.",
        "",
        f"A further run of one step adds {adds['job']} to a job and {adds['notebook']} to a notebook. A job's process "
        f"starts in {measured.start_s('job'):.1f} s, {process:.1f} s of which are imports that any training needs.",
        "",
        f"A notebook, with its figures, takes {measured.start_s('notebook'):.1f} s beside its runs, {kernel:.1f} s of "
        f"which are a kernel with those imports.{busy}",
        "",
        f"The aim was at most {TARGET_S:g} s of engine for each run, beyond a kernel that is ready to train. It is "
        f"{jobs:.1f} s in jobs of {measured.runs_per_job}; in a notebook {seeds}.",
    ]


def _growth(measured: Measured) -> list[str]:
    sizes = sorted(set(measured.workflow.runs))
    lines = head("stage, runs that are there already", *map(_count, sizes), "each", "exponent")
    words = {
        "plan": "`lossatlas plan`",
        "graph": "Snakemake's graph, a job a run",
        "jobs": f"Snakemake's work, jobs of {measured.runs_per_job}",
        "collect": "`lossatlas collect`",
    }
    for stage, text in words.items():
        of_stage = measured._stage(stage)
        times = (f"{seconds:.1f}\N{NO-BREAK SPACE}s" for seconds in of_stage.core_s)
        each = f"{of_stage.ms_per_run.iloc[-1]:.1f}\N{NO-BREAK SPACE}ms"
        grows = f"{measured.exponent(stage):.2f}".replace("nan", "–")
        lines.append(row(text, *times, each, grows))
    if any(math.isnan(measured.exponent(stage)) for stage in words):
        small = _count(sizes[-2])
        told = f"–: up to {small} runs the stage costs no more than its start; it grows later."
        lines += ["", told]
    return lines


def head(first: str, *numbers: str) -> list[str]:
    """The head of a Markdown table with words in its first column and numbers in the others."""
    return [row(first, *numbers), "| --- |" + " ---: |" * len(numbers)]


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def _count(number: int) -> str:
    return f"{number:,}"


def _time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h`` or ``4.2 days``."""
    for size, unit, limit in ((1.0, "s", 90.0), (60.0, "min", 90.0), (3600.0, "h", 48.0)):
        if seconds / size < limit:
            digits = 1 if unit == "h" or seconds / size < 10 else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} days"
