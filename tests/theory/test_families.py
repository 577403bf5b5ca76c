"""The chapters on families: the formulas, code, records and other libraries that they show are those of today."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sympy as sp
import torch

from lossatlas import losses
from lossatlas.theory import FORMS, compounds, families, topology
from lossatlas.theory.forms import binary_cases, linear_sums
from lossatlas.theory.symbols import A, n, p, t

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ("cross_entropy", "focal", "overlap", "lovasz", "distance", "topology", "compound")
PARTS = (
    "## Picture",
    "## Formula( and gradient)?",
    "## The code",
    "## Under imbalance",
    "## When to use it",
    "## In other libraries",
    "## Exercises",
)


def cells(name: str, kind: str) -> list[str]:
    """The sources of a chapter's cells of one kind."""
    path = ROOT / "notebooks" / "derivations" / f"{name}.ipynb"
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def calling(function: str, chapters: tuple[str, ...] = CHAPTERS) -> str:
    """The cells of code of chapters in which a function of `families` is called."""
    sources = [source for name in chapters for source in cells(name, "code")]
    return "\n".join(source for source in sources if f"families.{function}(" in source)


def asked_for_trainings(chapter: str) -> str:
    """The cell of a chapter that asks which of its losses were trained, with the list `names` that it may use."""
    source = calling("trained", (chapter,))
    return source + (calling("formulas", (chapter,)) if "*names" in source else "")


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_family_has_every_part_of_a_chapter_and_two_exercises(name: str) -> None:
    words = "\n\n".join(cells(name, "markdown"))
    missing = [part for part in PARTS if not re.search(f"^{part}$", words, re.M)]
    assert missing == []
    for sign in ("**Question:**", "**The idea.**", "**Answer.**", "**Limits.**"):
        assert sign in words, sign
    assert any("families.code(" in source for source in cells(name, "code"))
    assert words.count(":::{dropdown} Solution") >= 2


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_family_shows_the_formula_of_its_loss_and_not_its_gradient_alone(name: str) -> None:
    printed = any("families.formulas(" in source for source in cells(name, "code"))
    assert printed or any(re.search(r"\$\$\s*L = ", source) for source in cells(name, "markdown"))


@pytest.mark.parametrize("name", losses.names())
def test_every_registered_loss_stands_in_a_chapter_with_its_formula_or_its_code(name: str) -> None:
    words = "\n".join(source for chapter in CHAPTERS for source in cells(chapter, "markdown"))
    weight = {"weight": [1.0, 1.0]} if name in ("weighted_ce", "weighted_dice") else {}
    loss = losses.build(name, **weight)
    source = f"compound.{name}" if isinstance(loss, losses.CompoundLoss) else type(loss).__name__
    assert f"`{name}`" in words or f'"{name}"' in calling("formulas"), "no chapter names it"
    assert f'"{name}"' in calling("formulas") or re.search(rf"\b{source}\b", calling("code"))
    assert any(f'"{name}"' in asked_for_trainings(chapter) for chapter in CHAPTERS)


@pytest.mark.parametrize("name", FORMS)
def test_the_printed_formula_gives_the_value_of_the_library(name: str) -> None:
    form = FORMS[name]
    pixel, divisor, region = families.as_sums(form)
    for label, logits, target in binary_cases(seed=1, hard_only=form.hard_only):
        probs = 1 / (1 + np.exp(-logits))
        sums = (form.sums or linear_sums)(probs, target)
        values = {
            symbol.name: value for symbol, value in (linear_sums(probs, target) | sums).items()
        }
        values |= {n.name: probs.size, A.name: np.abs(probs - target).sum(), **form.parameters}
        values |= {p.name: probs, t.name: target}
        found = []
        for part in (pixel, divisor, region):
            plain = part.subs(dict(form.definitions)).subs(dict(form.definitions))
            symbols = sorted(plain.free_symbols, key=str)
            function = sp.lambdify(symbols, plain, "numpy")
            found.append(np.asarray(function(*(values[each.name] for each in symbols))))
        value = found[0].sum() / found[1] + found[2]
        loss = form.library(form.parameters)(torch.tensor(logits), torch.tensor(target))
        assert value == pytest.approx(loss.item(), rel=1e-9), label


