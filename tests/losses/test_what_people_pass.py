"""What people pass: NumPy numbers, masks of 0 and 255, an axis too many, sums of losses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lossatlas import losses
from lossatlas.losses import weights

Z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
B, M = Z[:, :1], (Y > 0).long()
SCALED = M * 255
ONE_HOT = torch.nn.functional.one_hot(Y, 3)
FLAT = Z.movedim(1, -1).flatten(0, -2)
COUNTS = torch.tensor([3.0, 2, 1])
SPARSE = COUNTS.to_sparse()
META, META_VOID = torch.tensor(0.3, device="meta"), torch.tensor(255, device="meta")
EVERY = [name for name in losses.names() if not name.startswith("weighted")]

BINARY, MULTILABEL = losses.DiceLoss(mode="binary"), losses.DiceLoss(mode="multilabel")
DICE, CE = losses.DiceLoss(), losses.CrossEntropyLoss()
build = losses.build


def message(kind: type[Exception], call: Callable[..., Any], *given: Any, **options: Any) -> str:
    """Text of the error that a call raises."""
    with pytest.raises(kind) as caught:
        call(*given, **options)
    return str(caught.value)


class Output(dict):  # type: ignore[type-arg]
    """What a library's network returns."""

    logits = Z


# What is passed: the error, what its message says, the call. An end of "$" is the end of the message.
# fmt: off
TOLD: dict[str, tuple[type[Exception], list[str], Callable[[], Any]]] = {
    # targets
    "0 and 255 in multilabel mode": (ValueError, ["scaled by 255"], lambda: MULTILABEL(B, SCALED[:, None])),
    "0 and 255 of two classes": (ValueError, ["scaled by 255"], lambda: DICE(Z[:, :2], SCALED)),
    "an image of another size": (ValueError, ["image size differ"], lambda: DICE(Z, Y[:, :3])),
    "a target without a batch axis": (ValueError, ["batch axis missing"], lambda: DICE(Z, Y[0])),
    # what is no tensor
    "an array of logits": (TypeError, ["torch.from_numpy"], lambda: DICE(Z.numpy(), Y)),
    "an array of labels": (TypeError, ["torch.from_numpy"], lambda: DICE(Z, Y.numpy())),
    "a dictionary of outputs": (TypeError, ['output["out"]'], lambda: DICE({"out": Z}, Y)),
    "a dictionary with an attribute": (TypeError, ["; pass its .logits.$"], lambda: CE(Output(logits=Z), Y)),
    "a dictionary of targets": (TypeError, ['e.g. target["mask"]'], lambda: CE(Z, {"id": 3, "mask": Y})),
    "several outputs": (TypeError, ["add their losses"], lambda: DICE((Z, Z), Y)),
    # axes of logits
    "logits without their channel": (ValueError, ["pass logits.unsqueeze(1)"], lambda: BINARY(B[:, 0], M)),
    "one image without its channel": (ValueError, ["pass logits[None, None] and target[None]"],
                                      lambda: BINARY(B[0, 0], M[0])),
    "logits with the channel last": (ValueError, ["pass logits.movedim(-1, 1).$"], lambda: CE(Z.movedim(1, -1), Y)),
    "one image": (ValueError, ["pass logits[None] and target[None].$"], lambda: CE(Z[0], Y[0])),
    "flattened logits": (ValueError, ["pass target.flatten().$"], lambda: CE(FLAT, Y)),
    "a mask without image and class": (ValueError, ["pass mask[None, None].$"], lambda: losses.signed_distance(M[0])),
    # numbers
    "strings for weights": (TypeError, ["one number per class, got"], lambda: build("ce", weight=np.array(["a", "b"]))),
    "None for a weight": (TypeError, ["one number per class, got"], lambda: build("ce", weight=np.array([1.0, None]))),
    "truth values for weights": (TypeError, ["real numbers"], lambda: build("ce", weight=torch.tensor([True, False]))),
    "a complex array": (TypeError, ["real numbers"], lambda: build("ce", weight=np.array([1j, 2j]))),
    "a complex weight": (TypeError, ["real numbers"], lambda: build("ce", weight=torch.tensor([1j]))),
    "sparse weights": (TypeError, ["weight.to_dense()"], lambda: build("ce", weight=SPARSE)),
    "one weight for several classes": (ValueError, ["3 entries"], lambda: build("ce", weight=2.5)(Z, Y)),
    "a class that is no list": (ValueError, ['classes must be "present", "all" or a list'],
                                lambda: build("dice", classes=np.array(1))),
    "one scale": (TypeError, ["one number per part, got 1.0"], lambda: build("dice_ce", scales=1.0)),
    "a void label in quotes": (TypeError, ["ignore_index must be an integer, got '255'"],
                               lambda: weights.image_counts(torch.zeros(1, 2).long(), 2, ignore_index="255")),
    "a count as a float": (ValueError, ["pass min_kept=100000"], lambda: build("ohem_ce", min_kept=1e5)),
    "alpha of -1": (ValueError, ["pass alpha=None"], lambda: build("focal", alpha=-1)),
    "what YAML reads as a string": (TypeError, ["1.0e-5"], lambda: build("dice", smooth="1e-5")),
    "alpha without a value": (ValueError, ["alpha must hold numbers", 'device="cpu"'],
                              lambda: build("focal", alpha=META)),
    "gamma without a value": (ValueError, ["gamma must hold numbers", 'device="cpu"'],
                              lambda: build("focal", gamma=META)),
    "smoothing without a value": (ValueError, ["label_smoothing must hold numbers", 'device="cpu"'],
                                  lambda: build("ce", label_smoothing=META)),
    "a void label without a value": (ValueError, ["ignore_index must hold numbers", 'device="cpu"'],
                                     lambda: build("ce", ignore_index=META_VOID)),
    # counts
    "inverse frequency of nothing": (ValueError, ["counts must hold"],
                                     lambda: weights.inverse_frequency(COUNTS.to("meta"))),
    "ENet's weights of nothing": (ValueError, ["counts must hold"], lambda: weights.enet_log(COUNTS.to("meta"))),
    "inverse frequency of sparse counts": (TypeError, ["counts.to_dense()"],
                                           lambda: weights.inverse_frequency(SPARSE)),
    "ENet's weights of sparse counts": (TypeError, ["counts.to_dense()"], lambda: weights.enet_log(SPARSE)),
    "median frequency of sparse counts": (TypeError, ["image_counts.to_dense()"],
                                          lambda: weights.median_frequency(COUNTS[None].to_sparse())),
    # sums of losses
    "parts of two modes": (ValueError, ["the same mode"], lambda: CE + BINARY),
    "a difference of losses": (TypeError, ["a + (-1) * b"], lambda: DICE - CE),
    "a loss minus one": (TypeError, ["a + (-1) * b"], lambda: DICE - 1),
    "one minus a loss": (TypeError, ["a + (-1) * b"], lambda: 1 - DICE),
    "an argument that a sum lacks": (TypeError, ["logits and target alone"], lambda: (BINARY + BINARY)(B, M, x=M)),
}
# fmt: on


