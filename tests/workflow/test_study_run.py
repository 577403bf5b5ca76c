"""A study from its file to its records, through Snakemake."""

from __future__ import annotations

import json

import nbformat
import pytest
import yaml
from checkouts import STUDY, checkout

from lossatlas import book, cli, workflow
from lossatlas.experiments import load_study
from lossatlas.experiments.record import is_complete


@pytest.mark.timeout(1200)
def test_one_failed_run_stops_no_other_and_is_listed_and_a_second_call_mends_it(
    tmp_path, monkeypatch, capsys
):
    study = load_study(str(checkout(tmp_path, runs_per_job=2)))
    monkeypatch.chdir(tmp_path)
    runs = {member.loss: config for member, config in study.reporting_runs()}
    # a file where the run folder must go: the training of dice fails at its end
    blocked = tmp_path / "runs" / runs["dice"].run_id
    blocked.parent.mkdir()
    blocked.write_text("in the way")

    assert cli.main(["run", "tiny.yaml", "--jobs", "1"]) == 1
    first = capsys.readouterr()
    assert "1 of 2 runs failed" in first.out
    assert "digits · unet · dice · seed 0: NotADirectoryError" in first.out
    assert is_complete("runs", runs["ce"])
    assert json.loads((tmp_path / "results/tiny/study.json").read_text())["missing_runs"] == 1
    assert "\r" not in first.out + first.err, "no progress line where there is no terminal"

    blocked.unlink()
    ce_record = tmp_path / "runs" / runs["ce"].run_id / "run.json"
    trained_at = ce_record.stat().st_mtime_ns
    assert cli.main(["run", "tiny.yaml"]) == 0
    assert "2 runs, 1 already there" in capsys.readouterr().out
    assert ce_record.stat().st_mtime_ns == trained_at
    assert json.loads((tmp_path / "results/tiny/study.json").read_text())["missing_runs"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loses": ["ce"]}, "unknown key 'loses' (got ['ce']): did you mean losses"),
        ({"losses": ["dise"]}, "unknown loss 'dise': did you mean dice"),
        ({"datasets": [{"name": "camvid", "params": {"root": "nowhere"}}]}, "nowhere"),
    ],
)
def test_a_wrong_study_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, change, words):
    checkout(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**STUDY, **change}))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "tiny.yaml"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/run.json"))
    assert not (tmp_path / "results").exists()


def test_a_mirror_that_is_named_must_be_there(tmp_path, monkeypatch, capsys):
    checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSATLAS_MIRROR", str(tmp_path / "nowhere"))
    assert cli.main(["book"]) == 1
    assert "LOSSATLAS_MIRROR: expected a folder or an address" in capsys.readouterr().err


def test_the_progress_line_says_which_run_of_how_many_the_loss_and_the_time_left():
    beat = {"label": "digits · unet · ce · seed 1", "step": 50, "steps": 100, "loss": 0.4321}
    line = workflow.progress_line(done=7, before=5, total=10, elapsed_s=250, under_way=[beat])
    # 2.5 runs took 250 s, 2.5 are left
    assert (
        line
        == "7/10 runs · digits · unet · ce · seed 1: step 50/100, loss 0.432 · about 4 min left"
    )
    assert workflow.progress_line(0, 0, 10, 3.0, []) == "0/10 runs"


def test_a_page_without_records_names_the_command_that_makes_them(tmp_path):
    page = tmp_path / "studies" / "quick.ipynb"
    page.parent.mkdir()
    page.write_text("{}")
    made = page.with_suffix(".md")
    assert book.main(["missing", str(made), "Ten digits", "make book STUDY=quick"]) == 0
    assert made.read_text().startswith("# Ten digits (not run)\n")
    assert "```bash\nmake book STUDY=quick\n```" in made.read_text()
    assert not page.exists(), "a page has one source"


def test_a_page_whose_cell_fails_is_no_page_and_what_ran_of_it_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_code_cell("assert 1 == 2, 'no'")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "t.ipynb"
    )
    assert book.main(["page", "t.ipynb", "generated/t.ipynb"]) == 1
    said = capsys.readouterr().out
    assert "AssertionError: no" in said
    assert "t.ipynb failed; what ran of it is in runs/logs/page-t.ipynb" in said
    assert (tmp_path / "runs/logs/page-t.ipynb").is_file()
    assert not (tmp_path / "generated").exists()
