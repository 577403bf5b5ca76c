"""The parameters of a notebook are checked before any work."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas.experiments import ConfigError, RunConfig, TrainParameters
from lossatlas.experiments.components import build_loss_for


def parse(**values):
    return TrainParameters.parse(values)


def test_the_defaults_are_valid():
    assert [run.seed for run in parse().runs()] == [0]


def test_one_run_is_made_for_each_seed_and_nothing_else_differs():
    runs = parse(seeds=[3, 1]).runs()
    assert [run.seed for run in runs] == [3, 1]
    assert runs[0].model_copy(update={"seed": 1}) == runs[1]


def test_a_list_or_a_mapping_may_come_as_text_because_papermill_hands_over_text():
    parameters = parse(
        seeds="[0, 1, 2]",
        loss="focal",
        loss_params="{gamma: 1.0}",
        augment="{horizontal_flip: true}",
    )
    assert parameters.seeds == [0, 1, 2]
    assert parameters.loss_params == {"gamma": 1.0}
    assert parameters.augment == {"horizontal_flip": True}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"los": "ce"}, ["unknown parameter 'los'", "did you mean loss"]),
        ({"steps": "many"}, ["steps", "integer", "'many' (str)"]),
        ({"steps": True}, ["steps", "integer", "True (bool)"]),
        ({"steps": 0}, ["steps", "greater than or equal to 1", "0 (int)"]),
        ({"lr": -1.0}, ["lr", "greater than 0"]),
        ({"seeds": []}, ["seeds", "at least 1 item"]),
        ({"seeds": "[]"}, ["seeds", "at least 1 item"]),
        ({"seeds": 3}, ["seeds", "list", "3 (int)"]),
        ({"seeds": [0, 0]}, ["seeds", "each seed once"]),
        ({"seeds": [-1]}, ["seed", "greater than or equal to 0"]),
        ({"loss": "lovasz_sofmax"}, ["unknown loss 'lovasz_sofmax'", "lovasz_softmax"]),
        ({"model": "unett"}, ["unknown model 'unett'", "unet"]),
        ({"dataset": "digit"}, ["unknown data set 'digit'", "digits"]),
        ({"loss_params": {"gamma": 2.0}}, ["'ce' reads no parameter 'gamma'"]),
        (
            {"model": "segnet", "model_params": {"encoder": "resnet18"}},
            ["'segnet' reads no", "'encoder'"],
        ),
        ({"dataset_params": {"height": 5}}, ["'digits' reads no parameter 'height'"]),
        ({"loss": "focal", "loss_params": {"gamma": -1.0}}, ["loss_params of 'focal'", "gamma"]),
        (
            {"loss": "weighted_ce", "loss_params": {"class_weights": "inverse"}},
            ["inverse_frequency"],
        ),
        ({"augment": ["shift"]}, ["augment", "dictionary"]),
        ({"augment": {"flip": True}}, ["unknown augmentation 'flip'", "horizontal_flip"]),
        ({"augment": {"shift": 3}}, ["augment.shift", "true or false", "3"]),
        ({"augment": {"scale": [2, 1]}}, ["augment: scale", "low ≤ high"]),
        ({"augment": {"scale": 2}}, ["augment: scale: expected (low, high)", "got 2"]),
        ({"augment": {"scale": ["a", 2]}}, ["augment: scale: expected (low, high)", "'a'"]),
        ({"augment": {"crop": 64}}, ["augment: crop: expected (height, width), got 64"]),
        ({"augment": {"crop": "64"}}, ["augment: crop: expected (height, width), got '64'"]),
        ({"runs_dir": __file__}, ["it is a file; remove it, or name another runs_dir"]),
        ({"runs_dir": "/proc/x"}, ["expected to write to /proc", "or name another runs_dir"]),
        ({"precision": "fp8"}, ["precision", "32-true"]),
        ({"optimizer": "adam"}, ["optimizer", "'adamw' or 'sgd'"]),
        ({"share_every": -1}, ["share_every", "greater than or equal to 0"]),
        ({"micro_batch": 0}, ["micro_batch", "greater than or equal to 1"]),
        ({"micro_batch": 9, "batch_size": 8}, ["micro_batch", "at most batch_size (8)", "9"]),
        ({"channels_last": 1}, ["channels_last", "boolean"]),
        ({"compile": "yes"}, ["compile", "boolean"]),
        ({"devices": 0}, ["devices", "greater than or equal to 1"]),
        ({"devices": 3, "batch_size": 8}, ["devices", "a divisor of batch_size (8)", "3"]),
        ({"checkpoint_s": -1.0}, ["checkpoint_s", "greater than or equal to 0"]),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values, words):
    with pytest.raises(ConfigError) as caught:
        parse(**values)
    for word in words:
        assert word in str(caught.value)


def test_every_problem_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        parse(steps=0, lr=0.0, colour="red")
    assert len(str(caught.value).splitlines()) == 3


def test_a_notebook_s_namespace_gives_its_plain_names_alone():
    namespace = {
        "loss": "dice",
        "_i": "x",
        "In": [],
        "TrainParameters": TrainParameters,
        "print": print,
        "parameters": TrainParameters(),  # the cell was run before
    }
    assert TrainParameters.from_notebook(namespace).loss == "dice"
    with pytest.raises(ConfigError, match="unknown parameter 'colour'"):
        TrainParameters.from_notebook(namespace | {"colour": "red"})


def test_a_run_s_id_changes_with_every_field_and_with_nothing_else():
    config = RunConfig()
    assert RunConfig().run_id == config.run_id
    changed = [
        config.model_copy(update=update)
        for update in (
            {"dataset": "camvid"}, {"dataset_params": {"a": 1}}, {"model": "segnet"},
            {"model_params": {"a": 1}}, {"loss": "dice"}, {"loss_params": {"a": 1}}, {"seed": 1},
            {"steps": 3}, {"batch_size": 3}, {"lr": 0.1}, {"weight_decay": 0.1}, {"warmup_fraction": 0.2},
            {"augment": {}}, {"evaluations": 2}, {"precision": "bf16-mixed"}, {"optimizer": "sgd"},
            {"boundary": True}, {"bias_init": "zero"}, {"foreground_batches": 0.5}, {"healthy_start": True},
            {"share_every": 0}, {"micro_batch": 4}, {"channels_last": True}, {"compile": True},
            {"measures": ["thin"]}, {"two_channels": True},
        )
    ]  # fmt: skip
    # how often a run under way is saved changes no result
    assert config.model_copy(update={"checkpoint_s": 1.0}).run_id == config.run_id
    assert len(changed) == len(set(RunConfig.model_fields) - {"checkpoint_s"})
    assert len({config.run_id} | {c.run_id for c in changed}) == len(changed) + 1


def test_the_two_classes_agree_on_their_shared_defaults():
    shared = set(RunConfig.model_fields) & set(TrainParameters.model_fields)
    run, train = RunConfig(), TrainParameters()
    assert shared == set(RunConfig.model_fields) - {"seed"}
    assert {name: getattr(run, name) for name in shared} == {
        name: getattr(train, name) for name in shared
    }


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), ".inf", ".nan"])
def test_a_rate_that_is_no_number_to_train_with_is_refused(rate):
    with pytest.raises(ConfigError, match="'lr'"):
        parse(lr=rate)
    with pytest.raises(ConfigError, match="'weight_decay'"):
        parse(weight_decay=rate)


def test_text_stays_text_where_text_is_due():
    assert parse(runs_dir="1e-3").runs_dir == "1e-3"
    assert parse(precision="bf16-mixed").precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"weight": 5}, "expected a list of finite numbers"),
        ({"weight": []}, "expected a list of finite numbers"),
        ({"weight": [1, -5]}, "expected a list of finite numbers"),
        ({"weight": [0, 0]}, "not all 0"),
        ({"weight": [1, float("inf")]}, "expected a list of finite numbers"),
        ({"weight": [1, True]}, "expected a list of finite numbers"),
        ({"weight": [1, "5"]}, "expected a list of finite numbers"),
        ({"weight": [1, 5], "class_weights": "inverse_frequency"}, "keep one"),
    ],
)
def test_own_class_weights_that_cannot_be_weights_are_refused_before_any_work(params, words):
    with pytest.raises(ConfigError, match=words):
        parse(loss="weighted_ce", loss_params=params)


def test_own_class_weights_are_those_of_the_loss():
    (run,) = parse(loss="ce", loss_params="{weight: [1, 5]}").runs()
    counts = np.ones((3, 2))
    two = build_loss_for(run, mode="multiclass", ignore_index=None, image_counts=counts)
    assert two.weight.tolist() == [1, 5]
    one = build_loss_for(run, mode="binary", ignore_index=None, image_counts=counts)
    assert one.weight.tolist() == [5]  # one channel: the foreground beside the background
    with pytest.raises(ConfigError, match="expected 3 numbers, one a class"):
        build_loss_for(run, mode="multiclass", ignore_index=None, image_counts=np.ones((3, 3)))
    (zero,) = parse(loss="ce", loss_params={"weight": [0, 5]}).runs()
    with pytest.raises(ConfigError, match="background weight above 0"):
        build_loss_for(zero, mode="binary", ignore_index=None, image_counts=counts)


def test_own_weights_replace_the_scheme_that_a_weighted_loss_has_by_default():
    (run,) = parse(loss="weighted_ce", loss_params={"weight": [1.0, 2.0]}).runs()
    counts = np.array([[900, 100]])
    built = build_loss_for(run, mode="binary", ignore_index=None, image_counts=counts)
    assert built.weight.tolist() == [2]


def test_logit_adjustment_takes_its_prior_from_the_training_set():
    counts = np.array([[900, 100], [980, 20]])
    (run,) = parse(loss="logit_adjusted_ce").runs()
    built = build_loss_for(run, mode="binary", ignore_index=None, image_counts=counts)
    assert built.prior.tolist() == pytest.approx([0.94, 0.06])
    absent = np.array([[900, 100, 0]])
    built = build_loss_for(run, mode="multiclass", ignore_index=None, image_counts=absent)
    assert built.prior.tolist() == pytest.approx([900 / 1000.5, 100 / 1000.5, 0.5 / 1000.5])
    (own,) = parse(loss="logit_adjusted_ce", loss_params={"prior": [0.5, 0.5]}).runs()
    built = build_loss_for(own, mode="binary", ignore_index=None, image_counts=counts)
    assert built.prior.tolist() == [0.5, 0.5]


def test_numbers_inside_a_dictionary_are_numbers_however_yaml_spells_them():
    """Papermill's ``-y`` reads YAML 1.1, to which ``1e-1`` is text."""
    given = parse(
        loss="focal", loss_params={"gamma": "1e-1"}, dataset_params={"foreground": "2e-2"}
    )
    assert given.loss_params == {"gamma": 0.1} and given.dataset_params == {"foreground": 0.02}
    for root in ("1", "1e5", "2024.11"):
        named = {"dataset": "folder", "dataset_params": {"root": root}}
        assert TrainParameters.parse(named, build=False).dataset_params == {"root": root}


def test_a_path_in_a_parameter_is_text_and_what_no_record_can_hold_is_refused(tmp_path):
    run = parse(dataset="folder", dataset_params={"root": tmp_path}).runs()[0]
    assert run.dataset_params == {"root": str(tmp_path)}
    assert run.run_id == RunConfig(dataset="folder", dataset_params={"root": str(tmp_path)}).run_id
    with pytest.raises(ConfigError, match=r"'loss_params': expected text, numbers, .*int64"):
        parse(loss="focal", loss_params={"gamma": np.int64(2)})


@pytest.mark.parametrize(
    ("name", "value"), [("seeds", (0, 1)), ("seeds", range(3)), ("steps", np.int64(5))]
)
def test_a_parameter_of_a_type_that_no_parameter_has_is_not_passed_over(name, value):
    with pytest.raises(ConfigError, match=f"parameter '{name}': expected a valid"):
        TrainParameters.from_notebook({name: value, "np": np})
