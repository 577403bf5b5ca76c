"""The page of what was tried says what the tests do."""

from __future__ import annotations


def test_the_page_of_what_was_tried_counts_the_tests_as_they_are(script):
    tried = script("tests/tried.py")
    written = tried.PAGE.read_text(encoding="utf-8")
    assert written == tried.text(), "the tests have changed: python tests/tried.py"
