"""The page on how differences are judged follows the simulation's table."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lossatlas.report import coverage_page

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "results" / "statistics" / "coverage.csv"


def row(quantity, seeds, images, clusters, mix, method, covered, **changes):
    """A row of the table."""
    return {
        **{"purpose": "claim", "quantity": quantity, "seeds": seeds, "images": images},
        **{"clusters": clusters, "mix": mix, "shape": "normal", "method": method},
        **{"replications": 2000, "draws": 399, "coverage": covered, "standard_error": 0.005},
        **{"above": (1 - covered) / 2, "below": (1 - covered) / 2, "width": 1.0},
        **{"false_01": 0.01, "false_001": 0.001},
        **changes,
    }


@pytest.fixture
def table():
    """Two designs of differences, one of which is too narrow, and a limit."""
    return pd.DataFrame(
        [
            row("difference", 8, 400, 50, "seeds", "studentised", 0.951),
            row("difference", 8, 400, 50, "seeds", "percentile", 0.9),
            row(
                "pooled Dice, mostly empty images",
                3,
                400,
                400,
                "even",
                "studentised",
                0.921,
                false_01=0.03,
            ),
            row("difference", 8, 200, 6, "clusters", "studentised", 0.8, purpose="limit"),
        ]
    )


def test_what_lies_outside_is_named_and_limits_are_no_claim(table):
    text = coverage_page.finding(table)
    assert "**In 1 of 2 designs the 95 % interval of a paired difference held the truth in" in text
    assert "in 93 to 97 % of the simulated studies, 2,000 each.**" in text
    assert "Outside: Dice, mostly empty: 3 × 400, from all alike: 92.1\xa0%." in text
    assert "percentile bootstrap, which we do not use, held it in 90.0\xa0%" in text
    inside = table[table.seeds == 8]
    assert "Outside" not in coverage_page.finding(inside)


def test_a_design_is_a_row_and_a_kind_of_interval_a_column(table):
    frame = coverage_page.differences(table).frame
    assert frame.loc["8 × 400 in 50, from the seeds", "in use"] == "95.1"
    assert frame.loc["8 × 400 in 50, from the seeds", "percentile"] == "90.0"
    assert frame.loc["8 × 200 in 6, from the images (limit)"].tolist() == ["80.0", "–", "–", "–"]
    assert "0.03" not in coverage_page.false_findings(table)
    assert "found in 1.0\xa0% to 3.0\xa0%" in coverage_page.false_findings(table)


def test_the_figure_has_every_claim_and_reads_at_400_pixels(table):
    drawing = coverage_page.figure(table)
    axis = drawing.figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "8 × 400 in 50, from the seeds",
        "Dice, mostly empty: 3 × 400, from all alike",
    ]
    drawing.figure.canvas.draw()
    shrink = 400 / (drawing.figure.get_figwidth() * drawing.figure.dpi)
    for text in axis.get_yticklabels():
        assert text.get_fontsize() * drawing.figure.dpi / 72 * shrink >= 9
    assert "2,000 studies each" in drawing.caption and "92.1\xa0%" in drawing.alt


def test_a_table_that_is_missing_or_old_is_refused_with_the_command(tmp_path, table):
    with pytest.raises(FileNotFoundError, match=r"run `python benchmarks/coverage\.py --out"):
        coverage_page.load(tmp_path / "coverage.csv")
    table.drop(columns="above").to_csv(tmp_path / "coverage.csv", index=False)
    with pytest.raises(ValueError, match="expected the columns above: run `python"):
        coverage_page.load(tmp_path / "coverage.csv")


def test_the_recorded_simulation_has_enough_studies_and_covers():
    recorded = coverage_page.load(RECORDED)
    used = recorded[(recorded.method == coverage_page.OURS) & (recorded.purpose == "claim")]
    assert used.standard_error.max() < 0.006 and recorded.standard_error.max() < 0.0101
    outside = used[~used.coverage.between(*coverage_page.AIM)]
    assert outside.empty, outside.to_string()


def test_the_page_shows_the_recorded_simulation(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda each, **_: shown.append(each))
    monkeypatch.chdir(ROOT)
    namespace = {}
    path = ROOT / "notebooks" / "reports" / "statistics.ipynb"
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    assert len(shown) == 4 and None not in shown
    assert "held the truth in" in shown[0].data and "seeds at hand" in shown[0].data
