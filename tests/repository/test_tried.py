"""The page of what was tried says what the tests do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FILE = Path(__file__).parents[1] / "tried.py"


def test_the_page_of_what_was_tried_counts_the_tests_as_they_are():
    spec = importlib.util.spec_from_file_location("tried", FILE)
    tried = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tried)
    written = tried.PAGE.read_text(encoding="utf-8")
    assert written == tried.text(), "the tests have changed: python tests/tried.py"
