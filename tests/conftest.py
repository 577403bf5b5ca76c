"""Settings for every test: one thread, the longest files first, and the extended tests only when asked for."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

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


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """``script("benchmarks/look.py")``: a file that no package holds, as a new module.

    It is known by its name, to which dataclasses and the processes that it starts go back.
    """

    def load(path: str) -> ModuleType:
        name = path.removesuffix(".py").replace("/", "_")
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def fork_server():
    """Starts processes in which torch is loaded: the seconds of its import are paid once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lossatlas.experiments.training", "segmentation_models_pytorch"]
    )
    return context


@pytest.fixture(scope="session")
def side_by_side(fork_server):
    """``side_by_side(function, [arguments, …])``: a process each, at the same time; all must end with status 0."""

    def run(function, arguments):
        running = [fork_server.Process(target=function, args=each) for each in arguments]
        try:
            for process in running:
                process.start()
            for process in running:
                process.join(240)
            assert [process.exitcode for process in running] == [0] * len(running)
        finally:
            for process in running:
                process.kill()

    return run


@pytest.fixture(scope="session")
def free_port():
    """``free_port()``: a port of this machine that nobody listens on."""

    def find():
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            return listening.getsockname()[1]

    return find
