"""A cell of one's own is trained in the core only once that gave what PyTorch gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.online import learner
from bptt.engine.online.trace import Unit
from bptt.training import _eligible

PLAIN = {
    dtype: (
        torch.tensor([0.5, -1.0, 2.0, 0.1, 0.7], dtype=dtype),
        torch.tensor([4.5, 1.5, 0.7, 2.5, 1.2], dtype=dtype),
    )
    for dtype in (torch.float32, torch.float64)
}


class Cell(nn.Module):
    """Reads two tensors of the same shape that belong to nobody."""

    hidden_size = 5

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(2, 5), nn.Linear(5, 5)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        shift, scale = PLAIN[input.dtype]
        return torch.tanh((self.x(input) + shift) * scale + self.h(state))


def trained(backend: str, dtype: torch.dtype, loss: str, learned: bool = False) -> list[Tensor]:
    torch.manual_seed(1)
    cell, readout = Cell().to(dtype), nn.Linear(5, 3, dtype=dtype)
    network = bptt.Network(cell, readout, learn_initial_state=learned, backend=backend)
    inputs = torch.randn(60, 2, dtype=dtype)
    targets = torch.randint(3, (60,)) if loss == "cross_entropy" else inputs.new_zeros(60, 3)
    bptt.fit(
        network,
        bptt.Stream(inputs, targets, lanes=2),
        method=bptt.Truncated(4, 2),
        loss=loss,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=0.05),
        epochs=2,
        progress=False,
    )
    return [p.detach().clone() for p in network.parameters()]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The answers of every verification."""
    found: list[Any] = []
    differs = _eligible.differs

    def noting(*args: Any) -> Any:
        found.append(differs(*args))
        return found[-1]

    monkeypatch.setattr(_eligible, "differs", noting)
    return found


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learned", [False, True])
def test_a_right_one_is_used(
    loss: str, dtype: torch.dtype, learned: bool, asked: list[Any]
) -> None:
    found = trained("native", dtype, loss, learned)
    assert asked == [None]
    expected = trained("eager", dtype, loss, learned)
    tolerance = 1e-9 if dtype is torch.float64 else 1e-4
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("lenient")
def test_constants_that_are_mixed_up_are_found(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    trace = learner.trace

    def spoiled(*args: Any) -> Unit:
        unit = trace(*args)
        place = [i for i, t in enumerate(unit.tensors) if any(t is own for own in PLAIN[t.dtype])]
        tensors = list(unit.tensors)
        tensors[place[0]], tensors[place[1]] = tensors[place[1]], tensors[place[0]]
        return replace(unit, tensors=tensors)

    expected = trained("eager", torch.float32, "mse")
    monkeypatch.setattr(learner, "trace", spoiled)
    with pytest.warns(UserWarning, match="deserves a report"):
        found = trained("auto", torch.float32, "mse")
    assert len(asked) == 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
