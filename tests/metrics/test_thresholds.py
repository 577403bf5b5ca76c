"""Decision rules and their search, against brute force and against theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from lossatlas.metrics import DecisionRule, OffsetSearch, ThresholdSearch
from lossatlas.metrics.thresholds import BINARY_STEPS, OFFSET_STEPS


def draw_binary(seed: int, images: int = 6, side: int = 24, fraction: float = 0.05):
    """Logits (N, 1, S, S) that tell the foreground with some overlap, and the labels."""
    rng = np.random.default_rng(seed)
    target = (rng.random((images, side, side)) < fraction).astype(np.int64)
    logits = rng.normal(np.where(target, -0.5, -3.0), 1.5)
    return torch.from_numpy(logits).float()[:, None], torch.from_numpy(target)


def draw_classes(seed: int, images: int = 4, side: int = 20, classes: int = 4):
    rng = np.random.default_rng(seed)
    shares = np.array([0.8, 0.15, 0.04, 0.01])[:classes]
    target = rng.choice(classes, size=(images, side, side), p=shares / shares.sum())
    logits = rng.normal(0, 1.2, (images, classes, side, side))
    logits += 2 * (np.arange(classes)[None, :, None, None] == target[:, None])
    logits += np.log(shares / shares.sum())[:, None, None]
    return torch.from_numpy(logits).float(), torch.from_numpy(target)


def dice_of(prediction: torch.Tensor, target: torch.Tensor) -> float:
    tp = (prediction * target).sum().item()
    return 2 * tp / (prediction.sum().item() + target.sum().item())


def best_cut(logits: torch.Tensor, target: torch.Tensor) -> float:
    """The largest Dice between two distinct logits, by trying each."""
    cuts = torch.unique(logits).tolist()[:-1]
    return max(dice_of((logits[:, 0] > cut).long(), target) for cut in cuts)


def mean_dice(prediction: torch.Tensor, target: torch.Tensor, classes) -> float:
    return float(
        np.mean([dice_of((prediction == c).long(), (target == c).long()) for c in classes])
    )


# --- rules --------------------------------------------------------------------------------------


def test_a_rule_without_offsets_is_the_plain_argmax():
    logits, _ = draw_classes(0)
    assert torch.equal(DecisionRule.argmax(4)(logits), logits.argmax(1))
    one, _ = draw_binary(0)
    assert torch.equal(DecisionRule.argmax(1)(one), (torch.sigmoid(one[:, 0]) > 0.5).long())


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5, 0.9])
def test_a_threshold_on_p_is_an_offset_of_the_logit(probability):
    rule = DecisionRule.logit_adjustment([probability])  # foreground where p > its share
    logits = torch.linspace(-8, 8, 1001).reshape(1, 1, -1)
    assert torch.equal(rule(logits)[0], (torch.sigmoid(logits[0, 0]) > probability).long())
    assert rule.probability == pytest.approx(probability)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_decided_like_the_same_numbers_in_float32(dtype):
    logits = torch.linspace(-1, 1, 999).reshape(1, 1, -1).to(dtype)
    for offset in (-0.3, -307 / 1024, 0.123):
        rule = DecisionRule((offset,))
        assert torch.equal(rule(logits), rule(logits.float()))
        if offset * BINARY_STEPS == round(offset * BINARY_STEPS):
            search = counted(ThresholdSearch(), logits, torch.zeros(1, 999, dtype=torch.long))
            assert search.matrix(offset)[0, 1] == rule(logits).sum()
    assert DecisionRule((-0.3,))(torch.tensor([[[0.3 + 1e-12]]], dtype=torch.float64)).item() == 1


@pytest.mark.parametrize("prior", [0.2, np.float32(0.2), [0.2]])
def test_one_share_is_that_of_the_foreground(prior):
    assert DecisionRule.logit_adjustment(prior).probability == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"prior: .* got \[1\.5\]"):
        DecisionRule.logit_adjustment(1.5)


def test_an_offset_that_all_classes_share_changes_nothing():
    logits, _ = draw_classes(1)
    rule, moved = DecisionRule((0.0, 1.0, -2.0, 3.0)), DecisionRule((8.0, 9.0, 6.0, 11.0))
    assert torch.equal(rule(logits), moved(logits))
    assert not torch.equal(rule(logits), logits.argmax(1))


def test_a_rule_for_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, 2, \*S\).*got \(1, 3, 5\)"):
        DecisionRule((0.0, 1.0))(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="finite"):
        DecisionRule((float("nan"),))
    for one in (0.3, "no", None):
        with pytest.raises(ValueError, match=r"finite number a channel, as in DecisionRule\("):
            DecisionRule(one)
    with pytest.raises(ValueError, match="one finite number"):
        DecisionRule(())


# --- binary -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_equals_a_brute_force_search_over_every_distinct_logit(seed):
    logits, target = draw_binary(seed)
    # logits on the grid of the search: every threshold between two of them is one of its edges
    logits = (logits * BINARY_STEPS).round() / BINARY_STEPS
    search = counted(ThresholdSearch(), logits, target)
    rule, dice = search.best()
    brute = best_cut(logits, target)
    assert dice == pytest.approx(brute, abs=1e-12)
    assert dice_of(rule(logits), target) == pytest.approx(brute, abs=1e-12)
    assert brute > search.dice(0.0)


def test_where_every_bin_is_full_the_threshold_is_the_very_edge():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(-60, 61, (1, 1, 40_000), generator=generator)
    chance = (0.02 + 0.3 * (steps[:, 0] > 7)).float()
    target = (torch.rand(1, 40_000, generator=generator) < chance).long()
    logits = steps / BINARY_STEPS
    rule, dice = counted(ThresholdSearch(), logits, target).best()
    assert rule.offsets == (-7 / BINARY_STEPS,)
    assert dice == pytest.approx(dice_of((steps[:, 0] > 7).long(), target), abs=1e-12)


def test_off_the_grid_the_loss_against_brute_force_is_below_a_tenth_of_a_point():
    logits, target = draw_binary(5)
    rule, dice = counted(ThresholdSearch(), logits, target).best()
    brute = best_cut(logits, target)
    assert brute - 1e-3 < dice <= brute + 1e-12
    assert dice == pytest.approx(dice_of(rule(logits), target), abs=1e-15)


def test_the_threshold_of_a_calibrated_classifier_is_half_of_the_best_dice():
    """Lipton et al. 2014; the reason why ½ is the wrong threshold for Dice, checked by simulation."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(-4, 2, 2_000_000)).float()
    target = (
        torch.rand(len(logits), generator=torch.Generator().manual_seed(0)) < logits.sigmoid()
    ).long()
    search = counted(ThresholdSearch(), logits.reshape(1, 1, -1), target[None])
    rule, dice = search.best()
    assert rule.probability == pytest.approx(dice / 2, abs=0.02)
    assert dice > search.dice(0.0) + 0.05


