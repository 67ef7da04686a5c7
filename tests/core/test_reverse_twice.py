"""Products with a Jacobian by reverse mode, for steps that have no forward mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp

import bptt
from bptt.gradients import _local
from bptt.gradients._local import _reversed_twice


def test_it_is_forward_mode() -> None:
    cell = nn.GRUCell(3, 4, dtype=torch.float64)
    x, state, tangent = (torch.randn(5, n, dtype=torch.float64) for n in (3, 4, 4))

    def step(h: Tensor) -> Tensor:
        return cell(x, h)

    found = _reversed_twice(step, state, tangent)
    torch.testing.assert_close(found, jvp(step, (state,), (tangent,))[1].detach())
    assert all(p.grad is None for p in cell.parameters())


@pytest.mark.parametrize(
    "step",
    [lambda h: torch.ones(2, 3), lambda h: torch.ones(2, 3, requires_grad=True) * 2],
    ids=["of nothing", "of a weight"],
)
def test_what_does_not_depend_on_the_state(step: object) -> None:
    assert not _reversed_twice(step, torch.randn(2, 3), torch.randn(2, 3)).any()  # type: ignore[arg-type]  # either


def test_uoro_falls_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose fused cells refuse forward mode: the same numbers, one attempt."""
    attempts = []

    def refused(*args: object) -> None:
        attempts.append(None)
        raise NotImplementedError("forward AD")

    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        network = bptt.Network(nn.LSTMCell(2, 3), nn.Linear(3, 1)).double()
        x = torch.randn(12, 2, dtype=torch.float64)
        stream = bptt.Stream(x, x[:, :1])
        bptt.fit(network, stream, method=bptt.UORO(), epochs=1, progress=False)
        return list(network.parameters())

    expected = trained()
    monkeypatch.setattr(_local, "jvp", refused)
    torch.testing.assert_close(trained(), expected, rtol=1e-9, atol=1e-9)
    assert len(attempts) == 1
