"""The solutions of the exercises are right: their code runs and its assertions hold."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
SOLUTIONS = [
    textwrap.dedent(block)
    for block in re.findall(
        r"^ *```python\n(.*?)^ *```$",
        (BOOK / "exercises.md").read_text(encoding="utf-8"),
        re.S | re.M,
    )
]


@pytest.mark.parametrize("code", SOLUTIONS)
def test_a_solution_runs_and_asserts_something(code: str) -> None:
    assert "assert" in code
    exec(compile(code, "exercises.md", "exec"), {})


def test_every_exercise_has_a_folded_solution() -> None:
    for name in ("exercises", "decision_guide"):
        text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
        text = text[text.index("# Exercises") :]
        assert len(re.findall(r"^\d\. ", text, re.M)) == text.count("{dropdown} Solution")
