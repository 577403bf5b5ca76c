"""What runs compute is what their versions say: bits that change without a version are found here."""

from __future__ import annotations

import dataclasses
import os

import golden
import numpy as np
import pytest

from lossatlas.experiments import evaluate, training, versions


def found_for(name):
    """By case, what the committed table says of a run made now."""
    rounding, table = golden.read()
    cases = golden.cases(name) if os.environ.get("LOSSATLAS_EXTENDED") else golden.compared()[name]
    found = {}
    for case, config in cases.items():
        datasets = golden.datasets_of(golden.key(config))
        if datasets is not None:
            same = golden.same_bits(table.get(case), rounding)
            found[case] = golden.verdict(table.get(case), golden.run(config, datasets), same)
    if cases and not found:
        pytest.skip(f"no data set of {name} is on this machine")
    return found


#: Studies with records, which a change could make stale. The others are compared once a week.
RECORDED = golden.recorded()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", golden.studies() if os.environ.get("LOSSATLAS_EXTENDED") else RECORDED
)
def test_every_configuration_of_a_study_ends_as_its_versions_promise(name):
    wrong = {case: found for case, found in found_for(name).items() if found != "equal"}
    assert not wrong, (
        "after raising a version, or for a new study: python tests/experiments/golden.py"
    )


def test_the_studies_with_records_are_compared():
    assert {"begin", "quick"} <= set(RECORDED)


def test_every_case_that_a_study_with_records_compares_is_in_the_table():
    _, table = golden.read()
    assert {case for name in RECORDED for case in golden.compared()[name]} <= set(table)


def test_the_cases_that_are_always_compared_have_every_level_of_every_study():
    def found(by_study):
        configs = [config for cases in by_study.values() for config in cases.values()]
        return {level for config in configs for level in golden.levels(config)}

    every = {name: golden.cases(name) for name in golden.studies()}
    assert found(golden.compared()) == found(every)
    drawn = [
        c for cases in golden.compared().values() for c in cases.values() if c.dataset == "digits"
    ]
    assert 30 < len(drawn) < 60, "without a mirror these alone are compared"


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
    advice = golden.verdict(before, after, same_bits=True)
    assert "raise the version" in advice and "golden.py --rounding" in advice
    assert golden.verdict(before, after, same_bits=False) == "equal", "within the tolerance"
    monkeypatch.setattr(training, "learning_rate_factor", lambda *a: rate(*a) * 2)
    assert "tolerance" in golden.verdict(before, golden.run(config, datasets), same_bits=False)
    monkeypatch.setattr(versions, "TRAINING", versions.TRAINING + 1)
    assert golden.verdict(before, golden.run(config, datasets), same_bits=True) == "raised"


def test_a_change_of_the_evaluation_alone_is_found(a_case, monkeypatch):
    config, datasets = a_case
    before = golden.run(config, datasets)
    assess = evaluate.assess

    def other(*arguments):
        found = assess(*arguments)
        found.record["metrics"]["foreground_dice"] += 1e-9
        return found

    monkeypatch.setattr("lossatlas.experiments.training.assess", other)
    assert "EVALUATION" in golden.verdict(before, golden.run(config, datasets), same_bits=True)


def test_the_table_was_made_with_todays_rounding():
    assert golden.read()[0] == versions.ROUNDING, "python tests/experiments/golden.py --rounding"


@pytest.fixture
def one_case(a_case, monkeypatch, tmp_path):
    """A table of a single case; a function that runs `main` after all losses were multiplied by a factor."""
    config, _ = a_case
    made_with = versions.component_versions(config)
    now = golden.Golden(made_with, "a", "b", [1.0, 0.5], run_id=config.run_id)
    monkeypatch.setattr(golden, "TABLE", tmp_path / "golden.json")
    monkeypatch.setattr(golden, "studies", lambda: ["begin"])
    monkeypatch.setattr(golden, "cases", lambda name: {"case": config})
    monkeypatch.setattr(golden, "run", lambda *_: now)
    assert golden.main() == 0

    def after(factor, **options):
        losses = [now.losses[0], *(factor * loss for loss in now.losses[1:])]
        other = dataclasses.replace(now, weights="c", losses=losses)
        monkeypatch.setattr(golden, "run", lambda *_: other)
        return golden.main(**options), golden.read()

    return after


