"""How far the runs are: each training writes a small file, whoever watches reads them all.

A training runs in a notebook's kernel, behind papermill and Snakemake; a file is the one channel that passes
all three.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class Heartbeat:
    """Writes ``runs_dir/.progress/<run_id>.json`` at most every half second, and removes it at the end."""

    def __init__(self, runs_dir: str | Path, run_id: str, label: str, steps: int) -> None:
        self._path = Path(runs_dir) / ".progress" / f"{run_id}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fixed = {"run_id": run_id, "label": label, "steps": steps, "pid": os.getpid()}
        self._due = 0.0

    def beat(self, step: int, loss: float) -> None:
        """Say that ``step`` of the run's steps is done and what the loss was."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + 0.5
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**self._fixed, "step": step, "loss": loss}))
        temporary.replace(self._path)

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def beats(runs_dir: str | Path) -> Iterator[dict[str, Any]]:
    """What the trainings that are under way last said; files of dead processes are passed over."""
    for path in sorted(Path(runs_dir).glob(".progress/*.json")):
        with suppress(OSError, json.JSONDecodeError):
            beat = json.loads(path.read_text())
            if _alive(beat["pid"]):
                yield beat


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
