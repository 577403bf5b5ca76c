"""Checks at the border: every message says what was expected, what came, and what to do about it.

Shapes, dtypes and devices are checked in Python. Values (is each label a class, is each probability
within [0, 1]) are checked directly on the CPU, where looking costs no synchronisation, and through
an asynchronous device assertion elsewhere and under ``torch.compile``.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from . import _valid

MODES = ("multiclass", "binary", "multilabel")
REDUCTIONS = ("mean", "sum", "none")

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


#: Sum of a pixel's probabilities above which they are not rounded but meant otherwise.
_MOST = 1.1


def near(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: near matches first, else everything known."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + ", ".join(known) + "."


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of `allowed`."""
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be one of {list(allowed)}, got {value!r} of type {type(value).__name__}."
        )
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {list(allowed)}, got {value!r}; " + near(value, allowed)
        )
    return value


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    value = plain(value, name)
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return value


def plain(value: object, name: str = "a parameter") -> object:
    """Return what a 0-d tensor, a 0-d array or a NumPy scalar holds; anything else as it is."""
    if isinstance(value, Tensor) and value.requires_grad and value.ndim == 0:
        raise TypeError(
            f"{name} must be a plain number, got a tensor that requires grad, which would not be trained: multiply "
            "the value instead, tensor * loss(logits, target), or pass tensor.item()."
        )
    numbers(name, value)
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> float:
    """Return `value` as a float if it is a finite number from `low` to `high`."""
    value = plain(value, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number, got {value!r} of type {type(value).__name__}{_in_yaml(value)}."
        )
    x = float(value)
    below = x <= low if open_low else x < low
    if not math.isfinite(x) or below or x > high:
        bound = f"{'>' if open_low else '>='} {low:g}" if low > -math.inf else ""
        if high < math.inf:
            bound = f"{bound} and <= {high:g}" if bound else f"<= {high:g}"
        raise ValueError(f"{name} must be finite{' and ' + bound if bound else ''}, got {value!r}.")
    return x


def _in_yaml(value: object) -> str:
    """Return the end of a message on a number that came as a word: YAML reads 1e-5 as one."""
    number_like = isinstance(value, str) and re.fullmatch(
        r"[-+]?\d+(\.\d*)?e[-+]?\d+", value.lower()
    )
    return "; pass a number, which YAML writes with a point: 1.0e-5" if number_like else ""


