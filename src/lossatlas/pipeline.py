"""From a study's file to the finished book: the stages of ``make book``, each a command one could type.

study → runs (Snakemake) → records → pages (papermill) → HTML (Jupyter Book)
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lossatlas.experiments import ConfigError, Study, load_study, tuning
from lossatlas.experiments.heartbeat import beats, forget_failure
from lossatlas.experiments.jobs import all_jobs, report_path
from lossatlas.experiments.record import NoRunsError, is_complete, run_path, undo_interrupted
from lossatlas.experiments.recorded import Recorded, recorded_runs
from lossatlas.experiments.status import Run, needed, survey
from lossatlas.experiments.study import Member, page_notebook, published_studies
from lossatlas.experiments.versions import changed_components

BOOK = Path("book")
GENERATED = BOOK / "generated"
REPORTS = Path("notebooks/reports")
DERIVATIONS = Path("notebooks/derivations")
#: What trains a data set, model and loss by hand: ``papermill notebooks/train.ipynb out.ipynb -p loss dice``.
NOTEBOOK = Path("notebooks/train.ipynb")
LOGS = Path("runs/logs")
#: Where the jobs run unless another profile is named: on this machine.
PROFILE = Path("workflow/profiles/local")
#: The studies that ``make book`` trains, and whose pages the table of contents always has.
BOOK_STUDIES = ("quick", "quick_camvid")
#: What has changed where a run's network need only be judged anew.
JUDGED = ["evaluation"]
#: Runs of the quick study whose training notebook, executed on them, is a page of the book.
EXAMPLE = ("digits", "unet", "dice")


class StageError(RuntimeError):
    """A stage did not finish: says which, and where its output is."""


def require_checkout() -> None:
    """Raise unless the current folder is the checkout's root: notebooks and the workflow stand beside src."""
    if not (Path("workflow/Snakefile").is_file() and Path("notebooks").is_dir()):
        raise ConfigError(
            f"expected the root of a Loss Atlas checkout (workflow/ and notebooks/), got {Path.cwd()}: "
            "change to it first"
        )


def _require_mirror() -> None:
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
    outdated = _stale(before)
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
    failed = _failed(study, runs_dir, results)
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
        *_tool("snakemake"),
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
    selection = tuning.select(study, runs_dir, recorded_runs(results_dir, study.study))
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
    """Try the runs in ``states`` again: notes of failures go, records of diverged runs go, then ``run_study``.

    Raises:
        ConfigError: the study's file is wrong.
    """
    study = load_study(name)
    again = [run for run in survey(study, runs_dir) if run.state in states]
    say(f"study {study.study}: {len(again)} runs are tried again")
    if not again:
        return []
    _forget_runs(study, again, runs_dir)
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
    there = {
        (run.member, run.state in ("done", "diverged"))
        for run in survey(study, runs_dir, results_dir)
    }
    lacking = {member for member, is_there in there if not is_there}
    folder = Path(runs_dir) / "cells" / study.study
    for job in all_jobs(study, runs_dir, results_dir).values():
        if lacking.intersection(job.members):
            report_path(study, job, runs_dir).with_suffix(".done").unlink(missing_ok=True)
            (folder / "every_run.done").unlink(missing_ok=True)
            if job.stage == "tuning":  # what was chosen without these runs is chosen again
                (folder / "rates.done").unlink(missing_ok=True)
    if study.tuning is not None and not tuning.selection_path(study, runs_dir).is_file():
        (folder / "rates.done").unlink(missing_ok=True)


def _failed(study: Study, runs_dir: str, results_dir: str) -> list[str]:
    """After the workflow: a line for each run without a record."""
    return [
        f"{run.member}: {run.reason or run.state}"
        for run in needed(survey(study, runs_dir, results_dir))
    ]