@pytest.mark.parametrize("passed", TOLD)
def test_what_is_passed_wrongly_is_told_what_to_do(passed: str) -> None:
    kind, words, call = TOLD[passed]
    said = message(kind, call) + "$"
    assert [word for word in words if word not in said] == []


# ---------------------------------------------------------------------------- numbers


def test_class_weights_are_taken_as_tensor_list_array_of_any_dtype_and_numpy_scalars() -> None:
    expected = losses.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])(Z, Y)
    for weight in (
        torch.tensor([1, 2, 3]),
        [np.float32(1), np.int64(2), torch.tensor(3.0)],
        np.array([3.0, 2.0, 1.0])[::-1],
        *(np.array([1, 2, 3], dtype) for dtype in ("f8", "u1", "f2", ">f8", ">i2", np.longdouble)),
    ):
        for name in ("weighted_ce", "ce"):
            loss = build(name, weight=weight)
            assert loss.weight.tolist() == [1, 2, 3]
            assert torch.equal(loss(Z, Y), expected), weight
    masks = [np.asarray(Y[0], dtype=">u2")]
    assert torch.equal(weights.image_counts(masks, 3), weights.image_counts([Y[0]], 3))


def test_the_weights_of_an_array_are_a_copy() -> None:
    weight = np.ones(3)
    loss = losses.CrossEntropyLoss(weight=weight)
    weight[:] = 0
    assert loss.weight.tolist() == [1, 1, 1]


def test_in_binary_mode_one_number_is_the_weight_of_the_foreground() -> None:
    expected = losses.CrossEntropyLoss(mode="binary", weight=[1.0, 2.5])(B, M)
    for weight in (2.5, np.float32(2.5), torch.tensor(2.5), np.array(2.5), [2.5]):
        loss = losses.CrossEntropyLoss(mode="binary", weight=weight)
        assert torch.equal(loss(B, M), expected), weight


