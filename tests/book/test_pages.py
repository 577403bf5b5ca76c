"""Every page of the built book, seen through a browser that has no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def test_every_page_of_the_built_book_reads_without_a_network(
    built_book: Path, serve: Any, complaints: Any, pages_of: Any
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
    chapters = [
        page["file"]
        for part in toc["parts"]
        for chapter in part["chapters"]
        for page in [chapter, *chapter.get("sections", [])]
    ]
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
        shown = page.locator(".claim:visible")
        classes = [shown.nth(i).get_attribute("class") for i in range(shown.count())]
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
