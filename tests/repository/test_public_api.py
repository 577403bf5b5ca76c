"""The public names and signatures are those of ``tests/api.txt``."""

from __future__ import annotations

import difflib

import pytest


@pytest.fixture(scope="module")
def api(script):
    return script("tests/api.py")


def test_public_names_and_signatures_are_those_of_the_file(api):
    written, now = api.FILE.read_text(encoding="utf-8").splitlines(), api.text().splitlines()
    changed = list(difflib.unified_diff(written, now, "tests/api.txt", "the package", lineterm=""))
    assert not changed, "\n".join(
        [
            "the public API differs from tests/api.txt; CONTRIBUTING says how a name goes or changes.",
            "Where the change is meant: python tests/api.py",
            *changed,
        ]
    )


def test_a_parameter_that_goes_or_a_default_that_changes_is_seen(api, monkeypatch):
    from lossatlas import losses

    def __init__(self, *, gamma=3.0):
        pass

    monkeypatch.setattr(losses.FocalLoss, "__init__", __init__)
    lines = set(api.FILE.read_text(encoding="utf-8").splitlines())
    changed = [line for line in api.names("losses") if line not in lines]
    assert changed == ["losses.FocalLoss(*, gamma=3.0)"]
