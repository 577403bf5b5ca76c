"""The README's answer and picture come from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossatlas.claims import readme, real_images
from lossatlas.report import front

RESULTS = Path(__file__).resolve().parents[2] / "results"
BEGIN, REAL = RESULTS / "begin", RESULTS / "thresholds"


def test_writing_fills_the_block_draws_the_pictures_and_leaves_the_rest(tmp_path):
    (tmp_path / "README.md").write_text(
        "before\n<!-- answer: made -->\nFORMER\n<!-- /answer -->\nafter\n"
    )
    text = readme.write(BEGIN, REAL, tmp_path).read_text()
    assert text.startswith("before\n<!-- answer: made -->\n<picture>")
    assert text.endswith("<!-- /answer -->\nafter\n") and "FORMER" not in text
    for shade in ("light", "dark"):
        assert (tmp_path / f"results/readme/seeds_{shade}.svg").stat().st_size > 1000


def test_the_answer_names_every_number_that_it_is_given():
    found = front.numbers(BEGIN)
    real = real_images.numbers(REAL)
    found["gated"]["ce"]["nothing_at_half"] = "LOST"
    real["rates"]["low"] = "REAL"
    real["prior"] = {
        "tasks": "FIVE",
        "behind": "ONE",
        "open": "FOUR",
        "low": "PRIOR",
        "high": "HIGH",
    }
    text = readme.answer(found, real)
    assert "in none of FIVE real tasks, behind in ONE, open in FOUR" in text and "LOST of" in text
    assert "tasks: REAL to" in text and "PRIOR to HIGH from one start" in text


def test_the_answer_is_short():
    prose = readme.answer(front.numbers(BEGIN), real_images.numbers(REAL)).split("</picture>")[1]
    assert len([line for line in prose.splitlines() if line]) <= 10
    assert len(prose.split()) <= 160


def test_a_readme_without_the_block_is_an_error():
    with pytest.raises(ValueError, match="expected one"):
        readme.block_replaced("nothing here", "made")
