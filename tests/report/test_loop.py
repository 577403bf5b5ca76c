"""The page's part on the training loop follows the benchmark's tables."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lossatlas.report import loop

COMMON = {"device": "cpu", "model": "unet", "parameters": 1_900_000, "pixels": "360x480"}


@pytest.fixture
def bench(tmp_path):
    """A folder as ``benchmarks/training.py`` leaves it."""
    rows = [
        {**COMMON, "batch": 4, "variant": "float32", "loop": name, "ms_per_step": 1e3 * ratio}
        | {"images_per_s": 4 / ratio, "time_to_bare": ratio}
        for name, ratio in (("Loss Atlas", 1.25), ("bare PyTorch", 1.0))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "training.csv", index=False)
    measuring = [
        {"model": model, "pixels": "64x64", "batch": 8, "ms_without": 20.0, "overhead": overhead}
        for model, overhead in (("unet", 0.012), ("segnet", 0.03))
    ]
    pd.DataFrame(measuring).to_csv(tmp_path / "instrumentation.csv", index=False)
    shares = [
        {"what": "study a", "runs": 400, "train_s": 860.0, "wall_s": 1000.0, "share": 0.86},
        {"what": "study b", "runs": 4, "train_s": 8.0, "wall_s": 10.0, "share": 0.8},
    ]
    pd.DataFrame(shares).to_csv(tmp_path / "share.csv", index=False)
    (tmp_path / "training.json").write_text(json.dumps({"gpu": None, "cores": 2}))
    return tmp_path


def test_loops_are_rows_and_aims_are_judged_by_the_numbers(bench):
    text = loop.page(bench)
    assert "| U-Net, 1.9 M parameters | float32 | Loss Atlas | 3.2 | 1.25 |" in text
    assert "Lightning's Trainer was not installed" in text
    assert "1.2 % of a step with U-Net (20 ms without) and 3.0 % of a step with SegNet" in text
    assert "The aim of at most 3 % is kept." in text
    assert "| study a | 400 | 860 | 1,000 | 86.0% |" in text
    assert "so it is in 1 of the 2 rows." in text


def test_an_aim_that_is_missed_is_called_missed(bench):
    table = pd.read_csv(bench / "instrumentation.csv")
    table.assign(overhead=[0.01, 0.031]).to_csv(bench / "instrumentation.csv", index=False)
    assert "The aim of at most 3 % is missed." in loop.page(bench)


def test_what_is_missing_is_named_with_the_command_that_makes_it(bench):
    (bench / "share.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"share\.csv in .*: run `make bench` first"):
        loop.page(bench)
