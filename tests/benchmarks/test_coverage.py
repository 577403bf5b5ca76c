"""The simulator of coverage: it tells a good interval from a bad one, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage(script):
    return script("benchmarks/coverage.py")


def covered(coverage, mix, studies):
    """Coverage and more by kind of interval, of studies with 8 seeds; its standard error is √(.05/studies)."""
    design = coverage.Design("claim", "difference", 8, 60, 20, mix, "normal")
    return coverage.simulate(design, studies, draws=199).set_index("method")


def test_the_interval_covers_a_known_truth_and_the_percentile_interval_less_often(coverage):
    # Most of the spread comes from 8 seeds; the full simulation is in results/statistics.
    rows = covered(coverage, "seeds", 400)
    assert 0.92 <= rows.coverage["studentised"] <= 0.975
    assert rows.coverage["percentile"] < rows.coverage["studentised"] - 0.015
    assert rows.false_01["studentised"] < 0.03


def test_what_one_image_has_with_one_seed_is_not_counted_thrice(coverage):
    rows = covered(coverage, "interaction", 200)
    assert 0.91 <= rows.coverage["studentised"] <= 0.99
    assert rows.width["percentile"] > 1.2 * rows.width["studentised"]


def test_the_simulation_writes_a_table_and_goes_on_where_it_was(coverage, tmp_path):
    designs = [
        coverage.Design("claim", "difference", 3, 20, clusters, "seeds", "normal")
        for clusters in (7, 8)
    ]
    path, said = tmp_path / "new" / "coverage.csv", []
    options = ["--out", str(path), "--replications", "20", "--draws", "50"]
    coverage.main(options, designs[:1], said.append)
    first = pd.read_csv(path)
    coverage.main(options, designs, said.append)
    both = pd.read_csv(path)
    assert len(said) == 2 and "clusters=8" in said[1]
    assert both.clusters.unique().tolist() == [7, 8]
    pd.testing.assert_frame_equal(both[: len(first)], first)
    coverage.main([*options, "--fresh"], designs[1:], said.append)
    assert len(said) == 3 and pd.read_csv(path).clusters.unique().tolist() == [8]


def test_the_recorded_table_has_the_designs_of_the_simulator(coverage):
    recorded = pd.read_csv(FILE.parents[1] / "results" / "statistics" / "coverage.csv")
    designs = {coverage.design_key(vars(design)) for design in coverage.DESIGNS}
    assert {coverage.design_key(found) for found in recorded.to_dict("records")} == designs


def test_the_page_shows_the_recorded_simulation_or_the_command_that_makes_it(monkeypatch, tmp_path):
    notebook = nbformat.read(FILE.parents[1] / "notebooks/reports/statistics.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    shown, names = [], {}
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.chdir(FILE.parents[1])
    for source in sources:
        exec(source, names)
    finding, table, far = shown
    assert "In all 36 designs with" in finding.data and "seeds at hand does" in finding.data
    rows = table.data.set_index("design")
    assert len(rows) == 51 and rows["percentile"]["8 × 400 in 50, from seeds"] == "89.7"
    assert float(rows["in use"]["8 × 233 in 2, from like groups (limit)"]) < 80
    assert "8 × 200 in 6, from images (limit)" in rows.index and "p ≤ 0.001" in far.data
    assert len(names["axis"].get_yticklabels()) == 36
    recorded = names["found"]
    assert recorded.standard_error.max() < 0.0101
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=r"run `python benchmarks/coverage\.py --out"):
        exec("\n".join(sources[:2]), {})
