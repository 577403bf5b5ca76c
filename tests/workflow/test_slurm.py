"""The same study under Slurm, for real: a cluster of one node, which dies in the middle."""

from __future__ import annotations

import dataclasses
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from checkouts import ROOT, checkout, end, start

from lossatlas.experiments import load_study
from lossatlas.experiments.heartbeat import beats
from lossatlas.experiments.record import is_complete, partial_path, run_path

PROFILE = ROOT / "workflow/profiles/slurm/config.yaml"
EXECUTOR = "snakemake_executor_plugin_slurm"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo")


def program(name):
    """Daemons are often in a folder that is not on a person's PATH."""
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")


class Cluster:
    """Slurm with one node in a folder of its own: key, daemons, state, logs."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.ports = ports
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        self.conf = folder / "slurm.conf"
        self.env = os.environ | {
            "SLURM_CONF": str(self.conf),
            # the executor's inner srun drops SLURM_CONF, since a cluster has it at /etc/slurm
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self):
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {program("srun")} "$@"\n')
        srun.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.conf.write_text(
            "\n".join(
                [
                    "ClusterName=one",
                    f"SlurmctldHost={self.host}(127.0.0.1)",
                    f"SlurmctldPort={self.ports[0]}",
                    f"SlurmdPort={self.ports[1]}",
                    f"SlurmUser={getpass.getuser()}",
                    f"SlurmdUser={getpass.getuser()}",
                    "AuthType=auth/munge",
                    f"AuthInfo=socket={self.folder}/munge.socket",
                    f"StateSaveLocation={self.folder}/state",
                    f"SlurmdSpoolDir={self.folder}/spool",
                    f"SlurmctldPidFile={self.folder}/slurmctld.pid",
                    f"SlurmdPidFile={self.folder}/slurmd.pid",
                    "ProctrackType=proctrack/linuxproc",
                    "TaskPlugin=task/none",
                    "SelectType=select/cons_tres",
                    "SelectTypeParameters=CR_CPU",
                    "JobAcctGatherType=jobacct_gather/none",
                    "AccountingStorageType=accounting_storage/none",
                    "ReturnToService=2",
                    "SlurmdTimeout=5",
                    f"NodeName={self.host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN",
                    f"PartitionName=all Nodes={self.host} Default=YES MaxTime=INFINITE State=UP",
                ]
            )
            + "\n"
        )
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}",
            *(f"--{what}-file={self.folder}/munge.{what}" for what in ("pid", "log", "seed")),
            f"--socket={self.folder}/munge.socket",
        )  # fmt: skip
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._daemon("slurmctld", "-D", "-c")
        self.start_node()

    def start_node(self):
        self._daemon("slurmd", "-D", "-N", self.host)
        self._until(lambda: "idle" in self._ask("sinfo", "-h", "-o", "%T"), "an idle node")

    def kill_node(self):
        """As a power cut does it: the daemon, the steps and all that runs under them are gone at once."""
        dead = [psutil.Process(self.daemons["slurmd"].pid)]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # a step's own daemon outlives slurmd, and says whose it is by its folder alone
                if process.name() == "slurmstepd" and Path(process.cwd()) == self.folder:
                    dead += [process, *process.children(recursive=True)]
        for process in dead:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons.pop("slurmd").wait()

    def stop(self):
        if "slurmd" in self.daemons:
            self.kill_node()
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            daemon.wait()

    def logs(self):
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in self.folder.glob("*.log")
        )

    def _daemon(self, name, *arguments):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [program(name), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.folder,
            )

    def _ask(self, *command):
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout

    def _until(self, condition, what, seconds=120):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                pytest.fail(f"no {what} after {seconds} s\n{self.logs()}")
            time.sleep(0.2)


@pytest.fixture
def cluster(free_port):
    missing = [name for name in _PROGRAMS if program(name) is None]
    if missing:
        pytest.skip(
            f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
        )
    pytest.importorskip(EXECUTOR, reason="the extra [cluster] is not installed")
    # not tmp_path: the name of a socket may have a hundred characters
    folder = Path(tempfile.mkdtemp(prefix="slurm-")).resolve()
    running = Cluster(folder, (free_port(), free_port()))
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_profile_uses_options_of_the_executor_and_leaves_restarts_to_the_workflow():
    executor = pytest.importorskip(EXECUTOR)
    known = {field.name for field in dataclasses.fields(executor.ExecutorSettings)}
    profile = yaml.safe_load(PROFILE.read_text())
    asked = {key.removeprefix("slurm-").replace("-", "_") for key in profile if "slurm-" in key}
    assert asked and asked <= known
    assert profile["executor"] == "slurm" and profile["slurm-no-requeue"]
    assert profile["retries"] > 0 and profile["keep-going"]


@pytest.mark.extended  # three minutes, most of which the daemons wait; a killed training is in test_interruptions
@pytest.mark.timeout(3000)
def test_a_node_that_dies_in_the_middle_of_a_study_loses_nothing(cluster, tmp_path):
    checkout(
        tmp_path,
        study="onnodes",
        training={"steps": 1000, "batch_size": 4, "evaluations": 1, "checkpoint_s": 0.5},
        runs_per_job=2,
    )
    # the profile as it is, but a cluster of one machine is asked more often
    profile = yaml.safe_load(PROFILE.read_text())
    profile |= {"slurm-init-seconds-before-status-checks": 1, "seconds-between-status-checks": 1}
    profile |= {"default-resources": {"mem_mb": 1500, "runtime": 60}, "latency-wait": 5}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    study = load_study(str(tmp_path / "onnodes.yaml"))
    first, second = (config for _, config in study.reporting_runs())
    runs_dir = tmp_path / "runs"

    process = start(tmp_path, "run", "onnodes.yaml", "--profile", "profile", env=cluster.env)
    try:

        def half_done():
            assert process.poll() is None, process.stdout.read() + cluster.logs()
            checkpoints = list(partial_path(runs_dir, second).glob("*.ckpt"))
            return checkpoints and any(b["run_id"] == second.run_id for b in beats(runs_dir))

        cluster._until(half_done, "second training", seconds=1200)
        assert is_complete(runs_dir, first)
        trained = (run_path(runs_dir, first) / "run.json").stat().st_mtime_ns
        cluster.kill_node()
        cluster._until(lambda: not beats(runs_dir), "end of the training")
        cluster.start_node()
        said, _ = process.communicate(timeout=1200)
    finally:
        end(process)

    assert process.returncode == 0, said + cluster.logs()
    assert (run_path(runs_dir, first) / "run.json").stat().st_mtime_ns == trained
    runs = pd.read_parquet(tmp_path / "results/onnodes/runs.parquet")
    assert list(runs.status) == ["completed", "completed"]
    assert list(runs.interruptions) == [0, 1], "the broken run went on from its checkpoint"
