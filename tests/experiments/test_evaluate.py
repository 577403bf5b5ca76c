"""Evaluation under several decision rules: what tuning finds, what theory predicts, what streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import train
from torch import nn

from lossatlas import losses, metrics
from lossatlas.experiments import RunConfig
from lossatlas.experiments import evaluate as evaluation
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.evaluate import Tuned, evaluate, per_class, summary, theory_rule, tune
from lossatlas.experiments.forward import Logits, images_at_once
from lossatlas.experiments.record import read_run
from lossatlas.metrics import DecisionRule

torch.set_num_threads(1)
CPU = torch.device("cpu")


class Drawn:
    """A data set whose images are logits already: the model that returns them is ``nn.Identity``."""

    def __init__(self, logits, target, *, mode="binary", split="val", void=None, classes=None):
        self.logits, self.target = logits, target
        self.mode, self.split, self.ignore_index = mode, split, void
        count = 2 if mode == "binary" else logits.shape[1]
        self.classes = classes or ("background", *(f"thing {c}" for c in range(1, count)))
        self.batches = []

    def __len__(self):
        return len(self.logits)

    @property
    def labels(self):
        return self.target.numpy()

    def batch(self, indices):
        self.batches.append(list(indices))
        return self.logits[indices], self.target[indices]

    def image_counts(self):
        shape = (len(self), len(self.classes))
        return np.array(
            [[(image == c).sum().item() for c in range(shape[1])] for image in self.target]
        ).reshape(shape)


def calibrated(seed=0, images=32, side=64, split="val", mode="binary", log_weight=0.0):
    """Logits that are the true log-odds (moved by a class weight's shift), and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    odds = torch.randn(images, 1, side, side, generator=generator) * 2 - 4
    target = (torch.rand(images, side, side, generator=generator) < odds[:, 0].sigmoid()).long()
    logits = odds + log_weight
    if mode == "multiclass":
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return Drawn(logits, target, split=split, mode=mode)


def many_classes(seed=0, images=8, side=32, split="val", **kwargs):
    rng = np.random.default_rng(seed)
    shares = np.array([0.9, 0.07, 0.025, 0.005])
    target = rng.choice(4, size=(images, side, side), p=shares)
    logits = rng.normal(0, 1.5, (images, 4, side, side)) + np.log(shares)[:, None, None]
    logits += 3 * (np.arange(4)[None, :, None, None] == target[:, None])
    return Drawn(
        torch.from_numpy(logits).float(),
        torch.from_numpy(target),
        mode="multiclass",
        split=split,
        **kwargs,
    )


def logits_of(data, **how):
    """The logits of a drawn data set."""
    return Logits(nn.Identity(), data, CPU, **how)


def test_a_network_that_separates_validation_keeps_its_probabilities():
    target = torch.zeros(2, 8, 8, dtype=torch.long)
    target[:, 2:4] = 1
    perfect = logits_of(Drawn((20.0 * target[:, None] - 10), target, split="val", mode="binary"))
    assert evaluation.calibrated(perfect) == metrics.PlugInRule()
    assert evaluation.calibrated(logits_of(calibrated(images=2))) != metrics.PlugInRule()


# --- tuning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_tuning_a_calibrated_classifier_finds_half_of_the_best_dice(mode):
    found = tune(logits_of(calibrated(mode=mode)))
    offset = found.rule.offsets[-1]
    threshold = 1 / (1 + np.exp(offset))
    assert threshold == pytest.approx(found.dice_tuned / 2, abs=0.03)
    assert found.dice_tuned > found.dice_at_half + 0.1
    theory = theory_rule(found, "ce", None, mode, 2)
    assert theory.offsets[-1] == pytest.approx(offset, abs=0.2)


@pytest.fixture(params=[False, True], ids=["whole", "sampled"])
def sampled(request, monkeypatch):
    """Whether offsets are searched over fewer pixels than the split has."""
    if request.param:
        monkeypatch.setitem(metrics.OffsetSearch.__init__.__kwdefaults__, "max_pixels", 3000)
    return request.param


@pytest.mark.usefixtures("sampled")
def test_what_tuning_says_of_validation_is_what_an_evaluation_with_its_rule_finds():
    for data in (calibrated(images=8), many_classes()):
        found = tune(logits_of(data, batch_size=3))
        result = evaluate(logits_of(data), rules={"tuned": found.rule})
        half, tuned = (summary(result, data.classes, rule) for rule in ("argmax", "tuned"))
        assert half["foreground_dice"] == pytest.approx(found.dice_at_half, abs=1e-12)
        assert tuned["foreground_dice"] == pytest.approx(found.dice_tuned, abs=1e-12)
        assert found.dice_tuned > found.dice_at_half
        np.testing.assert_allclose(
            found.class_dice, result.by_rule["tuned"].confusion.dice(), atol=1e-12
        )


def test_the_batch_size_does_not_change_what_is_tuned(sampled):
    sets = [many_classes()] if sampled else [many_classes(), calibrated(images=8)]
    for data in sets:
        rules = {tune(logits_of(data, batch_size=size)).rule for size in (1, 3, 8)}
        assert len(rules) == 1


def test_a_search_that_makes_things_worse_is_not_followed(monkeypatch):
    bad = DecisionRule((0.0, 9.0, 9.0, 9.0))
    monkeypatch.setattr(metrics.OffsetSearch, "best", lambda self: (bad, 1.0))
    found = tune(logits_of(many_classes()))
    assert found.rule == DecisionRule.argmax(4)
    assert found.dice_tuned == found.dice_at_half


def test_tuning_refuses_the_test_split_and_reads_no_other_than_it_is_given():
    with pytest.raises(ValueError, match="expected the validation split, got the test split"):
        tune(logits_of(calibrated(split="test", images=2)))
    val, test = calibrated(1, images=4), calibrated(2, images=4, split="test")
    before = tune(logits_of(val))
    assert test.batches == []
    evaluate(logits_of(test), rules={"tuned": before.rule})
    # another test split, the same rule: nothing flows back
    assert tune(logits_of(val)) == before


def test_evaluating_with_a_rule_leaves_every_other_rule_s_numbers_alone():
    data = many_classes(split="test")
    plain = evaluate(logits_of(data), keep_predictions=True)
    more = evaluate(
        logits_of(data), keep_predictions=True, rules={"tuned": DecisionRule((0.0, 1, 2, 3))}
    )
    assert list(more.by_rule) == ["argmax", "tuned"]
    assert np.array_equal(plain.per_image, more.per_image)
    assert np.array_equal(plain.predictions, more.predictions)
    assert plain.calibration == more.calibration
    assert summary(plain, data.classes) == summary(more, data.classes)
    assert summary(more, data.classes, "tuned") != summary(more, data.classes)
    assert (
        per_class(more, data.classes, "tuned")[1]["recall"]
        > per_class(more, data.classes)[1]["recall"]
    )


def test_tuning_leaves_the_model_in_the_mode_it_had_and_draws_no_random_number():
    class Counting(nn.Module):
        def forward(self, images):
            assert not self.training
            return images

    model, data = Counting(), many_classes()
    state = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        tune(Logits(model, data, CPU))
        evaluate(Logits(model, data, CPU))
        assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)


