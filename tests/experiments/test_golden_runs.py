"""What runs compute is what their versions say: bits that change without a version are found here."""

from __future__ import annotations

import os

import golden
import pytest

from lossatlas.experiments import evaluate, training, versions


def found_for(name):
    """By case, what the committed table says of a run made now."""
    of, table = golden.read()
    same = of == golden.machine()
    cases = golden.cases(name)
    compared = cases if os.environ.get("LOSSATLAS_EXTENDED") else golden.covering(cases)
    found = {}
    for case, config in compared.items():
        datasets = golden.datasets_of(golden.key(config))
        if datasets is not None:
            found[case] = golden.verdict(table.get(case), golden.run(config, datasets), same)
    if cases and not found:
        pytest.skip(f"no data set of {name} is on this machine")
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", golden.studies())
def test_every_configuration_of_a_study_ends_as_its_versions_promise(name):
    wrong = {case: found for case, found in found_for(name).items() if found != "equal"}
    assert not wrong, (
        "after raising a version, or for a new study: python tests/experiments/golden.py"
    )


def test_the_cases_that_are_always_compared_have_every_level_of_every_study():
    for name in golden.studies():
        every, some = golden.cases(name), golden.covering(golden.cases(name))
        for part in ("dataset", "model", "loss", "optimizer", "bias_init", "batch_size"):
            assert {str(getattr(c, part)) for c in every.values()} == {
                str(getattr(c, part)) for c in some.values()
            }
            params = f"{part}_params"
            if every and hasattr(next(iter(every.values())), params):
                assert {str(getattr(c, params)) for c in every.values()} == {
                    str(getattr(c, params)) for c in some.values()
                }


def test_every_row_of_the_table_is_a_case_of_a_committed_study():
    _, table = golden.read()
    cases = {case for name in golden.studies() for case in golden.cases(name)}
    assert set(table) <= cases, "python tests/experiments/golden.py drops what no study uses"


@pytest.fixture(scope="module")
def a_case():
    config = next(iter(golden.cases("begin").values()))
    return config, golden.datasets_of(golden.key(config))


def test_a_change_of_the_training_is_found_until_its_version_is_raised(a_case, monkeypatch):
    config, datasets = a_case
    before = golden.run(config, datasets)
    rate = training.learning_rate_factor
    monkeypatch.setattr(training, "learning_rate_factor", lambda *a: rate(*a) * (1 + 1e-6))
    after = golden.run(config, datasets)
    assert "raise" in golden.verdict(before, after, same_machine=True)
    assert golden.verdict(before, after, same_machine=False) == "equal", "within the tolerance"
    monkeypatch.setattr(training, "learning_rate_factor", lambda *a: rate(*a) * 2)
    assert "tolerance" in golden.verdict(before, golden.run(config, datasets), same_machine=False)
    monkeypatch.setattr(versions, "TRAINING", versions.TRAINING + 1)
    assert golden.verdict(before, golden.run(config, datasets), same_machine=True) == "raised"


def test_a_change_of_the_evaluation_alone_is_found(a_case, monkeypatch):
    config, datasets = a_case
    before = golden.run(config, datasets)
    assess = evaluate.assess

    def other(*arguments):
        found = assess(*arguments)
        found.record["metrics"]["foreground_dice"] += 1e-9
        return found

    monkeypatch.setattr("lossatlas.experiments.training.assess", other)
    assert "EVALUATION" in golden.verdict(before, golden.run(config, datasets), same_machine=True)
