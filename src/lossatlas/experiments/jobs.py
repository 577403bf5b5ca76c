"""Many small runs in one process: a study's ``runs_per_job`` says how many.

A process for each run would spend more time starting than a small run trains. A job trains its runs one after the
other; one that fails is noted and the next begins. Whatever ends the process (a signal, a dead node), the same command
goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossatlas.basics import near_matches
from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.heartbeat import (
    broken_off,
    forget_failure,
    note_failure,
    one_line,
)
from lossatlas.experiments.record import is_complete, read_run, require_same_data, run_path
from lossatlas.experiments.recorded import recorded_runs
from lossatlas.experiments.study import Member, Stage, Study
from lossatlas.experiments.tuning import read_selection, tuning_runs


@dataclass(frozen=True)
class Job:
    """Runs that one process trains; all on one data set, which is read once."""

    name: str
    stage: Stage
    members: tuple[Member, ...]


def jobs(study: Study, stage: Stage, members: Sequence[Member] | None = None) -> list[Job]:
    """The jobs of a stage: of equal size but for one run, each with as many of every loss as any other.

    The runs of a data set and model are dealt to their jobs like cards, sorted by loss, so that no job has all
    the runs of the slowest loss. Runs at a rate that the grid did not have are jobs of their own, one a rate: what the
    others are called does not change when they come.

    Args:
        study: as read.
        stage: ``"tuning"`` or ``"report"``.
        members: the runs of the stage; None takes those in the study's file.
    """
    members = study.members(stage) if members is None else members
    grid = study.tuning.lr if study.tuning is not None else []
    groups: dict[tuple[str, str, str], list[Member]] = {}
    for member in members:
        wider = "" if member.lr is None or member.lr in grid else f"-at{member.lr:g}"
        groups.setdefault((member.dataset, member.model, wider), []).append(member)
    found = []
    for (dataset, model, wider), runs in groups.items():
        count = -(-len(runs) // study.runs_per_job)
        digits = len(str(count - 1))
        found += [
            Job(f"{stage}-{dataset}-{model}{wider}-{k:0{digits}d}", stage, tuple(runs[k::count]))
            for k in range(count)
        ]
    return found


def all_jobs(
    study: Study, runs_dir: str | Path = "runs", results_dir: str | Path | None = None
) -> dict[str, Job]:
    """The jobs of both stages by name, those among them that a winner at the edge of the grid asks for."""
    recorded = recorded_runs(results_dir, study.study, runs_dir=runs_dir)
    tuning = [member for member, _ in tuning_runs(study, runs_dir, recorded)]
    return {job.name: job for job in [*jobs(study, "tuning", tuning), *jobs(study, "report")]}


def marker_path(study: Study, job: Job, runs_dir: str | Path = "runs") -> Path:
    """The marker of a job, which the workflow writes when the job has been through all its runs."""
    return Path(runs_dir) / "cells" / study.study / "jobs" / f"{job.name}.done"


@dataclass(frozen=True)
class Outcome:
    """How one run of a job ended: ``status`` is the record's, or ``"failed"`` or ``"no rate chosen"``."""

    member: str
    run_id: str | None
    status: str
    reason: str = ""
    seconds: float = 0.0


def train_job(
    study: Study,
    name: str,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path | None = None,
    accelerator: str = "auto",
) -> list[Outcome]:
    """Train the runs of a job that are not there yet, and print how each ended.

    Args:
        study: as read.
        name: of the job, as :func:`jobs` names it.
        runs_dir: the folder of the run folders.
        results_dir: the folder of committed records, whose runs are not trained again; None for none.
        accelerator: Fabric's name of the device.

    Returns:
        one outcome a run, in the job's order.

    Raises:
        ConfigError: there is no such job, or it reports and the tuning has not been evaluated.
    """
    known = all_jobs(study, runs_dir, results_dir)
    if name not in known:
        raise ConfigError(f"study {study.study} has no job {name!r}: {near_matches(name, known)}")
    job = known[name]
    recorded = recorded_runs(results_dir, study.study, runs_dir=runs_dir)
    selection = read_selection(study, runs_dir, recorded) if job.stage == "report" else None
    configs = {member: study.config(member, selection) for member in job.members}
    of_job = [config for config in configs.values() if config is not None]
    outcomes: dict[Member, Outcome] = {}
    datasets: dict[str, Any] = {}
    for member in _in_turn(configs, runs_dir):
        config = configs[member]
        if config is not None and config.run_id in recorded and not is_complete(runs_dir, config):
            record = recorded[config.run_id].record
            outcomes[member] = Outcome(str(member), config.run_id, record["status"])
        else:
            outcomes[member] = _train(member, config, of_job, datasets, runs_dir, accelerator)
        outcome = outcomes[member]
        print(
            f"{member}: run {outcome.run_id} {outcome.status}"
            + (f": {outcome.reason}" if outcome.reason else "")
            + (f" ({outcome.seconds:.1f} s)" if outcome.seconds else ""),
            flush=True,
        )
    return [outcomes[member] for member in job.members]


def _in_turn(configs: Mapping[Member, RunConfig | None], runs_dir: str | Path) -> Sequence[Member]:
    """The job's order, but a run that ended its process before comes last: it must not keep the others back."""
    suspect = broken_off(runs_dir)
    return sorted(configs, key=lambda member: getattr(configs[member], "run_id", "") in suspect)


def _train(
    member: Member,
    config: RunConfig | None,
    of_job: Sequence[RunConfig],
    datasets: dict[str, Any],
    runs_dir: str | Path,
    accelerator: str,
) -> Outcome:
    """Train one run; whatever it raises is its outcome."""
    if config is None:
        return Outcome(
            str(member), None, "no rate chosen", "a tuning run of this loss is missing: it failed"
        )
    started = time.perf_counter()
    try:
        if not is_complete(runs_dir, config):
            # torch waits until something is left to train: a job that is through is checked in a second
            from lossatlas.experiments.components import load_datasets, require_same_shape
            from lossatlas.experiments.training import train_run

            if not datasets:
                loaded = load_datasets(config)
                require_same_shape(loaded)
                require_same_data(runs_dir, of_job, loaded)
                datasets |= loaded
            train_run(config, datasets, runs_dir=runs_dir, accelerator=accelerator)
        forget_failure(runs_dir, config.run_id)
        status, reason = read_run(run_path(runs_dir, config))["status"], ""
    # an interruption is no Exception and ends the job, to be taken up again
    except Exception as error:
        note_failure(runs_dir, config.run_id, str(member), error)
        status, reason = "failed", one_line(error)
    seconds = round(time.perf_counter() - started, 2)
    return Outcome(str(member), config.run_id, status, reason, seconds)
