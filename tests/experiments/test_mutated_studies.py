"""Studies and configurations with something wrong in them: read, or refused by a message of ours."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import yaml

from lossatlas.experiments import ConfigError, load_study
from lossatlas.experiments.config import RunConfig, validated

STUDIES = Path(__file__).parents[2] / "studies"
#: What people and programs write where something else belongs.
ODD = (
    None, True, "", "no", "1e-5", "nan", "../x", "a; touch b", "$(touch b)", "a\nb", "<b>", "é", "x" * 300,
    0, -1, 3, 2**70, 1e308, float("nan"), float("inf"), [], [None], {}, {"a": 1}, [[1]], "2020-01-01",
)  # fmt: skip


def places(value, path=()):
    """Paths of every key and item of nested dicts and lists."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def mutate(content, rng: random.Random):
    """One to three changes: a value of another kind, a key that goes, is misspelt or comes twice."""
    changed = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        where = list(places(changed))
        if not where:
            break
        *path, last = rng.choice(where)
        parent = changed
        for key in path:
            parent = parent[key]
        kind = rng.randrange(5)
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(last)[::-1] or "x"] = parent.pop(last)
        elif kind == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[last] = copy.deepcopy(rng.choice(ODD))
    return changed


def text_of(content, rng: random.Random) -> str:
    """YAML, in one case of ten with a few characters changed."""
    text = yaml.safe_dump(content, allow_unicode=True)
    if rng.random() < 0.1:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text) + 1)
            text = (
                text[:at] + rng.choice("{}[]:,&*!|>%@\t'\"\x00-") + text[at + rng.randint(0, 2) :]
            )
    return text


@pytest.mark.timeout(900)
def test_a_thousand_mutated_studies_are_read_or_refused_by_name(tmp_path):
    original = yaml.safe_load((STUDIES / "quick" / "study.yaml").read_text(encoding="utf-8"))
    original["tuning"] = {"lr": [0.003, 0.01], "seeds": [1000]}
    rng = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    file = tmp_path / "quick" / "study.yaml"
    file.parent.mkdir()
    for number in range(1000):
        file.write_text(text_of(mutate(original, rng), rng), encoding="utf-8")
        try:
            load_study(str(file))
            outcomes["read"] += 1
        except ConfigError as error:
            assert str(error), number
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 5, outcomes
    assert [path.name for path in tmp_path.iterdir()] == ["quick"], "nothing was written"


def test_a_thousand_mutated_configurations_are_read_or_refused_by_name():
    original = {
        "dataset": "digits", "dataset_params": {"image_size": 32, "foreground": 0.1}, "model": "unet",
        "model_params": {"width": 4, "depth": 2}, "loss": "focal", "loss_params": {"gamma": 2.0}, "steps": 10,
        "lr": 0.01, "batch_size": 4, "seed": 0,
    }  # fmt: skip
    rng = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1000):
        try:
            validated(RunConfig, mutate(original, rng), what="parameter")
            outcomes["read"] += 1
        except ConfigError as error:
            assert str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50, outcomes
