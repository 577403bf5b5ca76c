"""The book: what ``make book`` does, and what each rule of ``workflow/book.smk`` calls.

records → pages (papermill) → HTML (Jupyter Book). Snakemake decides which page is out of date. Nothing here
trains a study unless one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BOOK = Path("book")
GENERATED = BOOK / "generated"
RULES = Path("workflow/book.smk")
#: The pages of which the HTML was last built whole and without a warning.
BUILT = BOOK / "_build" / "pages.txt"
LOGS = Path("runs/logs")


class BookError(RuntimeError):
    """A page or the HTML failed: says which, and where its output is."""


def make_book(study: str | None = None, *, jobs: int | None = None) -> Path:
    """Build the book from the records in ``results/``; first run the study that is named, if one is.

    Args:
        study: a study's name or the path of its file; its page joins those of the published studies.
        jobs: trainings and pages at a time; absent: one for each core.

    Returns:
        the path of ``index.html``.

    Raises:
        ConfigError: the study's file is wrong; nothing has been done.
        BookError: a page or the HTML failed, or runs failed: then the book shows the others.
    """
    from lossatlas.workflow import require_checkout, require_mirror

    require_checkout()
    require_mirror()
    with _alone():
        return _make_book(study, jobs)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second build of this checkout out: both would write the same pages.

    The system frees the lock of a process that is killed.

    Raises:
        BookError: another build is at work.
    """
    from filelock import FileLock, Timeout

    LOGS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOGS / "book.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BookError(
            "expected one build of the book at a time, found another at work in this checkout; "
            "wait until it ends"
        ) from None
    with lock:
        yield


def _make_book(study: str | None, jobs: int | None) -> Path:
    from lossatlas.workflow import PROFILE, environment, tool

    failed = _run(study, jobs) if study else []
    started = time.monotonic()
    command = [
        *tool("snakemake"),
        *("-s", str(RULES), "--workflow-profile", str(PROFILE), "--quiet", "all"),
        *(["--cores", str(jobs)] if jobs else []),
        *(["--config", f"study={study}"] if study else []),
    ]
    sys.stdout.flush()
    try:
        said = sys.stdout.fileno()  # standard error, where standard output holds a result
    except OSError:  # a notebook's
        said = None
    if subprocess.run(command, env=environment(), stdout=said).returncode:
        raise BookError(f"the book failed; what failed is said above, and its output is in {LOGS}")
    index = BOOK / "_build" / "html" / "index.html"
    print(f"{time.monotonic() - started:7.1f} s  pages and HTML\n{index}")
    if failed:
        raise BookError(
            f"{len(failed)} run(s) failed, the book shows what the others gave: "
            + "; ".join(failed)
        )
    return index


def _run(file: str, jobs: int | None) -> list[str]:
    """Train and collect a study; what failed, a line a run."""
    from lossatlas.experiments import load_study
    from lossatlas.experiments.collect import MixedCodeError, collect
    from lossatlas.experiments.record import NoRunsError
    from lossatlas.workflow import run_study

    study = load_study(file)
    failed = run_study(file, jobs=jobs)
    fewer = not study.published  # what is committed is not lost to a part of it
    try:
        collect(study, file=file, fewer=fewer)
    except MixedCodeError as error:
        print(f"{error}\nthe page shows them together, and says so")
        collect(study, file=file, mixed=True, fewer=fewer)
    except NoRunsError as error:
        print(str(error))
    return failed


# --- what the rules call: python -m lossatlas.book …


def make_page(notebook: Path, page: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook with papermill and make it a page of the book.

    Raises:
        BookError: a cell failed; the notebook as far as it came stays in ``runs/logs``.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from lossatlas.report.page import finish

    LOGS.mkdir(parents=True, exist_ok=True)
    under_way = LOGS / f"page-{page.stem}.ipynb"
    try:
        papermill.execute_notebook(
            str(notebook), str(under_way), parameters, kernel_name="python3", progress_bar=False
        )
    except PapermillExecutionError as error:
        raise BookError(f"{error}\n{notebook} failed; what ran of it is in {under_way}") from None
    finish(under_way)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".md").unlink(missing_ok=True)
    under_way.replace(page)


def make_missing(page: Path, title: str, command: str) -> None:
    """A page in place of one whose records are not here: names the command that makes them."""
    page.with_suffix(".ipynb").unlink(missing_ok=True)
    _write(
        page,
        f"# {title} (not run)\n\nIts records are not in this checkout. This page appears after\n\n"
        f"```bash\n{command}\n```\n",
    )


