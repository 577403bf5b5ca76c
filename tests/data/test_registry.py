"""Data sets by name, their parameters, and the examples of the docstrings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from drawn import made

import lossatlas.data
from lossatlas import data
from lossatlas.data.registry import SOURCES


def test_names_lead_to_loaders_with_parameters():
    assert data.names()[:2] == ["digits", "camvid"]
    for name in data.names():
        parameters = data.parameters(name)
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
        assert "split" not in parameters
    assert data.parameters("digits")["foreground"].default == 0.043
    assert data.parameters("camvid")["height"].annotation == (int | None)


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_set_states_its_facts(name):
    source = SOURCES[name]
    assert source.name == name
    assert source.title and source.licence
    if name != "folder":  # whose facts are its owner's
        assert re.search(r"\b(19|20)\d\d\b", source.citation), "a citation has a year"
        assert source.source.startswith("https://")
    assert source.void is None or source.void >= len(source.classes)
    assert len(source.mean) == len(source.std)


def test_an_unknown_name_split_or_parameter_offers_the_near_matches():
    with pytest.raises(data.DataError, match="got 'camvod'; did you mean camvid"):
        data.load("camvod", "train")
    with pytest.raises(data.DataError, match=r"got 'training'.*did you mean train"):
        data.load("digits", "training")
    with pytest.raises(data.DataError, match="got 'hieght'; did you mean height"):
        data.load("camvid", "train", hieght=90)
    with pytest.raises(data.DataError, match="did you mean digits"):
        data.parameters("digit")
    with pytest.raises(data.DataError, match="did you mean seed"):
        data.is_available("digits", sed=1)
    assert issubclass(data.DataError, ValueError)


def test_digits_are_always_at_hand_and_camvid_is_not_without_files():
    assert data.is_available("digits")
    assert data.is_available("digits", seed=4)
    assert not data.is_available("camvid")


def test_class_fractions_of_void_alone_is_an_error():
    void = made(np.full((1, 2, 2), 9), ignore_index=9)
    with pytest.raises(data.DataError, match="void alone"):
        data.class_fractions(void)
    assert void.image_counts().tolist() == [[0, 0]]


def test_a_dataset_refuses_arrays_that_do_not_fit_together():
    labels = np.zeros((2, 4, 4))
    with pytest.raises(data.DataError, match=r"\(2, 4, 5, 1\) over \(2, 4, 4\)"):
        made(labels, images=np.zeros((2, 4, 5, 1), np.uint8))
    with pytest.raises(data.DataError, match="one id and one group"):
        made(labels, ids="a")


MODULES = [m.name for m in pkgutil.walk_packages(lossatlas.data.__path__, "lossatlas.data.")]


@pytest.mark.parametrize("module", ["lossatlas.data", *MODULES])
def test_the_examples_of_the_docstrings_hold(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
