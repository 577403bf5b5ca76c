"""The whole book as one PDF: its links stay within it, and the front page links it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def pdf(script: Any) -> Any:
    return script("book/pdf.py")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A built book of two pages."""
    (tmp_path / "generated").mkdir()
    # as the book has it: the configuration on every page, the program on those with formulas alone
    config = "<script>window.MathJax = {}</script>"
    program = '<script src="../_static/mathjax/x.js?v=1"></script>'
    head = f'<html><head><link rel="stylesheet" href="a.css">{config}</head><body>'
    contents = '<nav class="bd-links"><a class="internal" href="generated/two.html">Two</a></nav>'
    (tmp_path / "intro.html").write_text(
        f'{head}{contents}<article><h1 id="front">Front</h1><a href="generated/two.html#part">on</a> '
        '<code class="docutils"><span class="pre">make</span> <span class="pre">pdf</span></code>'
        "<a href='https://example.org/'>out</a></article></body></html>"
    )
    (tmp_path / "generated" / "two.html").write_text(
        f"{head.replace(config, config + program)}"
        '<article><h2 id="part">Part</h2><img src="../_images/a.png" alt="a"><a href="#part">self</a>'
        "<details><summary>Solution</summary>open</details><details class='hide'>code</details>"
        "<script>1</script></article></body></html>"
    )
    return tmp_path


def test_links_between_pages_become_links_within_the_page(pdf: Any, book: Path) -> None:
    html = pdf.single(book)
    ids = set(re.findall(r'id="([^"]+)"', html))
    inner = re.findall(r'href="#([^"]+)"', html)
    assert len(inner) == 2 and set(inner) <= ids
    assert 'href="https://example.org/"' in html and 'src="_images/a.png"' in html


def test_solutions_are_open_and_folded_code_and_scripts_are_left_out(pdf: Any, book: Path) -> None:
    html = pdf.single(book)
    assert '<details open="">' in html and "code</details>" not in html and "<script>1" not in html


def test_formulas_are_set_although_the_front_page_has_none(pdf: Any, book: Path) -> None:
    html = pdf.single(book)
    assert html.index("window.MathJax") < html.index('src="_static/mathjax/x.js?v=1"')


def test_the_front_page_links_the_pdf(pdf: Any, book: Path, browser: Any) -> None:
    # `browser` skips where there is none; Playwright's loop must not run twice in one thread
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(pdf.make_pdf, book).result()
    assert made.read_bytes().startswith(b"%PDF")
    assert 'href="loss-atlas.pdf"' in (book / "intro.html").read_text()
    assert not (book / ".single.html").exists()


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.extended), 6])  # 70 s, 10 s
def test_the_built_book_prints(
    pdf: Any, built_book: Path, browser: Any, tmp_path: Path, every: int
) -> None:
    import concurrent.futures

    copy = tmp_path / "html"
    shutil.copytree(built_book, copy)
    listed = pdf.order(copy)
    assert len(listed) > 20
    for name in set(listed) - set(listed[::every]):  # a page that is not there is not printed
        (copy / name).unlink()
    pages = pdf.order(copy)
    assert pages == listed[::every]
    assert 'src="_static/mathjax/' in pdf.single(copy)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(pdf.make_pdf, copy).result()
    # a page of the book takes at least one page of paper
    assert len(re.findall(rb"/Type\s*/Page\b", made.read_bytes())) >= len(pages)


def test_a_folder_without_a_book_says_what_to_do(pdf: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make book"):
        pdf.make_pdf(tmp_path)
