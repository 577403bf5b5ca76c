"""The deliberate breaks of ``benchmarks/mutations.py`` can be applied to the losses as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOSSES = ROOT / "src/lossatlas/losses"


@pytest.fixture(scope="module")
def mutations(script):
    return script("benchmarks/mutations.py")


def test_every_break_fits_the_code_and_names_a_test_that_is_there(mutations):
    assert len(mutations.BREAKS) >= 20
    for each in mutations.BREAKS:
        compile(mutations.broken(LOSSES, each), each.file, "exec")
        file, test = each.test.split("[")[0].split("::")
        assert f"def {test}(" in (ROOT / "tests/losses" / file).read_text(), each.name


def test_a_break_of_code_that_has_changed_says_what_it_looked_for(mutations):
    gone = mutations.BREAKS[0]._replace(right="no such text")
    with pytest.raises(ValueError, match=r"expected 'no such text' once in focal\.py, got 0"):
        mutations.broken(LOSSES, gone)


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_every_break_is_caught(mutations):
    assert mutations.main() == 0
