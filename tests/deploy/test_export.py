"""Exported files give the logits of the run, and carry what a program must know beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lossatlas import deploy
from lossatlas.cli import main


def test_safetensors_and_its_description_predict_as_the_run_does(run, tmp_path):
    trained = deploy.load(run)
    file, checked = deploy.export(trained, tmp_path / "out", format="safetensors")
    assert "every weight equal" in checked
    again = deploy.load(file)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 1), dtype=np.uint8)
    for one, other in zip(
        deploy.predict_image(trained, image, probabilities=True),
        deploy.predict_image(again, image, probabilities=True),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert again.rules == trained.rules and again.classes == trained.classes


def test_the_description_holds_preparation_and_the_tuned_threshold(run, tmp_path):
    deploy.export(deploy.load(run), tmp_path, format="safetensors")
    found = json.loads((tmp_path / "model.json").read_text())
    record = json.loads((run / "run.json").read_text())
    (offset,) = record["rules"]["tuned"]["offsets"]
    assert found["rule"] == "tuned"
    assert found["threshold"] == pytest.approx(1 / (1 + np.exp(offset)))
    assert found["preparation"]["mean"] and found["preparation"]["std"]
    assert found["origin"]["run_id"] == record["run_id"]
    assert not list(tmp_path.glob(".export-*"))


def test_onnx_gives_the_logits_of_torch_at_another_batch_and_size(run, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    trained = deploy.load(run)
    file, checked = deploy.export(trained, tmp_path, format="onnx")
    assert "checked with ONNX Runtime" in checked
    multiple = json.loads((tmp_path / "model.json").read_text())["side_multiple"]
    images = torch.randn(3, 1, 5 * multiple, 12 * multiple)
    with torch.inference_mode():
        expected = trained.network(images).numpy()
    (found,) = runtime.InferenceSession(str(file)).run(None, {"images": images.numpy()})
    assert np.allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_onnx_and_its_description_alone_give_the_masks_of_predict(run, tmp_path):
    """What a program in another language does: preparation, graph, and threshold from two files."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    trained = deploy.load(run)
    file, _ = deploy.export(trained, tmp_path, format="onnx")
    about = json.loads((tmp_path / "model.json").read_text())
    multiple = about["side_multiple"]
    image = np.random.default_rng(0).integers(0, 256, (9 * multiple, 7 * multiple, 1), np.uint8)
    mean, std = (np.float32(about["preparation"][key]) for key in ("mean", "std"))
    prepared = ((image.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    (logits,) = runtime.InferenceSession(str(file)).run(None, {"images": prepared})
    found = 1 / (1 + np.exp(-logits[0, 0])) > about["threshold"]
    expected, _ = deploy.predict_image(trained, image, tile=0)
    assert about["rule"] == "tuned" and 0 < found.mean() < 1
    assert (found != expected.astype(bool)).mean() < 1e-3  # round-off at the threshold


def test_a_folder_holds_one_network_in_both_formats_and_never_two(run, another, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    out = tmp_path / "out"
    file, _ = deploy.export(deploy.load(run), out, format="safetensors")
    deploy.export(deploy.load(file), out, format="onnx")
    before = {path: path.read_bytes() for path in out.iterdir()}
    command = ["export", str(another), "--out", str(out), "--format"]
    for given in (["safetensors"], ["onnx"], ["onnx", "--dry-run"]):
        assert main([*command, *given]) == 1
        said = capsys.readouterr().err
        assert f"got that of run {run.name}; name another --out" in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert deploy.load(file).rules == deploy.load(run).rules


@pytest.mark.parametrize("named", [True, False])  # descriptions named no weights before
def test_weights_beside_the_description_of_another_network_are_refused(
    run, another, tmp_path, named
):
    file, _ = deploy.export(deploy.load(run), tmp_path / "one", format="safetensors")
    deploy.export(deploy.load(another), tmp_path / "two", format="safetensors")
    about = json.loads((tmp_path / "two" / "model.json").read_text())
    if not named:
        about = {k: v for k, v in about.items() if k != "weights"} | {"file": "model.onnx"}
    file.with_name("model.json").write_text(json.dumps(about))
    with pytest.raises(deploy.DeployError, match=r"description of model\.safetensors, got that of"):
        deploy.load(file)
    if not named:  # what the message says to do where both files are of one network
        file.with_name("model.json").write_text(json.dumps(about | {"file": file.name}))
        assert deploy.load(file).origin == about["origin"]


def test_an_export_of_an_older_version_is_replaced_by_one_of_the_same_run(run, another, tmp_path):
    deploy.export(deploy.load(run), tmp_path, format="safetensors")
    about = json.loads((tmp_path / "model.json").read_text())
    del about["weights"]  # as before
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(deploy.DeployError, match="expected no network there but this one"):
        deploy.export(deploy.load(another), tmp_path, format="safetensors")
    deploy.export(deploy.load(run), tmp_path, format="safetensors")
    assert "weights" in json.loads((tmp_path / "model.json").read_text())


def test_without_the_onnx_packages_the_message_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(deploy.DeployError, match=r"pip install 'lossatlas\[export\]'"):
        deploy.export(deploy.load(run), tmp_path, format="onnx")


def test_a_dry_run_of_the_command_names_the_file_and_writes_none(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(out / "model.onnx"), "checked": None, "written": False}
    assert main(["export", str(run), "--out", str(out), "--rule", "best", "--dry-run"]) != 0
    assert not out.exists()


def test_the_command_exports_and_says_how_it_was_checked(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(run), "--format", "safetensors", "--out", str(out)]) == 0
    assert "every weight equal" in capsys.readouterr().out
    assert (out / "model.safetensors").is_file()


def test_a_safetensors_file_without_its_description_is_refused(run, tmp_path):
    file, _ = deploy.export(deploy.load(run), tmp_path, format="safetensors")
    (tmp_path / "model.json").unlink()
    with pytest.raises(deploy.DeployError, match="expected the description"):
        deploy.load(file)
