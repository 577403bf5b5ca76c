"""The arithmetic of large studies, on measured numbers whose sums can be done by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pandas as pd
import pytest

from lossatlas.report import costs


def stage(name, seconds, start=2.0):
    """Rows as the benchmark writes them, for ``seconds(size)`` beyond a start."""
    sizes = (1, 100, 1000)
    rows = [
        {
            "stage": name,
            "runs": size,
            "core_s": start + beyond,
            "own_s": 1.0 + beyond / 50,
            "beyond_start_s": beyond,
            "ms_per_run": 1e3 * beyond / max(1, size - 1),
        }
        for size, beyond in ((size, seconds(size) if size > 1 else 0.0) for size in sizes)
    ]
    slope = math.log10(seconds(1000) / seconds(100))
    return [row | {"exponent": slope if row["runs"] == 1000 else float("nan")} for row in rows]


@pytest.fixture
def bench(tmp_path):
    """A folder as ``benchmarks/workflow.py`` leaves it, and the records of a study."""
    rows = [
        *stage("plan", lambda n: 0.001 * n),
        *stage("graph", lambda n: 1e-5 * n**2),
        *stage("jobs", lambda n: 0.05 * n),
        *stage("collect", lambda n: 0.01 * n),
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "workflow.csv", index=False)
    processes = [
        ("an empty kernel", 0, 3.0, None),
        ("a kernel with the imports of a training", 0, 6.0, None),
        ("notebook", 1, 11.0, 0.5),
        ("notebook", 6, 15.5, 3.0),
        ("a process with the imports of a training", 0, 4.0, None),
        ("job", 1, 6.5, 0.5),
        ("job", 6, 10.0, 3.0),
    ]
    engine = pd.DataFrame(processes, columns=["what", "runs", "core_s", "train_s"])
    engine["files_per_run"] = engine.train_s.map(lambda s: 5 if s > 0 else None)
    engine.to_csv(tmp_path / "engine.csv", index=False)
    (tmp_path / "workflow.json").write_text(
        json.dumps({"runs_per_job": 20, "cores": 2, "load_average_before_and_after": [0.1, 2.3]})
    )
    (tmp_path / "results" / "quick").mkdir(parents=True)
    runs = pd.DataFrame({"wall_s": [8.0, 10.0, 12.0], "train_s": [7.0, 9.0, 11.0]})
    runs.to_parquet(tmp_path / "results/quick/runs.parquet")
    return tmp_path


@pytest.fixture
def measured(bench):
    return costs.load(bench, bench / "results")


def test_a_run_costs_what_each_further_run_adds_to_a_process(measured):
    assert measured.per_run_s("job") == pytest.approx((10.0 - 6.5) / 5)
    assert measured.start_s("job") == pytest.approx(6.5 - 0.7)
    assert measured.per_run_s("notebook") == pytest.approx(4.5 / 5)
    assert measured.start_s("notebook") == pytest.approx(11.0 - 0.9)
    assert measured.files_per_run == 5


def test_the_engine_s_part_leaves_out_a_kernel_that_is_ready_and_is_shared_by_the_runs(measured):
    # a notebook takes 10.1 s beside its runs, 6 s of them the kernel; three runs share the rest
    assert measured.overhead_s("notebook", 3) == pytest.approx(4.1 / 3 + 0.9)
    assert measured.overhead_s("job", 20) == pytest.approx((5.8 - 4.0) / 20 + 0.7)


def test_a_cost_in_proportion_is_extrapolated_in_proportion_and_a_square_as_a_square(measured):
    assert measured.stage_s("collect", 100_000) == pytest.approx(2 + 0.01 * 100_000)
    assert measured.exponent("graph") == pytest.approx(2)
    assert measured.stage_s("graph", 5_000) == pytest.approx(2 + 1e-5 * 5_000**2)


def test_the_bill_counts_jobs_where_jobs_cost_and_runs_where_runs_do(measured):
    bill = costs.bill(measured, 1_200)
    assert bill["training, as in `quick`"] == pytest.approx(1_200 * 10)
    assert bill["starts of the jobs"] == pytest.approx(60 * 5.8)
    assert bill["Snakemake's graph"] == pytest.approx(2 + 1e-5 * 60**2)
    assert bill["`lossatlas collect`"] == pytest.approx(2 + 12)
    # the jobs' children are counted with their starts; Snakemake's own process is a fiftieth of the rest
    assert bill["Snakemake's own work on the jobs"] == pytest.approx(
        1 + 0.05 * 1_200 / 50, rel=1e-3
    )


def test_the_bottleneck_is_the_longest_of_what_one_process_does_alone():
    bill = {"training": 900.0, "starts of the jobs": 100.0, "plan": 5.0, "collect": 35.0}
    # 1000 s on 100 cores are 10 s; 35 s of 50 s are the collecting
    assert costs.bottleneck(bill, 100) == ("collect", pytest.approx(0.7))


def test_the_page_has_a_column_for_each_size_and_names_the_bottleneck(measured):
    text = costs.page(measured)
    assert "| 1,200 | 100,000 |" in text
    assert "| files | 6,000 | 500,000 |" in text
    assert "most of it `lossatlas collect`" in text
    assert "nan" not in text
    assert "busy" not in text


def test_what_is_lost_among_the_starts_is_said_and_no_number_is_made_of_it(measured):
    engine, workflow = measured.engine.copy(), measured.workflow.copy()
    engine.loc[(engine.what == "notebook") & (engine.runs == 6), "core_s"] = 10.7
    workflow.loc[workflow.stage == "graph", "exponent"] = float("nan")
    quiet = dataclasses.replace(measured, engine=engine, workflow=workflow)
    assert quiet.per_run_s("notebook") == 0
    assert quiet.start_s("notebook") == pytest.approx(11.0)
    # without an exponent, in proportion
    assert quiet.stage_s("graph", 5_000) == pytest.approx(2 + 10 * 5)
    text = costs.page(quiet)
    assert "less than can be measured to a notebook" in text
    assert "nan" not in text and "-0." not in text
    assert "up to 100 runs the stage costs no more than its start" in text
    assert "up to 100 runs" not in costs.page(measured)


def test_a_busy_machine_is_owned_up_to(measured):
    measured.machine["load_average_before_and_after"] = [9.2, 9.0]
    assert "a load of 9 on 2 cores" in costs.page(measured)


def test_what_is_missing_is_named_with_the_command_that_makes_it(bench):
    (bench / "engine.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"engine\.csv in .*: run `make bench` first"):
        costs.load(bench, bench / "results")


def test_without_a_study_there_are_no_seconds_a_run(bench):
    with pytest.raises(FileNotFoundError, match="run `make book` first"):
        costs.load(bench, bench / "nowhere")