def test_a_formula_has_whole_sums_and_says_what_its_letters_are() -> None:
    dice, squared, weighted = (
        families.formulas([name]).data for name in ("dice", "dice_squared", "weighted_ce")
    )
    assert r"L = 1 - \frac{2 I + \varepsilon}{S + T + \varepsilon}" in dice
    assert r"\frac{\partial L}{\partial z} = " in dice and "(`dice`)" in dice
    assert r"$S = \sum p^2$" in squared and r"\sum p^2" not in dice
    assert r"L = - \frac{1}{W} \sum \left(" in weighted and "$W = " in weighted
    everything = families.formulas(list(FORMS)).data
    assert "rest" not in everything and everything.count("L = ") == len(FORMS)


def test_a_sum_comes_last_so_that_no_other_part_reads_as_its_summand() -> None:
    (loss,) = re.findall(r"L = (.*)", families.formulas(["unified_focal"]).data)
    assert r"I" not in loss.split(r"\sum")[1] and r"\ln" in loss.split(r"\sum")[1]


def test_a_formula_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected names of .* got .*dicee"):
        families.formulas(["dice", "dicee"])


@pytest.mark.parametrize("name", ["topology", "compound"])
def test_a_new_chapter_runs(name: str, run_notebook: Any) -> None:
    run_notebook(name)


def test_the_listing_is_the_source_without_its_docstring() -> None:
    listing = families.code(losses.DiceLoss).data
    source = inspect.getsource(losses.DiceLoss)
    body = listing.split("```python\n")[1].removesuffix("\n```")
    assert "r.intersection" in body and '"""' not in body and "Examples" not in body
    assert set(body.splitlines()) <= set(source.splitlines())


def test_a_listing_of_methods_says_whose_they_are() -> None:
    listing = families.code(losses.DiceLoss.formula, losses.JaccardLoss.formula).data
    assert "# DiceLoss\ndef formula" in listing and "# JaccardLoss\ndef formula" in listing


def test_a_family_that_no_study_trained_is_open() -> None:
    shown = families.trained(["hausdorff"]).data
    assert "**Open.**" in shown and shown.endswith("Not trained yet: `hausdorff`.")


def recorded(folder: Path, loss: str) -> Path:
    """Records of three runs of one loss, in a new folder."""
    runs = pd.DataFrame(
        {
            "model": "none4_prior",
            "loss": loss,
            "loss_name": loss,
            "foreground": 0.03,
            "foreground_dice": [0.1, 0.7, 0.5],
            "foreground_dice_tuned": [0.6, 0.8, 0.9],
            "ece_foreground": [0.02, 0.01, 0.03],
            "began": [True, True, False],
        }
    )
    folder.mkdir()
    runs.to_parquet(folder / "runs.parquet")
    return folder


def test_the_table_of_trainings_has_the_records_medians(tmp_path: Path) -> None:
    shown = families.trained(["ce"], recorded(tmp_path / "begin", "ce")).data
    assert "| `ce` | 3 % | 0.500 | 0.800 | 0.02 | 2 of 3 |" in shown
    assert "Not trained" not in shown and "other records" not in shown


def test_a_loss_that_was_not_trained_is_named_and_one_of_another_study_too(tmp_path: Path) -> None:
    begin = recorded(tmp_path / "begin", "ce")
    recorded(tmp_path / "quick", "weighted_ce")
    shown = families.trained(["ce", "weighted_ce", "ohem_ce", "topk_ce"], begin).data
    assert "Trained in other records only: `weighted_ce` (`quick`)." in shown
    assert shown.endswith("Not trained yet: `ohem_ce`, `topk_ce`.")


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
    shares = compounds.balance((0.1, 0.001), 1000)["Dice's part"]
    assert int(shares[1].split()[0]) > int(shares[0].split()[0]) > 50


def test_at_the_prior_the_sum_lies_between_its_parts_and_gives_little_up() -> None:
    (row,) = compounds.balance([0.01], 10_000, prob=None).to_dict("records")
    shares = {
        str(name).split(", ")[1]: float(str(value).split()[0])
        for name, value in row.items()
        if "share" in str(name)
    }
    assert row["answer"] == "π" and shares["CE"] == 50
    assert shares["CE"] < shares["Dice + CE"] < shares["Dice"] == pytest.approx(66.8)
