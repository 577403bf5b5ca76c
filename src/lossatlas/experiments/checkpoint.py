"""Checkpoints of a run under way: ``runs_dir/.<run_id>.partial/``, gone when the run is complete.

A checkpoint is written beside the last one under another name, flushed to the disk, and renamed; the last two are
kept, each behind the SHA-256 of its content. So whatever moment a process dies at, also in the middle of a write
or with a disk that lost its cache, the newest whole checkpoint is found, and the run goes on from it to the same
bits as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lossatlas.basics import replacing
from lossatlas.experiments.record import flush_folder

#: How many checkpoints are kept.
GENERATIONS = 2
_PREFIX, _SUFFIX = "state-", ".ckpt"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are; made with the first.
        identity: what must be the same for a checkpoint to be gone on from (code, data, device): another one
            is passed over, since the run would be neither the one nor the other.
        every_s: seconds between two checkpoints; at an evaluation a tenth of them is enough.

    Attributes:
        elapsed_s: what the run had taken when the checkpoint that was loaded was written; 0 without one.
        resumed: how often the run went on from a checkpoint.
        refused: why the newest checkpoint was passed over, or None.
    """

    def __init__(
        self, folder: str | Path, identity: Mapping[str, Any], every_s: float = 60.0
    ) -> None:
        self.folder = Path(folder)
        self.identity = dict(identity)
        self.every_s = every_s
        self.elapsed_s = 0.0
        self.resumed = 0
        self._began = self._last = time.monotonic()
        self.refused: str | None = None

    def due(self, *, evaluated: bool) -> bool:
        """Whether the time has come; ``evaluated`` says that this step ended with an evaluation."""
        return time.monotonic() - self._last >= self.every_s * (0.1 if evaluated else 1.0)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after ``step``; it holds tensors, numbers, texts, lists and dictionaries."""
        content = io.BytesIO()
        saved = {
            "identity": self.identity,
            "step": step,
            "elapsed_s": self.elapsed_s + time.monotonic() - self._began,
            "state": dict(state),
        }
        torch.save(saved, content)
        payload = content.getbuffer()
        path = self.folder / f"{_PREFIX}{step:09d}{_SUFFIX}"
        self._write(path, hashlib.sha256(payload).digest(), payload)
        for old in self._newest_first()[GENERATIONS:]:
            old.unlink(missing_ok=True)
        self._last = time.monotonic()
        return path

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The step and the state (on the CPU) of the newest checkpoint that is whole; None where there is none.

        Broken files are passed over. Counts the run as resumed.
        """
        for path in self._newest_first():
            saved = _read(path)
            if saved is None:
                continue
            if saved["identity"] != self.identity:
                different = [
                    key
                    for key in {*saved["identity"], *self.identity}
                    if saved["identity"].get(key) != self.identity.get(key)
                ]
                self.refused = (
                    f"a checkpoint of other {' and '.join(sorted(different))} is passed over"
                )
                return None
            self.resumed, self.elapsed_s = self._count(), float(saved["elapsed_s"])
            return int(saved["step"]), saved["state"]
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True)

    def _count(self) -> int:
        path = self.folder / "resumed.json"
        before = 0
        with suppress(OSError, ValueError, TypeError):
            before = int(json.loads(path.read_text()))
        self._write(path, json.dumps(before + 1).encode())
        return before + 1

    def _write(self, path: Path, *parts: Any) -> None:
        """``parts`` under the name ``path``, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        flush_folder(self.folder)


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content, or None if the file is gone or not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    saved: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return saved