def test_the_matrix_at_an_offset_is_that_of_the_rule():
    logits, target = draw_binary(2)
    search = counted(ThresholdSearch(), logits, target)
    for offset in (-1.25, 0.0, 2.5):
        pred = DecisionRule((offset,))(logits)
        expected = [[((target == t) & (pred == p)).sum().item() for p in (0, 1)] for t in (0, 1)]
        assert search.matrix(offset).tolist() == expected


def test_huge_infinite_and_undefined_logits_are_counted_as_the_rule_decides():
    logits = torch.tensor([[[1e30, -1e30, torch.inf, -torch.inf, torch.nan, 600.0]]])
    target = torch.tensor([[1, 0, 1, 0, 1, 0]])
    search = counted(ThresholdSearch(), logits, target)
    # by sign: tp = 2 (1e30, ∞), fp = 1 (600), fn = 1 (NaN): 4/6
    assert search.dice(0.0) == pytest.approx(4 / 6)
    assert DecisionRule.argmax(1)(logits).tolist() == [[1, 0, 1, 0, 0, 1]]
    assert search.best()[0] == DecisionRule.argmax(1)


def test_logits_beyond_a_hundred_still_rank():
    # as a probability each of them is 1 to the last bit
    logits = torch.tensor([[[40.0, 150.0, 160.0, 300.0]]])
    search = counted(ThresholdSearch(), logits, torch.tensor([[0, 0, 1, 1]]))
    rule, dice = search.best()
    assert dice == 1.0 and 150 < -rule.offsets[0] < 160
    assert search.average_precision() == 1.0


def test_the_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    logits, target = draw_binary(3)
    logits = (logits * 1024).round() / 1024  # so that a bin holds ties alone
    search = counted(ThresholdSearch(), logits, target)
    expected = average_precision_score(target.flatten().numpy(), logits.flatten().numpy())
    assert search.average_precision() == pytest.approx(expected, abs=1e-12)
    constant = counted(ThresholdSearch(), torch.zeros_like(logits), target)
    assert constant.average_precision() == pytest.approx(float(target.float().mean()))
    assert np.isnan(ThresholdSearch().average_precision())


