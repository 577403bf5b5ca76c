"""The same study under Kubernetes: its API is a stand-in, which runs each pod's command on this machine.

What is real: the profile, Snakemake's executor and its storage, the pods' descriptions and their commands. What is
not: a cluster that schedules pods, pulls their image and mounts their volume.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from checkouts import ROOT, checkout

from lossatlas import cli

PROFILE = ROOT / "workflow/profiles/kubernetes/config.yaml"


class Cluster(ThreadingHTTPServer):
    """As much of the API as the executor asks; a pod is a process in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.folder = folder
        self.described: list[dict] = []
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.deleted: list[str] = []
        # the image has what the pod would install first; here is no package index to take it from
        programs = folder / "bin"
        programs.mkdir(parents=True)
        (programs / "pip").write_text(f'#!/bin/sh\necho "$@" >> {folder / "pip.log"}\n')
        (programs / "pip").chmod(0o755)
        self.path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def configuration(self) -> Path:
        """What a client's ``KUBECONFIG`` names."""
        path = self.folder / "kubeconfig"
        address = f"http://127.0.0.1:{self.server_address[1]}"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": address}}],
                    "users": [{"name": "me", "user": {}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                    "current-context": "here",
                }
            )
        )
        return path

    def start_pod(self, job: dict) -> None:
        """Run the container's command where its working directory would be: in an empty folder."""
        name = job["metadata"]["name"]
        container = job["spec"]["template"]["spec"]["containers"][0]
        self.described.append(job)
        workdir = self.folder / name
        workdir.mkdir()
        with (self.folder / f"{name}.log").open("wb") as log:
            self.pods[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=workdir,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PATH": self.path, "OMP_NUM_THREADS": "1"},
            )

    def status(self, name: str) -> dict:
        ended = self.pods[name].poll()
        if ended is None:
            return {"active": 1}
        return {"succeeded": 1} if ended == 0 else {"failed": 1}

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))


class Requests(BaseHTTPRequestHandler):
    server: Cluster

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            self.server.start_pod(body)
        self._answer(body, 201)

    def do_GET(self):
        if "/jobs/" in self.path:
            name = self.path.split("/jobs/")[1].split("/")[0]
            template = {"spec": {"containers": []}}
            self._answer(
                {"metadata": {"name": name}, "spec": {"template": template}, "status": self.server.status(name)},
            )  # fmt: skip
        else:
            self._answer({"items": []})

    def do_DELETE(self):
        self.server.deleted.append(self.path.split("?")[0].rsplit("/", 1)[-1])
        self._answer({})

    def _answer(self, content: dict, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Nothing: a test says what it has to say."""


@pytest.fixture
def cluster(tmp_path):
    for module in ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs"):
        pytest.importorskip(module, reason="the extra [cluster] is not installed")
    if shutil.which("rsync") is None:
        pytest.skip("no rsync, with which Snakemake carries its files into a pod")
    running = Cluster(tmp_path / "cluster")
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    for pod in running.pods.values():
        pod.kill()


def test_the_profile_mounts_the_volume_where_the_jobs_write():
    profile = yaml.safe_load(PROFILE.read_text())
    assert profile["executor"] == "kubernetes"
    claim, path = profile["kubernetes-persistent-volumes"][0].split(":")
    assert claim == "lossatlas"
    assert path == profile["default-storage-prefix"]


@pytest.mark.extended
@pytest.mark.timeout(3000)
def test_a_study_runs_in_pods_that_share_a_volume(cluster, tmp_path, monkeypatch, capsys):
    volume = tmp_path / "volume"
    volume.mkdir()
    for name in ("notebooks", "workflow"):
        shutil.copytree(ROOT / name, volume / name)
    file = checkout(volume, losses=["ce"], seeds=[0, 1], runs_per_job=2)
    # the profile as it is, but for the place of the volume and a cluster of one machine that is asked more often
    profile = yaml.safe_load(PROFILE.read_text()) | {
        "kubernetes-persistent-volumes": [f"lossatlas:{volume}"],
        "default-storage-prefix": str(volume),
        "seconds-between-status-checks": 1,
    }
    (volume / "profile").mkdir()
    (volume / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    monkeypatch.chdir(volume)
    monkeypatch.setenv("KUBECONFIG", str(cluster.configuration()))

    assert cli.main(["run", str(file), "--profile", "profile"]) == 0, (
        f"{capsys.readouterr()}\n{cluster.logs()}"
    )

    runs = pd.read_parquet("results/tiny/runs.parquet")
    assert list(runs.status) == ["completed", "completed"]
    (pod,) = (job["spec"]["template"]["spec"] for job in cluster.described)
    (container,) = pod["containers"]
    assert container["image"] == profile["container-image"]
    assert container["resources"]["requests"]["memory"] == "4000M"
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["lossatlas"] == str(volume)
    claims = [each.get("persistentVolumeClaim") for each in pod["volumes"]]
    assert {"claimName": "lossatlas"} in claims
    assert pod["restartPolicy"] == "Never", "it is the workflow that starts a job again"
    assert (cluster.folder / "pip.log").read_text().split()[-1] == "snakemake-storage-plugin-fs"
    assert set(cluster.pods) <= set(cluster.deleted), "nothing is left on the cluster"
