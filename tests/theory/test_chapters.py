"""Every derivation notebook runs with other parameters than its own (its form: tests/notebooks)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lossatlas import theory
from lossatlas.theory import ClosedFormError


@pytest.mark.parametrize("name", ["information", "weights", "focal", "lovasz", "metrics"])
def test_a_chapter_runs_with_another_seed(name: str, run_notebook: Any) -> None:
    smaller = {"pixels": 50_000} if name == "lovasz" else {}
    run_notebook(name, seed=3, **smaller)


@pytest.mark.parametrize(
    ("chapter", "form", "factor"), [("focal", "focal", 1.001), ("two_gradients", "dice", 2)]
)
def test_a_wrong_formula_stops_the_chapter_that_prints_it(
    run_notebook: Any, monkeypatch: pytest.MonkeyPatch, chapter: str, form: str, factor: float
) -> None:
    right = theory.FORMS[form]
    wrong = dataclasses.replace(right, gradient=right.gradient * factor)
    monkeypatch.setitem(theory.FORMS, form, wrong)
    with pytest.raises(ClosedFormError):
        run_notebook(chapter)
