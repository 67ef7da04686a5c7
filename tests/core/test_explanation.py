"""`bptt.explain`: what runs where, and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

pytest.importorskip("bptt._core")
pytestmark = pytest.mark.filterwarnings("ignore:.*Python loop")


class Skipping(nn.Module):
    """A step with a skip, and an activation of one's choice."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.hidden_size, self.activation = 4, activation
        self.of_input, self.of_state = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return h + self.activation(self.of_input(x) + self.of_state(h))


def test_what_the_core_runs_whole() -> None:
    inputs = torch.randn(20, 2, 3)
    found = bptt.explain(nn.GRUCell(3, 4), inputs)
    assert found.why is None
    assert found.whole
    assert found.program is not None
    assert found.program.backward is not None
    text = str(found)
    assert text.startswith("GRUCell over inputs [20, 2, 3] runs natively (")
    assert "one call of the core forward and one backward" in text
    assert "each step backward" in text
    with torch.no_grad():
        assert "each step backward" not in str(bptt.explain(nn.GRUCell(3, 4), inputs))


def test_what_is_hoisted_into_pytorch() -> None:
    found = bptt.explain(
        bptt.cells.Embedded(nn.Embedding(7, 5), nn.GRUCell(5, 4)), torch.randint(0, 7, (20, 2))
    )
    assert not found.whole
    assert "aten.embedding" in str(found) or "embedding" in str(found)
    assert "the loop in the core" in str(found)


def test_what_the_python_loop_runs() -> None:
    found = bptt.explain(Skipping(torch.sin), torch.randn(20, 2, 3))
    assert found.program is None
    assert found.why is not None
    assert "aten::sin" in found.why
    assert "test_explanation.py:" in found.why
    assert str(found) == f"Skipping over inputs [20, 2, 3] runs in the Python loop: {found.why}."
    short = bptt.explain(Skipping(torch.tanh), torch.randn(1, 2, 3))
    assert short.program is None
    assert "so few steps" in str(short)


def test_each_pass() -> None:
    cell, inputs = nn.GRUCell(3, 4), torch.randn(20, 2, 3)
    found = bptt.explain(cell, inputs, passes=True)
    names = [name for name, _ in found.passes]
    assert names[:3] == ["lowering", "starts of products", "horizontal fusion"]
    texts = dict(found.passes)
    assert "@ matrix1 + " not in texts["lowering"]
    assert "@ matrix1 + " in texts["starts of products"]
    assert "after lowering:" in str(found)
    assert bptt.explain(cell, inputs).passes == ()


def test_it_runs_nothing() -> None:
    cell, inputs = nn.GRUCell(3, 4), torch.randn(20, 2, 3)
    before = torch.get_rng_state()
    bptt.explain(cell, inputs, torch.randn(2, 4, generator=torch.Generator()), passes=True)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in cell.parameters())


@pytest.mark.parametrize("inputs", [torch.randn(20, 2, 5), torch.randn(20), [1.0], None])
def test_bad_inputs_are_refused(inputs: Any) -> None:
    with pytest.raises(bptt.ShapeError):
        bptt.explain(nn.GRUCell(3, 4), inputs)
