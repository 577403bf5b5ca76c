"""The README's table and picture come from records."""

from __future__ import annotations

import json

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from imbalance_cases import write_imbalance

from lossatlas.analysis import readme

matplotlib.use("Agg")


@pytest.fixture
def records(tmp_path):
    folder = tmp_path / "results" / "quick"
    folder.mkdir(parents=True)
    provenance = {"hardware": {"cores": 2}}
    study = {
        "study": "quick",
        "question": "?",
        "command": "make book",
        "steps": 5,
        "provenance": provenance,
    }
    (folder / "study.json").write_text(json.dumps(study))
    keys = [("r1", "ce", 0), ("r2", "ce", 1), ("r3", "dice", 0), ("r4", "dice", 1)]
    runs = pd.DataFrame(keys, columns=["run_id", "loss", "seed"]).assign(
        model="unet", foreground_dice=[0.1, 0.3, 0.5, 0.7], constant_dice=0.05
    )
    runs["loss_name"] = runs.loss
    runs.to_parquet(folder / "runs.parquet")
    rows = [
        {"run_id": run, "class_name": name, "dice": dice, "target_fraction": fraction}
        for run, _, _ in keys
        for name, dice, fraction in (
            ("background", 1, 0.9),
            ("common", 0.6, 0.08),
            ("rare", 0.2, 0.02),
        )
    ]
    pd.DataFrame(rows).to_parquet(folder / "per_class.parquet")
    return folder


def test_the_table_gives_mean_range_and_the_rare_half_of_the_classes(records):
    summary = readme.summarise(records)
    assert summary["rare_classes"] == ["rare"]
    lines = readme.table(summary).splitlines()
    assert lines[2] == "| `ce` | 0.200 (0.100–0.300) | 0.200 (0.200–0.200) |"
    assert lines[3].startswith("| `dice` | 0.600 (0.500–0.700)")
    assert "the best constant prediction has 0.050" in lines[-1]


def test_writing_fills_the_block_and_leaves_the_rest(records, tmp_path):
    (tmp_path / "README.md").write_text(
        "before\n<!-- results: made -->\nold\n<!-- /results -->\nafter\n"
    )
    text = readme.write(records, tmp_path).read_text()
    assert text.startswith("before\n<!-- results: made -->\n| loss |")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text
    assert (tmp_path / "results/readme/quick.png").stat().st_size > 1000
    saved = json.loads((tmp_path / "results/readme/summary.json").read_text())
    assert readme.block_replaced(text, readme.RESULTS, readme.table(saved)) == text
    plt.close("all")


def test_a_readme_without_the_block_is_an_error(records):
    with pytest.raises(ValueError, match="expected one"):
        readme.block_replaced("nothing here", readme.RESULTS, "made")


def test_the_study_of_imbalance_has_a_block_of_its_own(records, tmp_path):
    marks = "<!-- results: made -->\n<!-- /results -->\n<!-- imbalance: made -->\nOLD\n<!-- /imbalance -->\n"
    (tmp_path / "README.md").write_text(marks)
    assert "OLD" in readme.write(records, tmp_path).read_text()
    folder = write_imbalance(tmp_path / "imbalance", fractions=(0.1, 0.001), seeds=(0, 1, 2))
    text = readme.write(records, tmp_path, imbalance=folder).read_text()
    assert "OLD" not in text and "- **At ½:** " in text and "| `tversky` | " in text
    assert "](results/readme/imbalance.png)" in text
    # a study that asked again, beside it, has its line
    long = write_imbalance(tmp_path / "imbalance_long", fractions=(0.001,), study="imbalance_long")
    study = json.loads((long / "study.json").read_text())
    (long / "study.json").write_text(json.dumps(study | {"follows": "imbalance"}))
    again = readme.write(records, tmp_path, imbalance=folder).read_text()
    assert "- `imbalance_long`, 40 steps, rates tuned with 40: `dice` minus `ce` is at ½ " in again
    assert (tmp_path / "results/readme/imbalance.png").stat().st_size > 1000


def test_of_the_decision_rules_the_table_shows_the_argmax_alone(records):
    expected = readme.summarise(records)
    plain = pd.read_parquet(records / "per_class.parquet")
    tuned = plain.assign(rule="tuned", dice=1.0)
    pd.concat([plain.assign(rule="argmax"), tuned]).to_parquet(records / "per_class.parquet")
    assert readme.summarise(records) == expected