def test_void_plays_no_part_in_rules_or_calibration():
    data = many_classes()
    void = torch.zeros_like(data.target, dtype=torch.bool)
    void[:, :, ::2] = True
    marked = Drawn(data.logits, torch.where(void, 255, data.target), mode="multiclass", void=255)
    cut = Drawn(data.logits[..., 1::2], data.target[..., 1::2], mode="multiclass")
    assert tune(logits_of(marked)) == tune(logits_of(cut))
    found, expected = (evaluate(logits_of(d)) for d in (marked, cut))
    assert found.calibration == pytest.approx(expected.calibration)
    assert np.array_equal(found.per_image, expected.per_image)


def test_a_split_without_foreground_is_left_at_argmax():
    data = Drawn(torch.full((2, 1, 4, 4), -3.0), torch.zeros(2, 4, 4, dtype=torch.long))
    found = tune(logits_of(data))
    assert found.rule == DecisionRule.argmax(1)
    assert np.isnan(found.dice_at_half) and np.isnan(found.dice_tuned)
    result = summary(evaluate(logits_of(data)), data.classes)
    assert np.isnan(result["foreground_dice"]) and np.isnan(result["volume_ratio"])


# --- theory -------------------------------------------------------------------------------------


def told(class_dice, background=True) -> Tuned:
    rule = DecisionRule.argmax(max(1, len(class_dice)))
    return Tuned(rule, 0.3, 0.4, tuple(class_dice), background)


