"""The page of the study `begin`: short, and its answer first."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "studies" / "begin" / "page.ipynb"


def _cells() -> list[dict]:
    return json.loads(PAGE.read_text(encoding="utf-8"))["cells"]


def test_the_words_that_the_page_s_author_wrote_stay_below_six_hundred() -> None:
    """With its tables and computed sentences the page then stays below 1,200 words."""
    written = [c for c in _cells() if c["cell_type"] == "markdown"]
    assert sum(len("".join(c["source"]).split()) for c in written) < 600


def test_the_answer_stands_before_the_first_figure_and_table() -> None:
    shown = [
        "".join(c["source"])
        for c in _cells()
        if c["cell_type"] == "code" and "remove-output" not in c["metadata"]["tags"]
    ]
    first = next(s for s in shown if "Markdown(" in s or "figure(" in s or ".unstack(" in s)
    assert "**Answer:" in first


def test_tables_of_more_than_one_number_a_cell_stand_behind_a_named_switch() -> None:
    folded = [c for c in _cells() if "hide-cell" in c["metadata"].get("tags", [])]
    assert len(folded) == 4
    assert all(c["metadata"]["mystnb"]["code_prompt_show"].startswith("Show ") for c in folded)
