"""A run is compared with the versions of what it depends on, and with nothing else."""

from __future__ import annotations

import pytest

from lossatlas.experiments import RunConfig, versions
from lossatlas.experiments.components import _DEFAULT_CLASS_WEIGHTS
from lossatlas.experiments.versions import (
    changed_components,
    component_versions,
    mixed_components,
    recorded_versions,
)


def record(**changes):
    config = RunConfig(loss=changes.pop("loss", "dice"), loss_params=changes.pop("loss_params", {}))
    return {"config": config.model_dump(), "code": component_versions(config)} | changes


@pytest.mark.parametrize(
    ("name", "value", "stale"),
    [
        ("TRAINING", 2, {"dice": ["training"], "ce": ["training"]}),
        ("EVALUATION", 2, {"dice": ["evaluation"], "ce": ["evaluation"]}),
        ("LOSSES", {"dice": 2}, {"dice": ["loss"], "ce": []}),
        ("MODELS", {"unet": 2}, {"dice": ["model"], "ce": ["model"]}),
        ("MODELS", {"segnet": 2}, {"dice": [], "ce": []}),
        ("DATA", {"digits": 2}, {"dice": ["data"], "ce": ["data"]}),
    ],
)
def test_a_version_that_is_raised_makes_the_runs_that_depend_on_it_stale(
    monkeypatch, name, value, stale
):
    before = {loss: record(loss=loss) for loss in stale}
    assert all(changed_components(each) == [] for each in before.values())
    monkeypatch.setattr(versions, name, value)
    assert {loss: changed_components(each) for loss, each in before.items()} == stale


def test_the_class_weights_concern_the_runs_that_have_them(monkeypatch):
    plain, named = record(loss="ce"), record(loss="weighted_ce")
    asked = record(loss="focal", loss_params={"class_weights": "inverse_frequency"})
    monkeypatch.setattr(versions, "WEIGHTS", 2)
    assert [changed_components(each) for each in (plain, named, asked)] == [
        [],
        ["weights"],
        ["weights"],
    ]


def test_every_loss_that_takes_its_weights_from_the_data_has_their_version():
    for loss in _DEFAULT_CLASS_WEIGHTS:
        assert "weights" in component_versions(RunConfig(loss=loss))


def test_a_record_of_other_versions_or_of_none_is_stale():
    code = component_versions(RunConfig(loss="dice"))
    assert changed_components(record(code=code | {"model": "67b7b18e9c75a119"})) == ["model"]
    assert changed_components(record(code={})) == ["code"]
    # numbers, not hashes of files: a module that is renamed makes nothing stale
    assert all(type(version) is int for version in recorded_versions(RunConfig()).values())


def test_runs_of_one_loss_share_its_version_and_runs_of_two_need_not(monkeypatch):
    old = record(loss="dice")
    monkeypatch.setattr(versions, "LOSSES", {"dice": 2})
    assert mixed_components([record(loss="dice"), record(loss="ce")]) == {}
    assert mixed_components([old, record(loss="dice"), record(loss="dice"), record(loss="ce")]) == {
        "loss dice": {1: 1, 2: 2}
    }


def test_all_runs_share_the_training(monkeypatch):
    old = record(loss="ce")
    monkeypatch.setattr(versions, "TRAINING", 2)
    assert list(mixed_components([old, record(loss="dice")])) == ["training"]


def test_another_rounding_is_recorded_and_makes_no_run_stale(monkeypatch):
    config = RunConfig(loss="dice")
    old = record(code=recorded_versions(config))
    monkeypatch.setattr(versions, "ROUNDING", versions.ROUNDING + 1)
    new = record(code=recorded_versions(config))
    assert new["code"]["rounding"] == old["code"]["rounding"] + 1
    assert changed_components(old) == []
    assert mixed_components([old, new]) == {}
