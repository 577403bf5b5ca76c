"""A small checkout with a study, and a look at the trainings that are under way in it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

from lossatlas import workflow
from lossatlas.experiments.heartbeat import beats
from lossatlas.experiments.jobs import all_jobs, marker_path, train_job

ROOT = Path(__file__).resolve().parents[2]

SMALL = {"image_size": 16, "objects": 1, "train_size": 8, "val_size": 4, "test_size": 4}
#: As little as a study can be: two runs of two steps on 16×16 pixels.
STUDY = {
    "study": "tiny",
    "question": "does the workflow run?",
    "datasets": [{"name": "digits", "params": SMALL}],
    "models": [{"name": "unet", "params": {"width": 4, "depth": 2}}],
    "losses": ["ce", "dice"],
    "seeds": [0],
    "training": {"steps": 2, "batch_size": 4, "evaluations": 1},
}


def checkout(folder, **changes):
    """The parts of a checkout that the workflow reads, with room for its own runs and results.

    Args:
        folder: where it goes.
        changes: keys of the study's file that differ from ``STUDY``.

    Returns:
        the path of the study's file.
    """
    for name in ("notebooks", "studies", "workflow"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    study = STUDY | changes
    path = folder / f"{study['study']}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def start(folder, *arguments, env=None):
    """A ``lossatlas`` of its own, which signals can be sent to; its output is one pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "lossatlas.cli", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process):
    """Whatever of it still runs after a failure: asked first, so that it takes its trainings with it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(180)
        process.kill()


def wait_for(condition, process, seconds=1200):
    """What ``condition`` finds at last, while ``process`` lives."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        assert process.poll() is None, f"ended with {process.returncode}: {process.stdout.read()}"
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def under_way(runs_dir, seed, after=0):
    """The training of ``seed`` that has passed step ``after``."""
    found = [
        b for b in beats(runs_dir) if b["label"].endswith(f"seed {seed}") and b["step"] > after
    ]
    return found[0] if found else None


def in_this_process(monkeypatch):
    """Let ``lossatlas run`` train here what Snakemake would train in processes, which take ten seconds each to start.

    As in the Snakefile, a job whose marker is there is done, and the rates are chosen between the two stages.
    """

    def trained(command, log, study, runs_dir, results_dir):
        for stage in ("tuning",) if "target=rates" in command else ("tuning", "report"):
            for job in all_jobs(study, runs_dir, results_dir).values():
                marker = marker_path(study, job, runs_dir)
                if job.stage == stage and not marker.exists():
                    train_job(study, job.name, runs_dir=runs_dir, results_dir=results_dir)
                    marker.parent.mkdir(parents=True, exist_ok=True)
                    marker.touch()
            if study.tuning is not None and stage == "tuning":
                workflow.select_rates(study, runs_dir, results_dir)
        return 0

    monkeypatch.setattr(workflow, "_watched", trained)
