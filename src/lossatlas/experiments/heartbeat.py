"""How far the runs are: each training writes a small file, whoever watches reads them all.

A training runs in a notebook's kernel or a job of the cluster, behind papermill and Snakemake; a file is the one
channel that passes all of them. ``runs_dir/.progress/`` has a file for each run under way, ``runs_dir/.failed/`` one
for each run whose last attempt raised.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lossatlas.basics import replacing

#: Seconds after which a training on another machine that has said nothing is taken for dead.
_SILENT_S = 300.0


class Heartbeat:
    """Writes ``runs_dir/.progress/<run_id>.json`` at most every half second, and removes it at the end."""

    def __init__(self, runs_dir: str | Path, run_id: str, label: str, steps: int) -> None:
        self._path = Path(runs_dir) / ".progress" / f"{run_id}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fixed = {
            "run_id": run_id,
            "label": label,
            "steps": steps,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        self._due = 0.0

    def beat(self, step: int, loss: float) -> None:
        """Say that ``step`` of the run's steps is done and what the loss was."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + 0.5
        with suppress(OSError):  # a word that is lost costs nothing, the training does
            _write(self._path, {**self._fixed, "step": step, "loss": loss})

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def beats(runs_dir: str | Path) -> list[dict[str, Any]]:
    """What the trainings that are under way last said; files of dead processes are passed over."""
    return [beat for beat, alive in _last_words(runs_dir) if alive]


def broken_off(runs_dir: str | Path) -> set[str]:
    """Ids of the runs whose process ended without a word: killed, or out of memory."""
    return {beat["run_id"] for beat, alive in _last_words(runs_dir) if not alive}


def _last_words(runs_dir: str | Path) -> Iterator[tuple[dict[str, Any], bool]]:
    """What each training last said, and whether it is there still."""
    for path in sorted(Path(runs_dir).glob(".progress/*.json")):
        with suppress(OSError, json.JSONDecodeError):
            beat = json.loads(path.read_text())
            yield beat, _alive(beat, path)


def _alive(beat: dict[str, Any], path: Path) -> bool:
    """Whether the process is there; of another machine's only the age of its last word is known."""
    if beat.get("host", socket.gethostname()) != socket.gethostname():
        return time.time() - path.stat().st_mtime < _SILENT_S
    try:
        process = psutil.Process(beat["pid"])
        # a number is given again: a process that began after the last word is another one
        same = process.create_time() <= path.stat().st_mtime + 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def note_failure(runs_dir: str | Path, run_id: str, label: str, error: BaseException) -> None:
    """Keep why a run's training raised, until the run succeeds; a full disk, which may be why, keeps nothing."""
    path = Path(runs_dir) / ".failed" / f"{run_id}.json"
    content = {
        "run_id": run_id,
        "label": label,
        "error": one_line(error),
        "traceback": "".join(traceback.format_exception(error)),
        "host": socket.gethostname(),
        "failed_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)


def forget_failure(runs_dir: str | Path, run_id: str) -> None:
    """The run has succeeded, or is to be tried as if it never had failed."""
    (Path(runs_dir) / ".failed" / f"{run_id}.json").unlink(missing_ok=True)
    (Path(runs_dir) / ".again" / run_id).unlink(missing_ok=True)


def failures(runs_dir: str | Path) -> dict[str, dict[str, Any]]:
    """The noted failures by run id."""
    found = {}
    for path in sorted(Path(runs_dir).glob(".failed/*.json")):
        with suppress(OSError, json.JSONDecodeError):
            found[path.stem] = json.loads(path.read_text())
    return found


def try_again(runs_dir: str | Path, run_id: str) -> None:
    """The run is to be trained again, although committed records hold it, until :func:`forget_failure`."""
    path = Path(runs_dir) / ".again" / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def tried_again(runs_dir: str | Path) -> set[str]:
    """The ids of the runs for which records do not count."""
    return {path.name for path in Path(runs_dir).glob(".again/*")}


def one_line(error: BaseException) -> str:
    """``ValueError: the first line of its message``."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content))
