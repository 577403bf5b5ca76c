"""The explorer: its JavaScript agrees with ``lossatlas.losses``, and the page can be used."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossatlas import losses
from lossatlas.report import style

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "_static" / "pages" / "explorer.js"

# p = ½ is left out: there the losses that sort have ties between the classes.
PROBS = (0.003, 0.02, 0.1, 0.31, 0.45, 0.62, 0.9, 0.99)
SIZES = ((1, 40), (3, 40), (8, 64), (30, 64), (5, 300))
PARAMETERS = (
    {"gamma": 2.0, "alpha": 0.3, "beta": 0.7, "eps": 0.0},
    {"gamma": 0.5, "alpha": 0.9, "beta": 0.1, "eps": 1.0},
)


def library(name: str, state: dict[str, float]) -> torch.nn.Module:
    """The loss of the library that the explorer's entry stands for."""
    n, t = state["N"], state["T"]
    smooth = {"smooth": state["eps"]}
    made: dict[str, Any] = {
        "weighted_ce": lambda: losses.build(
            "weighted_ce", mode="binary", weight=[1.0, (n - t) / t]
        ),
        "topk_ce": lambda: losses.build("topk_ce", mode="binary", k=0.1),
        "focal": lambda: losses.build("focal", mode="binary", gamma=state["gamma"]),
        "tversky": lambda: losses.build(
            "tversky", mode="binary", alpha=state["alpha"], beta=state["beta"], **smooth
        ),
        "focal_tversky": lambda: losses.build(
            "focal_tversky", mode="binary", alpha=state["alpha"], beta=state["beta"], **smooth
        ),
        "generalized_dice": lambda: _Softmax(losses.build("generalized_dice", **smooth)),
        "unified_focal": lambda: losses.build("unified_focal", mode="binary", **smooth),
    }
    if name in made:
        return made[name]()
    region = {"dice", "dice_squared", "inverse_dice", "log_cosh_dice", "jaccard"}
    return losses.build(name, mode="binary", **(smooth if name in region else {}))


class _Softmax(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return self.loss(both, torch.cat([1 - target, target], dim=1))


def expected(name: str, state: dict[str, float]) -> tuple[float, float, float, float]:
    """Value, mean gradient on either class, and share, by the library and autograd."""
    n, t, p = int(state["N"]), int(state["T"]), state["p"]
    target = torch.zeros(1, 1, n, dtype=torch.float64)
    target[..., :t] = 1.0
    logits = torch.full_like(target, np.log(p / (1 - p))).requires_grad_()
    value = library(name, state)(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    foreground, background = gradient[0, 0, :t], gradient[0, 0, t:]
    total = gradient.abs().sum()
    share = (foreground.abs().sum() / total).item() if total > 0 else float("nan")
    return value.item(), foreground.mean().item(), background.mean().item(), share


@pytest.fixture(scope="module")
def explorer(browser: Any) -> Any:
    page = browser.new_page()
    page.goto("about:blank")
    page.add_script_tag(path=str(SCRIPT))
    yield page
    page.close()


def test_every_value_agrees_with_the_library_on_a_thousand_points(explorer: Any) -> None:
    torch.set_num_threads(1)
    names = explorer.evaluate("() => window.lossExplorer.names")
    states = [
        {"p": p, "T": t, "N": n, **parameters}
        for p, (t, n), parameters in itertools.product(PROBS, SIZES, PARAMETERS)
    ]
    points = [(name, state) for name in names for state in states]
    assert len(points) >= 1000
    found = explorer.evaluate(
        "(points) => points.map(([name, state]) => {"
        " const v = window.lossExplorer.evaluate(name, state);"
        " return [v.loss, v.fg, v.bg, Number.isNaN(v.share) ? null : v.share]; })",
        points,
    )
    for (name, state), values in zip(points, found, strict=True):
        wanted = expected(name, state)
        for label, got, want in zip(("loss", "fg", "bg", "share"), values, wanted, strict=True):
            if got is None:
                assert np.isnan(want), (name, state, label)
                continue
            scale = max(abs(want), 1e-9)
            assert abs(got - want) <= 1e-6 * scale, (name, state, label, got, want)


def test_a_loss_has_the_colour_it_has_in_every_figure(explorer: Any) -> None:
    colours = explorer.evaluate(
        "() => Object.fromEntries(Object.entries(window.lossExplorer.losses)"
        ".map(([name, loss]) => [name, loss.colour]))"
    )
    assert colours == {name: style.loss_colour(name) for name in colours}


def test_the_script_is_small() -> None:
    assert SCRIPT.stat().st_size < 150_000


@pytest.fixture
def page(browser: Any, serve: Any, tmp_path: Path) -> Any:
    (tmp_path / "explorer.js").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "explorer.html").write_text(
        "<!doctype html><html lang='en'><link rel='icon' href='data:,'>"
        "<div id='explorer'></div><script src='explorer.js'></script></html>",
        encoding="utf-8",
    )
    with serve(tmp_path) as origin:
        tab = browser.new_page()
        tab.address = f"{origin}/explorer.html"
        yield tab
        tab.close()


def test_the_address_holds_the_state(page: Any) -> None:
    page.goto(f"{page.address}?p=0.2&pi=0.05&T=30&gamma=1&losses=ce,dice")
    rows = page.locator("tr[data-loss]")
    assert [rows.nth(i).get_attribute("data-loss") for i in range(rows.count())] == ["ce", "dice"]
    assert "30 of them foreground" in page.locator("p[aria-live]").inner_text()
    page.reload()
    assert page.locator("tr[data-loss]").count() == 2
    assert "p=0.2" in page.url and "losses=ce%2Cdice" in page.url


def test_a_slider_moves_by_keyboard_and_changes_the_table(page: Any) -> None:
    page.goto(page.address)
    before = page.locator("tr[data-loss=ce] td").first.inner_text()
    page.focus("#explorer-p")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.locator("tr[data-loss=ce] td").first.inner_text() != before
    assert "p=0.405" in page.url


def test_a_tick_adds_a_loss_to_table_and_figure(page: Any) -> None:
    page.goto(page.address)
    lines = page.locator(".explorer-figure path").count()
    page.check("input[value=lovasz_hinge]")
    assert page.locator("tr[data-loss=lovasz_hinge]").count() == 1
    assert page.locator(".explorer-figure path").count() == lines + 1


def test_nonsense_in_the_address_falls_back_to_what_can_be_shown(page: Any) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{page.address}?p=hello&T=1e99&pi=-3&losses=nothing,dice")
    assert page.locator("tr[data-loss]").count() == 1
    assert errors == []