def test_alpha_is_taken_as_any_kind_of_number_or_vector() -> None:
    expected = losses.FocalLoss(alpha=0.25)(Z, Y)
    vector = np.array([0.75, 0.25, 0.25])
    for alpha in (np.float32(0.25), np.array(0.25), torch.tensor(0.25), vector):
        assert torch.allclose(losses.FocalLoss(alpha=alpha)(Z, Y), expected)
    balanced = losses.BalancedCrossEntropyLoss(alpha=np.float32(0.25))
    assert balanced.alpha == 0.25
    assert losses.FocalLoss(gamma=torch.tensor(1)).gamma == 1.0
    assert losses.DiceLoss(per_image=np.bool_(True)).per_image is True


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
        said = message(TypeError, losses.CrossEntropyLoss, ignore_index=wrong)
        assert "ignore_index must be an integer" in said


def test_a_string_that_is_no_small_number_is_told_nothing_about_exponents() -> None:
    for word in ("small", "1", ".."):
        assert "e-5" not in message(TypeError, build, "dice", smooth=word)


def test_the_distance_between_pixels_is_one_number_or_one_a_dimension() -> None:
    for name in ("boundary", "hausdorff"):
        one, two = (build(name, spacing=step)(Z, Y) for step in (2.0, (2.0, 2.0)))
        assert torch.equal(one, two)


def test_class_weights_without_values_are_refused() -> None:
    """Made on the meta device and moved by ``to_empty`` they would be whatever the memory held."""
    with torch.device("meta"):
        for name in ("ce", "dice"):
            said = message(ValueError, build, name, weight=torch.tensor([1.0, 2, 3]))
            assert "weight must hold numbers" in said and 'device="cpu"' in said
        assert build("ce", weight=[1.0, 2, 3]).weight.tolist() == [1, 2, 3]


# ---------------------------------------------------------------------------- targets


def test_a_mask_of_0_and_255_is_told_that_it_is_scaled_and_how_to_mend_it() -> None:
    for name in EVERY:
        loss = build(name, mode="binary")
        said = message(ValueError, loss, B, SCALED)
        assert "scaled by 255: pass (target > 127).long()" in said, name
        # what it advises is what was meant
        assert torch.allclose(loss(B, (SCALED > 127).long()), loss(B, M))
        said = message(ValueError, loss, B, SCALED[:, None].float())
        assert "scaled by 255: pass target / 255" in said, name


def test_255_beside_a_1_is_a_void_label_and_is_told_to_be_ignored() -> None:
    target = M.clone()
    target[0, 0, 0] = 255
    said = message(ValueError, BINARY, B, target)
    assert "pass ignore_index for the void label" in said
    assert "scaled" not in said


@pytest.mark.parametrize(
    ("mode", "logits", "target", "remedy"),
    [
        ("multiclass", Z, Y[:, None], "target.squeeze(1)"),
        ("multiclass", Z, Y[..., None], "target.squeeze(3)"),
        ("multiclass", Z, Y[:, None].float(), "target.squeeze(1).long()"),
        ("multiclass", Z, Y.float(), "target.long()"),
        ("multiclass", Z, Y > 0, "target.long()"),
        ("binary", B, M[..., None], "target.movedim(-1, 1)"),
        ("multilabel", B, M, "target.unsqueeze(1)"),
        ("multilabel", Z, ONE_HOT, "target.movedim(-1, 1)"),
        ("multiclass", Z, ONE_HOT.float(), "target.movedim(-1, 1)"),
        ("multiclass", Z, ONE_HOT, "target.movedim(-1, 1).float()"),
        ("multiclass", Z, ONE_HOT.bool(), "target.movedim(-1, 1).float()"),
        ("multiclass", Z, ONE_HOT.movedim(-1, 1), "target.float()"),
        ("multiclass", Z, ONE_HOT.movedim(-1, 1).bool(), "target.float()"),
    ],
)
def test_a_target_of_another_shape_or_type_is_told_what_makes_it_right(
    mode: str, logits: torch.Tensor, target: torch.Tensor, remedy: str
) -> None:
    loss = losses.DiceLoss(mode=mode)
    boolean = target.dtype == torch.bool
    assert remedy in message(TypeError if boolean else ValueError, loss, logits, target)
    loss(logits, eval(remedy, {"target": target}))  # the remedy is accepted


def test_the_masks_of_torchvision_are_looked_at_as_tensors_are() -> None:
    masks = pytest.importorskip("torchvision.tv_tensors").Mask(SCALED)
    said = message(ValueError, build("dice_ce", mode="binary"), B, masks)
    assert "scaled by 255" in said and "Got [255]" in said


