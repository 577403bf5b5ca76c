"""The solutions of the exercises are right: their code runs and its assertions hold."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK, CHAPTERS = ROOT / "book", ROOT / "notebooks" / "derivations"
#: The list of claims is no chapter that teaches something.
WITHOUT = {"ledger"}


def text_of(path: Path) -> str:
    """The text of a page; of a notebook its Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def exercises_of(path: Path) -> str:
    """What stands below the heading of the exercises; empty where a page has none."""
    text = text_of(path)
    found = re.search(r"^## Exercises.*?\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    return found[1] if found else ""


PAGES = {
    str(path.relative_to(ROOT)): exercises_of(path)
    for path in [*sorted(CHAPTERS.glob("*.ipynb")), *sorted(BOOK.glob("*.md"))]
    if exercises_of(path)
}
SOLUTIONS = [
    pytest.param(name, textwrap.dedent(block), id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"^ *```python\n(.*?)^ *```$", text, re.S | re.M), 1)
]


@pytest.mark.parametrize(("name", "code"), SOLUTIONS)
def test_a_solution_runs_and_asserts_something(name: str, code: str) -> None:
    assert "assert" in code
    exec(compile(code, name, "exec"), {})


@pytest.mark.parametrize("name", PAGES)
def test_every_exercise_has_a_folded_solution(name: str) -> None:
    numbers = [int(each) for each in re.findall(r"^(\d+)\. ", PAGES[name], re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == PAGES[name].count("{dropdown} Solution")
    solutions = re.split(r"\{dropdown\} Solution\n", PAGES[name])[1:]
    assert all(re.search(r"\w", solution) for solution in solutions)


@pytest.mark.parametrize("path", sorted(CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_of_the_theory_has_two_exercises_or_more(path: Path) -> None:
    if path.stem not in WITHOUT:
        assert exercises_of(path).count("{dropdown} Solution") >= 2


def test_the_page_of_exercises_links_to_every_page_that_has_some() -> None:
    linked = re.findall(r"\]\(([\w/.]+)\)", text_of(BOOK / "exercises.md").split("## Exercises")[0])
    targets = [link.removesuffix(".md").removeprefix("generated/") for link in linked]
    assert sorted(targets) == sorted(
        Path(name).stem for name in PAGES if "exercises.md" not in name
    )
