"""What a cell holds and does not read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bptt
from bptt.engine import Plan, plan_for

from .layered import DOUBLE

pytestmark = pytest.mark.usefixtures("core")


class Idle(nn.GRUCell):
    """Reads neither its buffers nor one of its parameters."""

    def __init__(self) -> None:
        super().__init__(3, 4, **DOUBLE)
        self.register_buffer("old", torch.zeros(2, **DOUBLE))
        self.register_buffer("count", torch.tensor(0))
        self.unused = nn.Parameter(torch.zeros(2, **DOUBLE))


def test_what_is_not_read_is_none_of_the_graph() -> None:
    cell, inputs = Idle(), torch.randn(5, 2, 3, **DOUBLE)
    source = torch.ones(2, **DOUBLE, requires_grad=True)
    cell.old = source.exp()  # of a graph that is gone at the next backward
    cell.old.sum().backward()
    outputs, _ = bptt.unfold(cell, inputs, backend="native")
    cell.count += 1  # type: ignore[operator]  # a buffer
    cell.unused.data.add_(1.0)
    with torch.no_grad():
        cell.unused.add_(1.0)
    outputs.sum().backward()
    assert cell.unused.grad is None
    found = [p.grad for p in cell.parameters()]
    cell.zero_grad()
    bptt.unfold(cell, inputs, backend="eager")[0].sum().backward()
    expected = [p.grad for p in cell.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_what_is_not_read_does_not_keep_a_cell_from_running_whole() -> None:
    cell, inputs = Idle(), torch.randn(5, 2, 3, **DOUBLE)
    state = torch.zeros(2, 4, **DOUBLE)
    plan = plan_for(cell, inputs, state, state)
    assert isinstance(plan, Plan)
    assert plan.executable is not None
