"""Studies are validated with a clear error, and expand to one cell for each data set, model and loss."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
import yaml

from lossatlas.experiments import ConfigError, load_study, study_names
from lossatlas.experiments.components import build_loss_for
from lossatlas.experiments.config import check_components
from lossatlas.experiments.study import (
    SCHEMA_FILE,
    STUDIES,
    json_schema,
    page_notebook,
    published_studies,
)
from lossatlas.experiments.tuning import Choice, tuning_runs

VALID = {
    "study": "mine", "question": "which?", "datasets": ["digits"],
    "models": ["unet", {"name": "unet", "label": "wide", "params": {"width": 16}}],
    "losses": ["ce", {"name": "focal", "label": "focal_1", "params": {"gamma": 1.0}}], "seeds": [0, 1],
    "training": {"steps": 3},
}  # fmt: skip
TUNING = {"lr": [0.001, 0.01], "seeds": [1000, 1001]}


def load(tmp_path, changes=None, **options):
    content = {**VALID, **(changes or {})}
    path = tmp_path / "mine" / "study.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return load_study("mine", folder=tmp_path, **options)


def test_a_study_expands_to_its_runs_in_the_order_of_the_file(tmp_path):
    runs = load(tmp_path).reporting_runs()
    assert [str(member) for member, _ in runs] == [
        f"digits · {model} · {loss} · seed {seed}"
        for model in ("unet", "wide")
        for loss in ("ce", "focal_1")
        for seed in (0, 1)
    ]
    _, last = runs[-1]
    assert (last.model_params, last.seed, last.steps) == ({"width": 16}, 1, 3)


def test_a_study_may_be_given_by_the_path_of_its_file(tmp_path):
    load(tmp_path)
    folder = tmp_path / "mine"
    assert load_study(str(folder / "study.yaml")).study == "mine"
    (folder / "study.yaml").rename(tmp_path / "mine.yaml")
    assert load_study(str(tmp_path / "mine.yaml")).study == "mine"
    (tmp_path / "mine.yaml").rename(folder / "yours.yaml")
    with pytest.raises(ConfigError, match=r"expected 'yours', the name of its file, got 'mine'"):
        load_study(str(folder / "yours.yaml"))


def test_a_message_repeats_no_more_of_a_file_than_its_mistake(tmp_path):
    """A rule over several keys names them; of a long value the beginning is shown."""
    check = {"quantity": "dice", "losses": ["dice"], "is": "> 0"}
    prediction = {"claim": "7", "text": "So it is.", "holds": [check]}
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, {"predictions": [prediction]})
    (line,) = str(raised.value).splitlines()
    assert line.endswith("labels of losses in a check (ce, focal_1; unknown: 'dice')")
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, {"seeds": ["a" * 1000]})
    assert "aaaa" in str(raised.value) and len(str(raised.value)) < 500


def test_a_study_s_page_is_the_notebook_beside_its_file_or_the_shared_one(tmp_path):
    load(tmp_path)
    assert page_notebook("mine", tmp_path) == tmp_path / "page.ipynb"
    (tmp_path / "mine" / "page.ipynb").write_text("{}")
    assert page_notebook("mine", tmp_path) == tmp_path / "mine" / "page.ipynb"
    assert page_notebook(str(tmp_path / "mine.yaml"), tmp_path) == tmp_path / "page.ipynb"


def test_a_study_is_published_by_its_file_and_not_by_its_base(tmp_path):
    load(tmp_path, {"published": True})
    other = tmp_path / "other" / "study.yaml"
    other.parent.mkdir()
    other.write_text("base: mine\nstudy: other\nquestion: And then?\n")
    assert [study.study for study in published_studies(tmp_path)] == ["mine"]


def test_a_study_names_the_others_whose_places_its_predictions_count(tmp_path):
    checks = [
        {"quantity": "dice", "losses": ["ce"], "is": "> 0", "also": also}
        for also in (["folds"], [], ["more", "folds"])
    ]
    predictions = [
        {"claim": 7, "text": "First.", "holds": checks[:2]},
        {"claim": 7, "text": "Second.", "holds": checks[2:]},
        {"claim": 8, "text": "Third."},
    ]
    assert load(tmp_path, {"predictions": predictions}).also == ["folds", "more"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"left_out": {"nowhere": ["a"]}},
            ["left_out: data sets of the study", "unknown: 'nowhere'"],
        ),
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
        ({"study": "other"}, ["expected 'mine', the name of its folder, got 'other'"]),
        ({"seeds": [0, 0]}, ["seeds", "each seed once"]),
        ({"tuning": {**TUNING, "seeds": [1, 1000]}}, ["tuning.seeds disjoint", "in both: 1"]),
        ({"tuning": {**TUNING, "lr": []}}, ["tuning.lr", "at least 2 items"]),
        ({"tuning": {**TUNING, "lr": [0.1]}}, ["tuning.lr", "at least 2 items"]),
        ({"tuning": {**TUNING, "lr": [0.1, 0.1]}}, ["tuning.lr", "each value once"]),
        ({"tuning": {**TUNING, "lr": [0.1, -0.1]}}, ["tuning.lr.1", "greater than 0"]),
        ({"tuning": {**TUNING, "optimizer": ["adam"]}}, ["tuning.optimizer.0", "'adamw' or 'sgd'"]),
        ({"tuning": {**TUNING, "step": 4}}, ["tuning.step"]),
        ({"tuning": {"seeds": [5]}}, ["'tuning.lr' is missing"]),
        ({"runs_per_job": 0}, ["runs_per_job", "greater than or equal to 1"]),
        ({"smallest_effect": 1.5}, ["smallest_effect", "less than 1"]),
        ({"predictions": [{"text": "x"}]}, ["'predictions.0.claim' is missing"]),
        ({"predictions": [{"claim": "first", "text": "x"}]}, ["predictions.0.claim", "pattern"]),
    ],
)
def test_a_wrong_study_file_says_where_and_what(tmp_path, changes, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"runs_per_job": 4} | changes)
    for word in [*words, "mine/study.yaml"]:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_only_the_components_know_is_checked_before_any_run(tmp_path):
    with pytest.raises(ConfigError, match="unknown loss 'dise': did you mean"):
        load(tmp_path, {"losses": ["dise"]}, check=check_components)


def test_a_file_that_is_no_yaml_and_a_study_that_is_not_there_are_said_in_a_line(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="expected YAML"):
        load_study("mine", folder=tmp_path)
    with pytest.raises(ConfigError, match="did you mean mine"):
        load_study("min", folder=tmp_path)


@pytest.mark.parametrize("name", study_names())
def test_every_study_of_the_repository_is_valid(name):
    assert load_study(name, check=check_components).study == name


def test_the_repository_has_studies():
    assert {"quick", "quick_camvid"} <= set(study_names(STUDIES))


def test_a_rate_may_be_written_as_people_write_it(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.yaml").write_text(
        yaml.safe_dump(VALID).replace("steps: 3", "lr: 3e-4") + "smallest_effect: 1E-2"
    )
    study = load_study("mine", folder=tmp_path)
    assert (study.training.lr, study.smallest_effect) == (3e-4, 0.01)


def test_every_loss_is_tuned_with_the_same_grid_and_seeds(tmp_path):
    tuning = {**TUNING, "optimizer": ["adamw", "sgd"], "steps": 2}
    study = load(tmp_path, {"tuning": tuning, "runs_per_job": 4})
    runs = tuning_runs(study)
    assert len(runs) == 2 * 2 * 2 * 2 * 2  # models × losses × optimisers × rates × seeds
    assert len({config.run_id for _, config in runs}) == len(runs)
    of_loss = {
        label: {(c.model, str(c.model_params), c.optimizer, c.lr, c.seed, c.steps) for m, c in runs if m.loss == label}
        for label in ("ce", "focal_1")
    }  # fmt: skip
    assert of_loss["ce"] == of_loss["focal_1"]
    assert {config.steps for _, config in runs} == {2}
    assert {config.seed for _, config in runs} == {1000, 1001}


def test_the_reported_runs_take_the_rate_that_was_chosen_for_their_loss(tmp_path):
    study = load(tmp_path, {"tuning": TUNING, "runs_per_job": 4})
    assert study.reporting_runs() == []
    selection = {
        ("digits", "unet", "ce"): Choice("adamw", 0.01, 0.5),
        ("digits", "wide", "ce"): Choice("sgd", 0.1, 0.5),
    }
    runs = study.reporting_runs(selection)
    assert [(m.model, m.loss, m.seed, c.optimizer, c.lr, c.steps) for m, c in runs] == [
        ("unet", "ce", 0, "adamw", 0.01, 3), ("unet", "ce", 1, "adamw", 0.01, 3),
        ("wide", "ce", 0, "sgd", 0.1, 3), ("wide", "ce", 1, "sgd", 0.1, 3),
    ]  # fmt: skip


def test_a_study_that_tunes_nothing_reads_no_selection(tmp_path):
    study = load(tmp_path)
    assert tuning_runs(study) == []
    chosen = {combination: Choice("sgd", 9.0, 0.5) for combination in study.combinations()}
    assert study.reporting_runs(chosen) == study.reporting_runs()


def test_a_few_examples_use_every_component(tmp_path):
    study = load(tmp_path)
    examples = study.examples()
    assert len(examples) == 2
    assert {example.loss for example in examples} == {"ce", "focal"}
    assert {str(example.model_params) for example in examples} == {"{}", "{'width': 16}"}


def test_the_schema_for_editors_is_the_one_of_the_code():
    assert SCHEMA_FILE.read_text() == json_schema(), "make it anew: lossatlas schema"


def test_the_schema_for_editors_takes_what_the_code_takes():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json_schema())
    good = {
        **VALID,
        "tuning": TUNING,
        "runs_per_job": 4,
        "predictions": [{"claim": 7, "text": "a"}, {"claim": "H4", "text": "b"}],
    }
    jsonschema.validate(good, schema)
    for wrong in ({"loses": ["ce"]}, {"tuning": {"lr": [0.1]}}, {"losses": [{"params": {}}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | wrong, schema)


#: Data sets of which every mask has one foreground class.
ONE_CLASS = {"crackforest", "chase_db1", "kolektorsdd"}


@pytest.mark.parametrize("name", study_names())
def test_no_two_losses_of_a_study_are_one_loss_under_two_names(name):
    """As ``logit_adjusted_ce`` was without its prior: cross-entropy, compared with itself."""
    generator = torch.Generator().manual_seed(0)
    study = load_study(name)
    binary = all(
        "positive" in each.params or each.params.get("task") == "binary" or each.name in ONE_CLASS
        for each in study.datasets
    )
    pixels = [[900, 100]] if binary else [[900, 80, 20]]
    target = (torch.rand(4, 96, 96, generator=generator) < 0.2).long()
    values = {}
    for config in study.examples():
        mode = "binary" if binary and not config.two_channels else "multiclass"
        channels = 1 if mode == "binary" else len(pixels[0])
        logits = torch.linspace(-6, 6, 4 * channels * 96**2).reshape(4, channels, 96, 96)
        loss = build_loss_for(config, mode=mode, ignore_index=None, image_counts=np.array(pixels))
        name = config.loss, json.dumps(config.loss_params), mode
        values[name] = loss(logits, target).item()
    for (one, first), (other, second) in combinations(values.items(), 2):
        assert one[-1] != other[-1] or first != pytest.approx(second, rel=1e-6), (one, other)


@pytest.mark.parametrize("key", ["seed", "dataset", "loss", "learning_rate", "name"])
def test_a_component_changes_keys_of_training_and_no_others(key, tmp_path):
    dice = {"name": "dice", "training": {"lr": 0.01, key: 5}}
    with pytest.raises(ConfigError, match=f"keys of training.*{key}"):
        load(tmp_path, {"losses": ["ce", dice]})