def integer(name: str, value: object, *, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int if it is an integer of any type from `low` to `high`."""
    value = plain(value, name)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}.")
    value = operator.index(value)
    if low is not None and value < low:
        raise ValueError(f"{name} must be >= {low}, got {value}.")
    if high is not None and value > high:
        raise ValueError(f"{name} must be <= {high}, got {value}.")
    return value


def label(value: object) -> int:
    """Return the `ignore_index` as an int that a tensor of labels can be compared with."""
    ends = torch.iinfo(torch.int64)
    return integer("ignore_index", value, low=ends.min, high=ends.max)


def process_group(value: object) -> object:
    """Return `value`, unless it is a word other than "world"."""
    if isinstance(value, str) and value != "world":
        raise ValueError(
            f'process_group must be None, "world" or a ProcessGroup, got {value!r}; '
            + near(value, ("world",))
        )
    return value


def class_vector(name: str, value: object) -> Tensor | None:
    """Return per-class numbers as a 1-d floating tensor: finite, none negative.

    A single number is a vector of one entry: the foreground's, in binary mode. Numbers and integers are
    kept in float64, to be rounded where they are used; a floating tensor or array keeps its dtype.
    """
    if value is None:
        return None
    if isinstance(value, Tensor):
        numbers(name, value)
        vector = value.reshape(1) if value.ndim == 0 else value
    elif isinstance(plain(value), Real):
        vector = torch.tensor([number(name, value)], dtype=torch.float64, device=_holding_values())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        entries = [number(f"{name}[{i}]", v) for i, v in enumerate(value)]
        vector = torch.tensor(entries, dtype=torch.float64, device=_holding_values())
    elif getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u", "f", "b", "c"):
        # a copy: what happens to the array is not our loss's
        vector = torch.from_numpy(native(value.__array__()).copy())  # type: ignore[attr-defined]
    else:
        raise TypeError(
            f"{name} must be a tensor, an array or a sequence with one number per class, got "
            f"{value!r} of type {type(value).__name__}."
        )
    if vector.dtype == torch.bool or vector.is_complex():
        raise TypeError(f"{name} must hold real numbers, one per class, got {vector.dtype}.")
    if vector.ndim != 1 or vector.numel() == 0:
        raise ValueError(
            f"{name} must have shape (C,), one number per class, got {tuple(vector.shape)}."
        )
    if not vector.is_floating_point():
        vector = vector.to(widest(vector))
    if can_look(vector):
        bad = ~(torch.isfinite(vector) & (vector >= 0))
        if bool(bad.any()):
            raise ValueError(
                f"{name} must be finite and not negative, got {vector.tolist()}; lossatlas.losses."
                "weights gives finite weights for absent classes too."
            )
    return vector


def native(array: Any) -> Any:
    """Return a NumPy array in a dtype that torch has: of this machine's byte order, no wider than float64."""
    kind = array.dtype.kind
    if kind in "fiu" and (not array.dtype.isnative or (kind == "f" and array.dtype.itemsize > 8)):
        return array.astype(f"{kind}{min(array.dtype.itemsize, 8)}")
    return array


def _holding_values() -> str | None:
    """Return the device of class numbers: the default one, but not "meta", where they would be lost."""
    # Before torch 2.8 `get_default_device` does not see `with torch.device("meta")`.
    return "cpu" if torch.empty(0).is_meta else None


def can_look(vector: Tensor) -> bool:
    """Whether looking at values is free: on the CPU, outside of a trace."""
    return vector.device.type == "cpu" and not traced(vector)


def class_weights(name: str, value: object) -> Tensor | None:
    """Return per-class factors of a loss: those of `class_vector`, and such as float32 holds.

    float32 is what they are used in, unless the logits are float64.
    """
    vector = class_vector(name, value)
    if vector is not None and vector.dtype == torch.float64 and can_look(vector):
        single = vector.float()
        if bool((single.isinf() | ((single == 0) & (vector > 0))).any()):
            raise ValueError(
                f"{name} must be numbers that float32 holds, 0 or from 1e-45 to 3e38, got {vector.tolist()}; "
                "only ratios matter to a mean: divide them by the largest."
            )
    return vector


def widest(vector: Tensor) -> torch.dtype:
    """The floating dtype with the most digits that the tensor's device has."""
    return torch.float32 if vector.device.type == "mps" else torch.float64


def is_floating(value: object) -> bool:
    """Whether `value` brings a floating dtype of its own: a tensor or an array of floats."""
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return getattr(getattr(value, "dtype", None), "kind", "") == "f" and bool(
        getattr(value, "ndim", 0)
    )


def vector_length(name: str, vector: Tensor, lengths: tuple[int, ...], mode: str) -> None:
    """Check a per-class vector against the number of channels of this call."""
    if vector.shape[0] not in lengths:
        expected = " or ".join(str(n) for n in lengths)
        extra = " (foreground) or (background, foreground)" if mode == "binary" else ""
        raise ValueError(
            f"{name} must have {expected} entries{extra} for mode={mode!r} and these logits, "
            f"got {vector.shape[0]}; give one number per class."
        )


def class_list(classes: object) -> str | tuple[int, ...] | None:
    """Return `classes` as None, "present", "all" or a tuple of distinct class indices."""
    if classes is None or (isinstance(classes, str) and classes in ("present", "all")):
        return classes
    one = isinstance(classes, str) or getattr(classes, "ndim", 1) == 0
    if one or not isinstance(classes, Iterable):
        raise ValueError(
            f'classes must be "present", "all" or a list of class indices, got {classes!r}.'
        )
    indices = tuple(integer("a class index in classes", c, low=0) for c in classes)
    if not indices or len(set(indices)) != len(indices):
        raise ValueError(f"classes must list at least one class and none twice, got {indices}.")
    return indices


def traced(tensor: Tensor) -> bool:
    """Whether values cannot be looked at: compiling, exporting, or a tensor that holds none."""
    return (
        torch.compiler.is_compiling()
        or tensor.device.type == "meta"
        or type(tensor).__torch_dispatch__
        is not Tensor.__torch_dispatch__  # a tensor without values of its own
        or is_functorch(tensor)
    )


def is_functorch(tensor: Tensor) -> bool:
    """Whether `tensor` is inside a torch.func transform (vmap, grad, jvp ...)."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))  # type: ignore[attr-defined,unused-ignore]


def in_functorch() -> bool:
    """Whether a torch.func transform is active, whatever it maps: none takes an ``autograd.Function`` of ours."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined,unused-ignore]


def is_batched(tensor: Tensor) -> bool:
    """Whether `tensor` stands for many: inside torch.func, or handed over by ``is_grads_batched``."""
    legacy = torch._C._functorch.is_legacy_batchedtensor(tensor)  # type: ignore[attr-defined,unused-ignore]
    return is_functorch(tensor) or bool(legacy)


def numbers(name: str, value: object) -> None:
    """Refuse a tensor without numbers to look at: on the meta device, or not stored entry by entry."""
    if not isinstance(value, Tensor):
        return
    if value.is_meta:
        raise ValueError(
            f"{name} must hold numbers, got a tensor on the meta device, which has none; "
            'give plain numbers, or make the tensor with device="cpu".'
        )
    dense(name, value)


def dense(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is not stored entry by entry: sparse, nested, or in a layout of MKL-DNN."""
    if tensor.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested one; pad it with "
            "torch.nested.to_padded_tensor, and the target with its ignore_index."
        )
    if tensor.layout is not torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor, got one of layout {tensor.layout}; pass {name}.to_dense()."
        )


def logits(logits: object, mode: str, target: object = None) -> None:
    """Check the logits' type, dtype and shape for `mode`; a message looks at the target's shape, too."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits must be a tensor, got {type(logits).__name__}{_tensor_of(logits, 'output')}."
        )
    dense("logits", logits)
    if logits.dtype not in _FLOATS:
        raise TypeError(
            f"logits must be floating point, of dtype {_listed(_FLOATS)}, got {logits.dtype}; pass "
            "the model's raw scores (of another floating dtype: logits.float())."
        )
    if logits.ndim < 2:
        raise ValueError(
            f"logits must have shape (N, C, *spatial), got {tuple(logits.shape)}; "
            "add the missing batch or channel dimension with unsqueeze."
        )
    channels = logits.shape[1]
    if mode == "multiclass" and channels < 2:
        raise ValueError(
            f'mode="multiclass" needs at least 2 channels, got C={channels} from logits of shape '
            f'{tuple(logits.shape)}; for a single foreground channel use mode="binary".'
        )
    if mode == "binary" and channels != 1:
        # In the error alone: a comparison of sizes would fix them in a trace.
        same = isinstance(target, Tensor) and target.shape == logits.shape
        one = logits.ndim == 2  # an image (H, W)
        moved = "logits[None, None] and target[None]" if one else "logits.unsqueeze(1)"
        raise ValueError(
            f'mode="binary" needs exactly 1 channel, got C={channels} from logits of shape '
            f"{tuple(logits.shape)}; "
            + (f"if the channel axis was squeezed away, pass {moved}; else " if same else "")
            + 'use mode="multiclass" (exclusive classes) or mode="multilabel" (a sigmoid per channel).'
        )
    if channels < 1:
        raise ValueError(f"logits must have at least 1 channel, got {tuple(logits.shape)}.")


def target(target: object, logits: Tensor, mode: str) -> bool:
    """Check the target's type, dtype and shape against the logits; return whether it is soft."""
    if not isinstance(target, Tensor):
        raise TypeError(
            f"target must be a tensor, got {type(target).__name__}{_tensor_of(target, 'target')}."
        )
    dense("target", target)
    if target.dtype not in (*_INTEGERS, *_FLOATS, torch.bool):
        raise TypeError(
            f"target must have dtype bool, {_listed((*_INTEGERS, *_FLOATS))}, got {target.dtype}; "
            "use target.long() for class indices, target.float() for probabilities."
        )
    if target.device != logits.device:
        raise ValueError(
            f"target must be on the logits' device {logits.device}, got {target.device}; "
            "move it with target.to(logits.device)."
        )
    shape, full = tuple(target.shape), tuple(logits.shape)
    hard = (full[0], *full[2:])
    if mode == "multiclass":
        if target.is_floating_point():
            if len(shape) != len(full) or shape != full:
                fitting = _reshape(shape, full)
                raise ValueError(
                    f"a floating target holds class probabilities and must have the logits' shape "
                    f"{full}, got {shape}; "
                    + (
                        f"pass target{fitting}."
                        if fitting
                        else f"for class indices use an integer target of shape {hard}: "
                        + _as_indices(target, _reshape(shape, hard), full[1])
                    )
                )
            return True
        # What would fit is asked in an error alone: comparing sizes with channels would fix them in a trace.
        if target.dtype == torch.bool:
            fitting = _as_target(shape, full, hard)
            raise TypeError(
                'mode="multiclass" needs integer class indices or floating probabilities, '
                f"got torch.bool of shape {shape}; use target{fitting or '.long()'}."
            )
        if shape != hard:
            fitting = _as_target(shape, full, hard)
            one_hot = "one-hot labels are a floating target: " if ".float" in fitting else ""
            raise ValueError(
                f"an integer target holds class indices and must have shape {hard} for logits of "
                f"shape {full}, got {shape}; "
                + (
                    f"{one_hot}pass target{fitting}."
                    if fitting
                    else _sizes_differ(shape, full, hard)
                )
            )
        return False
    expected = (full, hard) if mode == "binary" else (full,)
    if not any(len(shape) == len(goal) and shape == goal for goal in expected):
        allowed = " or ".join(str(s) for s in expected)
        fitting = _reshape(shape, *expected)
        raise ValueError(
            f"mode={mode!r} needs a target of shape {allowed} for logits of shape {full}, "
            f"got {shape}" + (f"; pass target{fitting}." if fitting else ".")
        )
    return target.is_floating_point()


def _tensor_of(value: object, name: str) -> str:
    """Return how to get the tensor out of what came under a `name`, as the end of an error message."""
    if hasattr(value, "logits"):
        return "; pass its .logits"
    if isinstance(value, Mapping):
        names = [key for key, each in value.items() if isinstance(each, Tensor)]
        first = f", e.g. {name}[{json.dumps(names[0], default=repr)}]" if names else ""
        return f"; pass the tensor in it, one of {list(value)}{first}"
    if hasattr(value, "__array__"):
        return "; pass torch.from_numpy(array)"
    if isinstance(value, (tuple, list)):
        return "; pass one tensor, for several outputs add their losses"
    return ""


def _as_target(shape: tuple[int, ...], full: tuple[int, ...], hard: tuple[int, ...]) -> str:
    """Return the call that makes probabilities of one-hot labels, or class indices; nothing where none does."""
    for goal, dtype in ((full, ".float()"), (hard, ".long()")):
        moved = _reshape(shape, goal)
        if moved or shape == goal:
            return moved + dtype
    return ""


def _as_indices(target: Tensor, moved: str, channels: int) -> str:
    """Return the call that makes class indices of a floating target, with a word on those that ToTensor scaled."""
    fractions = can_look(target) and bool((target != target.round()).any())
    labels = (target * 255).round()
    whole = fractions and torch.allclose(target * 255, labels, rtol=0, atol=1e-3)
    if whole and bool(labels.max() < channels):
        return f"these look divided by 255 (ToTensor): (target * 255).round(){moved}.long()."
    return f"target{moved}.long()."


def _sizes_differ(shape: tuple[int, ...], full: tuple[int, ...], hard: tuple[int, ...]) -> str:
    """Return the end of a message on a shape that no axis moved or dropped brings to that of class indices."""
    differ = "batch or image size differ: resize the target by the nearest pixel, or interpolate the logits"
    if shape == full[:-1]:
        return f"{differ}; if the logits' last axis is that of the classes, pass logits.movedim(-1, 1)."
    if shape == full[1:] and len(full) == 3:  # with more axes the first may be that of the images
        return "if this is one image, pass logits[None] and target[None]."
    if len(hard) == 1 and math.prod(shape) == hard[0]:
        return "for logits of flattened pixels pass target.flatten()."
    if len(shape) < len(hard):
        return "is the batch axis missing? Add it with unsqueeze(0)."
    if len(shape) == len(hard):
        return f"{differ}."
    return "for one-hot or soft labels pass a floating target of the logits' shape."


def _listed(dtypes: Iterable[torch.dtype]) -> str:
    """Names of dtypes in a sentence."""
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    return ", ".join(names[:-1]) + " or " + names[-1]


def _reshape(shape: tuple[int, ...], *wanted: tuple[int, ...]) -> str:
    """Return the call that brings a target to a `wanted` shape, or nothing where none does."""
    for goal in wanted if shape not in wanted else ():
        for axis in range(1, len(shape)):
            if shape[axis] == 1 and shape[:axis] + shape[axis + 1 :] == goal:
                return f".squeeze({axis})"
        if goal[1:2] == (1,) and (goal[0], *goal[2:]) == shape:
            return ".unsqueeze(1)"
        if len(shape) > 2 and (shape[0], shape[-1], *shape[1:-1]) == goal:
            return ".movedim(-1, 1)"
    return ""


def void_label(target: Tensor, ignore_index: int | None) -> int | None:
    """`ignore_index`, or None where the target's dtype cannot hold it: a comparison would wrap."""
    if ignore_index is None or target.dtype == torch.bool:
        return ignore_index
    floating = target.is_floating_point()
    limits = torch.finfo(target.dtype) if floating else torch.iinfo(target.dtype)
    return ignore_index if limits.min <= ignore_index <= limits.max else None


def values(
    target: Tensor,
    *,
    soft: bool,
    mode: str,
    channels: int,
    ignore_index: int | None,
    valid: Tensor | None = None,
) -> None:
    """Check that labels are classes, and probabilities within [0, 1], ignored ones apart.

    `valid` is where the target is not ignored, as bools of its shape, where that is known already.
    A probability may pass an end by what rounding does: a mask resized bilinearly reaches 1.0000002.
    No host synchronisation on an accelerator: there, the check is an assertion on the device.
    """
    if target.dtype == torch.bool or target.device.type == "meta":
        return
    high = 1 if soft or mode != "multiclass" else channels - 1
    slack = max(1e-5, 4 * torch.finfo(target.dtype).eps) if soft else 0
    # A class that the target's dtype cannot hold would wrap in a comparison, and none can be above it.
    end = high + slack if soft else min(high, torch.iinfo(target.dtype).max)
    if not torch.compiler.is_compiling() and is_functorch(target):
        return  # under vmap there is no single value to look at
    if traced(target) or target.device.type != "cpu":
        inside = (target >= -slack) & (target <= end)
        if ignore_index is not None:
            inside = inside | _void(target, soft, mode, ignore_index)
        torch._assert_async(inside.all(), _value_message(soft, high, ignore_index))
        return
    if target.numel() == 0:
        return
    seen = target.detach()
    low_seen, high_seen = (v.item() for v in torch.aminmax(seen))
    fine = low_seen >= -slack and high_seen <= high + slack
    if not fine and valid is not None:
        low_seen, high_seen = _valid.ends(seen, valid)
        fine = low_seen >= -slack and high_seen <= high + slack
    if not fine:
        stray = ~((target >= -slack) & (target <= end))
        if ignore_index is not None:
            stray &= ~_void(target, soft, mode, ignore_index)
        if bool(stray.any()):
            found = target.detach()[stray].unique()[:5].tolist()
            # In a mask whose every stray value is 255 and that holds no 1, 255 is the foreground.
            scaled = high == 1 and found == [255] and not bool((target == 1).any())
            message = _value_message(soft, high, ignore_index, scaled)
            raise ValueError(
                f"{message} Got {found} in {int(stray.sum())} of {target.numel()} entries."
            )
    if soft and mode == "multiclass":
        _check_shares(target.detach(), ignore_index)


def _check_shares(target: Tensor, ignore_index: int | None) -> None:
    """Check that no pixel's probabilities of exclusive classes sum to clearly more than 1."""
    over = target.sum(1, dtype=torch.promote_types(target.dtype, torch.float32)) > _MOST
    if ignore_index is not None and bool(over.any()):
        over &= (target != ignore_index).any(1)
    if bool(over.any()):
        found = target.sum(1)[over][:5].tolist()
        raise ValueError(
            "a soft target of exclusive classes must sum to at most 1 over the classes, got sums of "
            f"{found} in {int(over.sum())} of {over.numel()} pixels; for classes that do not exclude each other use "
            'mode="multilabel", else divide by target.sum(1, keepdim=True).'
        )


def _void(target: Tensor, soft: bool, mode: str, ignore_index: int) -> Tensor:
    """Entries that are left out; a soft pixel of exclusive classes is void in every class or in none."""
    void = target == ignore_index
    return void.all(1, keepdim=True) if soft and mode == "multiclass" else void


def _value_message(soft: bool, high: int, ignore_index: int | None, scaled: bool = False) -> str:
    kind = "probabilities in [0, 1]" if soft else f"integer labels from 0 to {high}"
    if scaled:
        remedy = (
            f"the mask looks scaled by 255: pass {'target / 255' if soft else '(target > 127).long()'}"
            " (only if 255 marks void pixels, and not the foreground: ignore_index=255)."
        )
    elif soft:
        void = "pass ignore_index for void" if ignore_index is None else f"{ignore_index} is void"
        remedy = (
            "scale them (an 8-bit mask: target / 255), replace NaN, pass integers for class labels; "
            f"{void}."
        )
    elif ignore_index is None:
        remedy = "map stray labels to a class, or pass ignore_index for the void label."
    else:
        remedy = f"map stray labels to a class or to ignore_index={ignore_index}."
    return f"target must hold {kind}; {remedy}"
