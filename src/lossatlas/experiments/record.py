"""The run folder: all that one run is, there whole or not at all.

``run.json``          configuration, checksums, versions, hardware, commit, times, memory, final metrics
``curves.parquet``    per step: loss, gradient norm, learning rate; where measured: the foreground's share of the
                      gradient at the logits, validation metrics
``per_image.parquet`` true positives, false positives and false negatives of every decision rule, test image, class
``predictions.npz``   predicted classes of the test images, uint8
``pixels.parquet``    logits of a sample of the test pixels, where the run measures them
``last.ckpt``         the model after the last step
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.experiments.config import ConfigError, RunConfig

SCHEMA = 2
#: What every run leaves; a folder that has lost one of them is not a run any more.
_FILES = ("run.json", "curves.parquet", "per_image.parquet", "predictions.npz", "last.ckpt")
#: Columns of ``curves.parquet``.
CURVES = (
    *("step", "epoch", "loss_value", "grad_norm", "lr"),
    *("foreground_share", "foreground_pixels", "easy_negative_share"),
    *("val_mean_dice", "val_mean_iou", "val_dice_tuned", "val_offset", "val_loss"),
)


class NoRunsError(FileNotFoundError):
    """Not one run of a study is there."""


def run_path(runs_dir: str | Path, config: RunConfig) -> Path:
    """Where the run of ``config`` is, or will be."""
    return Path(runs_dir) / config.run_id


def is_complete(runs_dir: str | Path, config: RunConfig) -> bool:
    """Whether the run is there, whole: it was renamed when complete, and has lost no file since."""
    folder = run_path(runs_dir, config)
    return all((folder / name).is_file() for name in _FILES)


def require_room(runs_dir: str | Path) -> None:
    """Refuse a folder that no run can be written to, before any work.

    Raises:
        ConfigError: it is a file, cannot be made, or the disk is full.
    """
    from lossatlas.data.errors import DataError, require_writable  # imports torch

    try:
        require_writable("runs_dir", runs_dir, "or name another runs_dir")
    except DataError as error:
        raise ConfigError(str(error)) from None


def require_same_data(
    runs_dir: str | Path, configs: Iterable[RunConfig], datasets: Mapping[str, Any]
) -> None:
    """Refuse data sets whose images or masks are not those that the finished runs among ``configs`` were made with.

    A run's name holds its configuration and not its data: a folder may have other masks by now.

    Raises:
        ConfigError: names the run and the splits that differ.
    """
    for config in configs:
        folder = run_path(runs_dir, config)
        used = read_run(folder).get("data_checksums", {}) if is_complete(runs_dir, config) else {}
        other = [
            name for name in datasets if used.get(name) and used[name] != datasets[name].checksum
        ]
        if other:
            raise ConfigError(
                f"{folder}: expected the {other[0]} split that the run was made with, got other images or masks "
                f"({', '.join(other)}): bring them back, delete the folder, or name another runs_dir"
            )


def partial_path(runs_dir: str | Path, config: RunConfig) -> Path:
    """Where a run under way keeps its checkpoints and what it writes; gone when the run is there."""
    return Path(runs_dir) / f".{config.run_id}.partial"


@contextmanager
def new_run_folder(runs_dir: str | Path, config: RunConfig) -> Iterator[Path]:
    """A temporary folder that takes the run's name when the block ends, and vanishes if it raises.

    What a process leaves that is killed here lies in :func:`partial_path`, and goes with it.
    If another process has finished the same run meanwhile, its folder stays and this one is dropped: equal
    configurations give equal results.
    """
    final = run_path(runs_dir, config)
    partial = partial_path(runs_dir, config)
    partial.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="record-", dir=partial))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        if not is_complete(runs_dir, config):
            flush_files(temporary)  # a name must never reach the disk before what it names
            shutil.rmtree(final, ignore_errors=True)  # no whole run
            os.replace(temporary, final)
            flush_folder(final.parent)
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            partial.rmdir()  # where no checkpoint is in it


def flush_folder(folder: Path) -> None:
    """Have the disk keep the names in ``folder``, where the system can be asked for it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_files(folder: Path) -> None:
    """Have the disk keep the files of ``folder``."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    flush_folder(folder)


def replace_folder(new: Path, final: Path) -> None:
    """Give ``new`` the name ``final``, in place of the folder that has it.

    A folder cannot be renamed onto one that has files. A process that is killed between the two steps leaves the old
    one as ``.<name>-old``, where :func:`restore_folder` finds it; whatever is raised there puts it back at once.
    """
    restore_folder(final)
    old = _old(final)
    flush_files(new)  # a name must never reach the disk before what it names
    if final.exists():
        os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        if old.exists():
            os.replace(old, final)
        raise
    flush_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(final: Path) -> None:
    """Undo a replacement that was cut short, and remove what one that was not has left."""
    old = _old(final)
    if old.exists() and not final.exists():
        os.replace(old, final)
    shutil.rmtree(old, ignore_errors=True)


def restore_runs(runs_dir: str | Path) -> None:
    """`restore_folder` for every run, and the end of what a killed process was writing.

    For the one process that replaces runs here (:func:`exclusive`).
    """
    folder = Path(runs_dir)
    for old in folder.glob(".*-old"):
        restore_folder(folder / old.name.removeprefix(".").removesuffix("-old"))
    for unfinished in folder.glob(f".*{_UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def undo_interrupted(runs_dir: str | Path) -> None:
    """`restore_runs`, if there is anything to restore and no process at work that leaves it so for a moment."""
    folder = Path(runs_dir)
    if any(folder.glob(".*-old")) or any(folder.glob(f".*{_UNFINISHED}*")):
        with suppress(ConfigError), exclusive(runs_dir):
            restore_runs(runs_dir)


def unfinished_folder(final: Path) -> Path:
    """An empty folder beside ``final``, which is written into before it takes that name."""
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}{_UNFINISHED}", dir=final.parent))
    folder.chmod(0o755)  # mkdtemp makes it private
    return folder


@contextmanager
def exclusive(runs_dir: str | Path) -> Iterator[None]:
    """Be the only process that replaces runs in ``runs_dir``; where another one is, say so at once.

    Raises:
        ConfigError: another process is at it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    Path(runs_dir).mkdir(parents=True, exist_ok=True)
    with (Path(runs_dir) / ".replacing").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{runs_dir}: expected to be the only process that evaluates its runs again, another one does: wait "
                "until it has ended"
            ) from None
        yield


_UNFINISHED = "-evaluated-"


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}-old")


def write_run(
    folder: Path,
    *,
    record: dict[str, Any],
    per_image: pd.DataFrame,
    predictions: np.ndarray,
    pixels: pd.DataFrame | None,
    curves: pd.DataFrame | None = None,
) -> None:
    """Write everything but the checkpoint into ``folder``, the curves where a training made them; ``run.json`` last."""
    if curves is not None:
        curves.to_parquet(folder / "curves.parquet", index=False)
    per_image.to_parquet(folder / "per_image.parquet", index=False)
    np.savez_compressed(folder / "predictions.npz", predictions=predictions)
    if pixels is not None:
        pixels.to_parquet(folder / "pixels.parquet", index=False)
    (folder / "run.json").write_text(json.dumps({"schema": SCHEMA, **record}, indent=1) + "\n")


def read_run(path: Path) -> dict[str, Any]:
    """The ``run.json`` of a run folder.

    Raises:
        FileNotFoundError: no run is there.
        ValueError: the folder was written by another version of the schema.
    """
    record = json.loads((path / "run.json").read_text())
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path / 'run.json'}: expected schema {SCHEMA}, got {record.get('schema')!r}: "
            "delete the folder and run it again"
        )
    return record