def test_what_the_messages_advise_of_axes_is_accepted_and_means_the_same() -> None:
    assert CE(Z.movedim(1, -1).movedim(-1, 1), Y) == CE(Z, Y)
    assert torch.allclose(CE(FLAT, Y.flatten()), CE(Z, Y))
    one_hot_without_images = torch.zeros(3, 4, 4, dtype=torch.long)
    assert "logits[None]" not in message(ValueError, CE, Z, one_hot_without_images)
    maps = torch.stack([losses.signed_distance(mask[None, None])[0] for mask in M])
    loss = build("boundary", mode="binary")
    assert loss(B, M, distance=maps) == loss(B, M)


def test_labels_that_to_tensor_divided_by_255_are_told_so() -> None:
    scaled = (Y / 255)[:, None]
    said = message(ValueError, CE, Z, scaled)
    assert said.endswith("(target * 255).round().squeeze(1).long().")
    assert torch.equal((scaled * 255).round().squeeze(1).long(), Y)
    for other in (Y[:, None].float(), Y[:, None] / 3):  # whole; soft, and no labels over 255
        assert message(ValueError, CE, Z, other).endswith(": target.squeeze(1).long().")


def test_an_error_about_a_dtype_never_allows_what_it_refuses() -> None:
    for dtype in (torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e5m2):
        said = message(TypeError, DICE, Z, torch.zeros(2, 4, 4).to(dtype))
        allowed, got = said.split(", got ")
        name = str(dtype).removeprefix("torch.")
        assert name in got and not re.search(rf"\b{name}\b", allowed)
        assert "integers" not in allowed and "floats" not in allowed
    said = message(TypeError, DICE, Z.to(torch.float8_e5m2), Y)
    assert "float8_e5m2" not in said.split(", got ")[0]


def test_soft_targets_out_of_range_are_told_about_probabilities_not_about_labels() -> None:
    said = message(ValueError, DICE, Z, Z * 0 + 1.5)
    assert "[0, 1]" in said and "/ 255" in said and "stray labels" not in said


def test_a_soft_mask_may_pass_one_by_rounding_and_by_no_more() -> None:
    resized = torch.nn.functional.interpolate(torch.ones(1, 1, 3, 3), size=(7, 7), mode="bilinear")
    assert resized.max() > 1
    for name in EVERY:
        value = build(name, mode="binary")(torch.zeros(1, 1, 7, 7), resized)
        assert value.isfinite(), name
    for wrong in (1.001, -0.001, 255.0):
        message(ValueError, BINARY, B, 0 * B + wrong)


def test_soft_targets_that_do_not_exclude_each_other_are_told_of_the_multilabel_mode() -> None:
    both = torch.zeros(2, 3, 4, 4)
    both[:, :2] = 1
    for name in EVERY:
        if build(name).mode == "multiclass":
            said = message(ValueError, build(name), Z, both)
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
    assert "sums of" in message(ValueError, loss, Z, void)


def test_a_tensor_that_is_not_dense_is_told_how_to_become_so() -> None:
    nested = torch.nested.as_nested_tensor
    for name in ("ce", "dice", "lovasz_softmax"):
        for given in ((Z.to_sparse(), Y), (Z.to_mkldnn(), Y), (Z, Y.to_sparse())):
            assert ".to_dense()" in message(TypeError, build(name), *given)
        for given in ((nested([*Z]), Y), (Z, nested([*Y]))):
            assert "to_padded_tensor" in message(TypeError, build(name), *given)


# ---------------------------------------------------------------------------- other libraries' words


