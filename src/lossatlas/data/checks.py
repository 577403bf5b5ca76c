"""Checks of a loader's parameters, each one line: expected, got, what to do."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lossatlas.basics import near_matches
from lossatlas.data.errors import DataError

#: Characters of a folder's name that a message repeats: one that is too long fills the screen.
_SHOWN = 80


def known_parameters(
    name: str, given: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse a parameter that the data set does not take."""
    for parameter in given:
        if parameter not in known:
            raise DataError(
                f"{name}: expected a parameter it takes, got {parameter!r}; "
                f"{near_matches(parameter, known)}"
            )


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keyword-only parameters of a function, annotations as the types they name."""
    signature = inspect.signature(function, eval_str=True)
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer within [low, high]."""
    bounds = f"at least {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{name}: expected an integer {bounds}, got {value!r}")
    if value < low or (high is not None and value > high):
        raise DataError(f"{name}: expected an integer {bounds}, got {value}")
    return value


def optional_integer(name: str, value: Any, low: int, high: int | None = None) -> int | None:
    """Return None or an integer within [low, high]."""
    return None if value is None else integer(name, value, low, high)


def number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return a finite number within the interval; ``open_*`` excludes an end."""
    left = "(" if open_low else "["
    right = ")" if open_high or math.isinf(high) else "]"
    interval = f"{left}{low:g}, {'∞' if math.isinf(high) else f'{high:g}'}{right}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name}: expected a number in {interval}, got {value!r}")
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if below or above:
        raise DataError(f"{name}: expected a number in {interval}, got {value:g}")
    return float(value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """Return one of the options."""
    known = list(options)
    if value not in known:
        raise DataError(
            f"{name}: expected one of {', '.join(known)}, got {value!r}; "
            f"{near_matches(value, known)}"
        )
    return str(value)


def boolean(name: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise DataError(f"{name}: expected True or False, got {value!r}")
    return value


def folder(name: str, value: Any) -> Path:
    """Return a folder's path, the user's home written out.

    Empty text is refused: it would mean the working directory, which "." says.
    """
    if not isinstance(value, str | os.PathLike):
        raise DataError(f"{name}: expected text, got {value!r}; quote it")
    if not str(value).strip():
        raise DataError(f"{name}: expected a folder, got {value!r}; name it, or write '.'")
    path = Path(os.path.expanduser(value))  # as it is where nobody has that home
    try:
        path.exists()
    except OSError as error:
        shown = str(value)[:_SHOWN]
        raise DataError(
            f"{name}: expected a folder, got {shown!r} ({error.strerror}); correct it"
        ) from None
    return path
