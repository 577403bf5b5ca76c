"""Every page of the built book, seen through a browser that has no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Pages that Sphinx makes of itself: they have no article of ours.
MADE_BY_SPHINX = {"genindex.html", "search.html", "index.html", "py-modindex.html"}


def pages_of(book: Path) -> list[str]:
    """The pages a reader can open, as addresses relative to the book."""
    found = (page.relative_to(book) for page in book.rglob("*.html"))
    wanted = (page for page in found if page.parts[0] not in {"_static", "_sources"})
    return sorted(page.as_posix() for page in wanted if page.name not in MADE_BY_SPHINX)


def test_every_page_of_the_built_book_reads_without_a_network(
    built_book: Path, serve: Any, complaints: Any
) -> None:
    wrong: dict[str, list[str]] = {}
    with serve(built_book) as origin:
        for name in pages_of(built_book):
            found = complaints(f"{origin}/{name}", origin=origin)
            if found:
                wrong[name] = found
    assert not wrong


def test_the_built_book_has_the_pages_of_its_table_of_contents(built_book: Path) -> None:
    import yaml

    toc = yaml.safe_load((built_book.parents[1] / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    missing = [
        name for name in [toc["root"], *chapters] if not (built_book / f"{name}.html").exists()
    ]
    assert not missing
