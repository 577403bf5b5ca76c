"""The examples of the docstrings, and what every public name says of itself."""

from __future__ import annotations

import doctest
import inspect

import pytest

from lossatlas import metrics
from lossatlas.metrics import boundary, calibration, overlap, thresholds


@pytest.mark.parametrize("module", [boundary, calibration, overlap, thresholds])
def test_the_examples_give_what_they_show(module):
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_says_what_it_is_and_shows_it_or_takes_a_sample(name):
    text = inspect.getdoc(getattr(metrics, name))
    assert text and len(text) > 60
    assert ">>>" in text or name == "OffsetSearch"
