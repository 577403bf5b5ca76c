"""The table of results sorts, filters, and saves what it shows."""

from __future__ import annotations

import csv
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from lossatlas.report import front

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "_static" / "pages" / "results.js"
ROWS = [("ce", "½", "0.9"), ("dice", "½", "–"), ("ce", "best", "10.5")]


@pytest.fixture
def page(browser: Any, extension: Any, tmp_path: Path) -> Any:
    package = importlib.metadata.distribution("itables")
    module = next(file for file in package.files or [] if file.name == "dt_bundle.js")
    library = extension("offline").as_classic_script(
        Path(str(module.locate())).read_text(encoding="utf-8")
    )
    scripts = {"datatables.js": library, "results.js": SCRIPT.read_text(encoding="utf-8")}
    for name, text in scripts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in ROWS)
    head = "<tr><th>loss</th><th>threshold</th><th>median</th></tr>"
    file = tmp_path / "results.html"
    file.write_text(
        f"<html><head><meta charset='utf-8'>{''.join(f'<script src={name}></script>' for name in scripts)}</head>"
        f"<body><div class='results-table'><table class='results'><thead>{head}</thead><tbody>{cells}</tbody>"
        "</table></div></body></html>",
        encoding="utf-8",
    )
    opened = browser.new_page()
    opened.goto(file.as_uri())
    yield opened
    opened.close()


def column(page: Any, number: int) -> list[str]:
    return list(page.locator(f"tbody tr td:nth-child({number})").all_text_contents())


def test_a_heading_sorts_by_value_up_and_down(page: Any) -> None:
    page.click("th:has-text('median')")
    page.wait_for_selector("th[aria-sort=ascending]")
    assert column(page, 3) == ["–", "0.9", "10.5"]
    page.click("th:has-text('median')")
    page.wait_for_selector("th[aria-sort=descending]")
    assert column(page, 3) == ["10.5", "0.9", "–"]


def test_the_menus_filter_together(page: Any) -> None:
    page.select_option("label:has-text('loss') select", "ce")
    assert column(page, 1) == ["ce", "ce"]
    page.select_option("label:has-text('threshold') select", "best")
    assert column(page, 3) == ["10.5"]
    assert page.locator(".dt-info").text_content() == "1 to 1 of 1 rows (chosen from 3)"
    page.select_option("label:has-text('loss') select", "dice")
    assert "No row has all of these." in column(page, 1)


def test_a_column_of_numbers_has_no_menu(page: Any) -> None:
    assert page.locator(".results-tools label").count() == 2


def test_the_button_saves_the_shown_rows(page: Any, tmp_path: Path) -> None:
    page.select_option("label:has-text('loss') select", "dice")
    with page.expect_download() as download:
        page.click("text=Save the chosen rows")
    saved = tmp_path / "saved.csv"
    download.value.save_as(saved)
    with saved.open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file)) == [["loss", "threshold", "median"], ["dice", "½", "–"]]


def test_the_built_page_loads_the_library_from_the_book_with_its_licence(built_book: Path) -> None:
    library = built_book / "_static" / "datatables"
    html = (built_book / "results.html").read_text(encoding="utf-8")
    assert front._DATATABLES in html
    assert "MIT License" in (library / "LICENSE").read_text(encoding="utf-8")
    assert "datatables.net/license" in (library / "datatables.js").read_text(encoding="utf-8")
    assert (library / "datatables.css").is_file()
