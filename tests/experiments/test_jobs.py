"""Many runs in one process: fairly dealt, one failure apart from the others, and taken up again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
from small import change_record, tiny

from lossatlas.cli import main
from lossatlas.experiments import ConfigError, training
from lossatlas.experiments.heartbeat import failures
from lossatlas.experiments.jobs import all_jobs, jobs, train_job
from lossatlas.experiments.record import is_complete, read_run, run_path
from lossatlas.experiments.tuning import select, write_selection


def study(**changes):
    return tiny(**{"losses": ["ce", "dice", "focal"], "runs_per_job": 3} | changes)


def train_first(of, runs_dir):
    """Train the first job that reports; how its runs ended."""
    return train_job(of, jobs(of, "report")[0].name, runs_dir=runs_dir, accelerator="cpu")


@pytest.fixture
def failing(monkeypatch):
    """Let the trainings with some losses fail, until the patch is undone."""
    right = training.train_run

    def let_fail(*losses):
        def train(config, *arguments, **keywords):
            if config.loss in losses:
                raise RuntimeError("no luck\nwith this one")
            return right(config, *arguments, **keywords)

        monkeypatch.setattr(training, "train_run", train)

    return let_fail


def test_every_run_is_in_exactly_one_job():
    many = study(seeds=list(range(7)), models=["unet", "segnet"], runs_per_job=4)
    dealt = [member for job in all_jobs(many).values() for member in job.members]
    assert sorted(map(str, dealt)) == sorted(map(str, many.members("report")))


def test_jobs_are_of_equal_size_and_mix_the_losses():
    many = study(seeds=list(range(8)), runs_per_job=6)
    found = jobs(many, "report")
    assert [len(job.members) for job in found] == [6, 6, 6, 6]
    for job in found:
        assert Counter(member.loss for member in job.members) == {"ce": 2, "dice": 2, "focal": 2}


def test_a_job_has_one_data_set_and_one_model_and_is_never_longer_than_asked():
    many = study(seeds=list(range(5)), models=["unet", "segnet"], runs_per_job=4)
    for job in jobs(many, "report"):
        assert len({(member.dataset, member.model) for member in job.members}) == 1
        assert 3 <= len(job.members) <= 4


def test_tuning_runs_have_jobs_of_their_own():
    tuned = study(tuning={"lr": [0.01, 0.1], "seeds": [7], "widen": 0})
    stages = Counter(job.stage for job in all_jobs(tuned).values())
    assert stages == {"tuning": 2, "report": 1}


def test_a_run_that_fails_is_noted_and_the_others_of_its_job_go_on(tmp_path, failing, capsys):
    failing("dice")
    outcomes = train_first(study(), tmp_path)
    assert [outcome.status for outcome in outcomes] == ["completed", "failed", "completed"]
    assert outcomes[1].reason == "RuntimeError: no luck"
    assert "dice · seed 0" in capsys.readouterr().out
    noted = failures(tmp_path)
    assert list(noted) == [outcomes[1].run_id]
    assert "with this one" in noted[outcomes[1].run_id]["traceback"]

    # the same command goes on: what is there stays, what failed is tried again and its note goes
    trained = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/run.json")}
    failing()
    again = train_first(study(), tmp_path)
    assert [outcome.status for outcome in again] == ["completed"] * 3
    assert failures(tmp_path) == {}
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items())


@pytest.mark.parametrize("losses", [("dice",), ("ce", "dice", "focal")])
def test_the_command_fails_and_names_the_runs_of_its_job_that_failed(
    tmp_path, failing, capsys, losses
):
    failing(*losses)
    file = tmp_path / "tiny" / "study.yaml"
    file.parent.mkdir()
    file.write_text(study().model_dump_json(exclude_defaults=True))
    command = ["train", str(file), "report-digits-unet-0", "--runs-dir", str(tmp_path / "runs")]
    command += ["--results-dir", str(tmp_path), "--accelerator", "cpu"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"{len(losses)} of 3 runs of report-digits-unet-0 failed:" in said
    for loss in losses:
        assert f"{loss} · seed 0: RuntimeError: no luck" in said
    assert main([*command, "--keep-going"]) == 0  # the workflow goes on, and fails at its end
    failing()
    assert main(command) == 0


def test_runs_of_other_masks_than_those_that_are_there_are_not_trained(tmp_path):
    assert [each.status for each in train_first(study(), tmp_path)] == ["completed"] * 3
    change_record(run_path(tmp_path, study().examples()[0]), data_checksums={"val": "0"})
    outcomes = train_first(study(seeds=[0, 1], runs_per_job=6), tmp_path)
    assert sorted(each.status for each in outcomes) == ["completed"] * 3 + ["failed"] * 3
    assert all("other images or masks (val)" in e.reason for e in outcomes if e.reason)


def test_an_interruption_ends_the_job_and_is_no_failure(tmp_path, monkeypatch):
    def interrupted(config, *arguments, **keywords):
        raise SystemExit(75)

    monkeypatch.setattr(training, "train_run", interrupted)
    with pytest.raises(SystemExit) as caught:
        train_first(study(), tmp_path)
    assert caught.value.code == 75
    assert failures(tmp_path) == {}


def test_a_run_that_killed_its_process_comes_last_the_next_time(tmp_path, monkeypatch):
    _, first = study().reporting_runs()[0]
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    beat = {"run_id": first.run_id, "pid": int(dead.stdout), "step": 1, "steps": 1}
    (tmp_path / ".progress").mkdir()
    (tmp_path / ".progress" / f"{first.run_id}.json").write_text(json.dumps(beat))
    order = []

    def noted(config, *arguments, **keywords):
        order.append(config.loss)
        raise RuntimeError

    monkeypatch.setattr(training, "train_run", noted)
    train_first(study(), tmp_path)
    assert order == ["dice", "focal", "ce"]


def test_without_a_chosen_rate_a_run_waits_and_says_why(tmp_path):
    tuned = study(tuning={"lr": [0.01, 0.1], "seeds": [7], "widen": 0})
    with pytest.raises(ConfigError, match="no learning rates chosen yet"):
        train_first(tuned, tmp_path)
    write_selection(tuned, select(tuned, tmp_path), tmp_path)
    outcomes = train_first(tuned, tmp_path)
    assert {outcome.status for outcome in outcomes} == {"no rate chosen"}


def test_an_unknown_job_is_named_with_its_near_matches(tmp_path):
    with pytest.raises(ConfigError, match="no job 'report-digits-unet-1': did you mean report"):
        train_job(study(), "report-digits-unet-1", runs_dir=tmp_path)


def test_runs_of_one_process_are_the_same_as_runs_of_their_own(tmp_path):
    """What a run finds does not depend on what its process trained before."""
    alone = study(losses=["ce"])
    train_first(study(losses=["dice", "ce"]), tmp_path / "together")
    train_first(alone, tmp_path / "alone")
    ((_, config),) = alone.reporting_runs()
    folders = [tmp_path / "together", tmp_path / "alone"]
    assert all(is_complete(folder, config) for folder in folders)
    one, other = (read_run(run_path(folder, config)) for folder in folders)
    assert (one["final_loss"], one["metrics"]) == (other["final_loss"], other["metrics"])
