"""The examples of the docstrings, and what every public name says of itself."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

from lossatlas import metrics
from lossatlas.metrics import boundary, calibration, overlap, thresholds, topology


@pytest.mark.parametrize("module", [boundary, calibration, overlap, thresholds, topology])
def test_the_examples_give_what_they_show(module):
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_public_name_is_documented_with_its_parameters_and_an_example(name):
    thing = getattr(metrics, name)
    text = inspect.getdoc(thing) or ""
    unnamed = [p for p in inspect.signature(thing).parameters if not re.search(rf"\b{p}\b", text)]
    assert not unnamed, f"the docstring of {name} says nothing of these parameters"
    assert ">>>" in text or name == "OffsetSearch"  # whose input is a search's sample
