"""The benchmark of the workflow measures studies of the size that it says, and what grows beyond their start."""

from __future__ import annotations

import csv
import math
import sys

import pytest


@pytest.fixture(scope="module")
def benchmark(script):
    return script("benchmarks/workflow.py")


@pytest.mark.parametrize("runs", [1, 10, 100, 1000])
def test_a_study_has_as_many_runs_as_asked(benchmark, tmp_path, runs):
    study = benchmark.write_study(tmp_path, "sized", runs, 20)
    assert len(study.members("report")) == runs


def test_what_is_beyond_the_start_is_each_run_s_and_its_slope_is_the_exponent(benchmark):
    times = {1: 3.0, 10: 3.1, 100: 4.1, 1000: 14.1}
    rows = benchmark.grown(
        [{"stage": "plan", "runs": runs, "core_s": seconds} for runs, seconds in times.items()]
    )
    assert [row["beyond_start_s"] for row in rows] == pytest.approx([0.0, 0.1, 1.1, 11.1])
    assert rows[-1]["ms_per_run"] == pytest.approx(11_100 / 999)
    assert rows[-1]["exponent"] == pytest.approx(math.log10(11.1 / 1.1))
    assert math.isnan(rows[0]["exponent"])


def test_time_on_a_core_is_that_of_the_command_and_not_that_of_waiting(benchmark, tmp_path):
    wall_s, core_s, own_s = benchmark.measured(["sleep", "0.5"], tmp_path)
    assert wall_s >= 0.5
    assert core_s < 0.25 and own_s < 0.25


def test_a_command_s_own_time_leaves_out_that_of_its_children(benchmark, tmp_path):
    burn = "import time\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    _, core_s, own_s = benchmark.measured([sys.executable, "-c", parent], tmp_path)
    assert core_s > 1.0 and own_s < 0.5


def test_a_command_that_fails_stops_the_benchmark_with_its_output(benchmark, tmp_path):
    with pytest.raises(SystemExit, match="no such thing"):
        benchmark.measured(["sh", "-c", "echo no such thing; exit 3"], tmp_path)


@pytest.mark.extended
@pytest.mark.timeout(1800)
def test_it_runs_and_writes_every_stage(benchmark, tmp_path):
    benchmark.main(["--quick", "--out", str(tmp_path)])
    with (tmp_path / "workflow.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"plan", "graph", "jobs", "collect"}
    with (tmp_path / "engine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["train_s"]) > 0 for row in rows if row["runs"] != "0")
