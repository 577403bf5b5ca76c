"""The chapters on families: the code, records and other libraries that they show are those of today."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lossatlas import losses
from lossatlas.theory import compounds, families, topology

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ("cross_entropy", "focal", "overlap", "lovasz", "distance", "topology", "compound")
PARTS = (
    "## The code",
    "## Under imbalance",
    "## When to use it",
    "## In other libraries",
    "## Exercises",
)


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_family_has_every_part_of_a_chapter_and_two_exercises(name: str) -> None:
    path = ROOT / "notebooks" / "derivations" / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    missing = [part for part in PARTS if f"{part}\n" not in text]
    assert missing == []
    for sign in ("**Question:**", "**The idea.**", "**Answer.**", "**Limits.**", "families.code("):
        assert sign in text, sign
    assert text.count(":::{dropdown} Solution") >= 2


@pytest.mark.parametrize("name", ["topology", "compound"])
def test_a_new_chapter_runs(name: str, run_notebook: Any) -> None:
    run_notebook(name)


def test_the_listing_is_the_source_without_its_docstring() -> None:
    listing = families.code(losses.DiceLoss).data
    source = inspect.getsource(losses.DiceLoss)
    body = listing.split("```python\n")[1].removesuffix("\n```")
    assert "r.intersection" in body and '"""' not in body and "Examples" not in body
    assert set(body.splitlines()) <= set(source.splitlines())


def test_a_family_that_no_study_trained_is_open() -> None:
    assert "**Open.**" in families.trained(["hausdorff"]).data


def test_the_table_of_trainings_has_the_records_medians(tmp_path: Path) -> None:
    runs = pd.DataFrame(
        {
            "model": "none4_prior",
            "loss": "ce",
            "foreground": 0.03,
            "foreground_dice": [0.1, 0.7, 0.5],
            "foreground_dice_tuned": [0.6, 0.8, 0.9],
            "ece_foreground": [0.02, 0.01, 0.03],
            "began": [True, True, False],
        }
    )
    runs.to_parquet(tmp_path / "runs.parquet")
    shown = families.trained(["ce"], tmp_path).data
    assert "| `ce` | 3 % | 0.500 | 0.800 | 0.02 | 2 of 3 |" in shown


def test_a_name_that_was_not_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="expected some of"):
        families.elsewhere(["Dicee"])


def test_soft_cldice_sees_a_gap_that_dice_takes_for_a_thinner_rim() -> None:
    table = topology.compare(topology.scenes()).set_index("prediction")
    gap, rim = table.loc["with a gap"], table.loc["with a thinner rim"]
    assert gap["missed pixels"] == rim["missed pixels"] == 9
    assert gap["Dice loss"] == pytest.approx(rim["Dice loss"], rel=1e-5)
    assert rim["soft clDice loss"] < 0.2 * gap["soft clDice loss"]


def test_a_line_without_a_middle_row_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number"):
        topology.scenes(4)


def test_the_sum_pushes_as_its_parts_do_together() -> None:
    table = compounds.push(0.01, 1000, probs=(0.01, 0.5, 0.9))
    assert torch.allclose(
        torch.tensor((table["cross-entropy"] + table["Dice"]).to_numpy()),
        torch.tensor(table["Dice + CE"].to_numpy()),
    )
    shares = compounds.balance((0.1, 0.001), 1000)["Dice's part of the push"]
    assert int(shares[1].split()[0]) > int(shares[0].split()[0]) > 50
