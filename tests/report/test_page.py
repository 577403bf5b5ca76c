"""The report runs on records, refuses bad parameters, and becomes a well-formed page."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from PIL import Image

from lossatlas.report import page
from lossatlas.report.records import RecordsError

REPORT = Path(__file__).parents[2] / "studies" / "page.ipynb"


def headings(notebook):
    return [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match(r"#+ ", line)
    ]


@pytest.fixture(scope="module")
def small(make_records, tmp_path_factory):
    """Records just large enough for every kind of output."""
    folder = tmp_path_factory.mktemp("results") / "quick"
    return make_records(folder, losses=("ce", "dice"), seeds=(0, 1), images=6, side=16, steps=10)


@pytest.fixture(scope="module")
def executed(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "quick.ipynb"
    papermill.execute_notebook(
        REPORT,
        path,
        {"study": "quick", "records": str(small)},
        kernel_name="python3",
        progress_bar=False,
    )
    return path


@pytest.fixture(scope="module")
def finished(executed):
    page.finish(executed)
    return nbformat.read(executed, as_version=4)


def test_every_cell_of_code_is_hidden_by_its_tag():
    cells = nbformat.read(REPORT, as_version=4).cells
    hidden = {"hide-input", "hide-cell"}
    assert all(hidden & set(c.metadata.tags) for c in cells if c.cell_type == "code")


def test_the_page_has_one_title_with_the_studys_name_and_consecutive_headings(finished):
    found = headings(finished)
    assert found[0] == "# The losses compared: the study quick"
    levels = [len(line.split()[0]) for line in found]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_rest_is_behind_switches_that_name_what_is_inside(finished):
    folds = [c for c in finished.cells if "hide-cell" in c.metadata.get("tags", [])]
    assert all(c.metadata.mystnb.code_prompt_show.startswith("Show ") for c in folds)
    text = nbformat.writes(finished)
    hidden = "".join(map(str, folds))
    # for each of the two models: curves, classes, predictions and a table
    assert hidden.count("data:image/png;base64") == 6
    assert text.count("data:image/png;base64") == 7
    assert hidden.count("<table") == 2 and text.count("<table") == 3
    for model in ("unet", "segnet"):
        assert f"**`{model}` on `digits`**" in hidden
    assert "Too few trainings to compare losses" in hidden  # the study has two seeds
    assert len(text) < 1_500_000


def shown_openly(study, monkeypatch):
    """What a reader sees of a study before a switch is opened, as Markdown and HTML; all cells run in this process."""
    monkeypatch.chdir(REPORT.parents[1])
    shown, texts, names = [], [], {}
    monkeypatch.setattr("IPython.display.display", lambda *what, **_: shown.extend(what))
    for cell in nbformat.read(REPORT, as_version=4).cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
            continue
        shown.clear()
        exec(cell.source, names)
        if "parameters" in cell.metadata.tags:
            names |= {"study": study, "records": f"results/{study}"}
        if "hide-cell" not in cell.metadata.tags:
            texts += [
                each._repr_html_() if hasattr(each, "_repr_html_") else each.data for each in shown
            ]
    return texts


@pytest.mark.parametrize("study", ["quick", "quick_camvid"])
def test_the_page_is_question_answer_figure_and_one_table_of_single_numbers(study, monkeypatch):
    shown = shown_openly(study, monkeypatch)
    text = "\n".join(shown)
    order = ("?**", "**Answer: ", "<img ", "<table", "## What would change", "## Limits")
    places = [text.index(each) for each in order]
    assert places == sorted(places) and text.count("<table") == 1
    assert "a learning rate tuned for each loss" in text and f"STUDY={study}`" in text
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert len(cells) > 8
    assert all(len(re.findall(r"\d+(?:\.\d+)?", cell)) <= 1 for cell in cells)
    prose = re.sub(r"<table.*?</table>|<[^>]+>", " ", text, flags=re.DOTALL)
    assert 200 < len(prose.split()) <= 600
    assert len(text) < 1_500_000


def test_the_injected_cell_is_folded_and_no_output_is_an_error_or_a_bare_none(finished):
    (injected,) = [c for c in finished.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "hide-input" in injected.metadata.tags
    for cell in finished.cells:
        for output in cell.get("outputs", []):
            assert output.output_type in {"display_data", "execute_result"}
            assert output.data.get("text/plain") != "None"


def test_finishing_twice_changes_nothing(finished, executed):
    before = executed.read_text()
    page.finish(executed)
    assert executed.read_text() == before


def run_first_cells(**injected):
    """The parameters cell, what papermill injects, and the cell after: as a kernel runs them."""
    code = [c for c in nbformat.read(REPORT, as_version=4).cells if c.cell_type == "code"]
    assert "parameters" in code[0].metadata.tags
    namespace = {}
    exec(code[0].source, namespace)
    namespace.update(injected)
    exec(code[1].source, namespace)
    return namespace


def test_the_cell_after_the_parameters_loads_the_records(small):
    assert run_first_cells(records=str(small))["loaded"].name == "quick"


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ({"record": "results/quick"}, "unknown parameter 'record'; did you mean 'records'"),
        ({"study": 3}, "study: expected text, got 3"),
        ({"records": "nowhere"}, "expected a study's records in nowhere"),
        ({"study": "other"}, "expected the study 'other', got 'quick'"),
    ],
)
def test_bad_parameters_stop_the_report_in_the_cell_after_them(small, injected, message):
    with pytest.raises(RecordsError, match=message):
        run_first_cells(**({"records": str(small)} | injected))


# page.finish alone


TITLE = nbformat.v4.new_markdown_cell("# T")


def finished_cells(folder, *cells):
    """The cells of a notebook after `page.finish`."""
    path = folder / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    page.finish(path)
    return nbformat.read(path, as_version=4).cells


def output(text=None, html=None, **metadata):
    data = {"text/markdown": text} if text else {"text/html": html}
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


def test_outputs_stay_in_order_around_a_heading(tmp_path):
    code = nbformat.v4.new_code_cell(
        "f()",
        outputs=[output(html="a"), output("## B"), output(html="c"), output("d"), output("## E")],
    )
    cells = finished_cells(tmp_path, TITLE, code)
    kinds = [(cell.cell_type, len(cell.get("outputs", []))) for cell in cells]
    assert kinds == [("markdown", 0), ("code", 1), ("markdown", 0), ("code", 2), ("markdown", 0)]
    assert [cells[2].source, cells[4].source] == ["## B", "## E"]
    assert cells[3].source and "remove-input" in cells[3].metadata.tags


def test_a_notebook_without_a_title_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a first cell that begins with a heading"):
        finished_cells(tmp_path, nbformat.v4.new_markdown_cell("words"))


def test_the_title_replaces_the_first_heading_and_leaves_the_text(tmp_path):
    code = nbformat.v4.new_code_cell(
        "f()", outputs=[output("**Why?**", **page.title({"study": r"a\1b"}))]
    )
    first, *_ = finished_cells(tmp_path, nbformat.v4.new_markdown_cell("# T\n\nwords"), code)
    assert first.source == "# The losses compared: the study a\\1b\n\nwords"
    assert list(page.title({"study": "x", "title": "Its own"}).values()) == ["Its own"]


def test_a_figure_of_a_notebook_has_twice_the_pixels_and_keeps_its_width(tmp_path):
    path = tmp_path / "n.ipynb"
    code = (
        "import matplotlib.pyplot as plt\n"
        "from lossatlas.report import style\n"
        "style.set_theme()\n"
        "_ = plt.plot([1, 2])"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[TITLE, folded(code)]), path)
    papermill.execute_notebook(path, path, kernel_name="python3", progress_bar=False)
    page.finish(path)
    (shown,) = nbformat.read(path, as_version=4).cells[1].outputs
    width, _ = Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"]))).size
    # a height would distort the figure on a narrow screen
    assert shown.metadata["image/png"] == {"width": width // 2}
    assert 600 < width // 2 <= 750


def folded(source, *outputs, tags=("hide-input",)):
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    cell.metadata["tags"] = list(tags)
    return cell


def test_folded_code_without_an_output_joins_the_next_code_that_shows_something(tmp_path):
    cells = [
        TITLE,
        folded("a = 1", tags=("parameters", "hide-input")),
        folded("import b", output(html="a warning"), tags=("hide-input", "remove-output")),
        nbformat.v4.new_markdown_cell("words"),
        folded("show(a)", output(html="a")),
        folded("headed()", output("## B"), output(html="c")),
        folded("nothing_follows()"),
    ]
    found = finished_cells(tmp_path, *cells)
    assert [cell.source for cell in found] == [
        "# T",
        "words",
        "a = 1\n\nimport b\n\nshow(a)",
        "## B",
        "headed()",
    ]
    assert all("hide-input" in cell.metadata.tags for cell in found if cell.cell_type == "code")


def test_a_page_ends_with_the_command_that_makes_it(finished):
    assert finished.cells[-1].source.startswith("## Rerun this page")
    assert "papermill studies/page.ipynb out.ipynb -k python3" in finished.cells[-1].source
    assert "-p study quick" in finished.cells[-1].source


def test_a_picture_is_kept_with_a_palette_and_looks_the_same(tmp_path):
    shades = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(shades[:, None], shades[None], np.uint8(90)), -1)
    saved = io.BytesIO()
    Image.fromarray(pixels).save(saved, "PNG", compress_level=0)
    data = {"image/png": base64.b64encode(saved.getvalue()).decode()}
    code = nbformat.v4.new_code_cell(
        "plot()", outputs=[nbformat.v4.new_output("display_data", data=data)]
    )
    shown = finished_cells(tmp_path, TITLE, code)[1].outputs[0].data["image/png"]
    raw = base64.b64decode(shown)
    after = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)
    assert len(raw) < 0.5 * len(saved.getvalue())
    assert np.abs(after - pixels).mean() < 8
