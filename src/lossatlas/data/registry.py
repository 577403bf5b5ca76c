"""Data sets by name."""

from __future__ import annotations

import inspect
from typing import Any

from lossatlas.basics import near_matches
from lossatlas.data import checks
from lossatlas.data.camvid import CamVid
from lossatlas.data.dataset import SPLITS, SegmentationDataset
from lossatlas.data.digits import Digits
from lossatlas.data.errors import DataError
from lossatlas.data.folder import FolderDataset
from lossatlas.data.published import ChaseDB1, CrackForest, KolektorSDD, VncSstem

_CLASSES: tuple[Any, ...] = (
    Digits,
    CamVid,
    ChaseDB1,
    CrackForest,
    KolektorSDD,
    VncSstem,
    FolderDataset,
)

SOURCES: dict[str, Any] = {cls.name: cls() for cls in _CLASSES}
"""Every data set by name; a further one is a class in this list."""


def names() -> list[str]:
    """Names of all data sets."""
    return list(SOURCES)


def source(name: str) -> Any:
    """The object behind a data set's name: its facts and its loader.

    Raises:
        DataError: an unknown name, with the near matches.
    """
    if name not in SOURCES:
        raise DataError(
            f"data set: expected a known name, got {name!r}; {near_matches(name, SOURCES)}"
        )
    return SOURCES[name]


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Keyword parameters that ``load(name, split, …)`` takes, with defaults and types."""
    result: dict[str, inspect.Parameter] = source(name).parameters()
    return result


def is_available(name: str, **params: Any) -> bool:
    """Whether the data are at hand (digits: always); opens no image.

    Raises:
        DataError: an unknown name or parameter.
    """
    checks.known_parameters(name, params, parameters(name))
    return bool(source(name).is_available(**params))


def _check(name: str, split: str, params: dict[str, Any]) -> None:
    checks.known_parameters(name, params, parameters(name))
    checks.choice("split", split, SPLITS)


def load(name: str, split: str, **params: Any) -> SegmentationDataset:
    """Load a split ("train", "val" or "test") of a data set.

    Raises:
        DataError: an unknown name, split or parameter, or anything wrong with the data.
    """
    _check(name, split, params)
    dataset: SegmentationDataset = source(name).load(split, **params)
    return dataset


def load_labels(name: str, split: str, **params: Any) -> SegmentationDataset:
    """Like :func:`load` for the labels alone (``images`` is then an error): fast statistics."""
    _check(name, split, params)
    dataset: SegmentationDataset = source(name).load_labels(split, **params)
    return dataset
