"""A two-page book with the real configuration: covers a clone that has not run `make book`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

pytest.importorskip("jupyter_book", reason="the extra [book] is not installed")


BOOK = Path(__file__).resolve().parents[2] / "book"


def miniature(folder: Path, first_page: str) -> Path:
    """A book of a Markdown page and an executed notebook, with the real configuration."""
    book = folder / "book"
    book.mkdir()
    shutil.copy(BOOK / "_config.yml", book)
    shutil.copytree(BOOK / "_ext", book / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(BOOK / "_static", book / "_static")
    (book / "references.bib").write_text("", encoding="utf-8")
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n  - file: notebook\n", encoding="utf-8"
    )
    (book / "intro.md").write_text(first_page, encoding="utf-8")
    math = v4.new_output("display_data", {"text/latex": r"$\displaystyle \frac{p}{1-p}$"})
    text = v4.new_output("display_data", {"text/markdown": "printed: $\\sqrt{p}$"})
    cell = v4.new_code_cell("show()", outputs=[math, text], execution_count=1)
    heading = v4.new_markdown_cell("# A notebook\n\nwith $z = \\ln\\frac{p}{1-p}$.")
    notebook = v4.new_notebook(
        cells=[heading, cell],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        },
    )
    nbformat.write(notebook, book / "notebook.ipynb")
    return book


def build(book: Path) -> subprocess.CompletedProcess[str]:
    """Builds it as `make book` does: every warning is an error."""
    program = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["build", str(book), "-W", "-n", "--keep-going"]
    command = [sys.executable, "-c", program, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    book = miniature(
        tmp_path_factory.mktemp("miniature"),
        "# A page\n\nInline $p - t$, and\n\n$$\\frac{2I}{S+T} \\boldsymbol{z} \\cancel{x}$$\n\n"
        "| a | b |\n|---|---|\n| 1 | $x^2$ |\n\n[the notebook](notebook.ipynb)\n",
    )
    done = build(book)
    assert done.returncode == 0, done.stdout + done.stderr
    return book / "_build" / "html"


@pytest.mark.parametrize("name", ["intro.html", "notebook.html"])
def test_a_page_reads_without_a_network(
    small_book: Path, serve: Any, complaints: Any, name: str
) -> None:
    with serve(small_book) as origin:
        found = complaints(f"{origin}/{name}", origin=origin)
    assert found == []


def test_formulas_printed_by_a_notebook_are_drawn(
    small_book: Path, serve: Any, browser: Any
) -> None:
    with serve(small_book) as origin:
        page = browser.new_page()
        page.goto(f"{origin}/notebook.html")
        page.wait_for_selector("mjx-container")
        page.evaluate("async () => { await window.MathJax.startup.promise; }")
        drawn = page.locator("article mjx-container").count()
        page.close()
    assert drawn == 3


def test_only_the_wanted_part_of_mathjax_is_in_the_book(small_book: Path) -> None:
    mathjax = small_book / "_static" / "mathjax"
    size = sum(file.stat().st_size for file in mathjax.rglob("*") if file.is_file())
    assert (mathjax / "tex-chtml.js").exists()
    assert size < 4_000_000


def test_a_page_fetches_the_icons_that_the_book_shows_and_no_others(
    small_book: Path, serve: Any, browser: Any
) -> None:
    script = small_book / "_static" / "scripts" / "fontawesome.js"
    assert script.stat().st_size < 150_000
    with serve(small_book) as origin:
        page = browser.new_page()
        page.goto(f"{origin}/intro.html")
        page.wait_for_selector("button svg.fa-magnifying-glass", state="attached")
        shown = page.locator("svg.fa-magnifying-glass path").first.get_attribute("d")
        page.close()
    assert shown and len(shown) > 50


def test_a_page_without_a_formula_does_not_fetch_mathjax(small_book: Path) -> None:
    assert "tex-chtml.js" in (small_book / "intro.html").read_text(encoding="utf-8")
    assert "tex-chtml.js" not in (small_book / "search.html").read_text(encoding="utf-8")


def test_the_checker_sees_a_page_that_is_wrong(serve: Any, complaints: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><body><article>$$ \\frac{1}{2} $$<table><tr><td></td></tr></table>"
        "<img src='http://example.org/a.png'><p style='width:900px'>wide</p>"
        "Traceback (most recent call last)<pre>&lt;IPython.core.display.Markdown object&gt;</pre>"
        "<script>console.error('no'); undefined_name;</script>"
        "</article></body></html>",
        encoding="utf-8",
    )
    with serve(tmp_path) as origin:
        found = " | ".join(complaints(f"{origin}/bad.html", origin=origin))
    parts = ("raw TeX", "empty table", "outside the book", "px wide", "traceback", "uncaught")
    for part in (*parts, "object's name"):
        assert part in found
    assert "console: no" in found


def test_a_picture_from_another_host_fails_the_build(tmp_path: Path) -> None:
    page = "# A page\n\n<img src='https://example.org/badge.svg' alt='badge'>\n"
    done = build(miniature(tmp_path, page))
    assert done.returncode != 0
    assert "fetches from outside the book" in done.stdout + done.stderr
