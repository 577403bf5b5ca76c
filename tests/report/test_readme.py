"""The README's answer and picture come from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossatlas.report import front, readme

RECORDS = Path(__file__).resolve().parents[2] / "results" / "begin"


def test_writing_fills_the_block_draws_the_pictures_and_leaves_the_rest(tmp_path):
    (tmp_path / "README.md").write_text(
        "before\n<!-- answer: made -->\nFORMER\n<!-- /answer -->\nafter\n"
    )
    text = readme.write(RECORDS, tmp_path).read_text()
    assert text.startswith("before\n<!-- answer: made -->\n<picture>")
    assert text.endswith("<!-- /answer -->\nafter\n") and "FORMER" not in text
    for shade in ("light", "dark"):
        assert (tmp_path / f"results/readme/seeds_{shade}.svg").stat().st_size > 1000


def test_the_answer_names_every_number_that_it_is_given():
    found = front.numbers(RECORDS)
    found["open"]["dice_minus_ce_half"] = "DIFFERENCE"
    found["gated"]["ce"]["nothing_at_half"] = "LOST"
    assert "DIFFERENCE" in readme.answer(found) and "LOST of" in readme.answer(found)


def test_the_answer_is_short():
    prose = readme.answer(front.numbers(RECORDS)).split("</picture>")[1]
    assert len([line for line in prose.splitlines() if line]) <= 10
    assert len(prose.split()) <= 160


def test_a_readme_without_the_block_is_an_error():
    with pytest.raises(ValueError, match="expected one"):
        readme.block_replaced("nothing here", "made")
