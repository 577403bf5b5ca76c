"""From a study's file to the finished book: the stages of ``make book``, each a command one could type.

study → runs (Snakemake, papermill) → records → pages (papermill) → HTML (Jupyter Book)
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml

from lossatlas.experiments import ConfigError, Study, load_study
from lossatlas.experiments.progress import beats
from lossatlas.experiments.record import NoRunsError, is_complete, read_run, run_path

BOOK = Path("book")
GENERATED = BOOK / "generated"
REPORTS = Path("notebooks/reports")
DERIVATIONS = Path("notebooks/derivations")
LOGS = Path("runs/logs")
#: The studies whose pages the table of contents always has.
BOOK_STUDIES = ("quick", "quick_camvid")
#: The cell of the quick study whose executed notebook is a page of the book.
EXAMPLE_CELL = ("quick", "digits-unet-dice")


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
    name: str, *, jobs: int | None = None, runs_dir: str = "runs", fresh: bool = False
) -> list[Path]:
    """Train every run of a study that is not there yet, in parallel where cores allow.

    One failed cell does not stop the others.

    Args:
        name: a study of ``workflow/studies``, or the path of a study's file.
        jobs: cells at a time; None takes one for each core.
        runs_dir: the folder of the run folders.
        fresh: train every run anew, also those that are there.

    Returns:
        the notebooks of the cells that failed.

    Raises:
        ConfigError: the study's file or one of its components is wrong; nothing has been trained.
    """
    from lossatlas.experiments.config import check_components

    file = name
    study = load_study(file, check=check_components)
    name = study.study
    if fresh:
        for cell in study.cells():
            for run in cell.runs():
                shutil.rmtree(run_path(runs_dir, run), ignore_errors=True)
    waiting = [
        run for cell in study.cells() for run in cell.runs() if not is_complete(runs_dir, run)
    ]
    total = sum(len(cell.runs()) for cell in study.cells())
    say(f"study {name}: {total} runs, {total - len(waiting)} already there")
    _say_outdated(study, file, runs_dir)
    if waiting:
        _require_data(study)
    command = [
        *_tool("snakemake"),
        *(
            "-s",
            "workflow/Snakefile",
            "--keep-going",
            "--rerun-triggers",
            "mtime",
            "params",
            "input",
        ),
        *("--cores", str(jobs or "all"), "--nolock", "--quiet", "all"),
        *("--config", f"study={file}", f"runs_dir={runs_dir}"),
    ]
    # A marker without its runs (deleted by hand, or made by another version of the study) is no marker.
    for cell in study.cells():
        done = cell.notebook(name, runs_dir).with_suffix(".done")
        if not all(is_complete(runs_dir, run) for run in cell.runs()):
            done.unlink(missing_ok=True)
    log = LOGS / f"study-{name}.log"
    status = _watched(command, log, study, runs_dir)
    # a cell is done when its notebook ended and its runs are there: a figure may fail after the training
    failed = [
        cell.notebook(name, runs_dir)
        for cell in study.cells()
        if not cell.notebook(name, runs_dir).with_suffix(".done").is_file()
    ]
    if failed:
        say(f"study {name}: {len(failed)} of {len(list(study.cells()))} notebooks failed:")
        for notebook in failed:
            say(f"  {notebook}: {_last_error(notebook)}")
    if status != 0:
        say(f"study {name}: the workflow's own output is in {log}")
        if not failed:
            raise StageError(f"the workflow of study {name} failed (status {status}): see {log}")
    return failed


def _say_outdated(study: Study, file: str, runs_dir: str) -> None:
    """Say how many of the study's runs other code has made: they are shown, and marked, but not trained anew."""
    from lossatlas.experiments.collect import outdated

    there = [run for cell in study.cells() for run in cell.runs() if is_complete(runs_dir, run)]
    count = outdated({run.run_id: read_run(run_path(runs_dir, run)) for run in there})
    if count:
        say(
            f"study {study.study}: {count} runs are of other code; `lossatlas run --fresh {file}` makes them anew"
        )


