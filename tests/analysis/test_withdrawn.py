"""The notice on the page of a study whose findings are withdrawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lossatlas.analysis import withdrawn

FILE = {"schema": 1, "date": "2026-11-27", "why": "the head decided.", "studies": {"bad": ["7"]}}


def test_the_page_of_a_withdrawn_study_begins_with_why(tmp_path: Path) -> None:
    (tmp_path / "withdrawn.json").write_text(json.dumps(FILE))
    told = withdrawn.notice(tmp_path / "bad").data
    assert told.startswith(":::{admonition} Withdrawn")
    assert "2026-11-27: the head decided." in told and "/retractions" in told
    assert withdrawn.notice(tmp_path / "good").data == ""
    assert withdrawn.is_withdrawn("bad", tmp_path) and not withdrawn.is_withdrawn("good", tmp_path)


def test_without_the_file_nothing_is_withdrawn_and_another_schema_is_refused(
    tmp_path: Path,
) -> None:
    assert withdrawn.text("bad", tmp_path) == ""
    (tmp_path / "withdrawn.json").write_text(json.dumps(FILE | {"schema": 2}))
    with pytest.raises(ValueError, match="expected schema 1, got 2"):
        withdrawn.text("bad", tmp_path)


@pytest.mark.parametrize("report", ["imbalance", "optimizers"])
def test_the_reports_of_withdrawn_studies_show_the_notice(report: str) -> None:
    notebook = json.loads(Path(f"notebooks/reports/{report}.ipynb").read_text())
    assert any("notice(records)" in "".join(cell["source"]) for cell in notebook["cells"])