def _stale(runs: Iterable[Run]) -> list[tuple[Run, list[str]]]:
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
    recorded = recorded_runs(results_dir, study.study)
    before, total = _there(study, runs_dir, recorded)
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, _stoppable():
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # a group of its own, which is asked to stop as a whole
        )
        try:
            while process.poll() is None:
                if terminal:
                    done, _ = _there(study, runs_dir, recorded)
                    line = progress_line(
                        done, before, total, time.monotonic() - started, list(beats(runs_dir))
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
        while (
            time.monotonic() < until
        ):  # a training may outlive the workflow by the time of its saving
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


# --- the pages


def make_derivation_pages(jobs: int | None = None) -> list[Path]:
    """Execute the derivations, ``jobs`` at a time; a formula that its checks refute stops the build."""
    from lossatlas.report.page import finish

    sources = _sources("claims", "theory", "losses", "report", "metrics")
    # what studies have settled: the ledger shows it
    settled = list(Path("results").glob("*/verdicts.json"))

    def make(notebook: Path) -> Path:
        newer_than = [*sources, *(settled if notebook.stem == "ledger" else [])]
        return _execute(
            notebook, GENERATED / notebook.name, {}, newer_than=newer_than, finish=finish
        )

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(make, sorted(DERIVATIONS.glob("*.ipynb"))))


def page_name(study: Study) -> str:
    """The page of a study in ``book/generated``."""
    return f"studies/{study.study}"


def make_study_page(study: Study, file: str, *, results_dir: str = "results") -> Path:
    """Execute a study's page on its records; it appears in ``book/generated/studies``."""
    from lossatlas.report.page import finish

    name = page_name(study)
    records = Path(results_dir) / study.study
    _forget(GENERATED / f"{name}.md")
    return _execute(
        page_notebook(file),
        GENERATED / f"{name}.ipynb",
        {"study": study.study, "records": str(records)},
        newer_than=[
            records / "study.json",
            *_sources("report"),
        ],
        finish=finish,
    )


def make_published_pages(jobs: int | None = None) -> list[Path]:
    """The pages of the studies whose records are committed, ``jobs`` at a time; nothing is trained."""

    def make(study: Study) -> Path:
        name = study.study
        if (Path("results") / name / "study.json").is_file():
            return make_study_page(study, name)
        return make_missing_page(
            page_name(study),
            "Its records are not in this checkout.",
            f"lossatlas run {name} && lossatlas collect {name} && make book",
            study.title or "",
        )

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(make, [s for s in published_studies() if s.study not in BOOK_STUDIES]))


def make_report_pages(jobs: int | None = None) -> list[Path]:
    """Execute the reports that belong to no study, ``jobs`` at a time."""
    from lossatlas.report.page import finish

    def make(name: str, sources: list[Path]) -> Path:
        notebook = REPORTS / f"{name}.ipynb"
        return _execute(notebook, GENERATED / notebook.name, {}, newer_than=sources, finish=finish)

    wanted = {
        "benchmark": [*_sources("report"), *Path("results/bench").glob("losses.*")],
        "statistics": [*_sources("report"), *Path("results/statistics").glob("*")],
        "datasets": _sources("data", "losses"),
    }
    measured = {
        "benchmark": ("results/bench/losses.csv", "make bench book"),
        "statistics": (
            "results/statistics/coverage.csv",
            "python benchmarks/coverage.py --out results/statistics/coverage.csv && make book",
        ),
    }
    for name, (table, command) in measured.items():
        if Path(table).is_file():
            _forget(GENERATED / f"{name}.md")
        else:
            del wanted[name]
            make_missing_page(name, f"`{table}` is not there: it has not been measured.", command)
    make_costs()
    make_front()
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(make, wanted, wanted.values()))


def make_costs(bench: str = "results/bench") -> list[Path]:
    """What the page on clusters includes, or a sentence in its place where nothing was measured."""
    from lossatlas.report import costs, loop

    made = []
    for name, text_of in (
        ("costs", lambda: costs.page(costs.load(bench))),
        ("loop", lambda: loop.page(bench)),
    ):
        try:
            text = text_of()
        except FileNotFoundError as error:
            text = f"Not measured on the machine that built this book: {error}. `make bench book` does it.\n"
        made.append(GENERATED / f"{name}.md")
        _write_if_changed(made[-1], text)
    return made