def _require_data(study: Study) -> None:
    """Read what the data sets need before any notebook starts, so that a missing file is said once, here."""
    from lossatlas.experiments.components import load_datasets

    seen = []
    for cell in study.cells():
        config = cell.runs()[0]
        key = (config.dataset, config.dataset_params)
        if key not in seen:
            seen.append(key)
            load_datasets(config)


def _watched(command: list[str], log: Path, study: Study, runs_dir: str) -> int:
    """Run ``command`` with its output in ``log`` and say how far the study is; the exit status."""
    runs = [run for cell in study.cells() for run in cell.runs()]
    before = sum(is_complete(runs_dir, run) for run in runs)
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
        try:
            while process.poll() is None:
                if terminal:
                    done = sum(is_complete(runs_dir, run) for run in runs)
                    line = progress_line(
                        done, before, len(runs), time.monotonic() - started, list(beats(runs_dir))
                    )
                    width = shutil.get_terminal_size().columns - 1
                    sys.stderr.write("\r\x1b[K" + line[:width])
                    sys.stderr.flush()
                time.sleep(0.5)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            if terminal:
                sys.stderr.write("\r\x1b[K")
    return process.returncode


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


def _last_error(notebook: Path) -> str:
    """The error of an executed notebook in one line."""
    import nbformat

    if not notebook.is_file():
        log = notebook.with_suffix(".log")
        lines = log.read_text().strip().splitlines() if log.is_file() else []
        return lines[-1] if lines else "it did not start"
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
    log = notebook.with_suffix(".log")
    lines = log.read_text().strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "stopped without an error in a cell"


# --- the pages


def make_derivation_pages(jobs: int | None = None) -> list[Path]:
    """Execute the derivations, ``jobs`` at a time; a formula that its checks refute stops the build."""
    sources = _sources("theory", "losses", "analysis")

    def make(notebook: Path) -> Path:
        return _execute(notebook, GENERATED / notebook.name, {}, newer_than=sources)

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(make, sorted(DERIVATIONS.glob("*.ipynb"))))


def make_study_page(name: str, *, results_dir: str = "results") -> Path:
    """Execute the report on a study's records; the page appears in ``book/generated``."""
    from lossatlas.analysis.page import finish

    records = Path(results_dir) / name
    _forget(GENERATED / f"compare_{name}.md")
    return _execute(
        REPORTS / "compare.ipynb",
        GENERATED / f"compare_{name}.ipynb",
        {"study": name, "records": str(records)},
        newer_than=[records / "study.json", *_sources("analysis")],
        finish=finish,
    )


def make_report_pages(jobs: int | None = None) -> list[Path]:
    """Execute the reports that belong to no study, ``jobs`` at a time."""

    def make(name: str, sources: list[Path]) -> Path:
        notebook = REPORTS / f"{name}.ipynb"
        return _execute(notebook, GENERATED / notebook.name, {}, newer_than=sources)

    wanted = {
        "benchmark": [*_sources("analysis"), *Path("results/bench").glob("losses.*")],
        "datasets": _sources("data", "losses"),
    }
    if Path("results/bench/losses.csv").is_file():
        _forget(GENERATED / "benchmark.md")
    else:
        del wanted["benchmark"]
        make_missing_page("benchmark", "No benchmark has been run here.", "make bench book")
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(make, wanted, wanted.values()))


def make_missing_page(name: str, why: str, command: str) -> Path:
    """A page in place of a report that cannot be made yet: says why, and which command makes it."""
    page = GENERATED / f"{name}.md"
    _forget(page.with_suffix(".ipynb"))
    _write_if_changed(
        page,
        f"# `{name.removeprefix('compare_')}` has not been run here\n\n{why}\n\n"
        f"This page appears after\n\n```bash\n{command}\n```\n",
    )
    return page


def make_example_page(runs_dir: str = "runs") -> Path | None:
    """Copy one executed training notebook into the book; None while there is none."""
    study, cell = EXAMPLE_CELL
    executed = Path(runs_dir) / "cells" / study / f"{cell}.ipynb"
    page = GENERATED / "run_example.ipynb"
    if executed.with_suffix(
        ".done"
    ).is_file():  # a failed notebook stays where its error can be read
        from lossatlas.analysis.page import finish

        _forget(page.with_suffix(".md"))
        if not page.is_file() or page.stat().st_mtime < executed.stat().st_mtime:
            temporary = page.with_name(f".{page.name}")
            page.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(executed, temporary)
            finish(temporary)
            temporary.replace(page)
        return page
    _forget(page)
    _write_if_changed(
        page.with_suffix(".md"),
        "# A single run\n\nThe executed notebook of one run appears here after\n\n```bash\nmake book\n```\n",
    )
    return None


