"""`checkpointed_unfold`: gradients against `unfold`, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.segments._bytes import peak_of
from bptt.state import leaves

from .helpers import CELLS, F64, assert_same, data, network
from .test_full import Noisy


def loss_of(outputs: Tensor, last: Any) -> Tensor:
    """Any loss of one's own: of all outputs together, and of the last state."""
    weights = torch.linspace(-1, 1, len(outputs), dtype=F64)[:, None, None]
    total = (outputs.tanh() * weights).sum() ** 2
    return total + sum((leaf**2).sum() for leaf in leaves(last) if leaf.is_floating_point())


def all_gradients(unfolding: Any, kind: str, **options: Any) -> tuple[Any, Any, list[Any]]:
    """Outputs, last state, and the gradients of everything, of a ragged run with resets."""
    cell = network(kind).cell
    inputs = data(11, 3, 2).requires_grad_()
    start = bptt.state.map_state(
        lambda leaf: (leaf.detach() + 0.1).requires_grad_(), bptt.state.initial_state(cell, 3)
    )
    initial = bptt.state.map_state(
        lambda leaf: (leaf.detach() - 0.2).requires_grad_(), bptt.state.initial_state(cell, 3)
    )
    reset = torch.zeros(11, 3, dtype=torch.bool)
    reset[4, 1] = reset[7, 0] = reset[8, 2] = True
    lengths = torch.tensor([11, 8, 0])
    outputs, last = unfolding(
        cell, inputs, start, initial=initial, reset=reset, lengths=lengths, **options
    )
    into = [inputs, *leaves(start), *leaves(initial), *cell.parameters()]
    found = torch.autograd.grad(loss_of(outputs, last), into, allow_unused=True)
    return outputs, last, list(found)


def eager(*given: Any, **options: Any) -> Any:
    return bptt.unfold(*given, backend="eager", **options)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_checkpointed_unfold_is_unfold(kind: str, clip: float | None) -> None:
    expected = all_gradients(eager, kind, clip_state_gradient=clip)
    for segment, backend in ((1, "eager"), (4, "eager"), (3, "auto"), (None, "auto")):
        found = all_gradients(
            bptt.checkpointed_unfold,
            kind,
            clip_state_gradient=clip,
            segment=segment,
            backend=backend,
        )
        assert_same(found[0], expected[0])
        assert_same(found[1], expected[1])
        for one, other in zip(found[2], expected[2], strict=True):
            assert (one is None) == (other is None) or not float(
                (one if other is None else other).abs().max()
            )
            if one is not None and other is not None:
                assert_same(one, other)


def test_checkpointed_unfold_within_a_budget() -> None:
    torch.manual_seed(0)
    cell = bptt.cells.GRU(2, 8, dtype=F64)
    inputs = data(3000, 2, 2).requires_grad_()
    with pytest.raises(bptt.OptionError, match="least possible"):
        bptt.checkpointed_unfold(cell, inputs, memory=500)
    want = torch.autograd.grad(loss_of(*bptt.unfold(cell, inputs)), [inputs, *cell.parameters()])
    for memory in ("1GB", "600KB", "400KB"):
        outputs, last = bptt.checkpointed_unfold(cell, inputs, memory=memory)
        got = torch.autograd.grad(loss_of(outputs, last), [inputs, *cell.parameters()])
        assert_same(got, want, 1e-11)


def test_checkpointed_unfold_holds_less_until_the_gradient_comes() -> None:
    cell, inputs = bptt.cells.GRU(4, 32), torch.randn(2000, 1, 4)
    bptt.checkpointed_unfold(cell, inputs[:50])
    bptt.unfold(cell, inputs[:50])
    _, _, whole = peak_of(lambda: bptt.unfold(cell, inputs))
    (outputs, _), _, held = peak_of(lambda: bptt.checkpointed_unfold(cell, inputs))
    assert held < outputs.nbytes * 1.2 < whole / 3


def test_a_second_backward_pass_gives_the_same() -> None:
    cell, inputs = bptt.cells.GRU(2, 3, dtype=F64), data(20, 2, 2)
    loss = loss_of(*bptt.checkpointed_unfold(cell, inputs, segment=3))
    first = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
    assert_same(torch.autograd.grad(loss, list(cell.parameters())), first, 0.0)


def test_gradients_of_gradients_are_refused() -> None:
    cell, inputs = bptt.cells.GRU(2, 3, dtype=F64), data(20, 2, 2)
    loss = loss_of(*bptt.checkpointed_unfold(cell, inputs))
    (first, *_) = torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_checkpointed_noise_is_drawn_again() -> None:
    cell, inputs = Noisy(), data(9, 2, 2)
    torch.manual_seed(4)
    want = torch.autograd.grad(loss_of(*eager(cell, inputs)), list(cell.parameters()))
    torch.manual_seed(4)
    outputs, last = bptt.checkpointed_unfold(cell, inputs, segment=2, backend="eager")
    after = torch.rand(2)
    got = torch.autograd.grad(loss_of(outputs, last), list(cell.parameters()))
    assert_same(got, want)
    torch.manual_seed(4)
    eager(cell, inputs)
    assert_same(torch.rand(2), after, 0.0)


def test_what_a_segment_cannot_give_a_gradient_is_refused() -> None:
    gate = torch.ones(3, dtype=F64, requires_grad=True)

    class Gated(nn.Module):
        hidden_size = 3

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(2, 3, dtype=F64)

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return self.cell(input, state) * (gate * 2)

    with pytest.raises(bptt.CellError, match="none of its parameters"):
        bptt.checkpointed_unfold(Gated(), data(5, 1, 2), backend="eager")


def test_checkpointed_unfold_refuses_what_unfold_refuses() -> None:
    cell = bptt.cells.GRU(2, 3, dtype=F64)
    for options in (
        {"reset": torch.zeros(5, 2, dtype=torch.bool)},
        {"lengths": torch.tensor([9])},
        {"state": torch.zeros(1, 4, dtype=F64)},
    ):
        with pytest.raises(bptt.ShapeError) as ours:
            bptt.checkpointed_unfold(cell, data(4, 1, 2), **options)
        with pytest.raises(bptt.ShapeError) as theirs:
            bptt.unfold(cell, data(4, 1, 2), **options)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(bptt.ShapeError, match="reads 2"):
        bptt.checkpointed_unfold(cell, data(4, 1, 7))
    assert bptt.checkpointed_unfold(cell, data(0, 1, 2))[0].shape == (0, 1, 3)
