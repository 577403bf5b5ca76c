"""The chunked choice of the pixels of largest loss, against a full sort."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses
from lossatlas.losses import _fast


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "ties", "equal", "void", "zeros"])
@pytest.mark.parametrize("count", [0, 1, 7, 500, 999, 1000, 2000])
def test_all_but_the_largest_are_dropped(
    kind: str, count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fast, "_CHUNK", 256)  # several parts
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if kind == "ties":
        u = (u * 5).floor()
    elif kind == "equal":
        u = torch.full_like(u, 0.7)
    elif kind == "zeros":
        u = torch.where(u < 0.8, 0.0, u)
    elif kind == "void":
        u = torch.where(u < 0.3, -1.0, u)
    valid = u[u >= 0]
    left = u.clone()
    cut = _fast.drop_all_but(left, count)
    kept = left[left >= cut]
    expected = valid.sort(descending=True).values[:count]
    torch.testing.assert_close(kept.sort(descending=True).values, expected, rtol=0, atol=0)
    assert torch.equal(left[left >= 0], u[left >= 0])  # what is kept is as it was


@pytest.mark.parametrize("name", ["ohem_ce", "topk_ce"])
@pytest.mark.parametrize("mode", ["binary", "multilabel"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_chunked_form_chooses_what_the_plain_one_does(
    name: str, mode: str, weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    channels = 1 if mode == "binary" else 3
    logits = torch.randn(3, channels, 300, 400, generator=generator) * 3
    target = (torch.rand(logits.shape, generator=generator) < 0.2).float()
    target[0, 0, :40] = 255
    options = {"weight": [2.5] * channels} if weighted else {}
    loss = losses.build(name, mode=mode, ignore_index=255, **options)
    found = []
    for z in (
        logits.clone(),
        logits.double(),
    ):  # chunks and radix in float32; a plain sort in float64
        z.requires_grad_()
        value = loss(z, target.to(z.dtype))
        value.backward()
        found.append((value.detach().double(), z.grad.double()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=0)
    scale = found[1][1].abs().max()
    # one pixel whose loss rounds across the cut may be chosen by one of them alone
    assert ((found[0][1] - found[1][1]).abs() > 1e-5 * scale).sum() <= 2
