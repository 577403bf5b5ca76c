"""Settings for every test: one thread, so that timings and sums do not depend on the machine; the long files first."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Minutes of waiting for kernels, jobs and nodes: begun last, they would keep one worker after the others have ended.
LONG = ("tests/workflow/test_slurm", "tests/workflow/", "tests/notebooks/")


def pytest_collection_modifyitems(items):
    """Begin with the long files, otherwise in the order in which the tests were found."""
    items.sort(
        key=lambda item: next(
            (place for place, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)
        )
    )