@pytest.mark.parametrize("loss", ["ce", "dice", "tversky", "lovasz_softmax", "dice_ce"])
def test_the_threshold_of_theory_is_half_of_the_best_validation_dice(loss):
    rule = theory_rule(told([0.99, 0.44]), loss, None, "binary", 2)
    assert rule.probability == pytest.approx(0.22)
    two = theory_rule(told([0.99, 0.44]), loss, None, "multiclass", 2)
    assert two.offsets == pytest.approx((0.0, rule.offsets[0]))


@pytest.mark.parametrize(
    ("loss", "params", "weight"),
    [
        ("ce", {}, None),
        ("weighted_ce", {}, [1.0, 9.0]),
        ("focal", {}, None),
        ("focal", {"gamma": 0.5}, None),
        ("focal", {"gamma": 2.0}, [1.0, 99.0]),
        ("focal", {"gamma": 1.0, "alpha": 0.25}, None),
        ("focal", {"alpha": [0.2, 0.8]}, [0.5, 2.0]),
        ("poly1", {"epsilon": 2.0}, [1.0, 4.0]),
    ],
)
@pytest.mark.parametrize("dice", [0.9, 0.3])
def test_the_threshold_of_theory_is_where_the_loss_itself_is_least_at_half_of_that_dice(
    loss, params, weight, dice
):
    """The loss's own values on a grid of logits, weighed by a true probability of D/2, have their minimum there."""
    given = params if weight is None else params | {"weight": torch.tensor(weight)}
    function = losses.build(loss, mode="binary", reduction="none", **given)
    logits = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[None, None]
    positive, negative = (
        function(logits, torch.full((1, *logits.shape[2:]), label)).flatten() for label in (1, 0)
    )
    expected = (dice / 2) * positive + (1 - dice / 2) * negative
    least = logits.flatten()[expected.argmin()].item()
    rule = theory_rule(told([0.99, dice]), loss, weight, "binary", 2, params)
    assert -rule.offsets[0] == pytest.approx(least, abs=5e-4)


def test_at_both_ends_the_focal_threshold_is_finite_and_keeps_the_order():
    found = [
        theory_rule(told([0.99, dice]), "focal", [1.0, weight], "binary", 2).offsets[0]
        for dice, weight in ((1e-9, 1e-6), (0.5, 1.0), (1.0, 1e9))
    ]
    assert np.isfinite(found).all() and found == sorted(found, reverse=True)


def test_the_lovasz_hinge_has_no_probability_and_no_offset():
    assert theory_rule(told([0.99, 0.4]), "lovasz_hinge", None, "binary", 2).offsets == (0.0,)


@pytest.mark.parametrize("weight", [[7.0], [0.5, 3.5]])
def test_the_shift_by_ln_w_recovers_the_decision_without_weights(weight):
    """Weighted cross-entropy's minimiser is the true log-odds plus ln w."""
    ratio = weight[-1] / (weight[0] if len(weight) == 2 else 1)
    plain, weighted = calibrated(3), calibrated(3, log_weight=float(np.log(ratio)))
    found, found_weighted = (tune(logits_of(d)) for d in (plain, weighted))
    rule = theory_rule(found, "ce", None, "binary", 2)
    undone = theory_rule(found_weighted, "weighted_ce", torch.tensor(weight), "binary", 2)
    # the best Dice is the same, so the offsets differ by ln w …
    assert found_weighted.dice_tuned == pytest.approx(found.dice_tuned, abs=1e-3)
    assert rule.offsets[0] - undone.offsets[0] == pytest.approx(np.log(ratio), abs=2e-3)
    # … and the decisions agree
    same = (rule(plain.logits) == undone(weighted.logits)).double().mean().item()
    assert same > 0.9995
    assert (rule(plain.logits) == rule(weighted.logits)).double().mean().item() < 0.98
    # without the threshold's part, ln w alone gives the plain argmax of the unweighted logits
    half = theory_rule(told([1.0, 1.0]), "weighted_ce", weight, "binary", 2)
    assert torch.equal(half(weighted.logits), (plain.logits[:, 0] > 0).long())


