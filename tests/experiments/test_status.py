"""What a study asks for, how far it is, and what the rest costs."""

from __future__ import annotations

import json
import os
import socket

import pytest
from small import pretend, tiny

from lossatlas.experiments import RunConfig, status
from lossatlas.experiments.heartbeat import Heartbeat, beats, failures, note_failure
from lossatlas.experiments.record import run_path
from lossatlas.experiments.status import counts, estimate, needed, survey
from lossatlas.experiments.tuning import select, tuning_runs, write_selection

PLANNED = {
    "models": ["unet", {"name": "unet", "label": "wide", "params": {"width": 16}}],
    "seeds": [0, 1],
    "training": {"steps": 100},
    "runs_per_job": 4,
}
STUDY = tiny(**PLANNED)
TUNED = tiny(**PLANNED, tuning={"lr": [0.01, 0.1], "seeds": [7], "steps": 50, "widen": 0})


def config_of(study, loss, seed, model="unet"):
    wanted = [
        m for m in study.members("report") if (m.model, m.loss, m.seed) == (model, loss, seed)
    ]
    return study.config(wanted[0])


def test_every_run_is_in_the_state_that_its_files_tell(tmp_path):
    pretend(tmp_path, config_of(STUDY, "ce", 0))
    pretend(tmp_path, config_of(STUDY, "ce", 1), status="diverged at step 17")
    failed = config_of(STUDY, "dice", 0)
    note_failure(tmp_path, failed.run_id, "dice", ValueError("no such thing\nindeed"))
    with Heartbeat(tmp_path, config_of(STUDY, "dice", 1).run_id, "dice", 100) as heartbeat:
        heartbeat.beat(20, 0.5)
        runs = survey(STUDY, tmp_path)
    states = {(r.member.model, r.member.loss, r.member.seed): (r.state, r.reason) for r in runs}
    assert states["unet", "ce", 0] == ("done", "")
    assert states["unet", "ce", 1] == ("diverged", "diverged at step 17")
    assert states["unet", "dice", 0] == ("failed", "ValueError: no such thing")
    assert states["unet", "dice", 1] == ("under way", "step 20/100")
    assert states["wide", "ce", 0] == ("waiting", "")
    assert counts(runs) == {"done": 1, "diverged": 1, "under way": 1, "failed": 1, "waiting": 4}
    assert len(needed(runs)) == 6
    text = status.describe_status(STUDY, runs)
    assert "8 runs: 1 done, 1 diverged, 1 under way, 1 failed, 4 waiting" in text
    assert f"dice · seed 0: ValueError: no such thing (run {failed.run_id})" in text
    assert "lossatlas retry tiny --failed" in text


def test_reported_runs_wait_for_the_rates_of_their_loss(tmp_path):
    runs = survey(TUNED, tmp_path)
    assert counts(runs) == {"waiting": 8, "no rate yet": 8}
    for _, config in tuning_runs(TUNED):
        pretend(tmp_path, config)
    assert counts(survey(TUNED, tmp_path)) == {"done": 8, "no rate yet": 8}
    write_selection(TUNED, select(TUNED, tmp_path), tmp_path)
    assert counts(survey(TUNED, tmp_path)) == {"done": 8, "waiting": 8}


def test_a_run_whose_process_is_gone_is_said_to_be_broken_off(tmp_path):
    config = config_of(STUDY, "ce", 0)
    beat = {"run_id": config.run_id, "pid": 2**22 + 1, "host": socket.gethostname(), "step": 1}
    (tmp_path / ".progress").mkdir()
    path = tmp_path / ".progress" / f"{config.run_id}.json"
    path.write_text(json.dumps(beat))
    assert counts(survey(STUDY, tmp_path))["broken off"] == 1
    # the number may have been given to another process since
    path.write_text(json.dumps(beat | {"pid": os.getpid()}))
    os.utime(path, (0, 0))
    assert counts(survey(STUDY, tmp_path))["broken off"] == 1
    # of another machine's process only its silence is known
    path.write_text(json.dumps(beat | {"host": "elsewhere", "steps": 9, "label": "ce", "loss": 1}))
    assert counts(survey(STUDY, tmp_path))["under way"] == 1
    os.utime(path, (0, 0))
    assert counts(survey(STUDY, tmp_path))["broken off"] == 1
    assert beats(tmp_path) == []


def test_the_estimate_takes_each_loss_s_own_time_and_scales_it_by_the_steps(tmp_path):
    pretend(tmp_path, config_of(STUDY, "ce", 0), wall_s=10)
    pretend(tmp_path, config_of(STUDY, "dice", 0), wall_s=30)
    runs = survey(STUDY, tmp_path)
    cost = estimate(STUDY, runs, workers=1)
    # unet: one ce (10 s) and one dice (30 s) are left; wide has none of its own: 4 runs at the study's mean of 20 s
    assert cost.work_s == pytest.approx(10 + 30 + 4 * 20)
    assert cost.wall_s == pytest.approx(cost.work_s + 6 / 4 * status.START_S)
    assert cost.measured == 2
    two = estimate(STUDY, runs, workers=2)
    assert two.wall_s == pytest.approx(cost.wall_s / 2)
    tuned = estimate(TUNED, survey(TUNED, tmp_path), workers=1)
    assert tuned.work_s == pytest.approx(
        8 * 50 * status.DEFAULT_STEP_S + 8 * 100 * status.DEFAULT_STEP_S
    )


def test_the_plan_says_what_is_assumed_and_what_is_measured(tmp_path):
    runs = survey(STUDY, tmp_path)
    text = status.describe_plan(STUDY, runs, estimate(STUDY, runs, workers=2))
    assert "reported: 8 runs, 1 data sets × 2 models × 2 losses × 2 seeds" in text
    assert "assumed: 0.05 s a step, no run has finished yet" in text
    assert "left: 8 runs, 40 s of training" in text
    pretend(tmp_path, config_of(STUDY, "ce", 0), wall_s=100)
    runs = survey(STUDY, tmp_path)
    text = status.describe_plan(STUDY, runs, estimate(STUDY, runs, workers=2))
    assert "as the 1 runs that have finished" in text
    assert "digits · unet  1 done, 3 waiting" in text
    for _, config in STUDY.reporting_runs():
        if not run_path(tmp_path, config).exists():
            pretend(tmp_path, config)
    runs = survey(STUDY, tmp_path)
    text = status.describe_plan(STUDY, runs, estimate(STUDY, runs))
    assert text.endswith("nothing is left to train")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (720, "12 min"), (12600, "3.5 h"), (86400 * 4.2, "4.2 days")],
)
def test_a_duration_is_said_in_the_unit_that_people_use(seconds, text):
    assert status.duration(seconds) == text


def test_a_failure_keeps_its_traceback(tmp_path):
    try:
        raise ZeroDivisionError("of all things")
    except ZeroDivisionError as error:
        note_failure(tmp_path, RunConfig().run_id, "a run", error)
    noted = failures(tmp_path)[RunConfig().run_id]
    assert noted["error"] == "ZeroDivisionError: of all things"
    assert "test_status.py" in noted["traceback"]
