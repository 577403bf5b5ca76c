"""From a study's file to its runs, through Snakemake: what ``lossatlas run`` and ``lossatlas retry`` do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lossatlas.experiments import ConfigError, Study, load_study, tuning
from lossatlas.experiments.heartbeat import beats, forget_failure, try_again
from lossatlas.experiments.jobs import all_jobs, marker_path
from lossatlas.experiments.record import is_complete, run_path, undo_interrupted
from lossatlas.experiments.recorded import Recorded, recorded_runs
from lossatlas.experiments.status import Run, needed, survey
from lossatlas.experiments.study import Member
from lossatlas.experiments.versions import changed_components

LOGS = Path("runs/logs")
#: Where the jobs run unless another profile is named: on this machine.
PROFILE = Path("workflow/profiles/local")
#: What has changed where a run's network need only be judged anew.
JUDGED = ["evaluation"]


class StageError(RuntimeError):
    """A stage did not finish: says which, and where its output is."""


def require_checkout() -> None:
    """Raise unless the current folder is the checkout's root: notebooks and the workflow stand beside src."""
    if not (Path("workflow/Snakefile").is_file() and Path("notebooks").is_dir()):
        raise ConfigError(
            f"expected the root of a Loss Atlas checkout (workflow/ and notebooks/), got {Path.cwd()}: "
            "change to it first"
        )


def require_mirror() -> None:
    """A mirror that is named must be there: else its data would be passed over without a word."""
    mirror = os.environ.get("LOSSATLAS_MIRROR", "")
    if mirror and "://" not in mirror and not Path(mirror).is_dir():
        raise ConfigError(
            f"LOSSATLAS_MIRROR: expected a folder or an address, got {mirror!r}: mend or unset it"
        )


def say(text: str) -> None:
    """A line for whoever watches; nothing waits in a buffer."""
    print(text, flush=True)


# --- the study


def run_study(
    name: str,
    *,
    jobs: int | None = None,
    runs_dir: str = "runs",
    results_dir: str = "results",
    fresh: bool = False,
    stale: bool = False,
    profile: str | Path = PROFILE,
) -> list[str]:
    """Train every run of a study that is not there yet, in parallel where cores allow.

    A run is there if its folder is, or if committed records hold it, made with today's versions.

    Where the study tunes, the tuning runs come first, then the choice of the learning rates. One failed run does
    not stop the others.

    Args:
        name: a study of ``studies``, or the path of a study's file.
        jobs: jobs at a time; None leaves it to the profile, which takes one for each core.
        runs_dir: the folder of the run folders.
        results_dir: the folder of the records of all studies.
        fresh: train every run again, also those that are there.
        stale: retrain the runs that were trained with older versions of their code; re-evaluate those of which the
            evaluation alone has another version.
        profile: the Snakemake profile, which says where the jobs run.

    Returns:
        what failed: a line a run.

    Raises:
        ConfigError: the study's file or one of its components is wrong; nothing has been trained.
    """
    file = name
    study = load_study(file)
    name = study.study
    undo_interrupted(runs_dir)
    results = "" if fresh else results_dir  # --fresh trains what is recorded, too
    before = survey(study, runs_dir, results)
    outdated = of_older_code(before)
    if fresh or stale or needed(before):
        _require_components(file)
    if fresh or stale:
        retrained = before if fresh else [run for run, what in outdated if what != JUDGED]
        if not fresh and len(retrained) < len(outdated):
            from lossatlas.experiments.reevaluate import reassess_study

            forgotten = {run.member for run in retrained}
            reassess_study(study, runs_dir=runs_dir, but=forgotten, say=say)
        _forget_runs(study, retrained, runs_dir)
        before, outdated = survey(study, runs_dir, results), []
    say(f"study {name}: {len(before)} runs, {len(before) - len(needed(before))} already there")
    _say_stale(file, study, outdated)
    if not needed(before):
        return []
    from lossatlas.data.errors import require_writable  # imports torch

    require_writable("runs", runs_dir, "or name another folder with --runs-dir")
    require_writable("records", results_dir, "or name another folder with --results-dir")
    log = LOGS / f"study-{name}.log"
    waiting: set[Member] = set()
    while True:  # a winner at the edge of the grid asks for runs that no one knew of before
        _drop_stale_markers(study, runs_dir, results)
        tuned = {run.member for run in needed(survey(study, runs_dir, results)) if run.member.lr}
        target = "rates" if tuned - waiting else "all"
        waiting = tuned
        command = snakemake(file, jobs, runs_dir, profile, results, target)
        status = _watched(command, log, study, runs_dir, results)
        if target == "all" or status != 0:
            break
    left = needed(survey(study, runs_dir, results))
    failed = [f"{run.member}: {run.reason or run.state}" for run in left]
    if failed:
        say(f"study {name}: {len(failed)} of {len(before)} runs failed:")
        for line in failed:
            say(f"  {line}")
    if status != 0:
        say(f"study {name}: the workflow's own output is in {log}")
        if not failed:
            raise StageError(f"the workflow of study {name} failed (status {status}): see {log}")
    return failed