def test_for_several_classes_every_offset_is_its_own_threshold_against_the_background():
    weight = torch.tensor([0.5, 2.0, 8.0])
    rule = theory_rule(told([0.99, 0.6, 0.2]), "weighted_ce", weight, "multiclass", 3)
    expected = [0.0]
    for dice, w in ((0.6, 2.0), (0.2, 8.0)):
        expected.append(-np.log(w / 0.5) - np.log(dice / (2 - dice)))
    assert rule.offsets == pytest.approx(expected)
    # against the background alone: foreground where p_c / (p_0 + p_c) > D/2 on the unweighted odds
    odds = np.log(0.3 / 0.7) + np.log(2.0 / 0.5)
    for move, decided in ((0.01, 1), (-0.01, 0)):
        logits = torch.tensor([[[0.0], [odds + move], [-30.0]]], dtype=torch.float64)
        assert rule(logits).item() == decided


@pytest.mark.parametrize("log_weight", [0.0, 3.0])
def test_for_several_calibrated_classes_theory_comes_close_to_what_tuning_finds(log_weight):
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([0.0, -3.0, -4.0, -6.0])[:, None, None]
    odds = torch.randn(32, 4, 40, 40, generator=generator) * 1.5 + centre
    odds[:, 0] = 0
    probs = odds.softmax(1).movedim(1, -1).reshape(-1, 4)
    target = torch.multinomial(probs, 1, generator=generator).reshape(32, 40, 40)
    logits = odds + log_weight * torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None, None]
    data = Drawn(logits, target, mode="multiclass")
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0]) * np.exp(log_weight)
    weight[0] = 1.0
    tuned = tune(logits_of(data))
    rule = theory_rule(tuned, "weighted_ce", weight, "multiclass", 4)
    found = evaluate(logits_of(data), rules={"tuned": tuned.rule, "theory": rule})
    dice = [summary(found, data.classes, name)["foreground_dice"] for name in found.by_rule]
    assert dice[1] > dice[0] + 0.05
    assert dice[2] > dice[1] - 0.015


def test_without_a_background_only_the_weights_are_undone():
    tuned = told([0.9, 0.5, 0.1], background=False)
    assert theory_rule(tuned, "ce", None, "multiclass", 3) == DecisionRule.argmax(3)
    rule = theory_rule(tuned, "ce", [1.0, 2.0, 4.0], "multiclass", 3)
    assert rule.offsets == pytest.approx((0.0, -np.log(2), -np.log(4)))


def test_weights_of_an_overlap_loss_shift_no_logit_and_unknown_classes_none():
    plain = theory_rule(told([0.99, 0.5, 0.0]), "weighted_dice", None, "multiclass", 3)
    weighted = theory_rule(told([0.99, 0.5, 0.0]), "weighted_dice", [1, 5, 9], "multiclass", 3)
    assert plain == weighted
    assert plain.offsets[2] == 0  # a class that is never found
    absent = theory_rule(told([0.99, 0.5, float("nan")]), "ce", [1, 2, 0], "multiclass", 3)
    assert absent.offsets[2] == 0


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected 3 finite numbers"):
        theory_rule(told([1, 1, 1]), "ce", [1.0, 2.0], "multiclass", 3)
    with pytest.raises(ValueError, match="got 'multilabel'"):
        theory_rule(told([1, 1]), "ce", None, "multilabel", 2)


