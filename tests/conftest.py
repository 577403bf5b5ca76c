"""Settings for every test: one thread, the longest files first, and the extended tests only when asked for."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

#: The files that take longest, longest first: begun last, one of them would keep one worker after the other has ended.
LONG = (
    "tests/workflow/test_slurm",
    "tests/experiments/test_golden_runs",
    "tests/workflow/",
    "tests/notebooks/",
    "tests/losses/test_transforms",
    "tests/examples/",
    "tests/losses/test_oracles",
    "tests/book/test_miniature",
    "tests/data/test_reading",
    "tests/experiments/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, otherwise in the order in which the tests were found."""
    items.sort(
        key=lambda item: next(
            (place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)
        )
    )
    if not os.environ.get("LOSSATLAS_EXTENDED"):
        skip = pytest.mark.skip(reason="extended: runs once a week, with LOSSATLAS_EXTENDED=1")
        for item in items:
            if item.get_closest_marker("extended"):
                item.add_marker(skip)
