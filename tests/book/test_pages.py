"""The pages of the built book: contents, links, weight and the first words."""

from __future__ import annotations

import functools
import gzip
import re
from pathlib import Path
from typing import Any

import pytest


def test_the_built_book_has_the_pages_of_its_table_of_contents(built_book: Path) -> None:
    import yaml

    from lossatlas.experiments.study import published_studies

    toc = yaml.safe_load((built_book.parents[1] / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [
        page["file"]
        for part in toc["parts"]
        for chapter in part["chapters"]
        for page in [chapter, *chapter.get("sections", [])]
        if "file" in page  # else a glob, of the studies
    ]
    chapters += [f"generated/studies/{study.study}" for study in published_studies()]
    missing = [
        name for name in [toc["root"], *chapters] if not (built_book / f"{name}.html").exists()
    ]
    assert not missing


def test_the_ledger_has_an_anchor_for_every_claim_and_its_filter_works(
    built_book: Path, serve: Any, browser: Any
) -> None:
    from lossatlas.claims import ledger

    if not (built_book / "generated" / "ledger.html").exists():
        pytest.skip("the built book has no ledger: run `make book` first")
    with serve(built_book) as origin:
        page = browser.new_page()
        page.goto(f"{origin}/generated/ledger.html?verdict=false")
        ids = page.evaluate("() => [...document.querySelectorAll('[id^=claim-]')].map(e => e.id)")
        classes = page.evaluate(
            "[...document.querySelectorAll('.claim')].filter(e => e.checkVisibility())"
            ".map(e => e.className)"
        )
        page.select_option("#filter-verdict", "")
        page.select_option("#filter-loss", "inverse_dice")
        by_loss = page.locator(".claim:visible").count()
        address = page.url
        page.close()
    assert {f"claim-{claim.id.lower()}" for claim in ledger.load()[1]} <= set(ids)
    assert classes and all("verdict-false" in name for name in classes)
    assert by_loss == 1
    assert address.endswith("?loss=inverse_dice")


def test_every_link_between_pages_leads_to_something_that_is_there(
    built_book: Path, pages_of: Any
) -> None:
    broken = []
    ids: dict[Path, set[str]] = {}
    for name in pages_of(built_book):
        page = built_book / name
        for target in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8")):
            address, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            file = (page.parent / address.partition("?")[0]).resolve() if address else page
            if not file.exists():
                broken.append(f"{name} → {target}")
                continue
            if anchor and file.suffix == ".html":
                if file not in ids:
                    ids[file] = set(re.findall(r'id="([^"]+)"', file.read_text(encoding="utf-8")))
                if anchor not in ids[file]:
                    broken.append(f"{name} → {target}")
    assert broken == []


#: What a first visit fetches from a host that compresses text, as GitHub Pages does.
HEAVIEST_PAGE_BYTES = 1_500_000
FIRST_SCREEN_MS = 1_000
_TEXT = {".html", ".js", ".css", ".svg", ".json"}


@functools.cache
def _sent(file: Path) -> int:
    """Size of a file; text as gzip sends it."""
    content = file.read_bytes()
    return len(gzip.compress(content) if file.suffix in _TEXT else content)


def _fetched(built: Path, page: Path) -> dict[str, int]:
    """Sizes of a page and of what its tags fetch."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r'<(?:script|img|link)[^>]*?(?:src|href)="([^"]{1,300})"', text)
    local = {re.split(r"[?#]", name)[0] for name in named if not re.match(r"[a-z]+:|#", name)}
    files = {page, *((page.parent / name).resolve() for name in local)}
    return {
        str(file.relative_to(built)): _sent(file)
        for file in files
        if file.is_file() and (file == page or file.suffix != ".html")
    }


def test_no_page_is_heavier_than_a_megabyte_and_a_half(built_book: Path, pages_of: Any) -> None:
    built = built_book.resolve()
    weights = {name: sum(_fetched(built, built / name).values()) for name in pages_of(built)}
    assert {name: size for name, size in weights.items() if size > HEAVIEST_PAGE_BYTES} == {}


def test_the_front_page_shows_its_first_words_within_a_second(
    built_book: Path, serve: Any, browser: Any
) -> None:
    """The best of three visits: another process on the machine is not the book's fault."""
    paint = (
        "performance.getEntriesByName('first-contentful-paint').map((each) => each.startTime)[0]"
    )
    times = []
    with serve(built_book) as origin:
        for _ in range(3):
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{origin}/intro.html", wait_until="load")
            page.wait_for_function(
                "performance.getEntriesByName('first-contentful-paint').length > 0"
            )
            times.append(page.evaluate(paint))
            context.close()
    assert min(times) < FIRST_SCREEN_MS