def make_front(results_dir: str | Path = "results") -> list[Path]:
    """What the front pages name: numbers and figures of the study `begin`, and the ledger's answers translated."""
    from lossatlas.claims import answers
    from lossatlas.report import front

    made = front.files(Path(results_dir) / "begin", GENERATED / "front")
    for language in answers.SOURCES:
        made[str(GENERATED / "front" / f"claims_{language}.md")] = answers.page(
            language, results_dir
        )
    for path, text in made.items():
        _write_if_changed(Path(path), text)
    return [Path(path) for path in made]


def make_missing_page(name: str, why: str, command: str, title: str = "") -> Path:
    """A page in place of a report that cannot be made yet: says why, and which command makes it."""
    page = GENERATED / f"{name}.md"
    _forget(page.with_suffix(".ipynb"))
    _write_if_changed(
        page,
        f"# {title or name} (not run here)\n\n{why}\n\n"
        f"This page appears after\n\n```bash\n{command}\n```\n",
    )
    return page


def make_example_page(runs_dir: str = "runs") -> Path | None:
    """Execute the training notebook on finished runs of the quick study; None while they are not there."""
    from lossatlas.report.page import finish

    study = load_study(BOOK_STUDIES[0])
    configs = [config for member, config in study.reporting_runs() if member.combination == EXAMPLE]
    page = GENERATED / "run_example.ipynb"
    if configs and all(is_complete(runs_dir, config) for config in configs):
        _forget(page.with_suffix(".md"))
        values = configs[0].model_dump(exclude={"seed"})
        values |= {"seeds": [config.seed for config in configs], "runs_dir": runs_dir}
        records = [run_path(runs_dir, config) / "run.json" for config in configs]
        return _execute(NOTEBOOK, page, values, newer_than=records, finish=finish)
    _forget(page)
    _write_if_changed(
        page.with_suffix(".md"),
        "# A single run\n\nThe training notebook, executed on one run, appears here after\n\n"
        "```bash\nmake book\n```\n",
    )
    return None


def build_html() -> Path:
    """Build the HTML; a warning is an error.

    Sphinx renders anew only the pages whose file has changed. The others name their neighbours, so where pages
    came or went all are rendered.
    """
    there = sorted(str(page) for page in GENERATED.rglob("*") if page.suffix in (".md", ".ipynb"))
    pages = (BOOK / "_toc.yml").read_text() + "\n".join(there)
    rendered = BOOK / "_build" / "pages.txt"
    everything = not rendered.is_file() or rendered.read_text() != pages
    command = [
        *(*_tool("jupyter-book"), "build", str(BOOK), *(["--all"] if everything else [])),
        *("-W", "-n", "--keep-going"),
    ]
    # A warning is given once, when its page is read: after a failed build all pages are read again.
    rendered.unlink(missing_ok=True)
    _run_stage(command, LOGS / "book.log", "the book")
    rendered.write_text(pages)
    return BOOK / "_build" / "html" / "index.html"