def make_costs(bench: str = "results/bench") -> None:
    """What the page on clusters includes, or a sentence in its place where nothing was measured."""
    from lossatlas.report import costs, loop

    for name, text_of in (
        ("costs", lambda: costs.page(costs.load(bench))),
        ("loop", lambda: loop.page(bench)),
    ):
        try:
            text = text_of()
        except FileNotFoundError as error:
            text = f"Not measured on the machine that built this book: {error}. `make bench book` does it.\n"
        _write(GENERATED / f"{name}.md", text)


def make_front(results_dir: str | Path = "results") -> None:
    """What the front pages name: numbers and figures of two studies, and the ledger's answers translated."""
    from lossatlas.claims import answers, rare, real_images, several_classes
    from lossatlas.experiments.study import published_studies
    from lossatlas.report import front, look

    begin, thresholds = (Path(results_dir) / name for name in ("begin", "thresholds"))
    numbers: dict[str, Any] = {
        "begin": front.numbers(begin),
        "real": real_images.numbers(thresholds),
        "rare": rare.numbers(results_dir),
        "several": several_classes.numbers(results_dir),
        "ten": front.ten_classes(Path(results_dir) / "quick"),
    }
    studies = [Path(results_dir) / study.study for study in published_studies()]
    made = front.files(begin, GENERATED / "front", studies)
    made |= real_images.files(begin, thresholds, GENERATED / "front")
    logits = [Path(results_dir) / "look" / f"{study}.npz" for study in ("begin", "thresholds")]
    made[str(GENERATED / "front" / "look.md")] = look.embed(logits, _photographs)
    made[str(GENERATED / "front" / "numbers.json")] = (
        json.dumps(numbers, ensure_ascii=False, indent=1) + "\n"
    )
    for language in answers.SOURCES:
        made[str(GENERATED / "front" / f"claims_{language}.md")] = answers.page(
            language, results_dir
        )
    for path, text in made.items():
        _write(Path(path), text)


def _photographs(group: dict[str, Any]) -> tuple[str, Any, Any, Sequence[str]] | None:
    """Title, images, targets and ids of the test split that a group of real images comes from; None if not at hand."""
    from lossatlas import data
    from lossatlas.data.registry import source
    from lossatlas.report.look import truth

    name, params = group["dataset"], group["params"]
    if not data.is_available(name, **params):
        return None
    test = data.load(name, "test", **params)
    return source(name).title, test.images, truth(test.labels, test.ignore_index), test.ids


def make_html() -> None:
    """Build the HTML; a warning is an error.

    Sphinx renders the pages whose file has changed. All pages name their neighbours, so where pages came or went
    all are rendered; so they are after a failed build, because a warning is given once, when its page is read.

    Raises:
        BookError: with the warnings.
    """
    made = sorted(str(page) for page in GENERATED.rglob("*") if page.suffix in (".md", ".ipynb"))
    pages = (BOOK / "_toc.yml").read_text(encoding="utf-8") + "\n".join(made)
    same = BUILT.is_file() and BUILT.read_text(encoding="utf-8") == pages
    BUILT.unlink(missing_ok=True)
    command = [
        *("jupyter-book", "build", str(BOOK), *([] if same else ["--all"])),
        *("-W", "-n", "--keep-going"),
    ]
    log = LOGS / "book.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        lines = log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "WARNING" in line or "ERROR" in line]
        told = "\n".join((telling or lines)[-25:])
        raise BookError(
            f"{told}\n\nthe HTML failed (status {status}): {shlex.join(command)}\nits whole output is in {log}"
        )
    _write(BUILT, pages)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """What a rule types; the exit status, with a line that says how long it took."""
    parser = argparse.ArgumentParser(prog="python -m lossatlas.book", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page", help="execute a notebook to a page")
    page.add_argument("notebook", type=Path)
    page.add_argument("page", type=Path)
    page.add_argument("parameters", type=json.loads, nargs="?", default={})
    missing = commands.add_parser("missing", help="a page that names the command to make it")
    missing.add_argument("page", type=Path)
    missing.add_argument("title")
    missing.add_argument("make")
    for name in ("costs", "front", "html"):
        commands.add_parser(name)
    given = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        if given.command == "page":
            os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
            make_page(given.notebook, given.page, given.parameters)
        elif given.command == "missing":
            make_missing(given.page, given.title, given.make)
        else:
            {"costs": make_costs, "front": make_front, "html": make_html}[given.command]()
    except BookError as error:
        print(error)
        return 1
    print(f"{time.monotonic() - started:7.1f} s  {getattr(given, 'page', given.command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
