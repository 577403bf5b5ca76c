"""A run is compared with the code that it depends on, and with no other."""

from __future__ import annotations

import shutil

import pytest

import lossatlas
from lossatlas.experiments import RunConfig, provenance
from lossatlas.experiments.provenance import (
    changed_components,
    component_versions,
    mixed_components,
)

SOURCES = provenance._source_file("lossatlas").parent


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Change a file in a copy of the sources, which the hashes are then made from."""
    copy = tmp_path / "src" / "lossatlas"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def edited(name, old, new, first=False):
        path = copy / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new, 1 if first else -1))
        provenance._closure_hash.cache_clear()

    monkeypatch.setattr(provenance, "__file__", str(copy / "experiments" / "provenance.py"))
    provenance._closure_hash.cache_clear()
    yield edited
    monkeypatch.undo()
    for cached in (provenance.code_version, provenance._closure_hash, provenance.commit):
        cached.cache_clear()


def versions(*names):
    return {name: component_versions(RunConfig(loss=name)) for name in names}


def changed(before, after):
    return {
        (loss, kind)
        for loss in before
        for kind in before[loss]
        if before[loss][kind] != after[loss][kind]
    }


def test_a_change_of_one_loss_s_file_concerns_the_losses_defined_there(edit):
    names = ("ce", "dice", "dice_ce", "lovasz_softmax", "focal")
    before = versions(*names)
    edit("losses/region.py", "class DiceLoss", "ANOTHER = 1\n\n\nclass DiceLoss")
    assert changed(before, versions(*names)) == {("dice", "loss"), ("dice_ce", "loss")}


def test_a_change_of_what_all_losses_share_concerns_them_all(edit):
    before = versions("ce", "dice")
    edit("losses/_sample.py", "import math", "import math\n\nANOTHER = 1")
    assert changed(before, versions("ce", "dice")) == {("ce", "loss"), ("dice", "loss")}


def test_a_change_of_the_class_weights_concerns_the_losses_that_have_them(edit):
    before = versions("ce", "weighted_ce")
    edit("losses/weights.py", "import torch\n", "import torch\n\nANOTHER = 1\n")
    assert changed(before, versions("ce", "weighted_ce")) == {("weighted_ce", "loss")}


@pytest.mark.parametrize(
    ("name", "old", "kind"),
    [
        ("experiments/training.py", "import math\n", "training"),
        ("experiments/evaluation.py", "import math\n", "evaluation"),
        ("metrics/calibration.py", "import torch\n", "evaluation"),
        ("metrics/overlap.py", "import torch\n", "training"),
        ("models/_common.py", "from torch import Tensor, nn\n", "model"),
        ("data/digits.py", "import numpy as np\n", "data"),
    ],
)
def test_a_change_elsewhere_concerns_its_own_component(edit, name, old, kind):
    before = versions("ce")
    edit(name, old, old + "ANOTHER = 1\n")
    after = versions("ce")
    assert ("ce", kind) in changed(before, after)
    assert ("ce", "loss") not in changed(before, after)
    if kind == "evaluation":
        assert changed(before, after) == {("ce", "evaluation")}, "no weight depends on it"


@pytest.mark.parametrize(
    "name", ["experiments/plan.py", "experiments/collect.py", "models/segnet.py"]
)
def test_code_that_no_number_of_the_run_comes_from_does_not_concern_it(edit, name):
    before = versions("ce")
    edit(
        name,
        "from __future__ import annotations\n",
        "from __future__ import annotations\nANOTHER = 1\n",
    )
    assert changed(before, versions("ce")) == set()


def test_a_comment_a_docstring_and_the_formatting_change_nothing(edit):
    before = versions("ce")
    edit("losses/_processes.py", '"""', '# a remark\n"""In other words: ', first=True)
    edit(
        "losses/_base.py",
        "from torch import Tensor, nn",
        "from torch import (\n    Tensor,\n    nn,\n)",
    )
    assert versions("ce") == before


def test_names_that_differ_by_a_fixed_parameter_have_different_code():
    both = versions("dice", "dice_squared")
    assert both["dice"]["loss"] != both["dice_squared"]["loss"]


def record(**changes):
    config = RunConfig(loss=changes.pop("loss", "dice"), loss_params=changes.pop("loss_params", {}))
    return {
        "config": config.model_dump(),
        "code_version": provenance.code_version(),
        "code": component_versions(config),
    } | changes


def test_a_record_names_what_has_changed_since():
    assert changed_components(record()) == []
    other = record(code_version="0" * 16)
    assert changed_components(other) == [], "what has changed is no part of it"
    other["code"] = other["code"] | {"loss": "0" * 16}
    assert changed_components(other) == ["loss"]
    assert changed_components(record(code=None)) == []
    assert changed_components(record(code=None, code_version="0" * 16)) == ["code"]


def test_runs_of_one_loss_must_share_its_code_and_runs_of_two_need_not():
    dice, ce = record(), record(loss="ce")
    assert dice["code"]["loss"] != ce["code"]["loss"]
    assert mixed_components([dice, ce, record()]) == {}
    other = record()
    other["code"] = other["code"] | {"loss": "0" * 16}
    mixed = mixed_components([dice, ce, other, record()])
    assert list(mixed) == ["loss dice"]
    assert sorted(mixed["loss dice"].values()) == [1, 2]


def test_a_loss_with_and_without_class_weights_may_stand_in_one_study():
    plain = record(loss="focal")
    weighted = record(loss="focal", loss_params={"class_weights": "inverse_frequency"})
    assert plain["code"]["loss"] != weighted["code"]["loss"], (
        "the code of the weights is part of it"
    )
    assert mixed_components([plain, weighted]) == {}
    older = weighted | {"code": weighted["code"] | {"loss": "0" * 16}}
    assert list(mixed_components([plain, weighted, older])) == ["loss focal with class weights"]


def test_all_runs_must_share_the_training():
    other = record(loss="ce")
    other["code"] = other["code"] | {"training": "0" * 16}
    assert list(mixed_components([record(), other])) == ["training"]


def test_the_package_that_is_hashed_is_the_one_that_runs():
    assert str(SOURCES) in lossatlas.__file__
