"""Pages of studies tell a whole study, a part of one, and none, by the same cells."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
sys.path.insert(0, str(Path(__file__).parent))
from hand_made import SEEDS, place, records
from test_studies import FOLDER, Quick, made_up

from lossatlas.claims import frames, quantities
from lossatlas.experiments.study import load_study

PAGES = ["thresholds", "imbalance"]


def cells(name):
    notebook = json.loads((FOLDER / name / "page.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown_by(name, known, monkeypatch):
    """What the cells of a page display, run one after the other in this process."""
    monkeypatch.chdir(FOLDER.parent)
    monkeypatch.setattr(
        frames,
        "load_if_run",
        lambda _, study: (
            None if study.endswith(("_kolektor", "_bias", "_ceiling", "_rate")) else known
        ),
    )
    monkeypatch.setattr(quantities, "Scores", Quick)
    shown = []
    names = {}
    for cell in cells(name):
        code = cell.replace("from IPython.display import Markdown, display\n", "")
        names |= {"Markdown": str, "display": lambda *what, **_: shown.extend(what)}
        exec(compile(code, f"{name}/page.ipynb", "exec"), names)
    return shown


def whole(name):
    """Made-up records of a study, with a curve for every run."""
    known = made_up(load_study(name, FOLDER))
    steps = np.arange(1, 61)
    curve = {"step": steps, "loss_value": 1 / steps + 0.01 * (-1.0) ** steps}
    curve |= {"easy_negative_share": 0.1}
    curve |= dict.fromkeys(("val_dice_tuned", "val_mean_dice"), np.where(steps % 10, np.nan, steps))
    curve |= {"val_loss": np.where(steps % 10, np.nan, 1 / steps)}
    table = pd.DataFrame(curve)
    parts = [
        dataclasses.replace(
            part,
            curves=pd.concat(table.assign(run_id=run) for run in part.runs.run_id),
            runs=part.runs.assign(foreground_dice=0.6, foreground_dice_tuned=0.61),
        )
        for part in known.parts
    ]
    runs = pd.concat(part.runs for part in parts)
    return dataclasses.replace(known, parts=parts, runs=runs)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_no_records_says_what_would_train(name, monkeypatch):
    shown = shown_by(name, None, monkeypatch)
    assert "Not run" in shown[0] and f"lossatlas run {name}" in shown[0]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_some_runs_says_how_many_and_shows_those(name, monkeypatch):
    known = whole(name)
    first, *rest = known.parts
    gone = (first.runs.loss == "ce") & (first.runs.seed == 0)
    parts = [dataclasses.replace(first, runs=first.runs[~gone]), *rest]
    known = dataclasses.replace(known, parts=parts, runs=pd.concat(p.runs for p in parts))
    shown = shown_by(name, known, monkeypatch)
    wanted = len(load_study(name, FOLDER).members("report"))
    assert f"{wanted - 1} of {wanted} runs.** What follows is from these" in shown[0]
    assert len(shown) > 4


def test_the_page_of_the_quick_study_begins_with_its_answer(monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    shown, names = [], {}
    for cell in cells("quick"):
        names |= {"display": lambda *what, **_: shown.extend(what)}
        exec(
            compile(cell.replace("Markdown, display", "Markdown"), "quick/page.ipynb", "exec"),
            names,
        )
    assert shown[0].data.startswith(
        "**Answer: after so short a training, much with one of two networks.**"
    )
    interval = [name for name in names["table"] if name.startswith("95 %")]
    assert len(interval) == 2 and names["table"].notna().all(axis=None)
    assert 0 < names["rising"] <= len(names["ends"])


#: Every page but `begin`, which is a chapter of its own.
SHORT = sorted({path.parent.name for path in FOLDER.glob("*/page.ipynb")} - {"begin"})


@pytest.mark.parametrize("name", SHORT)
def test_a_page_is_short_and_its_cells_too(name):
    notebook = json.loads((FOLDER / name / "page.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in notebook]
    assert len(notebook) <= 12
    assert sum(len(source.split()) for source in sources) <= 1200
    for cell, source in zip(notebook, sources, strict=True):
        assert cell["cell_type"] == "markdown" or len(source.splitlines()) <= 10
        assert max(map(len, source.splitlines())) <= 120
    assert any("assert " in source for source in sources)
    runs = [cell for cell, source in zip(notebook, sources, strict=True) if '"commit"' in source]
    folded = ["hide-cell" in cell["metadata"].get("tags", []) for cell in runs]
    assert all(folded), "hundreds of rows stand open: give the cell the tag hide-cell"


def test_every_other_loss_stands_against_the_reference_where_both_were_trained():
    focal = {"argmax": np.linspace(0.45, 0.55, SEEDS)[:, None], "tuned": 0.5}  # by seed
    known = records(
        place("cracks", {"ce": {"argmax": 0.6}, "dice": {"argmax": 0.65}, "focal": focal})
    )
    found = frames.against(known, "dice", "ce")
    assert set(found.index) == {("dice", "cracks"), ("focal", "cracks")}
    alone = frames.differences(known, "dice", ["focal", "ce"], over="seeds")
    assert found.estimate["focal", "cracks"] == alone.estimate["cracks"] < 0
    # eight pairs find 1.16 standard deviations four times of five (Cohen)
    least = found["smallest difference found"]["focal", "cracks"]
    assert least == pytest.approx(1.16 * alone.sd["cracks"], rel=0.01) and least > 0.01
    assert found.seeds["focal", "cracks"] == SEEDS
    assert frames.against(records(place("cracks", {"ce": {"argmax": 0.6}})), "dice", "ce").empty


def test_no_line_of_text_begins_with_a_per_cent_sign():
    """MyST takes such a line for a comment: the words after it are missing in the book."""
    sources = {path: path.read_text() for path in (FOLDER.parent / "book").glob("*.md")}
    for folder in ("studies", "notebooks"):
        for path in (FOLDER.parent / folder).rglob("*.ipynb"):
            cells = json.loads(path.read_text())["cells"]
            text = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
            sources[path] = "\n".join(text)
    assert len(sources) > 50
    lost = {path.name for path, text in sources.items() if re.search(r"^\s*%", text, re.MULTILINE)}
    assert not lost


def test_the_studies_that_wait_are_those_that_lack_runs(tmp_path):
    found = frames.waiting("results").set_index("command")
    assert (found["runs there"] < found["runs asked for"]).all()
    assert "`lossatlas run losses_segnet`" in found.index
    assert "`lossatlas run thresholds`" not in found.index, "it is whole"
    every = frames.waiting(tmp_path)
    assert len(every) == len(list(FOLDER.glob("*/study.yaml"))) and not every["runs there"].any()
