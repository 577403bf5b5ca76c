"""Numbers, booleans and nulls as people and JSON spell them, wherever they are read."""

from __future__ import annotations

import json

import pytest
import yaml

from lossatlas.data.settings import read_settings
from lossatlas.experiments import TrainParameters, load_study
from lossatlas.yaml12 import parse_yaml

SPELLINGS = {
    "1e-5": 1e-5, "2e-2": 2e-2, "1E3": 1000.0, ".5": 0.5, "5.": 5.0, "+3": 3, "-0.1": -0.1, "010": 10,
    "true": True, "True": True, "false": False, "null": None, "~": None, "": None,
    "no": "no", "yes": "yes", "on": "on", "off": "off", "y": "y", "1:30": "1:30",
    "2024-01-01": "2024-01-01", "1_000": 1000, "0x1f": "0x1f", "e5": "e5", "1e": "1e",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SPELLINGS.items())
def test_a_spelling_is_the_value_that_people_mean(text, value):
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["1e-5", "2.5E+10", "-7", "0.0", "true", "false", "null", '"no"', "[1, 2e3]"]
)
def test_what_json_spells_is_read_as_json_reads_it(text):
    found, expected = parse_yaml(text), json.loads(text)
    assert found == expected and type(found) is type(expected)


def test_a_file_makes_no_objects():
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.system [ls]")


def test_classes_yaml_and_a_study_and_a_notebook_read_the_same_spellings(tmp_path):
    (tmp_path / "classes.yaml").write_text(
        "classes: [no, yes, 2024-01-01]\nignore_index: null\nmean: [1e-1]\n"
    )
    assert read_settings(tmp_path) == {"classes": ["no", "yes", "2024-01-01"], "mean": [0.1]}
    study = tmp_path / "small.yaml"
    study.write_text(
        "study: small\nquestion: What?\ndatasets: [digits]\nmodels: [unet]\n"
        "losses: [{name: focal, params: {gamma: 1e0}}]\nseeds: [0]\n"
        "training: {lr: 2e-2, weight_decay: 1e-5, channels_last: true, micro_batch: null}\n"
    )
    training = load_study(str(study)).training
    notebook = TrainParameters.parse(
        {"lr": "2e-2", "weight_decay": "1e-5", "channels_last": "true", "micro_batch": "null"},
        build=False,
    )
    for read in (training, notebook):
        assert (read.lr, read.weight_decay, read.channels_last, read.micro_batch) == (
            0.02,
            1e-5,
            True,
            None,
        )