def test_one_half_is_kept_where_nothing_is_better():
    search = ThresholdSearch()
    search.update(torch.tensor([[[-2.0, -1.0, 1.0, 2.0]]]), torch.tensor([[0, 0, 1, 1]]))
    assert search.best() == (DecisionRule((0.0,)), 1.0)


def test_without_any_foreground_there_is_no_offset():
    search = ThresholdSearch()
    search.update(torch.full((1, 1, 4), -3.0), torch.zeros(1, 4, dtype=torch.long))
    rule, dice = search.best()
    assert rule == DecisionRule.argmax(1) and np.isnan(dice)
    rule, dice = ThresholdSearch().best()
    assert rule == DecisionRule.argmax(1) and np.isnan(dice)


# --- several classes ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_for_two_classes_the_offsets_equal_a_brute_force_search(seed):
    one, target = draw_binary(seed)
    logits = torch.cat([torch.zeros_like(one), one], 1)
    search = counted(OffsetSearch(np.bincount(target.flatten()), scored=[1]), logits, target)
    rule, dice = search.best()
    brute = max(
        dice_of((one[:, 0] + step / OFFSET_STEPS > 0).long(), target) for step in range(-512, 513)
    )
    assert rule.offsets[0] == 0
    assert dice == pytest.approx(brute, abs=1e-12)
    assert dice_of(rule(logits), target) == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_single_offset_improves_on_what_the_search_found(seed):
    logits, target = draw_classes(seed)
    search = OffsetSearch(np.bincount(target.flatten(), minlength=4), scored=[1, 2, 3])
    search.update(logits, target)
    assert search.is_exact
    rule, dice = search.best()
    found = mean_dice(rule(logits), target, [1, 2, 3])
    assert found == pytest.approx(dice, abs=1e-12)
    assert found > mean_dice(logits.argmax(1), target, [1, 2, 3]) + 0.01
    for c in range(4):
        for step in (-64, -8, -2, -1, 1, 2, 8, 64):
            offsets = list(rule.offsets)
            offsets[c] += step / OFFSET_STEPS
            other = mean_dice(DecisionRule(tuple(offsets))(logits), target, [1, 2, 3])
            # a sweep that gains less than 1e-4 is the last
            assert other < found + 2e-4


def test_the_search_is_near_the_best_pair_of_offsets_on_a_grid():
    logits, target = draw_classes(7, classes=3)
    search = OffsetSearch(np.bincount(target.flatten(), minlength=3), scored=[1, 2])
    search.update(logits, target)
    _, dice = search.best()
    grid = np.arange(-4, 4.25, 0.25)
    brute = max(
        mean_dice(DecisionRule((0.0, a, b))(logits), target, [1, 2]) for a in grid for b in grid
    )
    assert dice > brute - 0.005


def test_a_sampled_search_comes_close_to_the_whole_and_does_not_depend_on_the_batches():
    logits, target = draw_classes(3, images=12, side=48)
    pixels = np.bincount(target.flatten(), minlength=4)

    def run(max_pixels, cuts):
        search = OffsetSearch(pixels, scored=[1, 2, 3], max_pixels=max_pixels, seed=1)
        for one, truth in zip(logits.split(cuts), target.split(cuts), strict=True):
            search.update(one, truth)
        return search, *search.best()

    whole, whole_rule, _ = run(10**6, 12)
    part, rule, _ = run(6000, 12)
    assert whole.is_exact and not part.is_exact
    kept = sum(labels.numel() for _, labels in part.kept())
    assert kept == pytest.approx(6000, rel=0.1)
    # rare classes are kept whole
    assert part.kept_share[2] == part.kept_share[3] == 1 > part.kept_share[0]
    best, near = (mean_dice(r(logits), target, [1, 2, 3]) for r in (whole_rule, rule))
    assert near > best - 0.01
    assert run(6000, 5)[1] == rule


def test_the_kept_pixels_never_exceed_the_budget_by_much():
    pixels = np.array([10**9, 10**6, 1000, 3])
    search = OffsetSearch(pixels, max_pixels=30_000)
    assert (search.kept_share * pixels).sum() == pytest.approx(30_000)
    assert search.kept_share[2] == search.kept_share[3] == 1


