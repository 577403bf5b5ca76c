"""The tuning stage chooses by the validation split, over seeds that report nothing."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from small import pretend, tiny

from lossatlas.experiments import ConfigError, Study, load_study
from lossatlas.experiments.record import run_path
from lossatlas.experiments.recorded import Recorded
from lossatlas.experiments.tuning import (
    Choice,
    Selection,
    Tried,
    choose,
    next_rate,
    read_selection,
    select,
    tuning_runs,
    write_selection,
)

STUDY = tiny(
    seeds=[0, 1],
    tuning={"lr": [0.001, 0.003, 0.01], "seeds": [1000, 1001], "optimizer": ["adamw"], "widen": 0},
    runs_per_job=4,
)
#: Validation Dice by loss and rate; the two seeds lie 0.1 about it.
SCORES = {
    ("ce", 0.001): 0.3, ("ce", 0.003): 0.5, ("ce", 0.01): 0.4,
    ("dice", 0.001): 0.6, ("dice", 0.003): 0.7, ("dice", 0.01): 0.8,
}  # fmt: skip


def changed(tuning, **changes):
    """The study with some keys of its tuning, and of its own, replaced."""
    content = STUDY.model_dump()
    return Study.model_validate(content | changes | {"tuning": content["tuning"] | tuning})


def pretend_all(runs_dir):
    for member, config in tuning_runs(STUDY):
        score = SCORES[member.loss, config.lr] + (0.1 if config.seed == 1000 else -0.1)
        pretend(runs_dir, config, score)


def tried(*rows, optimizer="adamw"):
    return [Tried(optimizer, lr, score) for lr, score in rows]


def test_the_rate_with_the_largest_median_over_the_seeds_is_chosen():
    # the mean of 0.1 is larger, by one lucky seed: 0.733 against 0.7; its median is 0.65
    choice = choose(tried(*[(0.01, 0.7)] * 3, (0.1, 0.9), (0.1, 0.65), (0.1, 0.65)))
    assert (choice.lr, choice.optimizer) == (0.01, "adamw")
    assert choice.score == pytest.approx(0.7)


def test_of_equal_scores_the_lower_rate_is_chosen_whatever_their_order():
    runs = tried((0.1, 0.5), (0.01, 0.5), (0.03, 0.2))
    assert choose(runs).lr == 0.01
    assert choose(reversed(runs)).lr == 0.01


def test_the_optimiser_is_chosen_together_with_its_rate():
    sgd = tried((0.01, 0.1), (0.1, 0.6), optimizer="sgd")
    runs = tried((0.01, 0.5), (0.1, 0.4)) + sgd
    assert choose(runs) == Choice("sgd", 0.1, 0.6, at_edge=True)
    same = tried((0.1, 0.5), optimizer="sgd") + tried((0.1, 0.5))
    assert choose(same).optimizer == "sgd", "of equals the optimiser named first"


def test_a_rate_that_diverges_on_one_seed_loses_to_one_that_holds():
    runs = tried((0.01, 0.5), (0.01, 0.5), (0.1, 0.9))
    diverged = [*runs, Tried("adamw", 0.1, 0.9, diverged=True)]
    assert choose(diverged).lr == 0.01
    undefined = [*runs, Tried("adamw", 0.1, math.nan)]
    assert choose(undefined).lr == 0.01
    assert choose([*runs, Tried("adamw", 0.1, 0.9)]).lr == 0.1


def test_a_rate_of_which_one_seed_collapses_loses_to_one_that_holds():
    # as in the withdrawn study, whose rate was chosen by two seeds that could not die
    holds = [Tried("adamw", 0.01, 0.6, constant=0.06)] * 4
    kills = [Tried("adamw", 0.03, 0.8, constant=0.06)] * 3
    collapsed = Tried("adamw", 0.03, 0.07, constant=0.06)
    assert choose([*holds, *kills, collapsed]).lr == 0.01
    assert choose([*holds, *kills, Tried("adamw", 0.03, 0.8, constant=0.06)]).lr == 0.03
    # where every rate loses a run, the fewest failures and then the median decide
    lost = [Tried("adamw", 0.01, 0.06, constant=0.06)] * 2
    assert choose([*holds[:2], *lost, *kills, collapsed]).lr == 0.03


def test_a_choice_at_the_edge_of_the_grid_is_marked():
    inner = tried((0.01, 0.1), (0.03, 0.9), (0.1, 0.1))
    assert not choose(inner).at_edge
    assert choose(inner[:2]).at_edge


def test_each_loss_gets_the_rate_that_its_own_runs_prefer(tmp_path):
    pretend_all(tmp_path)
    selection = select(STUDY, tmp_path)
    assert selection["digits", "unet", "ce"].lr == 0.003
    assert selection["digits", "unet", "ce"].score == pytest.approx(0.5)
    assert selection["digits", "unet", "dice"].lr == 0.01
    assert selection["digits", "unet", "dice"].at_edge
    assert {config.lr for member, config in STUDY.reporting_runs(selection)} == {0.003, 0.01}


def test_a_loss_that_lacks_a_tuning_run_waits_and_the_others_go_on(tmp_path):
    for member, config in tuning_runs(STUDY):
        if (member.loss, config.lr, config.seed) != ("dice", 0.001, 1001):
            pretend(tmp_path, config, SCORES[member.loss, config.lr])
    selection = select(STUDY, tmp_path)
    assert list(selection) == [("digits", "unet", "ce")]
    assert selection.missing == {("digits", "unet", "dice"): 1}
    assert {member.loss for member, _ in STUDY.reporting_runs(selection)} == {"ce"}


def test_a_record_of_older_code_is_named_and_not_guessed_at(tmp_path):
    pretend_all(tmp_path)
    _, config = tuning_runs(STUDY)[0]
    path = run_path(tmp_path, config) / "run.json"
    record = json.loads(path.read_text())
    del record["validation"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"{config.run_id}.*expected validation"):
        select(STUDY, tmp_path)


def test_the_selection_is_read_back_as_it_was_written(tmp_path):
    pretend_all(tmp_path)
    selection = select(STUDY, tmp_path)
    path = write_selection(STUDY, selection, tmp_path)
    assert path == tmp_path / "cells" / "tiny" / "selection.json"
    assert read_selection(STUDY, tmp_path) == selection
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


def test_before_the_tuning_the_error_says_which_command_tunes(tmp_path):
    with pytest.raises(ConfigError, match="lossatlas run tiny"):
        read_selection(STUDY, tmp_path)
    untuned = STUDY.model_copy(update={"tuning": None})
    assert read_selection(untuned, tmp_path) is None


@pytest.mark.parametrize("up", [True, False])
def test_the_next_rate_is_half_a_decade_on(up):
    rates = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    if not up:
        rates.reverse()
    assert all(next_rate(here, up=up) == there for here, there in itertools.pairwise(rates))


def test_a_winner_at_the_edge_widens_the_grid_until_it_is_inside_or_told_to_stop(tmp_path):
    """Cross-entropy's best is inside; Dice's grows with the rate up to 0.03 and falls after that."""
    dice = SCORES | {("dice", 0.03): 0.9, ("dice", 0.1): 0.2, ("dice", 0.3): 0.1}
    study, tried = changed({"widen": 2}), []
    while True:
        runs = [run for run in tuning_runs(study, tmp_path) if run[1].run_id not in tried]
        if not runs:
            break
        for member, config in runs:
            pretend(tmp_path, config, dice[member.loss, config.lr])
            tried.append(config.run_id)
    asked = {(member.loss, member.lr) for member, _ in tuning_runs(study, tmp_path)}
    assert asked == {*SCORES, ("dice", 0.03), ("dice", 0.1)}
    chosen = select(study, tmp_path)
    assert {key[2]: (c.lr, c.at_edge) for key, c in chosen.items()} == {
        "ce": (0.003, False),
        "dice": (0.03, False),
    }
    once = select(changed({"widen": 1}), tmp_path)
    assert once[("digits", "unet", "dice")] == Choice("adamw", 0.03, 0.9, at_edge=True)


def test_while_a_wider_rate_waits_its_loss_has_no_choice(tmp_path):
    pretend_all(tmp_path)
    found = select(changed({"widen": 1}), tmp_path)
    assert set(found) == {("digits", "unet", "ce")}
    assert found.missing == {("digits", "unet", "dice"): 2}


TWO_PLACES = [{"name": "digits", "params": {"seed": k}, "label": f"d{k}"} for k in range(3)]


def test_one_rate_for_several_data_sets_is_the_one_that_is_never_far_behind(tmp_path):
    """0.003 is best on d0 by a little and far behind on d1; 0.01 is close to the best on both."""
    score = {("d0", 0.001): 0.1, ("d0", 0.003): 0.8, ("d0", 0.01): 0.75,
             ("d1", 0.001): 0.1, ("d1", 0.003): 0.3, ("d1", 0.01): 0.6}  # fmt: skip
    study = changed({"datasets": ["d0", "d1"]}, datasets=TWO_PLACES, losses=["ce"])
    runs = tuning_runs(study)
    assert {member.dataset for member, _ in runs} == {"d0", "d1"}, "the third is reported alone"
    for member, config in runs:
        pretend(tmp_path, config, score[member.dataset, config.lr])
    chosen = select(study, tmp_path)
    assert {key: choice.lr for key, choice in chosen.items()} == {
        (f"d{k}", "unet", "ce"): 0.01 for k in range(3)
    }
    assert chosen[("d2", "unet", "ce")].score == pytest.approx((0.75 + 0.6) / 2)
    assert len(study.reporting_runs(chosen)) == 3 * len(study.seeds)


def two_studies(folder, monkeypatch, **second):
    """A study that is tuned on one data set, with its tuning runs in ``runs``, and one that takes its rates."""
    tuned = changed({"datasets": ["d0"]}, study="first", datasets=TWO_PLACES).model_dump()
    taking = {"base": "first", "study": "second", "question": "?", "tuning": None, "rates_of": "first",
              "datasets": ["digits"]}  # fmt: skip
    for name, written in (("first", tuned), ("second", taking | second)):
        (folder / "studies" / name).mkdir(parents=True)
        (folder / "studies" / name / "study.yaml").write_text(json.dumps(written))
    monkeypatch.chdir(folder)
    found = load_study("first"), load_study("second")
    for member, config in tuning_runs(found[0]):
        pretend("runs", config, SCORES[member.loss, config.lr])
    return found


def test_a_study_takes_the_rates_of_another(tmp_path, monkeypatch):
    first, second = two_studies(tmp_path, monkeypatch, losses=["dice"])
    assert (second.seeds, second.losses[0].name) == (first.seeds, "dice")
    with pytest.raises(ConfigError, match="study first: no learning rates chosen yet"):
        read_selection(second)
    write_selection(first, select(first))
    runs = second.reporting_runs(read_selection(second))
    assert {(member.dataset, member.loss, config.lr) for member, config in runs} == {
        ("digits", "dice", 0.01)
    }


def in_records(folder, wanted):
    """Tuning runs as committed records have them, of the losses and rates that are wanted."""
    return {
        config.run_id: Recorded(
            folder,
            {
                "run_id": config.run_id,
                "status": "completed",
                "config": "{}",
                "code": "{}",
                "wall_s": 1.0,
                "val_foreground_dice_tuned": SCORES[member.loss, config.lr],
            },
        )
        for member, config in tuning_runs(STUDY)
        if wanted(member.loss, config.lr)
    }


def test_a_loss_whose_tuning_is_recorded_has_its_rate_while_others_wait(tmp_path):
    recorded = in_records(tmp_path, lambda loss, lr: loss == "ce" or lr < 0.01)
    chosen = read_selection(STUDY, tmp_path, recorded)
    assert {key[2]: choice.lr for key, choice in chosen.items()} == {"ce": 0.003}
    assert [key[2] for key in chosen.missing] == ["dice"]


def test_a_choice_that_is_written_down_does_not_hide_the_records_of_other_losses(tmp_path):
    recorded = in_records(tmp_path, lambda loss, lr: True)
    whole = read_selection(STUDY, tmp_path / "elsewhere", recorded)
    known = {key: choice for key, choice in whole.items() if key[2] == "ce"}
    write_selection(STUDY, Selection(known, {}), tmp_path)
    assert {key[2] for key in read_selection(STUDY, tmp_path)} == {"ce"}
    assert dict(read_selection(STUDY, tmp_path, recorded)) == dict(whole)


def test_losses_and_networks_that_were_not_tuned_say_whose_rate_they_take(tmp_path, monkeypatch):
    losses = ["dice", {"name": "jaccard", "tuned_as": "dice"},
              {"name": "dice", "label": "slow", "training": {"lr": 1e-4}}, "lovasz_softmax"]  # fmt: skip
    networks = ["unet", "segnet"]
    first, second = two_studies(tmp_path, monkeypatch, losses=losses, models=networks)
    write_selection(first, select(first))
    runs = second.reporting_runs(read_selection(second))
    rates = {(member.model, member.loss): config.lr for member, config in runs}
    assert rates == {
        (model, loss): lr
        for model in ("unet", "segnet")
        for loss, lr in (("dice", 0.01), ("jaccard", 0.01), ("slow", 1e-4))
    }, "lovasz_softmax names no rate, so it has none"


def test_a_loss_is_tuned_as_another_only_where_rates_are_taken():
    with pytest.raises(ValueError, match="tuned_as for losses of a study with rates_of"):
        changed({}, losses=[{"name": "jaccard", "tuned_as": "dice"}])
