"""What people pass: NumPy numbers, masks of 0 and 255, an axis too many, sums of losses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lossatlas import losses

Z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
B, M = Z[:, :1], (Y > 0).long()
EVERY = [name for name in losses.names() if not name.startswith("weighted")]


def message(call: Any, kind: type[Exception] = ValueError) -> str:
    """Text of the error that a call raises."""
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------------------- numbers


def test_class_weights_are_taken_as_tensor_list_array_of_any_dtype_and_numpy_scalars() -> None:
    expected = losses.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])(Z, Y)
    for weight in (
        torch.tensor([1, 2, 3]),
        np.array([1.0, 2.0, 3.0]),
        np.array([1, 2, 3], dtype=np.uint8),
        np.array([1, 2, 3], dtype=np.float16),
        [np.float32(1), np.int64(2), torch.tensor(3.0)],
    ):
        for name in ("weighted_ce", "ce"):
            assert torch.allclose(losses.build(name, weight=weight)(Z, Y), expected), weight


def test_the_weights_of_an_array_are_a_copy() -> None:
    weight = np.ones(3)
    loss = losses.CrossEntropyLoss(weight=weight)
    weight[:] = 0
    assert loss.weight.tolist() == [1, 1, 1]


def test_weights_in_reverse_are_taken_and_what_holds_no_numbers_is_refused() -> None:
    reverse = losses.build("ce", weight=np.array([3.0, 2.0, 1.0])[::-1])
    assert reverse.weight.tolist() == [1, 2, 3]
    for wrong in (np.array(["a", "b"]), np.array([1.0, None])):
        with pytest.raises(TypeError, match="one number per class, got"):
            losses.build("ce", weight=wrong)
    with pytest.raises(ValueError, match=r'classes must be "present", "all" or a list'):
        losses.build("dice", classes=np.array(1))
    with pytest.raises(TypeError, match=r"one number per part, got 1\.0"):
        losses.build("dice_ce", scales=1.0)
    assert losses.build("dice", per_image=np.bool_(True)).per_image is True
    with pytest.raises(TypeError, match="ignore_index must be an integer, got '255'"):
        losses.weights.image_counts(torch.zeros(1, 2).long(), 2, ignore_index="255")


def test_in_binary_mode_one_number_is_the_weight_of_the_foreground() -> None:
    expected = losses.CrossEntropyLoss(mode="binary", weight=[1.0, 2.5])(B, M)
    for weight in (2.5, np.float32(2.5), torch.tensor(2.5), np.array(2.5), [2.5]):
        loss = losses.CrossEntropyLoss(mode="binary", weight=weight)
        assert torch.equal(loss(B, M), expected), weight
    assert "3 entries" in message(lambda: losses.CrossEntropyLoss(weight=2.5)(Z, Y))


def test_alpha_is_taken_as_any_kind_of_number_or_vector() -> None:
    expected = losses.FocalLoss(alpha=0.25)(Z, Y)
    for alpha in (np.float32(0.25), np.array(0.25), torch.tensor(0.25)):
        assert torch.allclose(losses.FocalLoss(alpha=alpha)(Z, Y), expected)
    vector = losses.FocalLoss(alpha=np.array([0.75, 0.25, 0.25]))
    assert torch.allclose(vector(Z, Y), expected)
    balanced = losses.BalancedCrossEntropyLoss(alpha=np.float32(0.25))
    assert balanced.alpha == 0.25
    assert losses.FocalLoss(gamma=torch.tensor(1)).gamma == 1.0


def test_ignore_index_bins_counts_and_classes_take_any_integer_type() -> None:
    target = Y.masked_fill(Y == 2, 255)
    expected = losses.CrossEntropyLoss(ignore_index=255)(Z, target)
    for index in (np.int64(255), np.uint8(255), torch.tensor(255), np.array(255)):
        loss = losses.CrossEntropyLoss(ignore_index=index)
        assert type(loss.ignore_index) is int
        assert torch.equal(loss(Z, target), expected)
    assert losses.LovaszSoftmaxLoss(bins=np.int32(64)).bins == 64
    assert losses.OHEMCrossEntropyLoss(min_kept=np.int64(5)).min_kept == 5
    assert losses.DiceLoss(classes=np.array([1, 2])).classes == (1, 2)
    assert losses.DiceLoss(classes=torch.tensor([1, 2])).classes == (1, 2)
    for wrong in (np.float64(255), np.bool_(True), torch.tensor(2.0), torch.tensor(True), "255"):
        assert "ignore_index must be an integer" in message(
            lambda wrong=wrong: losses.CrossEntropyLoss(ignore_index=wrong), TypeError
        )


def test_weights_that_are_no_real_numbers_are_refused() -> None:
    for weight in (torch.tensor([True, False]), np.array([1j, 2j]), torch.tensor([1j])):
        assert "real numbers" in message(
            lambda weight=weight: losses.CrossEntropyLoss(weight=weight), TypeError
        )


# ---------------------------------------------------------------------------- targets


def test_a_mask_of_0_and_255_is_told_that_it_is_scaled_and_how_to_mend_it() -> None:
    mask = M * 255
    for name in EVERY:
        loss = losses.build(name, mode="binary")
        said = message(lambda loss=loss: loss(B, mask))
        assert "scaled by 255: pass (target > 127).long()" in said, name
        # what it advises is what was meant
        assert torch.allclose(loss(B, (mask > 127).long()), loss(B, M))
        said = message(lambda loss=loss: loss(B, mask[:, None].float()))
        assert "scaled by 255: pass target / 255" in said, name
    assert "scaled by 255" in message(lambda: losses.DiceLoss(mode="multilabel")(B, mask[:, None]))
    assert "scaled by 255" in message(lambda: losses.DiceLoss()(Z[:, :2], mask))


def test_255_beside_a_1_is_a_void_label_and_is_told_to_be_ignored() -> None:
    target = M.clone()
    target[0, 0, 0] = 255
    said = message(lambda: losses.DiceLoss(mode="binary")(B, target))
    assert "pass ignore_index for the void label" in said
    assert "scaled" not in said


def test_a_target_with_an_axis_too_many_or_in_another_order_is_told_what_to_do() -> None:
    onehot = torch.nn.functional.one_hot(Y, 3)
    cases = [
        ("multiclass", Z, Y[:, None], "target.squeeze(1)"),
        ("multiclass", Z, Y[..., None], "target.squeeze(3)"),
        ("multiclass", Z, Y[:, None].float(), "target.squeeze(1).long()"),
        ("multiclass", Z, Y.float(), "target.long()"),
        ("binary", B, M[..., None], "target.movedim(-1, 1)"),
        ("multilabel", B, M, "target.unsqueeze(1)"),
        ("multilabel", Z, onehot, "target.movedim(-1, 1)"),
        ("multiclass", Z, onehot.float(), "target.movedim(-1, 1)"),
        ("multiclass", Z, onehot, "target.movedim(-1, 1).float()"),
        ("multiclass", Z, onehot.movedim(-1, 1), "target.float()"),
    ]
    for mode, logits, target, remedy in cases:
        loss = losses.DiceLoss(mode=mode)
        said = message(lambda: loss(logits, target))  # noqa: B023
        assert remedy in said, (mode, remedy, said)
        loss(logits, eval(remedy, {"target": target}))  # the remedy is accepted


def test_a_target_of_truth_values_is_told_whether_it_is_one_hot() -> None:
    one_hot = torch.nn.functional.one_hot(Y, 3).bool()
    for target, remedy in (
        (one_hot, "target.movedim(-1, 1).float()"),
        (one_hot.movedim(-1, 1), "target.float()"),
        (Y > 0, "target.long()"),
    ):
        said = message(lambda target=target: losses.DiceLoss()(Z, target), TypeError)
        assert remedy in said
        losses.DiceLoss()(Z, eval(remedy, {"target": target}))


def test_sizes_that_differ_and_a_missing_batch_axis_are_named() -> None:
    assert "image size differ" in message(lambda: losses.DiceLoss()(Z, Y[:, :3]))
    assert "batch axis missing" in message(lambda: losses.DiceLoss()(Z, Y[0]))


def test_what_is_no_tensor_is_told_how_to_become_one() -> None:
    dice = losses.DiceLoss()
    assert "torch.from_numpy" in message(lambda: dice(Z.numpy(), Y), TypeError)
    assert "torch.from_numpy" in message(lambda: dice(Z, Y.numpy()), TypeError)
    assert 'output["out"]' in message(lambda: dice({"out": Z}, Y), TypeError)
    assert "add their losses" in message(lambda: dice((Z, Z), Y), TypeError)


def test_the_masks_of_torchvision_are_looked_at_as_tensors_are() -> None:
    masks = pytest.importorskip("torchvision.tv_tensors").Mask(M * 255)
    said = message(lambda: losses.build("dice_ce", mode="binary")(B, masks))
    assert "scaled by 255" in said and "Got [255]" in said


def test_the_distance_between_pixels_is_one_number_or_one_a_dimension() -> None:
    for name in ("boundary", "hausdorff"):
        one, two = (losses.build(name, spacing=step)(Z, Y) for step in (2.0, (2.0, 2.0)))
        assert torch.equal(one, two)


def test_a_loss_by_another_library_s_name_leads_to_ours() -> None:
    for name, ours in (
        ("cross_entropy", "ce"),
        ("IoULoss", "jaccard"),
        ("lovasz", "lovasz_softmax"),
    ):
        assert f"did you mean {ours!r}?" in message(lambda name=name: losses.build(name))


@pytest.mark.parametrize(
    ("called", "ours"),
    [
        ("dice_loss", "dice"),
        ("CrossEntropyLoss", "ce"),
        ("BCEWithLogitsLoss", "ce"),
        ("DiceCELoss", "dice_ce"),
        ("OhemCELoss", "ohem_ce"),
        ("SurfaceLoss", "boundary"),
        ("ASL", "asymmetric"),
        ("Dice-CE", "dice_ce"),
        ("binary_cross_entropy", "ce"),
        ("sigmoid_focal_loss", "focal"),
    ],
)
def test_a_class_of_another_library_leads_to_one_of_our_names(called: str, ours: str) -> None:
    assert message(lambda: losses.build(called)).endswith(f"did you mean '{ours}'?")


@pytest.mark.parametrize(
    ("called", "ours"),
    [
        ("include_background", "classes=[1, ...]"),
        ("eps", "smooth, where it is more than a guard"),
        ("batch", "per_image, the opposite"),
        ("softmax", 'mode="multiclass"'),
        ("lambda_dice", "scales"),
        ("only_present", 'classes="present"'),
    ],
)
def test_a_parameter_of_another_library_leads_to_ours(called: str, ours: str) -> None:
    said = message(lambda: losses.build("dice_ce", **{called: 1}), TypeError)
    assert f"takes no parameter '{called}'; here it is {ours}" in said
    assert "here it is" not in message(lambda: losses.build("boundary", eps=1), TypeError)


def test_logits_without_their_channel_or_with_it_last_are_told_to_move_it() -> None:
    squeezed = message(lambda: losses.build("dice_ce", mode="binary")(B[:, 0], M))
    assert "pass logits.unsqueeze(1)" in squeezed
    image = message(lambda: losses.build("dice_ce", mode="binary")(B[0, 0], M[0]))
    assert "pass logits[None, None] and target[None]" in image
    last = message(lambda: losses.build("ce")(Z.movedim(1, -1), Y))
    assert last.endswith("pass logits.movedim(-1, 1).")
    assert losses.build("ce")(Z.movedim(1, -1).movedim(-1, 1), Y) == losses.build("ce")(Z, Y)


def test_one_image_and_flattened_pixels_are_told_what_to_pass() -> None:
    ce = losses.build("ce")
    assert message(lambda: ce(Z[0], Y[0])).endswith("pass logits[None] and target[None].")
    one_hot_without_images = torch.zeros(3, 4, 4, dtype=torch.long)
    assert "logits[None]" not in message(lambda: ce(Z, one_hot_without_images))
    flat = Z.movedim(1, -1).flatten(0, -2)
    assert message(lambda: ce(flat, Y)).endswith("pass target.flatten().")
    assert torch.allclose(ce(flat, Y.flatten()), ce(Z, Y))


def test_labels_that_to_tensor_divided_by_255_are_told_so() -> None:
    scaled = (Y / 255)[:, None]
    said = message(lambda: losses.build("ce")(Z, scaled))
    assert said.endswith("(target * 255).round().squeeze(1).long().")
    assert torch.equal((scaled * 255).round().squeeze(1).long(), Y)
    whole = message(lambda: losses.build("ce")(Z, Y[:, None].float()))
    assert whole.endswith(": target.squeeze(1).long().")
    thirds = message(lambda: losses.build("ce")(Z, Y[:, None] / 3))  # soft, and no labels over 255
    assert thirds.endswith(": target.squeeze(1).long().")


def test_an_attribute_of_a_compound_that_its_parts_would_not_hear_of_is_refused() -> None:
    loss = losses.build("dice_ce")
    for name, value in (("reduction", "sum"), ("weight", torch.ones(3)), ("ignore_index", 255)):
        with pytest.raises(AttributeError, match=rf"build them, .* with {name}=\.\.\."):
            setattr(loss, name, value)
    for part in loss.parts:
        part.ignore_index = 0
    assert losses.build("dice_ce", ignore_index=0)(Z, Y) == loss(Z, Y)


def test_arrays_of_another_byte_order_or_too_wide_for_torch_are_taken() -> None:
    expected = losses.build("ce", weight=[1.0, 2.0, 3.0])(Z, Y)
    for dtype in (">f8", ">i2", np.longdouble):
        weight = np.array([1, 2, 3], dtype=dtype)
        assert torch.equal(losses.build("ce", weight=weight)(Z, Y), expected), dtype
    masks = [np.asarray(Y[0], dtype=">u2")]
    expected = losses.weights.image_counts([Y[0]], num_classes=3)
    assert torch.equal(losses.weights.image_counts(masks, num_classes=3), expected)


def test_numbers_that_mean_something_else_elsewhere_are_told_what_to_pass() -> None:
    assert "pass min_kept=100000" in message(lambda: losses.build("ohem_ce", min_kept=1e5))
    assert "pass alpha=None" in message(lambda: losses.build("focal", alpha=-1))
    assert "1.0e-5" in message(lambda: losses.build("dice", smooth="1e-5"), TypeError)
    for word in ("small", "1", ".."):
        said = message(lambda word=word: losses.build("dice", smooth=word), TypeError)
        assert "e-5" not in said


def test_a_dictionary_of_outputs_is_told_which_of_its_tensors_to_pass() -> None:
    class Output(dict):  # type: ignore[type-arg]
        logits = Z

    ce = losses.build("ce")
    assert message(lambda: ce(Output(logits=Z), Y), TypeError).endswith("; pass its .logits.")
    assert 'e.g. target["mask"]' in message(lambda: ce(Z, {"id": 3, "mask": Y}), TypeError)


def test_a_mask_without_the_axes_of_image_and_class_has_no_distance_map() -> None:
    said = message(lambda: losses.signed_distance(M[0]))
    assert said.endswith("pass mask[None, None].")
    maps = torch.stack([losses.signed_distance(mask[None, None])[0] for mask in M])
    loss = losses.build("boundary", mode="binary")
    assert loss(B, M, distance=maps) == loss(B, M)


def test_an_error_about_a_dtype_never_allows_what_it_refuses() -> None:
    for dtype in (torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e5m2):
        target = torch.zeros(2, 4, 4).to(dtype)
        said = message(lambda: losses.DiceLoss()(Z, target), TypeError)  # noqa: B023
        allowed, got = said.split(", got ")
        name = str(dtype).removeprefix("torch.")
        assert name in got and not re.search(rf"\b{name}\b", allowed)
        assert "integers" not in allowed and "floats" not in allowed
    said = message(lambda: losses.DiceLoss()(Z.to(torch.float8_e5m2), Y), TypeError)
    assert "float8_e5m2" not in said.split(", got ")[0]


def test_soft_targets_out_of_range_are_told_about_probabilities_not_about_labels() -> None:
    said = message(lambda: losses.DiceLoss()(Z, Z * 0 + 1.5))
    assert "[0, 1]" in said and "/ 255" in said and "stray labels" not in said


# ---------------------------------------------------------------------------- sums of losses


def test_losses_are_summed_by_sum_and_divided_by_numbers_of_any_kind() -> None:
    dice, ce = losses.DiceLoss(), losses.CrossEntropyLoss()
    a, b = dice(Z, Y), ce(Z, Y)
    assert torch.allclose(sum([dice, ce])(Z, Y), a + b)
    assert torch.allclose((ce / 2)(Z, Y), b / 2)
    assert torch.allclose((sum([dice, ce, ce]) / 3)(Z, Y), (a + 2 * b) / 3)
    for two in (2, np.float64(2), np.float32(2), np.int64(2), torch.tensor(2.0)):
        assert torch.allclose((two * ce)(Z, Y), 2 * b), repr(two)
        assert torch.allclose((ce * two)(Z, Y), 2 * b), repr(two)
        assert torch.allclose((ce / two)(Z, Y), b / 2), repr(two)


def test_a_factor_that_is_to_be_trained_is_refused_where_it_would_be_frozen() -> None:
    factor: Any = torch.tensor(0.5, requires_grad=True)
    ce = losses.CrossEntropyLoss()
    for wrong in (
        *(lambda: factor * ce, lambda: ce * factor, lambda: ce / factor),
        *(lambda: losses.CompoundLoss([ce], [factor]), lambda: losses.FocalLoss(gamma=factor)),
    ):
        assert "tensor * loss(logits, target)" in message(wrong, TypeError)
    (factor * ce(Z, Y)).backward()  # what it advises
    assert factor.grad == ce(Z, Y)


def test_parts_that_no_logits_fit_are_refused_when_they_are_added() -> None:
    binary = losses.CrossEntropyLoss(mode="binary")
    assert "the same mode" in message(lambda: binary + losses.DiceLoss())


def test_losses_do_not_subtract_and_the_error_says_what_to_write_instead() -> None:
    dice, ce = losses.DiceLoss(), losses.CrossEntropyLoss()
    for wrong in (lambda: dice - ce, lambda: dice - 1, lambda: 1 - dice):
        assert "a + (-1) * b" in message(wrong, TypeError)
    assert torch.allclose((dice + (-1) * ce)(Z, Y), dice(Z, Y) - ce(Z, Y))
    for wrong in (
        *(lambda: 1 + dice, lambda: dice + 1, lambda: False + dice, lambda: dice / ce),
        *(lambda: dice / True, lambda: True * dice, lambda: dice * dice, lambda: "2" * dice),
    ):
        message(wrong, TypeError)


def test_a_loss_added_to_a_tensor_is_refused_whatever_the_tensor_holds() -> None:
    for tensor in (torch.ones(3), torch.tensor(0.0), torch.zeros(1)):
        message(lambda tensor=tensor: tensor + losses.DiceLoss(), TypeError)


def test_distance_maps_reach_the_part_that_takes_them() -> None:
    boundary, dice = losses.BoundaryLoss(mode="binary"), losses.DiceLoss(mode="binary")
    maps = torch.randn(2, 1, 4, 4)
    both = dice + 0.5 * boundary
    expected = dice(B, M) + 0.5 * boundary(B, M, distance=maps)
    assert torch.allclose(both(B, M, distance=maps), expected)
    assert "take distance" in message(lambda: both(B, M, distances=maps), TypeError)
    assert "logits and target alone" in message(lambda: (dice + dice)(B, M, x=M), TypeError)


# ---------------------------------------------------------------------------- data and devices


def test_a_soft_mask_may_pass_one_by_rounding_and_by_no_more() -> None:
    resized = torch.nn.functional.interpolate(torch.ones(1, 1, 3, 3), size=(7, 7), mode="bilinear")
    assert resized.max() > 1
    for name in EVERY:
        value = losses.build(name, mode="binary")(torch.zeros(1, 1, 7, 7), resized)
        assert value.isfinite(), name
    for wrong in (1.001, -0.001, 255.0):
        message(lambda wrong=wrong: losses.DiceLoss(mode="binary")(B, 0 * B + wrong))


def test_counts_of_a_data_set_say_what_to_pass() -> None:
    mask = torch.tensor([[0, 1], [1, 2]])
    for wrong in [(torch.rand(3, 2, 2), mask), {"mask": mask}, "a.png"]:
        text = message(lambda wrong=wrong: losses.weights.image_counts([wrong], 3), TypeError)
        assert "pass (mask for _, mask in data)" in text and type(wrong).__name__ in text
    picture: Any = Image.fromarray(mask.numpy().astype(np.uint8))
    assert losses.weights.image_counts([picture, mask], 3).tolist() == [[1, 2, 1]] * 2


def test_tensors_on_the_cpu_work_where_another_device_is_the_default() -> None:
    modes = {name: losses.build(name).mode for name in EVERY}
    expected = {name: losses.build(name)(Z, Y) for name in EVERY if modes[name] == "multiclass"}
    assert len(expected) > 20
    torch.set_default_device("meta")
    try:
        for name, value in expected.items():
            assert torch.equal(losses.build(name)(Z, Y), value), name
    finally:
        torch.set_default_device(None)


def test_a_misspelt_process_group_and_a_label_beyond_64_bits_are_named_at_once() -> None:
    for name in ("dice", "ce", "boundary"):
        said = message(lambda name=name: losses.build(name, process_group="wrld"))
        assert "did you mean 'world'?" in said and "init_process_group" not in said
        said = message(lambda name=name: losses.build(name, ignore_index=2**70))
        assert "ignore_index must be <= 9223372036854775807" in said
    half = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float16)
    loss = losses.DiceLoss(mode="binary", ignore_index=70_000)  # beyond float16: no pixel is void
    assert loss(B, half) == loss(B, half.float())


def test_soft_targets_that_do_not_exclude_each_other_are_told_of_the_multilabel_mode() -> None:
    both = torch.zeros(2, 3, 4, 4)
    both[:, :2] = 1
    for name in EVERY:
        if losses.build(name).mode == "multiclass":
            said = message(lambda name=name: losses.build(name)(Z, both))
            assert 'mode="multilabel"' in said and "got sums of [2.0" in said, name
    soft = torch.softmax(3 * Z, 1)
    loss = losses.CrossEntropyLoss(ignore_index=255)
    void = soft.clone()
    void[:, :, 0] = 255
    fine = [soft, soft.half(), soft.bfloat16(), soft / 2, 0 * soft, void, void.half()]
    many = torch.full((2, 3, 4, 4), 1 / 3).bfloat16()
    resized = torch.nn.functional.interpolate(soft, size=(4, 4), mode="bilinear")
    for target in (*fine, many, resized):
        loss(Z, target)
    void[0, 1, 1, 1] = 1.0
    assert "sums of" in message(lambda: loss(Z, void))


def test_a_tensor_that_is_not_dense_is_told_how_to_become_so() -> None:
    nested = torch.nested.as_nested_tensor
    for name in ("ce", "dice", "lovasz_softmax"):
        loss = losses.build(name)
        for given in ((Z.to_sparse(), Y), (Z.to_mkldnn(), Y), (Z, Y.to_sparse())):
            said = message(lambda given=given, loss=loss: loss(*given), TypeError)
            assert ".to_dense()" in said
        for given in ((nested([*Z]), Y), (Z, nested([*Y]))):
            said = message(lambda given=given, loss=loss: loss(*given), TypeError)
            assert "to_padded_tensor" in said
    sparse = torch.tensor([0.0, 1, 2]).to_sparse()
    said = message(lambda: losses.CrossEntropyLoss(weight=sparse), TypeError)
    assert "weight.to_dense()" in said


def test_class_weights_without_values_are_refused() -> None:
    """Made on the meta device and moved by ``to_empty`` they would be whatever the memory held."""
    with torch.device("meta"):
        for name in ("ce", "dice"):
            said = message(lambda name=name: losses.build(name, weight=torch.tensor([1.0, 2, 3])))
            assert "weight must hold numbers" in said and 'device="cpu"' in said
        assert losses.build("ce", weight=[1.0, 2, 3]).weight.tolist() == [1, 2, 3]


def test_parameters_and_counts_without_values_or_stored_sparsely_are_named() -> None:
    one, counts = torch.tensor(0.3, device="meta"), torch.tensor([3.0, 2, 1])
    for name, given in (
        ("focal", {"alpha": one}),
        ("focal", {"gamma": one}),
        ("ce", {"label_smoothing": one}),
        ("ce", {"ignore_index": torch.tensor(255, device="meta")}),
    ):
        said = message(lambda name=name, given=given: losses.build(name, **given))
        assert f"{next(iter(given))} must hold numbers" in said and 'device="cpu"' in said
    for make in (losses.weights.inverse_frequency, losses.weights.enet_log):
        assert "counts must hold" in message(lambda make=make: make(counts.to("meta")))
        said = message(lambda make=make: make(counts.to_sparse()), TypeError)
        assert "counts.to_dense()" in said
    per_image = counts[None].to_sparse()
    said = message(lambda: losses.weights.median_frequency(per_image), TypeError)
    assert "image_counts.to_dense()" in said
