"""What a study asks for, what of it is there, and what the rest will cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.heartbeat import beats, broken_off, failures
from lossatlas.experiments.record import is_complete, read_run, run_path
from lossatlas.experiments.recorded import Recorded, recorded_runs
from lossatlas.experiments.study import Member, Stage, Study
from lossatlas.experiments.tuning import read_selection, tuning_runs

#: Assumed where no run of the study has finished yet; a small network on 32×32 images takes about this on one core.
DEFAULT_STEP_S = 0.05
#: Assumed size of a run folder where none is there.
DEFAULT_RUN_MB = 1.0
#: Start of a job's process until the first training step, on one core.
START_S = 8.0

#: In the order in which they are counted out.
State = Literal["done", "diverged", "under way", "failed", "broken off", "waiting", "no rate yet"]


@dataclass(frozen=True)
class Run:
    """One run of a study and how far it is.

    Attributes:
        member: the run by its labels.
        config: its configuration; None while no learning rate has been chosen for it.
        state: ``done`` and ``diverged`` have a record; ``failed`` raised at the last attempt; ``broken off`` lost
            its process and goes on from its checkpoint; ``waiting`` has not begun or was interrupted.
        reason: of a failure, or where the run stands.
        record: ``run.json`` where there is one, or what the study's committed records say of the run.
        folder: the run folder; None where the run is in committed records alone.
    """

    member: Member
    config: RunConfig | None
    state: State
    reason: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: Path | None = None


def survey(
    study: Study, runs_dir: str | Path = "runs", results_dir: str | Path | None = None
) -> list[Run]:
    """Every run of both stages with its state, tuning runs first.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        results_dir: the folder of committed records: a run that they hold, made with today's versions, is done;
            None looks at run folders alone.
    """
    recorded = recorded_runs(results_dir, study.study, runs_dir=runs_dir)
    try:
        selection = read_selection(study, runs_dir, recorded)
    except ConfigError:  # the tuning is not through
        selection = None
    noted, gone = failures(runs_dir), broken_off(runs_dir)
    under_way = {beat["run_id"]: beat for beat in beats(runs_dir)}
    return [
        _state(member, study.config(member, selection), runs_dir, recorded, noted, gone, under_way)
        for member in [
            *(member for member, _ in tuning_runs(study, runs_dir, recorded)),
            *study.members("report"),
        ]
    ]


def _state(
    member: Member,
    config: RunConfig | None,
    runs_dir: str | Path,
    recorded: Mapping[str, Recorded],
    noted: Mapping[str, Any],
    gone: Iterable[str],
    under_way: Mapping[str, Any],
) -> Run:
    if config is None:
        return Run(member, None, "no rate yet", "its tuning runs come first")
    if is_complete(runs_dir, config) or config.run_id in recorded:
        folder = run_path(runs_dir, config) if is_complete(runs_dir, config) else None
        record = read_run(folder) if folder else recorded[config.run_id].record
        completed = record["status"] == "completed"
        state: State = "done" if completed else "diverged"
        return Run(member, config, state, "" if completed else record["status"], record, folder)
    if config.run_id in under_way:
        beat = under_way[config.run_id]
        return Run(member, config, "under way", f"step {beat['step']}/{beat['steps']}")
    if config.run_id in noted:
        return Run(member, config, "failed", noted[config.run_id]["error"])
    if config.run_id in gone:
        return Run(member, config, "broken off", "its process ended without a word")
    return Run(member, config, "waiting")


def counts(runs: Iterable[Run]) -> dict[State, int]:
    """How many runs are in each state, states without a run left out."""
    counted = Counter(run.state for run in runs)
    return {state: counted[state] for state in get_args(State) if counted[state]}


def needed(runs: Iterable[Run]) -> list[Run]:
    """The runs that have no record yet."""
    return [run for run in runs if run.state not in ("done", "diverged")]


@dataclass(frozen=True)
class Estimate:
    """What the missing runs of a study will cost.

    Attributes:
        work_s: seconds of all missing runs together, one after the other.
        wall_s: the same with the starts of their processes, on ``workers`` of them.
        workers: processes at a time.
        measured: runs from whose times this follows; 0 where it is the stated default.
        disk_mb: of the missing run folders.
    """

    work_s: float
    wall_s: float
    workers: int
    measured: int
    disk_mb: float


def estimate(study: Study, runs: list[Run], *, workers: int | None = None) -> Estimate:
    """Time and disk of the missing runs, from those that are there.

    A run takes as long a step as the finished runs of its data set, model and loss; where there are none, of its
    data set and model; then as all of the study; and ``DEFAULT_STEP_S`` where nothing has finished. Steps of runs
    without a rate yet are those of ``training``.
    """
    workers = workers or os.cpu_count() or 1
    rates: dict[tuple[str, ...], list[float]] = {}
    sizes: list[float] = []
    for run in runs:
        if run.record and run.config is not None:
            per_step = run.record["wall_s"] / run.config.steps
            for key in _alike(run):
                rates.setdefault(key, []).append(per_step)
            if run.folder is not None and len(sizes) < 20:  # folders of one study are alike
                sizes.append(_size_mb(run.folder))
    work_s = 0.0
    missing = needed(runs)
    for run in missing:
        found = next((rates[key] for key in _alike(run) if key in rates), None)
        per_step = sum(found) / len(found) if found else DEFAULT_STEP_S
        work_s += per_step * (run.config.steps if run.config else study.training.steps)
    starts = len(missing) / study.runs_per_job
    wall_s = (work_s + starts * START_S) / max(1, min(workers, len(missing)))
    each_mb = sum(sizes) / len(sizes) if sizes else DEFAULT_RUN_MB
    return Estimate(work_s, wall_s, workers, len(rates.get((), [])), each_mb * len(missing))


def _alike(run: Run) -> tuple[tuple[str, ...], ...]:
    """Whose times a run is estimated by, the closest first: its data set, model and loss; without the loss; all."""
    combination = run.member.combination
    return combination, combination[:2], ()


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h`` or ``4.2 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def describe_plan(study: Study, runs: list[Run], cost: Estimate) -> str:
    """The text of ``lossatlas plan``: a line a data set and model, what is there, and what the rest costs."""
    lines = [f"study {study.study}: {study.question}"]
    stages: tuple[tuple[Stage, str], ...] = (("tuning", "tuning"), ("report", "reported"))
    for stage, word in stages:
        of_stage = [run for run in runs if run.member.stage == stage]
        if not of_stage:
            continue
        lines.append(f"{word}: {len(of_stage)} runs, {_shape(study, stage)}")
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in of_stage:
            groups.setdefault((run.member.dataset, run.member.model), []).append(run)
        width = max(len(f"{dataset} · {model}") for dataset, model in groups)
        for (dataset, model), members in groups.items():
            lines.append(f"  {f'{dataset} · {model}':{width}s}  {_counted(members)}")
    missing = len(needed(runs))
    if not missing:
        lines.append("nothing is left to train")
        return "\n".join(lines)
    basis = (
        f"as the {cost.measured} runs that have finished"
        if cost.measured
        else f"assumed: {DEFAULT_STEP_S:g} s a step, no run has finished yet"
    )
    lines.append(
        f"left: {missing} runs, {duration(cost.work_s)} of training; about {duration(cost.wall_s)} with "
        f"{cost.workers} at a time ({basis})"
    )
    lines.append(f"disk: about {cost.disk_mb:,.0f} MB more")
    return "\n".join(lines)


def _shape(study: Study, stage: Stage) -> str:
    tuning = study.tuning if stage == "tuning" else None
    datasets = tuning.datasets if tuning is not None and tuning.datasets else study.datasets
    sizes = f"{len(datasets)} data sets × {len(study.models)} models × {len(study.losses)} losses"
    if tuning is None:
        return f"{sizes} × {len(study.seeds)} seeds"
    tried = f"{len(tuning.optimizer)} optimisers × {len(tuning.lr)} rates"
    return f"{sizes} × {tried} × {len(tuning.seeds)} seeds, and more rates where the best is at the edge"


def _counted(runs: Iterable[Run]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts(runs).items())


def describe_status(study: Study, runs: list[Run], *, shown: int = 20) -> str:
    """The text of ``lossatlas status``: the counts, then every run that needs a word, with its reason."""
    lines = [f"study {study.study}: {len(runs)} runs: {_counted(runs)}"]
    for state in ("under way", "diverged", "failed", "broken off"):
        members = [run for run in runs if run.state == state]
        if not members:
            continue
        lines.append(f"{state}:")
        lines += [
            f"  {run.member}: {run.reason} (run {run.config.run_id if run.config else ''})"
            for run in members[:shown]
        ]
        if len(members) > shown:
            lines.append(f"  … and {len(members) - shown} more")
    if any(run.state == "failed" for run in runs):
        lines.append(f"`lossatlas retry {study.study} --failed` tries the failed runs again")
    return "\n".join(lines)
