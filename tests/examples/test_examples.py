"""The examples of the book's page of recipes run, and do what the page says."""

from __future__ import annotations

import importlib
import math
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from lossatlas import losses

HERE = Path(__file__).parent
BOOK = HERE.parents[1] / "book"
PAGE = BOOK / "recipes.md"
LOOPS = (
    "plain_pytorch",
    "start_and_end",
    "smp_unet",
    "monai_unet",
    "lightning_fabric_loop",
    "lightning_trainer",
    "huggingface_trainer",
    "deep_supervision",
    "mixed_precision",
    "accumulation",
    "pixel_weights",
    "log_terms",
    "labels_that_overlap",
)
NEEDED = {
    "smp_unet": ["segmentation_models_pytorch"],
    "monai_unet": ["monai"],
    "lightning_trainer": ["lightning"],
    "huggingface_trainer": ["transformers", "accelerate"],
}


@pytest.fixture(autouse=True)
def _the_scene_is_beside_the_examples(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def run(name: str):
    return runpy.run_path(str(HERE / f"{name}.py"))


@pytest.mark.parametrize("name", LOOPS)
def test_an_example_trains(name):
    for needed in NEEDED.get(name, ()):
        pytest.importorskip(needed, reason=f"pip install {needed} to run this example")
    history = run(name)["history"]
    assert all(math.isfinite(value) for value in history)
    assert history[-1] < 0.9 * history[0]


SMP = {"encoder_name": "resnet18", "encoder_weights": None, "in_channels": 1}
TORCHVISION = {"weights": None, "weights_backbone": None, "num_classes": 1}
MONAI = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
UNET = MONAI | {"channels": (4, 8), "strides": (2,)}
NETWORKS = {
    "Unet": ("segmentation_models_pytorch", SMP),
    "fcn_resnet50": ("torchvision.models.segmentation", TORCHVISION),
    "deeplabv3_resnet50": ("torchvision.models.segmentation", TORCHVISION),
    "UNet(num_res_units=0)": ("monai.networks.nets", UNET | {"num_res_units": 0}),
    "UNet(num_res_units=2)": ("monai.networks.nets", UNET | {"num_res_units": 2}),
    "BasicUNet": ("monai.networks.nets", MONAI),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_bias_that_the_page_names_moves_every_logit(name):
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if f"`{name}`" in line]
    (where,) = {re.findall(r"`(model\.\S+\.bias)`", row)[0] for row in rows}
    module, options = NETWORKS[name]
    model = getattr(pytest.importorskip(module), name.split("(")[0])(**options).eval()
    image = torch.zeros(1, 3 if "resnet50" in name else 1, 64, 64)

    def logits():
        with torch.no_grad():
            found = model(image)
        return found["out"] if isinstance(found, dict) else found

    before = logits()
    torch.nn.init.constant_(bias := eval(where), bias.item() + 1)
    assert bias.shape == (1,) and torch.allclose(logits(), before + 1, atol=1e-5)


def test_the_first_answer_is_the_share_and_the_threshold_is_no_worse_than_one_half():
    found = run("start_and_end")
    share = found["share"]
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found["history"][0] < 1.5 * entropy  # from a bias of 0 it is 0.69
    assert found["dice"] >= found["search"].dice(0.0) and found["dice"] > 0.8
    assert found["predicted"].shape == found["masks"].shape


def test_the_trainers_micro_batches_add_up_to_the_loss_of_their_step(monkeypatch):
    """The Trainer adds what `compute_loss_func` returns, undivided; a stand-in serves where it is not installed."""
    monkeypatch.setitem(sys.modules, "transformers", MagicMock())
    loss_of = run("huggingface_trainer")["loss_of"]
    scene = importlib.import_module("scene").scene
    (_, mask), logits = scene(images=1), torch.randn(1, 2, 8, 8)
    mask[:, :2] = -100  # void: in no loss, and not in the Trainer's count

    def loss(
        images: int, **given
    ):  # of so many copies of one image: even their Dice is that of one
        outputs = SimpleNamespace(logits=logits.expand(images, -1, -1, -1))
        return loss_of(outputs, mask.expand(images, -1, -1), **given)

    for sizes in ((4,), (2, 2), (3, 1)):
        pixels = sum(sizes) * (mask != -100).sum()
        step = sum(loss(size, num_items_in_batch=pixels) for size in sizes)
        assert torch.isclose(step, loss(1)), sizes


def test_summed_micro_batches_take_the_steps_of_the_whole_batch_and_means_of_them_do_not():
    found = run("accumulation")
    images, masks = found["images"], found["masks"]

    def whole_batches(split: int) -> list[float]:  # the mean over micro-batches of their means
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 2, 3, padding=1)
        criterion = losses.build("ce", ignore_index=255)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-1)
        history = []
        for _ in range(30):
            pairs = zip(images.split(split), masks.split(split), strict=True)
            loss = torch.stack([criterion(model(x), y) for x, y in pairs]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    assert found["history"] == pytest.approx(whole_batches(8), rel=1e-4)
    assert found["history"] != pytest.approx(whole_batches(2), rel=1e-3)


def test_a_map_of_weights_leaves_a_mean():
    found = run("pixel_weights")
    weights, pixels = (
        found["weights"],
        found["criterion"](found["model"](found["images"]), found["masks"]),
    )
    assert pixels.shape == weights.shape and set(weights.unique().tolist()) == {1.0, 5.0}
    torch.manual_seed(0)
    first = torch.nn.Conv2d(1, 2, 3, padding=1)(found["images"])
    surprisal = torch.nn.functional.cross_entropy(first, found["masks"], reduction="none")
    mean = float((surprisal * weights).sum() / weights.sum())
    assert found["history"][0] == pytest.approx(mean, rel=1e-5)
    assert mean != pytest.approx(float(surprisal.mean()), rel=1e-2)


def test_the_parts_that_are_logged_add_up_to_the_loss():
    found = run("log_terms")
    assert [list(row) for row in found["log"]] == [["DiceLoss", "CrossEntropyLoss"]] * 3
    for row, loss in zip(found["log"], found["history"][::10], strict=True):
        assert sum(row.values()) == pytest.approx(loss, rel=1e-5)


@pytest.fixture
def of_processes(tmp_path, side_by_side, free_port):
    """``of_processes(name, 2)``: what an example leaves after two processes of it."""

    def leaves(name: str, world: int):
        out, port = tmp_path / f"{world}.pt", str(free_port())
        main = importlib.import_module(name).main
        side_by_side(main, [(rank, world, port, str(out)) for rank in range(world)])
        return torch.load(out, weights_only=True)

    return leaves


def test_the_metric_of_two_processes_is_that_of_one(of_processes):
    rows = (of_processes("ddp_metrics", world) for world in (1, 2))
    for one, two in zip(*rows, strict=True):
        assert two == pytest.approx(one) and one["n"] == 7


def test_the_code_of_the_page_on_reuse_runs_block_after_block():
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (BOOK / "reuse.md").read_text("utf-8"), re.S | re.M
    )
    names: dict = {}
    for block in blocks:
        exec(compile(block, "reuse.md", "exec"), names)
    assert len(blocks) >= 3 and set(names["one_void"].unique().tolist()) == {0, 1, 2, 3, 255}


def test_a_label_that_nobody_marked_in_an_image_gets_no_gradient_there():
    names = run("labels_that_overlap")
    logits = names["logits"].detach().requires_grad_()
    cost = names["dice"](logits, names["target"])
    cost = cost + names["ce"](logits, names["target"]).mean((2, 3))
    (cost * names["known"]).sum().backward()
    pushed = logits.grad.abs().sum((2, 3)) > 0
    assert torch.equal(pushed, names["known"] > 0)


def test_the_compiled_loss_equals_the_plain_one():
    found = run("compiled")
    assert torch.allclose(found["loss"], found["plain"], atol=1e-5)
    assert found["model"].weight.grad.abs().sum() > 0


def test_two_processes_take_the_step_that_one_takes_with_the_whole_batch(of_processes):
    one, two = (of_processes("ddp", world) for world in (1, 2))
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=1e-6), name


def test_the_page_shows_every_example_as_it_is_tested():
    shown = set(
        re.findall(r"literalinclude\} \.\./tests/examples/(\w+)\.py", PAGE.read_text("utf-8"))
    )
    assert shown == {path.stem for path in HERE.glob("*.py")} - {"test_examples", "conftest"}