# --- evaluation ---------------------------------------------------------------------------------


def test_a_rule_with_too_few_offsets_is_refused_before_the_model_runs():
    data = many_classes()
    with pytest.raises(ValueError, match=r"rule 'tuned': expected 4 offsets.*got 1"):
        evaluate(logits_of(data), rules={"tuned": DecisionRule((1.0,))})
    assert data.batches == []


def test_the_summary_has_the_keys_that_records_have_and_the_volume_ratio():
    data = many_classes()
    found = evaluate(logits_of(data))
    row = summary(found, data.classes)
    assert set(row) == {
        "mean_iou", "mean_dice", "foreground_iou", "foreground_dice", "pixel_accuracy",
        "mean_precision", "mean_recall", "mean_dice_per_image", "constant_dice", "volume_ratio",
    }  # fmt: skip
    rows = per_class(found, data.classes)
    prediction = data.logits.argmax(1)
    ratios = [(prediction == c).sum().item() / (data.target == c).sum().item() for c in range(4)]
    assert [r["volume_ratio"] for r in rows] == pytest.approx(ratios)
    assert row["volume_ratio"] == pytest.approx(np.mean(ratios[1:]))


def test_counts_and_calibration_are_those_of_the_whole_split_whatever_the_batch_size():
    data = many_classes()
    expected = metrics.Calibration(4)
    expected.update(data.logits, data.target)
    prediction = data.logits.argmax(1)
    counts = metrics.confusion_per_image(prediction, data.target, 4)
    for size in (1, 3, 32):
        found = evaluate(logits_of(data, batch_size=size), keep_predictions=True)
        assert found.calibration == pytest.approx(expected.compute(), rel=1e-9)
        assert np.array_equal(found.per_image, counts)
        assert np.array_equal(found.predictions, prediction)
        # the table of images and the pooled matrix count the same pixels
        assert np.array_equal(found.confusion.counts(), counts.sum(0))
    assert set(found.calibration) == {"ece", "ece_foreground", "nll", "brier"}


def test_half_precision_logits_are_counted_in_single_precision():
    class Half(nn.Module):
        def forward(self, images):
            return images.bfloat16()

    data = many_classes()
    rounded = Drawn(data.logits.bfloat16().float(), data.target, mode="multiclass")
    found, expected = (
        evaluate(Logits(model, d, CPU), rules={"shifted": DecisionRule((0.0, 0.01, 0.02, 0.03))})
        for model, d in ((Half(), data), (nn.Identity(), rounded))
    )
    assert found.calibration == expected.calibration
    for name in ("argmax", "shifted"):
        assert np.array_equal(found.by_rule[name].per_image, expected.by_rule[name].per_image)


# --- outlines and objects -----------------------------------------------------------------------


def test_outlines_and_objects_are_those_of_the_argmax_and_only_where_asked_for():
    data = many_classes(images=3)
    data.target[:, :6, :6] = 1  # an object of some size
    data.logits[:, 1, :6, :6] += 9
    plain = evaluate(logits_of(data))
    assert plain.boundary == [] and plain.size_recall == []
    outlines, objects = metrics.BoundaryMetrics(4), metrics.ObjectRecall(4)
    outlines.update(data.logits.argmax(1), data.target)
    objects.update(data.logits.argmax(1), data.target)
    rules = {"tuned": DecisionRule((0.0, 5.0, 5.0, 5.0))}
    for size in (1, 3):
        found = evaluate(logits_of(data, batch_size=size), rules=rules, boundary=True)
        rows = [{k: v for k, v in row.items() if k != "class_name"} for row in found.boundary]
        assert rows == outlines.rows()
        assert [row["class_name"] for row in found.boundary] == list(data.classes)
        assert str(found.size_recall) == str(objects.rows())
    assert {"boundary_iou", "boundary_f", "hd95", "assd", "nsd", "n"} <= set(rows[0])
    assert {"stratum", "objects", "found", "recall"} <= set(found.size_recall[0])
    strata = {row["stratum"]: row for row in found.size_recall}
    assert strata["16–63"]["objects"] >= 3 and strata["16–63"]["recall"] == 1