def make_contents(extra_study: str | None) -> Path:
    """The table of contents, with the page of a study that is not always there."""
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text())
    if extra_study and extra_study not in BOOK_STUDIES:
        page = {"file": f"generated/compare_{extra_study}"}
        for part in contents.get("parts", []):
            files = [chapter.get("file", "") for chapter in part["chapters"]]
            if f"generated/compare_{BOOK_STUDIES[0]}" in files and page["file"] not in files:
                part["chapters"].append(page)
    path = GENERATED / "_toc.yml"
    _write_if_changed(path, yaml.safe_dump(contents, sort_keys=False))
    return path


def build_html(contents: Path) -> Path:
    """Build the HTML; a warning is an error.

    Sphinx renders anew only the pages whose file has changed. The others name their neighbours, so where pages
    came or went all are rendered.
    """
    pages = contents.read_text() + "\n".join(sorted(page.name for page in GENERATED.iterdir()))
    rendered = BOOK / "_build" / "pages.txt"
    everything = not rendered.is_file() or rendered.read_text() != pages
    command = [
        *(*_tool("jupyter-book"), "build", str(BOOK), *(["--all"] if everything else [])),
        *("-W", "-n", "--keep-going", "--toc", str(contents.resolve())),
    ]
    # A warning is given once, when its page is read: after a failed build all pages are read again.
    rendered.unlink(missing_ok=True)
    _run_stage(command, LOGS / "book.log", "the book")
    rendered.write_text(pages)
    return BOOK / "_build" / "html" / "index.html"


def _execute(
    notebook: Path,
    page: Path,
    parameters: dict[str, str],
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
    for name, value in parameters.items():
        command += ["-p", name, value]
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
    with log.open("w") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=_environment()
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
    from lossatlas.experiments.collect import collect

    require_checkout()
    _require_mirror()
    studies = {file: load_study(file) for file in dict.fromkeys((study, *BOOK_STUDIES[1:]))}
    times: dict[str, float] = {}
    failed: list[Path] = []
    for file, definition in studies.items():
        name = definition.study
        absent = [d.name for d in definition.datasets if not data.is_available(d.name, **d.params)]
        if absent and file != study:
            say(f"study {name}: passed over, {', '.join(absent)} is not on this machine")
            make_missing_page(
                f"compare_{name}",
                f"Its data set, {', '.join(absent)}, is not on the machine that built this book.",
                "make data book",
            )
            continue
        with _timed(f"study {name}", times):
            failed += run_study(file, jobs=jobs)
        with _timed(f"records and page of {name}", times):
            try:
                collect(definition, file=file)
                make_study_page(name)
            except NoRunsError:
                make_missing_page(f"compare_{name}", "Its runs failed.", f"make book STUDY={file}")
    if BOOK_STUDIES[0] not in {definition.study for definition in studies.values()}:
        with _timed(f"page of {BOOK_STUDIES[0]}", times):
            if (Path("results") / BOOK_STUDIES[0] / "study.json").is_file():
                make_study_page(BOOK_STUDIES[0])
            else:
                make_missing_page(
                    f"compare_{BOOK_STUDIES[0]}",
                    "This book was built for another study.",
                    "make book",
                )
    with _timed("derivations", times):
        make_derivation_pages(jobs)
    with _timed("other reports", times):
        make_report_pages(jobs)
    make_example_page()
    with _timed("book", times):
        index = build_html(make_contents(studies[study].study))
    say("")
    for stage, seconds in times.items():
        say(f"{seconds:7.1f} s  {stage}")
    say(f"{sum(times.values()):7.1f} s  in all")
    say(str(index))
    if failed:
        raise StageError(
            f"{len(failed)} notebook(s) failed, the book shows what the others gave: "
            + ", ".join(str(path) for path in failed)
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
