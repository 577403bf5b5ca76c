"""Predictions: tiles give what the whole image gives, files are whole, mistakes are lines."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lossatlas import data, deploy, models
from lossatlas.cli import main
from lossatlas.data import DataError
from lossatlas.deploy.predict import tiles, view
from lossatlas.experiments import TrainParameters
from lossatlas.experiments.training import train_cell, validation_scores
from lossatlas.metrics import DecisionRule
from lossatlas.metrics.overlap import ConfusionMatrix

NETWORKS = {
    "unet": {},
    "unet deep": {"width": 4, "depth": 4},
    "unet resnet18": {"encoder": "resnet18"},
    "segnet": {},
    "segnet_basic": {},
}


def network(kind: str, channels: int = 1, classes: int = 1):
    """An untrained network whose batch norms have seen images."""
    torch.manual_seed(0)
    model = models.build(kind.split()[0], channels, classes, **NETWORKS[kind])
    for _ in range(3):
        model(torch.randn(2, channels, 64, 64))
    return model.eval()


def deployed(model, **changes):
    channels = model.in_channels
    values = {
        "network": model, "model": "unet", "params": {},
        "preparation": deploy.Preparation((0.5,) * channels, (0.25,) * channels),
        "classes": ("background", "thing"),
        "rules": {"argmax": DecisionRule.argmax(model.out_channels)},
        "origin": {},
    }  # fmt: skip
    return deploy.Deployed(**values | changes)


def picture(height, width, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("sizes", [(100, 37), (64, 64), (65, 200), (7, 9)])
def test_the_cores_of_the_tiles_cover_an_image_once(sizes):
    seen = np.zeros(sizes, int)
    for window, core in tiles(*sizes, tile=48, overlap=8, multiple=8):
        seen[core] += 1
        for w, c in zip(window, core, strict=True):
            assert w.start % 8 == 0 and w.start <= c.start and c.stop <= w.stop
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(n, marks=pytest.mark.extended) if "resnet" in n else n for n in NETWORKS],  # 36 s
)
def test_tiles_give_the_logits_of_the_whole_image(kind):
    model = network(kind)
    reach = view(model)
    side = 2 * reach + model.multiple
    image = torch.randn(1, 1, side + 2 * model.multiple + 5, side + model.multiple + 3)
    with torch.inference_mode():
        whole = model(image)
        parts = torch.empty_like(whole)
        for (rows, columns), (top, left) in tiles(
            *image.shape[2:], tile=side, overlap=reach, multiple=model.multiple
        ):
            inner = model(image[..., rows, columns])
            parts[..., top, left] = inner[
                ...,
                top.start - rows.start : top.stop - rows.start,
                left.start - columns.start : left.stop - columns.start,
            ]
    assert torch.allclose(parts, whole, atol=1e-4 * float(whole.abs().max()))


def test_an_overlap_below_the_view_would_change_the_logits():
    model = network("unet")
    image = picture(300, 260)
    _, whole = deploy.predict_image(deployed(model), image, tile=0, probabilities=True)
    _, cut = deploy.predict_image(deployed(model), image, tile=64, overlap=0, probabilities=True)
    assert np.abs(whole.astype(float) - cut.astype(float)).max() > 1e-3


def test_a_large_image_has_the_same_metrics_by_tiles_as_whole(run):
    trained = deploy.load(run)
    assert trained.rule()[0] == "tuned"
    image = picture(600, 500)
    target = torch.from_numpy((picture(600, 500, seed=1)[..., 0] > 200).astype(np.int64))
    scores = []
    for tile in (0, 256):
        labels, _ = deploy.predict_image(trained, image, tile=tile)
        confusion = ConfusionMatrix(2, None)
        confusion.update(torch.from_numpy(labels.astype(np.int64))[None], target[None])
        scores.append((float(confusion.mean_dice()), float(confusion.mean_iou())))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert 0 < (labels > 0).mean() < 1


def test_predictions_of_the_validation_set_score_as_the_run_did(run):
    """The same preparation and network as in training: the validation Dice comes back."""
    trained = deploy.load(run)
    config = json.loads((run / "run.json").read_text())["config"]
    val = data.load("digits", "val", **config["dataset_params"])
    confusion = ConfusionMatrix(2, None)
    for index in range(len(val)):
        labels, _ = deploy.predict_image(
            trained, np.asarray(val.images[index]), rule=trained.rules["argmax"]
        )
        truth = torch.from_numpy(np.asarray(val.labels[index]).astype(np.int64))
        confusion.update(torch.from_numpy(labels.astype(np.int64))[None], truth[None])
    expected = validation_scores(trained.network, val, torch.device("cpu"))["val_mean_dice"]
    assert float(confusion.mean_dice(foreground_only=True)) == pytest.approx(expected)


def test_an_image_that_training_resized_is_predicted_at_its_own_size():
    model = network("unet", classes=3)
    prepared = deploy.Preparation((0.5,), (0.25,), size=(40, 48))
    labels, chances = deploy.predict_image(
        deployed(model, preparation=prepared), picture(80, 96), probabilities=True
    )
    assert labels.shape == (80, 96) and chances.shape == (3, 80, 96)
    assert np.allclose(chances.astype(float).sum(0), 1, atol=2e-3)


def test_sixteen_bits_are_brought_to_eight_by_the_range_of_training():
    prepared = deploy.Preparation((0.5,), (0.25,), intensity=(100.0, 1100.0))
    image = np.array([[[0], [100], [600], [1100], [60000]]], np.uint16)
    assert prepared.eight_bits(image, "x")[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(DataError, match="expected more than 8 bits"):
        prepared.eight_bits(image.astype(np.uint8), "x")
    with pytest.raises(DataError, match="expected 8-bit numbers"):
        deploy.Preparation((0.5,), (0.25,)).eight_bits(image, "x")


def test_images_of_other_channels_are_refused_but_grey_becomes_colour():
    colour = deploy.Preparation((0.5,) * 3, (0.25,) * 3)
    assert colour.eight_bits(picture(4, 4), "x").shape == (4, 4, 3)
    with pytest.raises(DataError, match="expected 1 channels"):
        deploy.Preparation((0.5,), (0.25,)).eight_bits(picture(4, 4, 3), "x")


def test_a_tile_within_its_overlap_is_refused_with_a_size_that_works(run):
    with pytest.raises(deploy.DeployError, match=r"--tile \d+ or more"):
        deploy.predict_image(deploy.load(run), picture(200, 200), tile=32)


def predict(run, images, out, *options) -> int:
    """The exit status of the command."""
    return main(["predict", str(run), str(images), "--out", str(out), *options])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "day2").mkdir(parents=True)
    for name in ("a.png", "day2/b.png"):
        Image.fromarray(picture(48, 40)[..., 0]).save(folder / name)
    return folder


def test_a_folder_becomes_masks_of_the_same_names(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(run, pictures, out, "--probabilities") == 0
    mask = np.asarray(Image.open(out / "day2" / "b.png"))
    chances = np.load(out / "day2" / "b.npy", allow_pickle=False)
    threshold = deploy.load(run).rule()[1].probability
    assert mask.shape == (48, 40) and set(np.unique(mask)) <= {0, 1}
    off = np.abs(chances.astype(float) - threshold) > 2e-3  # float16 rounds
    assert ((chances > threshold) == mask)[off].all()
    said = capsys.readouterr()
    assert "2 masks" in said.out and not said.err  # quiet off a terminal
    before = (out / "a.png").stat().st_mtime_ns
    assert predict(run, pictures, out) == 0
    assert (out / "a.png").stat().st_mtime_ns == before  # what is there is not made again


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b""), "expected a last.ckpt"),
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "expected a last.ckpt"),
        (lambda p: p.write_bytes(b"PK" + bytes(1000)), "expected a last.ckpt"),
        (lambda p: torch.save({"model": {}}, p), "expected the keys model and config"),
        (lambda p: p.unlink(), "found none"),
    ],
)
def test_a_damaged_checkpoint_is_a_line_and_no_traceback(
    run, pictures, tmp_path, capsys, damage, message
):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    damage(copied / "last.ckpt")
    assert predict(copied, pictures, tmp_path / "o") == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


class _Bomb:
    def __reduce__(self):
        return (__import__("os").system, ("touch exploded",))


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "config": _Bomb()}, tmp_path / "last.ckpt")
    with pytest.raises(deploy.DeployError, match="nothing of it was run"):
        deploy.load(tmp_path / "last.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_masks_never_land_among_the_images(run, pictures):
    with pytest.raises(DataError, match="expected a folder outside"):
        deploy.predict_folder(deploy.load(run), pictures, pictures / "out")


def test_masks_may_lie_beside_the_folder_of_the_images(run, pictures, tmp_path):
    network = deploy.load(run)
    assert deploy.predict_folder(network, pictures, tmp_path) == 2
    assert deploy.predict_folder(network, pictures, tmp_path) == 0  # signed, so it goes on
    (pictures / "pictures").mkdir()
    shutil.copy(pictures / "a.png", pictures / "pictures" / "c.png")
    with pytest.raises(DataError, match="among the images"):
        deploy.predict_folder(network, pictures, tmp_path)


def test_masks_of_another_network_or_rule_are_not_taken_for_this_one_s(
    run, another, pictures, tmp_path, capsys
):
    out = tmp_path / "out"
    assert predict(run, pictures, out) == 0
    assert predict(run, pictures, out) == 0  # goes on
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    capsys.readouterr()
    for network, *options in ([another], [run, "--rule", "argmax"]):
        for also in ((), ("--dry-run",)):
            assert predict(network, pictures, out, *options, *also) == 1
            assert "expected masks of this network and rule" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
    shutil.copy(pictures / "a.png", tmp_path / "new.png")
    assert predict(another, tmp_path / "new.png", out) == 1  # beside them, too
    (out / "predicted.json").unlink()
    capsys.readouterr()
    assert predict(run, pictures, out) == 1
    assert "expected predicted.json beside the masks" in capsys.readouterr().err


def test_a_mask_is_made_again_where_its_image_is_another_one_now(run, pictures, tmp_path, capsys):
    out = tmp_path / "out"

    def said(*options):
        assert predict(run, pictures, out, *options) == 0
        return capsys.readouterr().out

    assert "2 masks in" in said("--probabilities")
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    os.utime(pictures / "day2" / "b.png")  # touched, and the same
    for seed in (1, 0):
        Image.fromarray(picture(48, 40, seed=seed)[..., 0]).save(pictures / "a.png")
        assert said("--dry-run").splitlines()[1:] == [str(out / "a.png")]
        assert "1 masks in" in (told := said()) and "1 of them anew: their image is" in told
        assert not (out / "a.npy").exists(), "probabilities of an image that has gone"
        assert (out / "day2" / "b.npy").exists() and "0 masks in" in said()
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


def test_a_mask_that_says_of_no_image_is_kept(run, pictures, tmp_path, capsys):
    """One that was corrected in another program, or that an older version wrote."""
    out = tmp_path / "out"
    assert predict(run, pictures, out) == 0
    corrected = 1 - np.asarray(Image.open(out / "a.png"))
    Image.fromarray(corrected).save(out / "a.png")
    (pictures / "a.png").touch()
    capsys.readouterr()
    assert predict(run, pictures, out) == 0 and "0 masks in" in capsys.readouterr().out
    assert (np.asarray(Image.open(out / "a.png")) == corrected).all()


@pytest.mark.parametrize("name", ["a.npy", "b.png"])
def test_an_image_is_never_replaced_by_its_own_mask(run, pictures, tmp_path, name):
    out = tmp_path / "out"
    deployed = deploy.load(run)
    deploy.predict_folder(deployed, pictures / "a.png", out)  # signs the folder
    image = picture(48, 40, seed=3)[..., 0]
    if name == "a.npy":
        np.save(out / name, image)
    else:
        Image.fromarray(image).save(out / name)
    before = (out / name).read_bytes()
    with pytest.raises(DataError, match="masks would lie among the images"):
        deploy.predict_folder(deployed, out / name, out)
    assert (out / name).read_bytes() == before


def test_the_slices_of_a_volume_are_predicted_once(run, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volumes, out = tmp_path / "volumes", tmp_path / "out"
    for seed in (0, 1):
        volumes.mkdir(exist_ok=True)
        scan = picture(48, 40, 3, seed=seed)
        nibabel.Nifti1Image(scan, np.eye(4)).to_filename(volumes / "p.nii.gz")
        assert deploy.predict_folder(deploy.load(run), volumes, out) == 3
        assert deploy.predict_folder(deploy.load(run), volumes, out) == 0


def test_images_that_cannot_be_read_are_named_and_all_others_get_their_masks(
    run, pictures, tmp_path
):
    for name in ("a0.png", "day2/z.png"):  # before the others and after them
        (pictures / name).write_bytes(b"no image")
    words = r"2 of 4 images have no mask: The masks of the other 2 are in .*a0\.png.*z\.png"
    with pytest.raises(DataError, match=words):
        deploy.predict_folder(deploy.load(run), pictures, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.png")) == ["a.png", "b.png"]


def test_an_image_that_goes_before_its_turn_keeps_no_other_back(run, pictures, tmp_path):
    out = tmp_path / "out"
    masks = {pictures / "gone.png": out / "gone.png", pictures / "a.png": out / "a.png"}
    with pytest.raises(DataError, match=r"gone\.png: expected a file that can be read"):
        deploy.predict_folder(deploy.load(run), pictures, out, masks=masks)
    assert (out / "a.png").is_file()


def test_a_mutated_run_gives_a_network_or_an_error_of_ours(run, tmp_path):
    """80 runs with a few bytes changed, or cut short, in the checkpoint or in the record."""
    rng = np.random.default_rng(0)
    original = {name: (run / name).read_bytes() for name in ("last.ckpt", "run.json")}
    refused = 0
    for _ in range(80):
        contents = dict(original)
        name = ("last.ckpt", "run.json")[int(rng.integers(2))]
        changed = bytearray(contents[name])
        for position in rng.integers(0, len(changed), rng.integers(1, 20)):
            changed[position] = rng.integers(256)
        contents[name] = bytes(
            changed[: rng.integers(1, len(changed))] if rng.random() < 0.3 else changed
        )
        for file, content in contents.items():
            (tmp_path / file).write_bytes(content)
        try:
            deploy.load(tmp_path)
        except DataError as error:  # DeployError is one
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": {}}, r"run\.json: expected"),
        ({"rules": {"tuned": {}}}, r"run\.json: expected"),
        ({"rules": {"tuned": {"offsets": ["a"]}}}, r"run\.json: expected"),
        ({"rules": {"tuned": {"offsets": [1, 2]}}}, r"run\.json: expected"),
        ({"preparation": {"mean": [0.5]}}, "train again or restore"),
        ({"preparation": {"mean": ["a"], "std": [1.0]}}, "train again or restore"),
        ({"preparation": {"mean": [0.5], "std": [0.0]}}, "train again or restore"),
        ({"preparation": 7}, "train again or restore"),
    ],
)
def test_a_record_without_its_threshold_or_preparation_is_refused(run, tmp_path, changes, message):
    copy = shutil.copytree(run, tmp_path / "run")
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | changes))
    with pytest.raises(deploy.DeployError, match=message):
        deploy.load(copy)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"lr": 1}},
        {"config": "x"},
        {"model": {"epoch": 3}},
        {"config": {"model": "nothing", "model_params": {}}},
        {"config": {"model": "unet", "model_params": {"wings": 2}}},
    ],
)
def test_a_checkpoint_from_elsewhere_is_one_line(run, tmp_path, changed, capsys):
    content = torch.load(run / "last.ckpt", weights_only=True) | changed
    torch.save(content, tmp_path / "last.ckpt")
    assert predict(tmp_path / "last.ckpt", tmp_path, tmp_path / "o") == 1
    told = capsys.readouterr().err
    assert "last.ckpt: expected" in told and "Traceback" not in told


def test_a_device_that_is_not_there_is_one_line(run, tmp_path, capsys):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
    assert predict(run, tmp_path / "a.png", tmp_path / "o", "--device", "foo") == 1
    assert "device: expected one that torch has here" in capsys.readouterr().err


def test_files_that_are_passed_over_are_named_and_json_stays_alone(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.heic").write_bytes(b"x")
    assert predict(run, tmp_path / "in", tmp_path / "o", "--json") == 0
    out, told = capsys.readouterr()
    assert json.loads(out)["written"] == 1 and "b.heic" in told


def test_a_run_needs_nothing_of_its_folder_once_it_is_trained(tmp_path):
    root = tmp_path / "scans"
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for k in range(8):
        tifffile.imwrite(
            root / "images" / f"{k}.tif", generator.integers(90, 1200, (16, 16), np.uint16)
        )
        mask = (generator.random((16, 16)) > 0.7).astype(np.uint8)
        Image.fromarray(mask).save(root / "masks" / f"{k}.png")
    parameters = TrainParameters(
        dataset="folder", dataset_params={"root": str(root)}, model_params={"width": 4, "depth": 2},
        steps=2, batch_size=2, evaluations=1, runs_dir=str(tmp_path / "runs"), accelerator="cpu",
    )  # fmt: skip
    (made,) = train_cell(parameters)
    before = deploy.load(made)
    low, high = before.preparation.intensity
    assert 90 <= low < high <= 1200
    # brighter scans come, and then the folder goes
    tifffile.imwrite(root / "images" / "0.tif", np.full((16, 16), 60_000, np.uint16))
    assert deploy.load(made).preparation == before.preparation
    shutil.rmtree(root)
    after = deploy.load(made)
    assert after.preparation == before.preparation and after.classes == before.classes
