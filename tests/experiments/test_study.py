"""Studies are validated with a clear error, and expand to one cell for each data set, model and loss."""

from __future__ import annotations

import pytest
import yaml

from lossatlas.experiments import ConfigError, load_study, study_names
from lossatlas.experiments.config import check_components
from lossatlas.experiments.study import STUDIES

VALID = {
    "study": "mine",
    "question": "which?",
    "datasets": ["digits"],
    "models": ["unet", {"name": "unet", "label": "wide", "params": {"width": 16}}],
    "losses": ["ce", {"name": "focal", "label": "focal_1", "params": {"gamma": 1.0}}],
    "seeds": [0, 1],
    "training": {"steps": 3},
}


def load(tmp_path, changes=None, **options):
    content = {**VALID, **(changes or {})}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return load_study("mine", folder=tmp_path, **options)


def test_a_study_expands_to_its_cells_in_the_order_of_the_file(tmp_path):
    cells = list(load(tmp_path).cells())
    assert [cell.name for cell in cells] == [
        "digits-unet-ce", "digits-unet-focal_1", "digits-wide-ce", "digits-wide-focal_1",
    ]  # fmt: skip
    assert cells[3].parameters["model_params"] == {"width": 16}
    assert [run.seed for run in cells[3].runs()] == [0, 1]
    assert cells[3].runs()[0].steps == 3


def test_a_study_may_be_given_by_the_path_of_its_file(tmp_path):
    load(tmp_path)
    assert load_study(str(tmp_path / "mine.yaml")).study == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loses": ["ce"]}, ["unknown key 'loses'", "did you mean losses"]),
        ({"losses": None}, ["'losses' is missing"]),
        ({"losses": []}, ["losses", "at least 1 item"]),
        ({"losses": ["ce", "ce"]}, ["distinct labels", "'ce' stands there twice"]),
        ({"training": {"step": 3}}, ["training.step"]),
        ({"training": {"steps": 0}}, ["steps", "greater than or equal to 1"]),
        ({"seeds": []}, ["seeds", "at least 1 item"]),
        ({"seeds": [0, "1"]}, ["seeds.1", "integer"]),
        ({"models": [{"name": "unet", "label": "a-b"}]}, ["models.0.label", "pattern"]),
        ({"losses": ["ce", {"name": "ce", "label": "again"}]}, ["'ce' and 'again' to differ"]),
        ({"study": "other"}, ["expected 'mine' as in the file's name, got 'other'"]),
    ],
)
def test_a_wrong_study_file_says_where_and_what(tmp_path, changes, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changes)
    for word in [*words, "mine.yaml"]:
        assert word in str(caught.value)


def test_what_only_the_components_know_is_checked_before_any_run(tmp_path):
    with pytest.raises(ConfigError, match="unknown loss 'dise': did you mean"):
        load(tmp_path, {"losses": ["dise"]}, check=check_components)


def test_a_file_that_is_no_yaml_and_a_study_that_is_not_there_are_said_in_a_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="expected YAML"):
        load_study("mine", folder=tmp_path)
    with pytest.raises(ConfigError, match="did you mean mine"):
        load_study("min", folder=tmp_path)


@pytest.mark.parametrize("name", study_names())
def test_every_study_of_the_repository_is_valid(name):
    assert load_study(name, check=check_components).study == name


def test_the_repository_has_studies():
    assert {"quick", "quick_camvid"} <= set(study_names(STUDIES))