def test_without_a_background_the_first_class_has_objects_too():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, :, 2:] = 1
    logits = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float()
    for classes, count in ((("sky", "road"), 2), (("background", "road"), 1)):
        data = Drawn(logits, target, mode="multiclass", classes=classes)
        found = evaluate(logits_of(data), boundary=True)
        assert sum(row["found"] for row in found.size_recall) == count


def test_what_a_run_measures_beside_is_asked_for_and_changes_nothing_else(tmp_path):
    params = {"task": "binary", "image_size": 32, "train_size": 12, "val_size": 6, "test_size": 4}
    plain = RunConfig(
        dataset_params=params, model_params={"width": 4, "depth": 2}, steps=3, batch_size=4, evaluations=1,
    )  # fmt: skip
    asked = plain.model_copy(update={"measures": ["plug_in", "thin", "oracle", "pixels"]})
    assert asked.run_id != plain.run_id
    datasets = load_datasets(plain)
    one, other = (read_run(train(config, datasets, tmp_path)) for config in (plain, asked))
    assert "thin" not in one and "plug_in" not in one["rules"]
    assert [row["rule"] for row in other["thin"]] == ["argmax", "tuned"]
    assert all(0 <= row["f1_at_2"] <= 1 for row in other["thin"])
    best = other["rules"].pop("oracle")
    assert best["metrics"]["foreground_dice"] == pytest.approx(one["oracle"]["oracle_dice"])
    extra = other["rules"].pop("plug_in")
    assert extra["scale"] > 0 and 0 <= extra["metrics"]["foreground_dice"] <= 1
    for part in ("metrics", "rules", "oracle", "calibration", "hashes"):
        assert other[part] == one[part]
    counts = pd.read_parquet(tmp_path / asked.run_id / "per_image.parquet")
    assert list(counts.rule.unique()) == ["argmax", "tuned", "theory", "oracle", "plug_in"]
    pixels = pd.read_parquet(tmp_path / asked.run_id / "pixels.parquet")
    assert pixels.weight.sum() == pytest.approx(4 * 32 * 32)
    found = pixels[pixels.logit > 0].weight.sum()
    argmax = counts[(counts.rule == "argmax") & (counts.class_index == 1)]
    assert found == pytest.approx((argmax.tp + argmax.fp).sum(), rel=0.2, abs=8)
    assert not (tmp_path / plain.run_id / "pixels.parquet").exists()


def test_a_run_that_measures_nothing_more_is_the_run_that_it_was():
    """Identities of published runs: a parameter that came later leaves them as they are."""
    runs = pd.read_parquet(Path(__file__).resolve().parents[2] / "results/begin/runs.parquet")
    for run_id, config in runs[["run_id", "config"]].head(20).itertuples(index=False):
        assert RunConfig.model_validate_json(config).run_id == run_id


def test_logits_are_computed_once_and_in_pieces_that_depend_on_the_size():
    data = calibrated(images=8)
    split = logits_of(data)
    first = [(z.clone(), t.clone()) for z, t in split]
    data.batches.clear()
    again = list(split)
    assert data.batches == []  # nothing is read or computed a second time
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert images_at_once(data, CPU) == 32
    large = calibrated(images=2, side=512)
    assert images_at_once(large, CPU) == 1
    assert [len(z) for z, _ in logits_of(large)] == [1, 1]


def test_a_pass_that_is_broken_off_keeps_nothing():
    data = calibrated(images=8)
    split = logits_of(data, batch_size=3)
    next(iter(split))
    assert sum(len(z) for z, _ in split) == 8


def test_large_logits_are_not_kept(monkeypatch):
    monkeypatch.setattr("lossatlas.experiments.forward._KEPT", 100)
    data = calibrated(images=8)
    split = logits_of(data, batch_size=4)
    passes = [torch.cat([z for z, _ in split]) for _ in range(2)]
    assert torch.equal(*passes) and len(data.batches) == 4
