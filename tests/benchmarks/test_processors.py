"""The same run on two makes of processor: what is paired, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def processors(script: Any) -> Any:
    return script("benchmarks/processors.py")


def recorded(run_id: str, cpu: str) -> dict[str, Any]:
    return {
        **{"run_id": run_id, "loss_name": "ce", "lr": 0.03, "seed": 0, "status": "completed"},
        **{"foreground": 0.01, "objects": 53, "batch": 4, "foreground_dice_tuned": 0.7},
        **{"nll": 0.1, "commit": "0123456789"},
        "hardware": json.dumps({"cpu": cpu}),
    }


def trained(folder: Path, run_id: str, cpu: str, status: str = "completed") -> None:
    rules = {"tuned": {"metrics": {"foreground_dice": 0.71}}}
    run = {"schema": 2, "run_id": run_id, "status": status, "commit": "abcdefghij"}
    run["calibration"] = {"nll": 0.2}
    (folder / run_id).mkdir(parents=True)
    (folder / run_id / "run.json").write_text(
        json.dumps({**run, "hardware": {"cpu": cpu}, "rules": rules})
    )


def test_runs_of_another_processor_are_paired_with_their_record(
    processors: Any, tmp_path: Path
) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    for run_id, cpu in (("a", "new"), ("b", "old"), ("without a record", "new")):
        trained(runs, run_id, cpu)
    trained(runs, "c", "new", status="diverged")
    (results / "study").mkdir(parents=True)
    rows = [recorded(run_id, "old") for run_id in "abc"]
    pd.DataFrame(rows).to_parquet(results / "study/runs.parquet")
    [pair] = processors.pairs(runs, results)
    assert (pair["run_id"], pair["recorded"], pair["again"]) == ("a", 0.7, 0.71)
    assert (pair["nll_recorded"], pair["nll_again"]) == (0.1, 0.2)
    assert (pair["recorded_on"], pair["again_on"]) == ("old", "new")
