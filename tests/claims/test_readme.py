"""The README's answer and picture come from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossatlas.claims import readme

ROOT = Path(__file__).resolve().parents[2]
FORMER = "before\n<!-- answer: made -->\nFORMER\n<!-- /answer -->\nafter\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a README whose block was written from the committed records."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "README.md").write_text(FORMER)
    readme.write(ROOT / "results/begin", ROOT / "results/thresholds", folder)
    return folder


def test_writing_fills_the_block_draws_the_pictures_and_leaves_the_rest(written):
    text = (written / "README.md").read_text()
    assert text.startswith("before\n<!-- answer: made -->\n<picture>")
    assert text.endswith("<!-- /answer -->\nafter\n") and "FORMER" not in text
    for shade in ("light", "dark"):
        assert (written / f"results/readme/seeds_{shade}.svg").stat().st_size > 1000


def test_the_committed_answer_is_that_of_the_records(written):
    text = (ROOT / "README.md").read_text()
    block = (written / "README.md").read_text().split("made -->\n")[1].split("\n<!-- /answer")[0]
    assert readme.block_replaced(text, block) == text, "run `lossatlas readme`"
    for shade in ("light", "dark"):
        assert (ROOT / readme.PICTURES / f"seeds_{shade}.svg").is_file(), "run `lossatlas readme`"


def test_the_answer_is_short(written):
    text = (written / "README.md").read_text()
    prose = text.split("</picture>")[1].split("<!-- /answer")[0]
    assert len([line for line in prose.splitlines() if line]) <= 10
    assert len(prose.split()) <= 160


def test_the_answer_names_every_number_that_it_is_given():
    found = {"gated": {"ce": {"nothing_at_half": "LOST", "trainings": "ALL"}}}
    real = {
        "prior": {name: name.upper() for name in ("tasks", "behind", "open", "low", "high")},
        "rates": {"low": "FROM", "high": "TO"},
        "pedestrians": {"ce_half": "HALF", "ce": "TUNED", "dice_half": "DICE"},
        "calibration": {"ce": "MOST", "tasks": "SO MANY", "low": "LEAST", "high": "WORST"},
        "squared": {"tasks": "FIVE", "ahead": "TWO", "pedestrians": "MORE", "mitochondria": "LESS"},
        "seeds": "SEEDS",
    }
    text = readme.answer(found, real, {"squared": "MUCH", "sum": "SOME", "long": "STILL"})
    assert "none of TASKS real tasks, worse in BEHIND." in text
    assert "LOST of ALL" in text and "from 0 it was FROM to TO" in text
    assert "is then LOW to HIGH" in text and "from HALF to TUNED" in text
    assert "Dice at ½: DICE." in text and "SEEDS seeds" in text
    assert "better in all SO MANY tasks" in text
    assert "ahead of plain Dice in TWO of FIVE tasks" in text
    assert "+MORE points on pedestrians, −LESS on mitochondria" in text
    assert "+MUCH points, after 2,000 steps +STILL; Dice + CE +SOME." in text


def test_a_readme_without_the_block_is_an_error():
    with pytest.raises(ValueError, match="expected one"):
        readme.block_replaced("nothing here", "made")
