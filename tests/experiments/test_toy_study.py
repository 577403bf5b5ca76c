"""The next question costs two files: a study's yaml and its page. Added, run, shown and removed here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

from checkouts import ROOT, in_this_process

from lossatlas import cli
from lossatlas.experiments.study import published_studies
from lossatlas.workflow import PROFILE, environment, tool

QUESTION = "Does a tiny network learn more from Dice than from cross-entropy in three steps?"
STUDY = f"""\
base: quick
study: toy
published: true
title: "A toy"
question: "{QUESTION}"
datasets:
  - {{name: digits, params: {{image_size: 16, objects: 1, train_size: 8, val_size: 4, test_size: 4}}}}
models:
  - {{name: unet, params: {{width: 4, depth: 2}}}}
losses: [ce, dice]
seeds: [0, 1]
training: {{steps: 3, batch_size: 4, evaluations: 1}}
"""
PAGE = (
    ("markdown", "# A toy\n\nTwo losses, two seeds, three steps."),
    (
        "parameters",
        'study: str = "toy"  # the study\nrecords: str = "results/toy"  # its records',
    ),
    (
        "code",
        "from lossatlas.report.records import load\n\n"
        "runs = load(records, study).runs\n"
        'means = runs.groupby("loss").foreground_dice.agg(["mean", "count"])\n'
        'assert (means["count"] == 2).all()\n'
        "means",
    ),
)


def notebook():
    cells = [
        nbformat.v4.new_markdown_cell(text)
        if kind == "markdown"
        else nbformat.v4.new_code_cell(text, metadata={"tags": [kind]})
        for kind, text in PAGE
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def files(folder):
    """What a person would add to the repository: runs, records and pages are made."""
    made = {"runs", "results", "book", ".snakemake"}
    return {path for path in folder.rglob("*") if path.is_file() and path.parts[-1] not in made
            and not made.intersection(path.relative_to(folder).parts)}  # fmt: skip


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The repository as it is, with folders of its own for studies, runs, records and pages."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    for name in ("notebooks", "src", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path)
    in_this_process(monkeypatch)
    return tmp_path


@pytest.mark.slow
def test_a_study_is_two_files_that_come_and_go(checkout, capsys):
    before, published = files(checkout), published_studies()
    folder = checkout / "studies/toy"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    nbformat.write(notebook(), folder / "page.ipynb")
    assert len(files(checkout) - before) == 2

    assert cli.main(["plan", "toy"]) == 0
    assert "4 runs" in capsys.readouterr().out
    assert cli.main(["run", "toy"]) == 0
    assert (checkout / "results/toy/study.json").is_file()
    assert [study.study for study in published_studies() if study not in published] == ["toy"]

    page = checkout / "book/generated/studies/toy.ipynb"
    command = [*tool("snakemake"), "-s", "workflow/book.smk", "--workflow-profile", str(PROFILE),
               "--cores", "1", str(page.relative_to(checkout))]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = nbformat.read(page, as_version=4)
    assert shown.cells[0].source.startswith("# A toy")
    assert "papermill studies/toy/page.ipynb" in shown.cells[-1].source
    tables = [o for cell in shown.cells for o in cell.get("outputs", []) if "text/html" in o.data]
    assert "dice" in tables[0].data["text/html"]

    shutil.rmtree(folder)
    assert files(checkout) == before
    assert published_studies() == published
    assert cli.main(["plan", "toy"]) == 1
    assert "no study 'toy'" in capsys.readouterr().err
