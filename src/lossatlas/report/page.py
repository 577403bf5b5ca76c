"""From an executed report to a page of the book.

A report's sections depend on the study (one for each model and data set), but a heading that a code
cell prints is no heading to Sphinx: only a Markdown cell's is. `finish` turns the one into the
other, gives the page the study's name as its title, and folds the code away. Folded code stands
with the output that it makes: a fold without an output would be an empty bar.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image

_HEADING = re.compile(r"#{1,6} \S")
#: Key of an output's metadata that holds the page's title.
TITLE_KEY = "lossatlas_title"
_SOURCE = re.compile(r"(?:notebooks|studies)/[\w/]+\.ipynb$")
_COMMAND_ID = "rerun-this-page"


def title(study: Mapping[str, Any]) -> dict[str, str]:
    """Metadata for ``IPython.display.display``: the title of the page that `finish` writes.

    It is the study's own ``title`` or, where it has none, its name.
    """
    return {TITLE_KEY: study.get("title") or f"The losses compared: the study {study['study']}"}


def finish(path: str | Path) -> None:
    """Make an executed report, in place, what Jupyter Book takes for a well-formed page.

    - The first Markdown cell's heading becomes the title that an output carries (see `title`).
    - A Markdown output that begins with a heading becomes a Markdown cell; the outputs behind it
      follow in a cell of their own.
    - The cell that papermill injects is folded, as the cells tagged "hide-input" are.
    - Folded code that shows no output joins the next cell that does; behind the last one it is left out.
    - Pictures are kept with a palette of 256 colours, in about a third of the bytes. One that is drawn for a screen
      of two dots a pixel keeps its width in pixels and not its height: a narrow screen would distort it.
    - A last section gives the command that makes the page, with its parameters.

    A page that is finished already stays as it is. Raises ValueError for a notebook without a
    level-1 heading in its first cell.
    """
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        raise ValueError(f"{path}: expected a first cell that begins with a heading '# …'")
    found = _title(notebook)
    if found:
        first.source = re.sub(r"\A# [^\n]*", lambda _: f"# {found}", first.source)
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = sorted({*cell.metadata["tags"], "hide-input"})
        cells += _split(cell)
    notebook.cells = _merged(cells) + _command(notebook)
    for cell in notebook.cells:
        for shown in cell.get("outputs", []):
            if "image/png" in shown.get("data", {}):
                smaller = with_palette(base64.b64decode(shown.data["image/png"]))
                shown.data["image/png"] = base64.b64encode(smaller).decode()
                shown.metadata.get("image/png", {}).pop("height", None)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def _title(notebook: NotebookNode) -> str | None:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    titles = (output.get("metadata", {}).get(TITLE_KEY) for output in outputs)
    return next(filter(None, titles), None)


def _split(cell: NotebookNode) -> list[NotebookNode]:
    """The cell, cut before and behind each output that is a heading."""
    if not any(_is_heading(output) for output in cell.get("outputs", [])):
        return [cell]
    outputs, cell.outputs = cell.outputs, []
    pieces = [cell]
    for output in outputs:
        place = f"{cell.get('id', 'cell')[:40]}-{len(pieces)}"
        if _is_heading(output):
            pieces.append(nbformat.v4.new_markdown_cell(_text(output), id=place))
        elif pieces[-1].cell_type == "code":
            pieces[-1].outputs.append(output)
        else:
            # Its code stands above; MyST-NB drops a cell without any source, output and all.
            follower = nbformat.v4.new_code_cell("# continued", id=place, outputs=[output])
            follower.metadata["tags"] = ["remove-input"]
            follower.execution_count = cell.execution_count
            pieces.append(follower)
    return pieces


def _merged(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """The cells, with the folded code that shows nothing moved into the next code cell that shows something."""
    kept: list[NotebookNode] = []
    waiting: list[NotebookNode] = []
    for cell in cells:
        tags = set(cell.metadata.get("tags", []))
        shows = bool(cell.get("outputs")) and "remove-output" not in tags
        if cell.cell_type == "code" and "hide-input" in tags and not shows:
            waiting.append(cell)
            continue
        if cell.cell_type == "code" and waiting and tags & {"hide-input", "remove-input"}:
            # a cell of outputs alone, cut off by a heading, takes its code back
            own = [] if "remove-input" in tags else [cell.source]
            cell.source = "\n\n".join([*(each.source for each in waiting), *own])
            carried = set().union(*(each.metadata.tags for each in waiting))
            carried -= {"parameters", "remove-output"}
            cell.metadata["tags"] = sorted((tags - {"remove-input"}) | carried)
            waiting = []
        kept.append(cell)
    return kept


def _command(notebook: NotebookNode) -> list[NotebookNode]:
    """The section with papermill's command; nothing where another tool made the notebook, or a second time."""
    made = notebook.metadata.get("papermill", {})
    if not made.get("input_path") or notebook.cells[-1].get("id") == _COMMAND_ID:
        return []
    source = Path(made["input_path"]).as_posix()
    inside = _SOURCE.search(source)  # the path from the repository's root
    source = inside[0] if inside else source
    given = [f"-p {name} {shlex.quote(str(value))}" for name, value in made["parameters"].items()]
    command = " ".join([f"papermill {source} out.ipynb -k python3", *given])
    text = (
        f"## Rerun this page\n\n`{source}` makes this page"
        + (", with the parameters of the command:" if given else ":")
        + f"\n\n```bash\n{command}\n```\n\n"
        f"`papermill --help-notebook {source}` lists every parameter."
    )
    return [nbformat.v4.new_markdown_cell(text, id=_COMMAND_ID)]


def with_palette(png: bytes) -> bytes:
    """A picture with a palette; as it is where it has one, is transparent, or would not be smaller."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P" or picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        return png
    smaller = io.BytesIO()
    picture.convert("RGB").quantize(256).save(smaller, "PNG", optimize=True)
    return min(png, smaller.getvalue(), key=len)


def _is_heading(output: NotebookNode) -> bool:
    return bool(_HEADING.match(_text(output)))


def _text(output: Any) -> str:
    return str(output.get("data", {}).get("text/markdown", ""))