def snakemake(
    study: str,
    jobs: int | None,
    runs_dir: str,
    profile: str | Path,
    results_dir: str = "",
    target: str = "all",
) -> list[str]:
    """The command that trains a study: what ``run_study`` types."""
    return [
        *tool("snakemake"),
        *("-s", "workflow/Snakefile", "--workflow-profile", str(profile), "--quiet", "all"),
        *(["--cores" if Path(profile) == PROFILE else "--jobs", str(jobs)] if jobs else []),
        *("--config", f"study={study}", f"runs_dir={runs_dir}", f"results_dir={results_dir}"),
        f"target={target}",
    ]


def select_rates(study: Study, runs_dir: str = "runs", results_dir: str = "") -> Path:
    """Choose each loss's learning rate from the tuning runs; says which, and which loss has none.

    Returns:
        the path of ``selection.json``.

    Raises:
        ConfigError: the study tunes nothing.
    """
    if study.tuning is None:
        raise ConfigError(f"study {study.study} has no key 'tuning': there is nothing to choose")
    recorded = recorded_runs(results_dir, study.study, runs_dir=runs_dir)
    selection = tuning.select(study, runs_dir, recorded)
    for combination, choice in selection.items():
        edge = ", at the edge of what was tried" if choice.at_edge else ""
        say(
            f"{' · '.join(combination)}: {choice.optimizer} {choice.lr:g} "
            f"(validation Dice {choice.score:.3f}{edge})"
        )
    for combination, count in selection.missing.items():
        say(f"{' · '.join(combination)}: none, {count} tuning runs are missing")
    return tuning.write_selection(study, selection, runs_dir)


def retry(
    name: str,
    *,
    states: Collection[str],
    jobs: int | None = None,
    runs_dir: str = "runs",
    results_dir: str = "results",
    profile: str | Path = PROFILE,
) -> list[str]:
    """Try the runs in ``states`` again: notes of failures go, folders of diverged runs go, then ``run_study``.

    Records of these runs in ``results_dir`` do not count until they are trained; the next ``collect`` replaces them.

    Raises:
        ConfigError: the study's file is wrong.
    """
    study = load_study(name)
    again = [run for run in survey(study, runs_dir, results_dir) if run.state in states]
    say(f"study {study.study}: {len(again)} runs are tried again")
    if not again:
        return []
    _forget_runs(study, again, runs_dir)
    for run in again:
        if run.config is not None and run.state == "diverged":
            try_again(runs_dir, run.config.run_id)
    return run_study(name, jobs=jobs, runs_dir=runs_dir, results_dir=results_dir, profile=profile)


def _forget_runs(study: Study, runs: Iterable[Run], runs_dir: str) -> None:
    """Delete run folders, and with a tuning run what was chosen from it."""
    for run in runs:
        if run.config is not None:
            shutil.rmtree(run_path(runs_dir, run.config), ignore_errors=True)
            forget_failure(runs_dir, run.config.run_id)
            if run.member.stage == "tuning":
                tuning.selection_path(study, runs_dir).unlink(missing_ok=True)


def _drop_stale_markers(study: Study, runs_dir: str, results_dir: str) -> None:
    """A marker without its runs (deleted by hand, or made by another version of the study) is no marker."""
    lacking = {run.member for run in needed(survey(study, runs_dir, results_dir))}
    folder = Path(runs_dir) / "cells" / study.study
    for job in all_jobs(study, runs_dir, results_dir).values():
        if lacking.intersection(job.members):
            marker_path(study, job, runs_dir).unlink(missing_ok=True)
            (folder / "every_run.done").unlink(missing_ok=True)
            if job.stage == "tuning":  # what was chosen without these runs is chosen again
                (folder / "rates.done").unlink(missing_ok=True)
    if study.tuning is not None and not tuning.selection_path(study, runs_dir).is_file():
        (folder / "rates.done").unlink(missing_ok=True)


def of_older_code(runs: Iterable[Run]) -> list[tuple[Run, list[str]]]:
    """The runs that depend on code that has changed since, with what has changed of it."""
    changed = [(run, changed_components(run.record)) for run in runs if run.record]
    return [(run, what) for run, what in changed if what]


