"""The whole book as one PDF: the built pages in the order of the contents, printed by Chromium.

    python book/pdf.py        # after `make book`; writes book/_build/html/loss-atlas.pdf

The articles of all pages become one page, links between pages become links within it, solutions are open, folded code
stays out. The front page then links the PDF in the place of its words "make pdf".
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
from pathlib import Path

from bs4 import BeautifulSoup, Tag

NAME = "loss-atlas.pdf"
#: What a printed page leaves out: buttons, scripts, folded code, and what needs a script to be of use.
LEFT_OUT = "script, button, .headerlink, details.hide, .cell_input, #ledger-filter, .launch, nav"
PRINT = """
@page { size: A4; margin: 18mm 16mm; }
body { font-size: 10pt; } article { break-before: page; } article:first-of-type { break-before: auto; }
h1, h2, h3 { break-after: avoid; } img, table, .admonition { break-inside: avoid; } img { max-width: 100%; }
table { font-size: 8pt; } pre { white-space: pre-wrap; font-size: 8pt; } a { color: inherit; }
.cell_output, .pst-scrollable-table-container { overflow: visible !important; }
"""


def order(book: Path) -> list[str]:
    """The pages as the contents of the front page list them, as addresses relative to the book."""
    front = BeautifulSoup((book / "intro.html").read_text(encoding="utf-8"), "html.parser")
    listed = [str(link["href"]) for link in front.select("nav.bd-links a.internal[href]")]
    pages = ["intro.html", *(name.partition("#")[0] for name in listed)]
    return [name for name in dict.fromkeys(pages) if name and (book / name).is_file()]


def slug(page: str) -> str:
    """The prefix of a page's anchors."""
    return re.sub(r"[^\w]+", "-", page.removesuffix(".html"))


def target(link: str, page: str, pages: list[str]) -> str:
    """A link of a page as it stands in the single page; links to what is not in it keep their address."""
    if re.match(r"[a-z]+:", link):
        return link
    address, _, anchor = link.partition("#")
    to = posixpath.normpath(posixpath.join(posixpath.dirname(page), address)) if address else page
    if to not in pages:
        return to
    return f"#{slug(to)}--{anchor}" if anchor else f"#{slug(to)}"


def article(book: Path, page: str, pages: list[str]) -> Tag:
    """A page's article with anchors, links and pictures as the single page needs them."""
    soup = BeautifulSoup((book / page).read_text(encoding="utf-8"), "html.parser")
    found = soup.select_one("article")
    if found is None:
        raise SystemExit(
            f"{book / page}: expected an <article>, got none: build the book with `make book`"
        )
    for node in found.select(LEFT_OUT):
        node.decompose()
    for node in found.select("details"):
        node["open"] = ""
    for node in found.find_all(True):
        if node.get("id"):
            node["id"] = f"{slug(page)}--{node['id']}"
        if node.get("href"):
            node["href"] = target(str(node["href"]), page, pages)
        if node.get("src") and not re.match(r"[a-z]+:", str(node["src"])):
            node["src"] = posixpath.normpath(
                posixpath.join(posixpath.dirname(page), str(node["src"]))
            )
        if "only-dark" in (node.get("class") or []):
            node["hidden"] = ""
    found["id"] = slug(page)
    return found


def mathjax(book: Path, pages: list[str]) -> list[Tag]:
    """The scripts that set the formulas: those of the first page that loads them, for pages without formulas do not."""
    for page in pages:
        soup = BeautifulSoup((book / page).read_text(encoding="utf-8"), "html.parser")
        found = [node for node in soup.select("script") if "mathjax" in str(node).lower()]
        if any("mathjax" in str(node.get("src")).lower() for node in found):
            for node in found:
                if node.get("src"):
                    node["src"] = posixpath.normpath(
                        posixpath.join(posixpath.dirname(page), str(node["src"]))
                    )
            return found
    return []


def single(book: Path) -> str:
    """All pages as one HTML document, to lie in the book's folder."""
    front = BeautifulSoup((book / "intro.html").read_text(encoding="utf-8"), "html.parser")
    if front.head is None:
        raise SystemExit(f"{book / 'intro.html'}: expected a page with a <head>, got none")
    pages = order(book)
    styles = front.head.select('link[rel="stylesheet"]')
    head = "".join(map(str, [*styles, *mathjax(book, pages)]))
    body = "\n".join(str(article(book, page, pages)) for page in pages)
    return (
        '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>Loss Atlas</title>{head}<style>{PRINT}</style></head><body>{body}</body></html>"
    )


def make_pdf(book: Path) -> Path:
    """Print the book in `book` to its own folder, and link it on the front page.

    Raises:
        SystemExit: the book is not built, or there is no browser.
    """
    from playwright.sync_api import sync_playwright

    if not (book / "intro.html").is_file():
        raise SystemExit(f"{book}: expected a built book, got none: run `make book` first")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    page_file, pdf = book / ".single.html", book / NAME
    page_file.write_text(single(book), encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(page_file.resolve().as_uri(), wait_until="load", timeout=120_000)
            page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
            page.pdf(path=pdf, prefer_css_page_size=True, outline=True, tagged=True)
            browser.close()
    finally:
        page_file.unlink()
    front = book / "intro.html"
    words = r"<code[^>]*>(?:<span[^>]*>|</span>|\s)*make(?:<span[^>]*>|</span>|\s)*pdf(?:<span[^>]*>|</span>)*</code>"
    link = f'<a href="{NAME}">the whole book as a PDF</a>'
    front.write_text(
        re.sub(words, link, front.read_text(encoding="utf-8"), count=1), encoding="utf-8"
    )
    return pdf


def main() -> None:
    """Print the built book."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--book", type=Path, default=Path(__file__).parent / "_build" / "html")
    made = make_pdf(parser.parse_args().book)
    print(f"{made}: {made.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