def _execute(
    notebook: Path,
    page: Path,
    parameters: Mapping[str, Any],
    newer_than: list[Path],
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Run ``notebook`` through papermill to ``page``, unless the page is newer than all that it depends on."""
    if page.is_file() and all(
        source.stat().st_mtime <= page.stat().st_mtime for source in [notebook, *newer_than]
    ):
        return page
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_name(f".{page.name}")
    command = [
        *_tool("papermill"),
        str(notebook),
        str(temporary),
        "-k",
        "python3",
        "--no-progress-bar",
    ]
    if parameters:
        command += ["-y", json.dumps(parameters)]
    say(f"  {notebook} → {page}")
    log = LOGS / f"page-{page.stem}.log"
    try:
        _run_stage(command, log, str(notebook))
        if finish is not None:
            finish(temporary)
        temporary.replace(page)
    finally:
        if temporary.is_file():
            # keep what failed for reading, outside the book: a half page must not be taken for a page
            temporary.replace(log.with_suffix(".ipynb"))
    return page


def _sources(*parts: str) -> list[Path]:
    root = Path(__file__).resolve().parent
    return [
        path
        for part in parts
        for path in (root / part).rglob("*")
        if path.suffix in {".py", ".yaml", ".json"}
    ]


def _run_stage(command: Sequence[str], log: Path, what: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    # pages are made beside each other: threads of linear algebra in each would wait for those of the others
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with log.open("w") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=_environment() | threads
        ).returncode
    if status:
        lines = log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "WARNING" in line or "ERROR" in line]
        tail = "\n".join((telling or lines)[-25:])
        raise StageError(
            f"{tail}\n\n{what} failed (status {status}): {shlex.join(command)}\nits whole output is in {log}"
        )


def _tool(name: str) -> list[str]:
    """The program of this Python's environment, whether or not it is on the PATH."""
    return [str(Path(sys.executable).parent / name)]


def _environment() -> dict[str, str]:
    """The environment with this Python's programs first on the PATH: the workflow's shell lines name them."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": folder + os.pathsep + os.environ.get("PATH", ""),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _write_if_changed(path: Path, text: str) -> None:
    """Write only what differs: Sphinx rebuilds a page whose file is newer."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# --- all of it


def make_book(study: str = BOOK_STUDIES[0], *, jobs: int | None = None) -> Path:
    """Run the study (a name or a file), the small one on real scenes where it can be, and build the book.

    Returns:
        the path of ``index.html``.

    Raises:
        ConfigError: the study's file is wrong; nothing has been done.
        StageError: a stage failed, or runs failed: then the book has been built from those that are there.
    """
    from lossatlas import data
    from lossatlas.experiments.collect import MixedCodeError, collect

    require_checkout()
    _require_mirror()
    studies = {file: load_study(file) for file in dict.fromkeys((study, *BOOK_STUDIES[1:]))}
    times: dict[str, float] = {}
    failed: list[str] = []
    for file, definition in studies.items():
        name = definition.study
        absent = [d.name for d in definition.datasets if not data.is_available(d.name, **d.params)]
        if absent and file != study:
            say(f"study {name}: passed over, {', '.join(absent)} is not on this machine")
            make_missing_page(
                page_name(definition),
                f"Its data set, {', '.join(absent)}, is not on the machine that built this book.",
                "make data book",
                definition.title or "",
            )
            continue
        with _timed(f"study {name}", times):
            failed += run_study(file, jobs=jobs)
        with _timed(f"records and page of {name}", times):
            fewer = not definition.published  # what is committed is not lost to a part of it
            try:
                try:
                    collect(definition, file=file, fewer=fewer)
                except MixedCodeError as error:
                    say(f"{error}\nthe page shows them together, and says so")
                    collect(definition, file=file, mixed=True, fewer=fewer)
                make_study_page(definition, file)
            except NoRunsError:
                make_missing_page(
                    page_name(definition),
                    "Its runs failed.",
                    f"make book STUDY={file}",
                    definition.title or "",
                )
    if BOOK_STUDIES[0] not in {definition.study for definition in studies.values()}:
        with _timed(f"page of {BOOK_STUDIES[0]}", times):
            if (Path("results") / BOOK_STUDIES[0] / "study.json").is_file():
                make_study_page(load_study(BOOK_STUDIES[0]), BOOK_STUDIES[0])
            else:
                make_missing_page(
                    f"studies/{BOOK_STUDIES[0]}",
                    "This book was built for another study.",
                    "make book",
                    load_study(BOOK_STUDIES[0]).title or "",
                )
    with _timed("published studies", times):
        make_published_pages(jobs)
    with _timed("derivations", times):
        make_derivation_pages(jobs)
    with _timed("other reports", times):
        make_report_pages(jobs)
    make_example_page()
    with _timed("book", times):
        index = build_html()
    say("")
    for stage, seconds in times.items():
        say(f"{seconds:7.1f} s  {stage}")
    say(f"{sum(times.values()):7.1f} s  in all")
    say(str(index))
    if failed:
        raise StageError(
            f"{len(failed)} run(s) failed, the book shows what the others gave: "
            + "; ".join(failed)
        )
    return index


@contextmanager
def _timed(stage: str, times: dict[str, float]) -> Iterator[None]:
    say(f"— {stage}")
    started = time.monotonic()
    try:
        yield
    finally:
        times[stage] = time.monotonic() - started