@pytest.mark.parametrize(
    ("called", "ours"),
    [
        ("cross_entropy", "ce"),
        ("IoULoss", "jaccard"),
        ("lovasz", "lovasz_softmax"),
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
def test_a_loss_by_another_librarys_name_leads_to_ours(called: str, ours: str) -> None:
    assert message(ValueError, build, called).endswith(f"did you mean '{ours}'?")


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
    said = message(TypeError, build, "dice_ce", **{called: 1})
    assert f"takes no parameter '{called}'; here it is {ours}" in said
    assert "here it is" not in message(TypeError, build, "boundary", eps=1)


# ---------------------------------------------------------------------------- sums of losses


def test_an_attribute_of_a_compound_that_its_parts_would_not_hear_of_is_refused() -> None:
    loss = build("dice_ce")
    for name, value in (("reduction", "sum"), ("weight", torch.ones(3)), ("ignore_index", 255)):
        with pytest.raises(AttributeError, match=rf"build them, .* with {name}=\.\.\."):
            setattr(loss, name, value)
    for part in loss.parts:
        part.ignore_index = 0
    assert build("dice_ce", ignore_index=0)(Z, Y) == loss(Z, Y)


def test_losses_are_summed_by_sum_and_divided_by_numbers_of_any_kind() -> None:
    a, b = DICE(Z, Y), CE(Z, Y)
    assert torch.allclose(sum([DICE, CE])(Z, Y), a + b)
    assert torch.allclose((CE / 2)(Z, Y), b / 2)
    assert torch.allclose((sum([DICE, CE, CE]) / 3)(Z, Y), (a + 2 * b) / 3)
    for two in (2, np.float64(2), np.float32(2), np.int64(2), torch.tensor(2.0)):
        assert torch.allclose((two * CE)(Z, Y), 2 * b), repr(two)
        assert torch.allclose((CE * two)(Z, Y), 2 * b), repr(two)
        assert torch.allclose((CE / two)(Z, Y), b / 2), repr(two)


def test_a_factor_that_is_to_be_trained_is_refused_where_it_would_be_frozen() -> None:
    factor: Any = torch.tensor(0.5, requires_grad=True)
    for wrong in (
        *(lambda: factor * CE, lambda: CE * factor, lambda: CE / factor),
        *(lambda: losses.CompoundLoss([CE], [factor]), lambda: losses.FocalLoss(gamma=factor)),
    ):
        assert "tensor * loss(logits, target)" in message(TypeError, wrong)
    (factor * CE(Z, Y)).backward()  # what it advises
    assert factor.grad == CE(Z, Y)


def test_losses_are_added_to_losses_alone_and_multiplied_by_numbers_alone() -> None:
    assert torch.allclose((DICE + (-1) * CE)(Z, Y), DICE(Z, Y) - CE(Z, Y))
    for wrong in (
        *(lambda: 1 + DICE, lambda: DICE + 1, lambda: False + DICE, lambda: DICE / CE),
        *(lambda: DICE / True, lambda: True * DICE, lambda: DICE * DICE, lambda: "2" * DICE),
        *(lambda: torch.ones(3) + DICE, lambda: torch.tensor(0.0) + DICE),
        lambda: torch.zeros(1) + DICE,
    ):
        message(TypeError, wrong)


def test_distance_maps_reach_the_part_that_takes_them() -> None:
    boundary, maps = losses.BoundaryLoss(mode="binary"), torch.randn(2, 1, 4, 4)
    both = BINARY + 0.5 * boundary
    expected = BINARY(B, M) + 0.5 * boundary(B, M, distance=maps)
    assert torch.allclose(both(B, M, distance=maps), expected)
    assert "take distance" in message(TypeError, both, B, M, distances=maps)


# ---------------------------------------------------------------------------- data and devices


def test_counts_of_a_data_set_say_what_to_pass() -> None:
    mask = torch.tensor([[0, 1], [1, 2]])
    for wrong in [(torch.rand(3, 2, 2), mask), {"mask": mask}, "a.png"]:
        said = message(TypeError, weights.image_counts, [wrong], 3)
        assert "pass (mask for _, mask in data)" in said and type(wrong).__name__ in said
    picture: Any = Image.fromarray(mask.numpy().astype(np.uint8))
    assert weights.image_counts([picture, mask], 3).tolist() == [[1, 2, 1]] * 2


def test_tensors_on_the_cpu_work_where_another_device_is_the_default() -> None:
    multiclass = [name for name in EVERY if build(name).mode == "multiclass"]
    assert len(multiclass) > 20
    expected = {name: build(name)(Z, Y) for name in multiclass}
    with torch.device("meta"):
        for name, value in expected.items():
            assert torch.equal(build(name)(Z, Y), value), name


def test_a_misspelt_process_group_and_a_label_beyond_64_bits_are_named_at_once() -> None:
    for name in ("dice", "ce", "boundary"):
        said = message(ValueError, build, name, process_group="wrld")
        assert "did you mean 'world'?" in said and "init_process_group" not in said
        said = message(ValueError, build, name, ignore_index=2**70)
        assert "ignore_index must be <= 9223372036854775807" in said


def test_a_void_label_that_the_targets_dtype_cannot_hold_voids_nothing() -> None:
    half = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float16)
    loss = losses.DiceLoss(mode="binary", ignore_index=70_000)
    assert loss(B, half) == loss(B, half.float())