def test_other_bits_within_the_tolerance_are_taken_as_another_rounding(one_case, monkeypatch):
    raised = versions.ROUNDING + 1
    monkeypatch.setattr(versions, "ROUNDING", raised)
    code, (rounding, table) = one_case(1.01, rounding=True)
    assert (code, rounding, table["case"].weights) == (0, raised, "c")


def test_a_plan_that_keeps_its_names_is_another_case(one_case, a_case, monkeypatch):
    config, _ = a_case
    (before,) = golden.read()[1].values()
    other = config.model_copy(update={"lr": 2 * config.lr})
    assert other.run_id != config.run_id
    now = dataclasses.replace(before, weights="c", run_id=other.run_id)
    assert golden.verdict(before, now, same_bits=True) == "new"
    monkeypatch.setattr(golden, "cases", lambda name: {"case": other})
    monkeypatch.setattr(golden, "run", lambda *_: now)
    assert golden.main() == 0
    assert golden.read()[1]["case"].weights == "c", "made again without being asked"


def test_another_formula_is_refused_as_another_rounding(one_case, monkeypatch, capsys):
    before = versions.ROUNDING
    monkeypatch.setattr(versions, "ROUNDING", before + 1)
    code, (rounding, table) = one_case(1.1, rounding=True)
    assert (code, rounding, table["case"].weights) == (1, before, "a")
    assert "raise the version" in capsys.readouterr().out


def test_the_first_loss_is_compared_closely_on_every_machine(a_case):
    config, datasets = a_case
    before = golden.run(config, datasets)
    for factor, found in ((1 + 1e-5, True), (1 + 1e-3, False)):
        losses = [factor * before.losses[0], *before.losses[1:]]
        other = dataclasses.replace(before, losses=losses, machine="another")
        assert before.is_near(other) is found


def test_a_doubled_rate_is_found_where_the_loss_hardly_moves():
    """Tversky from a bias of 0: a doubled rate changes its five losses by less than two percent."""
    (config,) = [c for n, c in golden.cases("begin").items() if "pi3 · none4_zero · tversky" in n]
    datasets = golden.datasets_of(golden.key(config))
    before = golden.run(config, datasets)
    doubled = golden.run(config.model_copy(update={"lr": 2 * config.lr}), datasets)
    assert np.allclose(doubled.losses, before.losses, rtol=golden.TOLERANCE), "small as it is"
    assert not before.is_near(doubled) and before.is_near(before)


def test_runs_without_a_loss_are_near_each_other_alone():
    none = golden.Golden({"loss": 1}, "a", "b", [])
    assert none.is_near(none) and not none.is_near(dataclasses.replace(none, losses=[1.0]))


def test_another_rounding_is_taken_only_after_its_number_was_raised(one_case, capsys):
    code, (_, table) = one_case(1.01, rounding=True)
    assert (code, table["case"].weights) == (1, "a")
    assert "raise it first" in capsys.readouterr().out


def test_what_another_machine_adds_is_compared_to_the_bit_there_alone(one_case, monkeypatch):
    """The others were made elsewhere: the table must not call them this machine's."""
    _, table = golden.read()
    here = dataclasses.replace(table["case"], machine=golden.machine())
    there = dataclasses.replace(here, machine="another")
    golden.write({"a": there, "b": there, "new": here})
    rounding, found = golden.read()
    assert [found[name].machine for name in ("a", "b", "new")] == ["another"] * 2 + [here.machine]
    assert golden.same_bits(found["new"], rounding)
    assert not golden.same_bits(found["a"], rounding) and not golden.same_bits(None, rounding)
    assert golden.TABLE.read_text().count("another") == 1