def test_a_class_that_the_set_lacks_keeps_its_offset():
    logits, target = draw_classes(0, classes=3)
    logits = torch.cat([logits, torch.full_like(logits[:, :1], -20.0)], 1)
    search = OffsetSearch(np.bincount(target.flatten(), minlength=4), scored=[1, 2, 3])
    search.update(logits, target)
    rule, dice = search.best()
    assert (rule(logits) != 3).all()
    assert dice == pytest.approx(mean_dice(rule(logits), target, [1, 2]))
    empty = OffsetSearch(np.array([5, 0]), scored=[1])
    empty.update(torch.zeros(1, 2, 5), torch.zeros(1, 5, dtype=torch.long))
    assert empty.best()[0] == DecisionRule.argmax(2)


def test_void_pixels_play_no_part_in_the_search():
    logits, target = draw_classes(2)
    void = torch.zeros_like(target, dtype=torch.bool)
    void[:, ::3] = True
    marked = torch.where(void, 255, target)
    pixels = np.bincount(target[~void], minlength=4)
    with_void = counted(OffsetSearch(pixels, scored=[1, 2, 3], ignore_index=255), logits, marked)
    without = OffsetSearch(pixels, scored=[1, 2, 3])
    without.update(logits.movedim(1, 0)[:, ~void][None], target[~void][None])
    assert with_void.best() == without.best()


@pytest.mark.parametrize("search", [ThresholdSearch, lambda: OffsetSearch([50, 50])])
@pytest.mark.parametrize("images", [1, 2])
def test_a_batch_may_be_written_over_after_it_was_added(search, images):
    generator = torch.Generator().manual_seed(0)
    reused, expected = search(), search()
    channels = 2 if isinstance(reused, OffsetSearch) else 1
    logits = torch.empty(images, channels, 50 // images)
    target = torch.empty(images, 50 // images, dtype=torch.int64)
    for _ in range(2):
        logits.copy_(torch.randn(logits.shape, generator=generator))
        target.copy_(torch.arange(target.numel()).reshape(target.shape) % 2)
        reused.update(logits, target)
        expected.update(logits.clone(), target.clone())
    logits.zero_()
    target.fill_(1)
    assert reused.best() == expected.best()


def test_a_tie_is_counted_as_the_rule_decides_it():
    logits = torch.tensor([0.0, 0, 0, 0, 1, 1, 0, 0, 1]).reshape(1, 3, 3)
    target = torch.tensor([[0, 1, 0]])
    rule, dice = counted(OffsetSearch([2, 1, 0]), logits, target).best()
    assert dice == pytest.approx(mean_dice(rule(logits), target, [0, 1]))


def test_a_search_among_ties_ends_no_lower_than_it_began():
    # Where the search counted a tie for another class than the rule does, it ended below the largest logit's Dice.
    logits = torch.tensor(
        [[[1, 0, 0, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 0, 1, 0]]]
    ).float()
    target = torch.tensor([[1, 1, 1, 1, 1, 0, 1, 0]])
    search = counted(OffsetSearch([int((target == c).sum()) for c in range(3)]), logits, target)
    _, dice = search.best()
    assert dice >= mean_dice(logits.argmax(1), target, [0, 1]) - 1e-12


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 4, 64]), st.sampled_from([2, 3, 5]))
def test_the_dice_of_the_search_is_that_of_its_rule(seed, steps, classes):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 1.5, (1, classes, 30))).float()
    logits = (logits * steps).round() / steps  # many ties
    target = torch.from_numpy(rng.integers(0, rng.integers(1, classes + 1), (1, 30)))
    search = counted(OffsetSearch(np.bincount(target.flatten(), minlength=classes)), logits, target)
    rule, dice = search.best()
    there = np.unique(target).tolist()
    assert dice == pytest.approx(mean_dice(rule(logits), target, there), abs=1e-12)
    assert dice > mean_dice(logits.argmax(1), target, there) - 1e-12  # never below where it began
    sampled = counted(OffsetSearch(search.class_pixels, max_pixels=20, seed=seed), logits, target)
    rule, dice = sampled.best()
    kept, labels = next(sampled.kept())
    if not sampled.is_exact and len(labels[0].unique()):
        found, scores = rule(kept), []
        for c in labels[0].unique().tolist():
            of_class = [
                float(search.class_pixels[t] / (labels == t).sum()) * (labels == t).float()
                for t in labels[0].unique().tolist()
            ]
            weight = sum(of_class)
            hit = float((weight * ((found == c) & (labels == c))).sum())
            both = float((weight * (found == c)).sum() + (weight * (labels == c)).sum())
            scores.append(2 * hit / both)
        assert dice == pytest.approx(np.mean(scores), abs=1e-5)
