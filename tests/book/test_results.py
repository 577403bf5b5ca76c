"""The table of results sorts, filters, and saves what it shows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "_static" / "pages" / "results.js"
ROWS = [("ce", "½", "0.9"), ("dice", "½", "0.10"), ("ce", "best", "0.95")]


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in ROWS)
    head = "<tr><th>loss</th><th>threshold</th><th>median</th></tr>"
    file = tmp_path / "results.html"
    file.write_text(
        f"<html><head><script>{SCRIPT.read_text()}</script></head><body>"
        f"<table class='results'><thead>{head}</thead><tbody>{cells}</tbody></table></body></html>",
        encoding="utf-8",
    )
    opened = browser.new_page()
    opened.goto(file.as_uri())
    yield opened
    opened.close()


def column(page: Any, number: int) -> list[str]:
    return list(page.locator(f"tbody tr:visible td:nth-child({number})").all_text_contents())


def test_a_heading_sorts_by_value_up_and_down(page: Any) -> None:
    page.click("th button:has-text('median')")
    assert column(page, 3) == ["0.10", "0.9", "0.95"]
    page.click("th button:has-text('median')")
    assert column(page, 3) == ["0.95", "0.9", "0.10"]


def test_the_menus_filter_together(page: Any) -> None:
    page.select_option("label:has-text('loss') select", "ce")
    assert column(page, 1) == ["ce", "ce"]
    page.select_option("label:has-text('threshold') select", "best")
    assert column(page, 3) == ["0.95"]
    assert page.locator("output").text_content() == "1 of 3 rows"


def test_the_button_saves_the_shown_rows(page: Any, tmp_path: Path) -> None:
    page.select_option("label:has-text('loss') select", "dice")
    with page.expect_download() as download:
        page.click("text=Save the shown rows")
    saved = tmp_path / "saved.csv"
    download.value.save_as(saved)
    with saved.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["loss", "threshold", "median"], ["dice", "½", "0.10"]]