def _say_stale(file: str, study: Study, stale: Sequence[tuple[Run, list[str]]]) -> None:
    """Name the runs of older versions, by what has changed: pages show and mark them; nothing is retrained."""
    if not stale:
        return
    groups: dict[str, list[Run]] = {}
    for run, what in stale:
        names = {"loss": f"loss {run.member.loss}", "model": f"model {run.member.model}"}
        names["data"] = f"data set {run.member.dataset}"
        groups.setdefault(", ".join(names.get(each, each) for each in what), []).append(run)
    say(f"study {study.study}: {len(stale)} runs were made with older versions of their code:")
    for changed, runs in groups.items():
        ids = ", ".join(run.config.run_id for run in runs[:4] if run.config)
        say(f"  {changed}: {len(runs)} runs ({ids}{', …' if len(runs) > 4 else ''})")
    judged = sum(what == JUDGED for _, what in stale)
    if judged < len(stale):
        say(f"  `lossatlas run --stale {file}` retrains what must be, and no others")
    if judged:
        say(f"  `lossatlas evaluate {file}` re-evaluates the networks where that alone has changed")


def _require_components(file: str) -> None:
    """Check names, parameters and data before any job starts, so that what is wrong is said once, here."""
    from lossatlas import data
    from lossatlas.experiments.components import load_datasets
    from lossatlas.experiments.config import check_components

    study = load_study(file, check=check_components)
    for config in study.examples():
        if not data.is_available(config.dataset, **config.dataset_params):
            load_datasets(config)  # says what is missing, and what to do


def _watched(command: list[str], log: Path, study: Study, runs_dir: str, results_dir: str) -> int:
    """Run ``command`` with its output in ``log`` and say how far the study is; the exit status.

    Raises:
        KeyboardInterrupt: this process was asked to stop (Ctrl-C, SIGTERM); the trainings have saved themselves.
    """
    recorded = recorded_runs(results_dir, study.study, runs_dir=runs_dir)
    before, total = _there(study, runs_dir, recorded)
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, _stoppable():
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,  # a group of its own, which is asked to stop as a whole
        )
        try:
            while process.poll() is None:
                if terminal:
                    done, _ = _there(study, runs_dir, recorded)
                    line = progress_line(
                        done, before, total, time.monotonic() - started, beats(runs_dir)
                    )
                    width = shutil.get_terminal_size().columns - 1
                    sys.stderr.write("\r\x1b[K" + line[:width])
                    sys.stderr.flush()
                    # looking costs a file a run: a large study is looked at less often
                    time.sleep(total / 500)
                time.sleep(0.5)
        except BaseException:
            _stop(process)
            raise
        finally:
            if terminal:
                sys.stderr.write("\r\x1b[K")
    return process.returncode


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt within the block.

    Also where SIGINT is ignored, as in what a shell runs in the background: children would ignore it too.
    """

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(process: subprocess.Popen[bytes], patience_s: float = 60.0) -> None:
    """Ask the workflow and its trainings to stop, as Ctrl-C would: they save themselves, or are killed.

    On a cluster the workflow takes its jobs back.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        until = time.monotonic() + patience_s
        # a training may outlive the workflow by the time of its saving
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _there(study: Study, runs_dir: str, recorded: Mapping[str, Recorded]) -> tuple[int, int]:
    """How many of the study's runs are there, and how many it asks for."""
    try:
        selection = tuning.read_selection(study, runs_dir, recorded)
    except ConfigError:  # the tuning is not through
        selection = None
    tuned = tuning.tuning_runs(study, runs_dir, recorded)
    runs = [*tuned, *study.reporting_runs(selection)]
    total = len(tuned) + len(study.members("report"))
    done = sum(config.run_id in recorded or is_complete(runs_dir, config) for _, config in runs)
    return done, total


def progress_line(
    done: int, before: int, total: int, elapsed_s: float, under_way: Sequence[dict]
) -> str:
    """``7/36 runs · digits · unet · dice · seed 1: step 80/150, loss 0.43 · about 3 min left``.

    Args:
        done: runs finished so far, those of earlier sessions included.
        before: runs that were finished when the watch began; they say nothing about speed.
        total: runs of the study.
        elapsed_s: seconds since the watch began.
        under_way: the heartbeats of the trainings that run now.
    """
    parts = [f"{done}/{total} runs"]
    parts += [
        f"{beat['label']}: step {beat['step']}/{beat['steps']}, loss {beat['loss']:.3f}"
        for beat in under_way
    ]
    finished = done - before + sum(beat["step"] / beat["steps"] for beat in under_way)
    if finished > 0:
        left_s = elapsed_s / finished * (total - before - finished)
        parts.append(
            f"about {left_s / 60:.0f} min left" if left_s > 90 else f"about {left_s:.0f} s left"
        )
    return " · ".join(parts)


def tool(name: str) -> list[str]:
    """The program of this Python's environment, whether or not it is on the PATH."""
    return [str(Path(sys.executable).parent / name)]


def environment() -> dict[str, str]:
    """The environment with this Python's programs first on the PATH: the workflow's shell lines name them."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": folder + os.pathsep + os.environ.get("PATH", ""),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
