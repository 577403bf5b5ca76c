"""Sentences follow the records: change the records and the sentence changes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from lossatlas.report import findings
from lossatlas.report.records import load
from lossatlas.report.scores import Scores, by_dataset
from lossatlas.statistics.intervals import number

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def both(study):
    return by_dataset(study)["digits"]


def with_counts(part, **counts):
    """`part` with other counts for some losses, and only the losses named."""
    return dataclasses.replace(
        part,
        losses=[loss for loss in part.losses if loss in counts],
        seeds={loss: part.seeds[loss] for loss in counts},
        counts=counts,
    )


def test_the_leader_comes_with_its_margin_over_cross_entropy_interval_and_n(scores):
    text = findings.leader(scores)
    assert text.startswith("**`lovasz_softmax` has the highest mean Dice**")
    assert scores.difference("lovasz_softmax", "ce").text(n=False) in text
    assert "(3 seeds, 24 test images)" in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_trainings_call_no_loss_better(part, seeds):
    few = dataclasses.replace(
        part,
        seeds={loss: part.seeds[loss][:seeds] for loss in part.losses},
        counts={loss: part.counts[loss][:seeds] for loss in part.losses},
    )
    scores = Scores(few)
    text = findings.part_findings(scores) + findings.answer([scores])
    assert "**Answer: none yet.** Too few trainings to compare losses" in text
    assert not re.search(r"highest|ahead|differ|under|\[", text)
    assert "at least 3 seeds" in findings.next_step([scores])
    assert scores.difference("lovasz_softmax", "ce") is None
    assert scores.meaning().startswith("No intervals")


def test_another_winner_makes_another_sentence(part):
    swapped = with_counts(part, ce=part.counts["lovasz_softmax"], lovasz_softmax=part.counts["ce"])
    text = findings.leader(Scores(swapped))
    assert text.startswith("**`ce` has the highest")
    assert "over `ce`" not in text


def test_losses_with_the_same_predictions_do_not_differ_significantly(part):
    same = with_counts(part, ce=part.counts["dice"], dice=part.counts["dice"])
    text = findings.leader(Scores(same))
    assert "Not significantly lower (paired, after Holm's correction): `dice`" in text


def test_a_loss_that_predicts_nothing_is_named_with_what_its_records_show(part):
    nothing = part.counts["ce"].copy()
    nothing[..., 2] += nothing[..., 0]
    nothing[..., :2] = 0
    some = Scores(with_counts(part, ce=part.counts["ce"], lovasz_hinge=nothing))
    (sentence,) = findings.constant(some)
    assert sentence.startswith("`lovasz_hinge` does not exceed the best constant prediction")
    assert "It predicts 0\N{NO-BREAK SPACE}% of the pixels as foreground" in sentence
    assert "It never predicts 10 of 10 foreground classes" in sentence


def test_when_every_loss_learns_the_page_says_so(part):
    good = with_counts(part, ce=part.counts["dice"], dice=part.counts["lovasz_softmax"])
    (sentence,) = findings.constant(Scores(good))
    assert sentence.startswith("Every loss lies above the best constant prediction")
    assert number(part.constant_dice) in sentence


def test_the_separating_class_is_the_one_with_the_widest_range(part):
    base = np.zeros((3, 24, 11, 3), np.int64)
    base[..., 0], base[..., 2] = 5, 5
    other = base.copy()
    other[:, :, 7] = [10, 0, 0]
    some = with_counts(part, ce=base, dice=other)
    first, halves = findings.separating_classes(Scores(some))
    assert first.startswith(f"The losses differ most on class {part.classes[7]} (")
    assert "0.667 under `ce`, 1.000 under `dice`" in first
    assert "on the 5 more frequent classes" in halves and "on the 5 rarer ones" in halves


def test_recall_without_precision_is_pointed_out(part):
    base = np.zeros((3, 24, 11, 3), np.int64)
    base[...] = [5, 5, 5]
    swollen = base.copy()
    swollen[...] = [10, 40, 0]
    some = Scores(with_counts(part, ce=base, weighted_ce=swollen))
    text = findings.precision_recall(some)
    assert "most for `weighted_ce` (recall 1.000, precision 0.200)" in text
    assert "least for `ce` (recall 0.500, precision 0.500)" in text


def test_a_run_that_diverged_is_named(part):
    runs = part.runs.copy()
    runs.loc[runs.run_id == "unet-focal-1", "status"] = "diverged at step 9"
    (sentence,) = findings.stopped(dataclasses.replace(part, runs=runs))
    assert "`focal` with seed 1 was not completed: diverged at step 9" in sentence
    assert findings.stopped(part) == []


def test_a_loss_is_ahead_only_where_its_interval_excludes_zero(both):
    text = findings.answer(both)
    for scores in both:
        (line,) = [x for x in text.splitlines() if x.startswith(f"- With {scores.part.title}: ")]
        told = dict(each.split(": ") for each in line.partition(": ")[2].rstrip(".").split("; "))
        for loss in scores.part.losses:
            gap = scores.difference(loss, "ce") if loss != "ce" else None
            how = gap and ("ahead" if gap.low > 0 else "behind" if gap.high < 0 else "open")
            assert [name for name, losses in told.items() if f"`{loss}`" in losses] == [how][
                : gap is not None
            ]


def test_the_answer_is_a_sentence_on_every_network(both):
    first, second = both
    assert findings.answer(both).startswith("**Answer: ")
    same = Scores(
        with_counts(second.part, ce=second.part.counts["ce"], dice=second.part.counts["ce"])
    )
    gains = Scores(
        with_counts(first.part, ce=first.part.counts["ce"], dice=first.part.counts["dice"])
    )
    assert "**Answer: no loss is ahead of `ce` with `segnet` on `digits`.**" in findings.answer(
        [same]
    )
    assert "**Answer: `dice` is ahead of `ce` with `unet` on `digits`.**" in findings.answer(
        [gains]
    )
    assert "; `dice` is ahead with some, not with all.**" in findings.answer([gains, same])
    assert "**Answer: `dice` is ahead of `ce` with each network.**" in findings.answer(
        [gains, gains]
    )
    assert "Compare `ce` with `dice` on your own data" in findings.next_step([gains, same])
    assert "Compare `ce` with another loss" in findings.next_step([same])


def test_without_cross_entropy_the_first_loss_is_the_baseline(part):
    other = with_counts(
        part, dice=part.counts["dice"], lovasz_softmax=part.counts["lovasz_softmax"]
    )
    assert "ahead of `dice`" in findings.answer([Scores(other)])


def test_the_records_of_quick_leave_dice_open_with_the_unet_and_ahead_with_segnet():
    loaded = load(ROOT / "results" / "quick", "quick")
    unet, segnet = by_dataset(loaded)["digits"]
    assert "dice" in findings.standing(unet)["open"]
    assert "dice" in findings.standing(segnet)["ahead"]
    assert "`dice` is ahead with some, not with all" in findings.answer([unet, segnet])


def test_no_block_of_prose_holds_more_than_five_numbers(study, both):
    blocks = [*findings.answer(both).splitlines(), *findings.limits(study, both).splitlines()]
    blocks += [findings.next_step(both), *findings.design(study).splitlines()]
    blocks += [line for scores in both for line in findings.part_findings(scores).splitlines()]
    crowded = [block for block in blocks if len(re.findall(r"\d+(?:\.\d+)?", block)) > 5]
    assert crowded == [] and len(blocks) > 20


def test_a_tuned_study_speaks_of_no_common_learning_rate(study):
    tuned = dataclasses.replace(study, tuning=study.runs)
    told = findings.design(tuned) + findings.limits(tuned, by_dataset(study)["digits"])
    assert "learning rate" not in told
    assert "learning rate" in findings.limits(study, by_dataset(study)["digits"])


def test_the_design_counts_what_was_run_and_what_is_missing(study):
    text = findings.design(study)
    assert "3 seeds for each, 60 steps" in text
    assert "24 test images" in text
    assert "missing" not in text
    gone = dataclasses.replace(study, study=study.study | {"missing_runs": 2})
    assert "**2 of the study's runs are missing**" in findings.design(gone)


def test_limits_name_the_classes_that_few_images_have(study, both):
    text = findings.limits(study, both)
    part = both[0].part
    present = (part.counts["ce"][0][..., [0, 2]].sum(-1) > 0).sum(0)
    rarest = part.by_rarity[-1]
    few = sum(present[c] < 10 for c in part.foreground)
    assert (
        f"{few} of 10 classes are in fewer than 10 test images ({part.classes[rarest]} in {present[rarest]})"
        in text
    )
    binary = dataclasses.replace(study, study=study.study | {"mode": {"digits": "binary"}})
    assert "the sign of the logit" in findings.limits(binary, both)


def test_provenance_has_commit_machine_packages_and_command(study):
    text = findings.provenance(study)
    for part in (
        "0123456789abcdef",
        "A processor, 2 cores",
        "torch 2.8.0",
        "make book STUDY=quick",
    ):
        assert part in text
    assert "36 runs" in text and "uncommitted" not in text
    dirty = study.study | {"provenance": study.study["provenance"] | {"dirty": True}}
    changed = dataclasses.replace(study, study=dirty)
    assert "with uncommitted changes" in findings.provenance(changed)


def test_no_sentence_says_better(study, both):
    text = findings.design(study) + findings.answer(both) + findings.limits(study, both)
    text += "".join(findings.part_findings(scores) for scores in both)
    assert not re.search(r"\bbetter\b", text)


def test_each_finding_is_a_list_item(scores):
    lines = findings.part_findings(scores).splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("- ") for line in lines)
