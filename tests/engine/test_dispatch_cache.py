"""What is kept from call to call never shows: a second call is as the first would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.frontend.foreign import Foreign
from bptt.engine.runtime.dispatch_cache import dispatch_of
from bptt.errors import ShapeError


def unfolded(cell: nn.Module, inputs: Tensor, **options: object) -> Tensor:
    outputs, _ = bptt.unfold(cell, inputs, **options)  # type: ignore[call-overload]  # of any overload
    return outputs


def twice(cell: nn.Module, inputs: Tensor) -> None:
    """Two calls, after which the third is a usual one."""
    unfolded(cell, inputs)
    assert dispatch_of(cell, inputs) is not None
    unfolded(cell, inputs)


@pytest.mark.parametrize("kind", ["Elman", "GRU", "LSTM"])
def test_changes_are_seen(kind: str) -> None:
    cell = getattr(bptt.cells, kind)(3, 5).double()
    inputs = torch.randn(4, 2, 3).double()
    twice(cell, inputs)
    with pytest.raises(ShapeError, match="2 features"):
        unfolded(cell, inputs[..., :2])
    with pytest.raises(ShapeError, match="float32"):
        unfolded(cell, inputs.float())
    with pytest.raises(ShapeError, match="must be a torch"):
        unfolded(cell, inputs.tolist())
    with pytest.raises(ShapeError, match="initial has the shape"):
        unfolded(cell, inputs, initial=torch.zeros(2, 4).double())
    with pytest.raises(ShapeError, match="state has the shape"):
        unfolded(cell, inputs, state=torch.zeros(3, 5).double())
    cell.float()
    with pytest.raises(ShapeError, match="float64"):
        unfolded(cell, inputs)
    twice(cell, inputs.float())
    cell.weight_ih = nn.Parameter(torch.randn_like(cell.weight_ih))
    expected = unfolded(cell, inputs.float(), backend="eager")
    torch.testing.assert_close(unfolded(cell, inputs.float()), expected)


@pytest.mark.parametrize("steps", [0, 3])
def test_zeros_are_nobodys(steps: int) -> None:
    """What a call gives may be changed in place; the next one still starts at zero."""
    cell, inputs = bptt.cells.GRU(2, 3), torch.randn(steps, 2, 2)
    reset = torch.zeros(steps, 2, dtype=torch.bool)
    reset[1:2] = True
    first = unfolded(cell, inputs, reset=reset).detach().clone()
    for _ in range(2):
        outputs, last = bptt.unfold(cell, inputs, reset=reset)
        assert torch.equal(outputs, first)
        with torch.no_grad():
            assert isinstance(last, Tensor)
            last.fill_(7.0)


def test_lanes_may_change() -> None:
    cell, inputs = bptt.cells.LSTM(2, 3), torch.randn(3, 4, 2)
    whole = unfolded(cell, inputs)
    for lanes in (1, 4, 2, 4, 3):
        torch.testing.assert_close(unfolded(cell, inputs[:, :lanes]), whole[:, :lanes])


def test_an_initial_state_of_ones_own_is_asked_for_each_time() -> None:
    class Own(bptt.cells.LSTM):
        value = 0.0

        def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
            start = torch.full((batch, self.hidden_size), Own.value)
            return start, start

    cell, inputs = bptt.cells.Stack(Own(2, 3)), torch.randn(3, 1, 2)
    twice(cell, inputs)
    before = unfolded(cell, inputs)
    Own.value = 1.0
    after = unfolded(cell, inputs)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, unfolded(cell, inputs, backend="eager"))


def test_inference_first() -> None:
    cell, inputs = bptt.cells.GRU(2, 3), torch.randn(3, 2, 2)
    reset = torch.tensor([[True, False], [False, True], [False, False]])
    with torch.inference_mode():
        unfolded(cell, inputs, reset=reset)
        unfolded(cell, inputs, reset=reset)
    loss = unfolded(cell, inputs, reset=reset).square().sum()
    (first,) = torch.autograd.grad(loss, cell.weight_hh, create_graph=True)
    first.sum().backward()
    assert cell.weight_hh.grad is not None


def test_needs_of_the_state_are_its_own() -> None:
    """A carried state, a learned start and plain zeros have plans of their own."""
    cell, inputs = bptt.cells.Elman(2, 3), torch.randn(3, 2, 2)
    twice(cell, inputs)
    for _ in range(2):
        learned = torch.zeros(2, 3, requires_grad=True)
        unfolded(cell, inputs, initial=learned).sum().backward()
        assert learned.grad is not None
        learned.grad = None
        unfolded(cell, inputs, state=learned).sum().backward()
        assert learned.grad is not None
        with torch.no_grad():
            assert not unfolded(cell, inputs).requires_grad
        assert unfolded(cell, inputs).requires_grad
        wanted = inputs.clone().requires_grad_()
        unfolded(cell, wanted).sum().backward()
        assert wanted.grad is not None


def test_transforms_are_not_usual() -> None:
    cell, inputs = bptt.cells.Elman(2, 3), torch.randn(4, 3, 2, 2)
    twice(cell, inputs[0])
    found = torch.func.vmap(lambda x: unfolded(cell, x))(inputs)
    torch.testing.assert_close(found[3], unfolded(cell, inputs[3]))


class Own(nn.Module):
    """A step of few operators or many."""

    hidden_size = 3

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.linear, self.rounds = nn.Linear(2, 3), rounds

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        for _ in range(self.rounds):
            state = torch.tanh(self.linear(input) + state)
        return state


@pytest.mark.parametrize(
    ("rounds", "backend", "natively"),
    [(1, "auto", False), (1, "native", True), (9, "auto", True), (9, "native", True)],
)
def test_one_step_of_few_operators_is_left_to_pytorch(
    rounds: int, backend: str, natively: bool
) -> None:
    """It takes PyTorch no longer than finding the program takes; in the first call, too, so that
    a run that goes on has the same numbers."""
    cell = Own(rounds)
    for needs in (True, False, True):
        inputs = torch.randn(1, 4, 2, requires_grad=needs)
        outputs = unfolded(cell, inputs, backend=backend)
        assert ("_Loop" in type(outputs.grad_fn).__name__) is natively
        expected = unfolded(cell, inputs, backend="eager")
        torch.testing.assert_close(outputs, expected)
        assert natively or torch.equal(outputs, expected)
    longer = unfolded(cell, torch.randn(30, 4, 2), backend=backend)
    assert "_Loop" in type(longer.grad_fn).__name__


@pytest.mark.parametrize("cell", [Own(1), Own(9), bptt.cells.GRU(2, 3)])
def test_zero_steps_need_a_gradient_as_in_the_loop(cell: nn.Module) -> None:
    twice(cell, torch.randn(3, 2, 2))
    state = torch.randn(2, 3, requires_grad=True)
    for given in (None, state):
        for options in ({}, {"backend": "native"}):
            outputs, last = bptt.unfold(cell, torch.randn(0, 2, 2), given, **options)
            other, expected = bptt.unfold(cell, torch.randn(0, 2, 2), given, backend="eager")
            assert outputs.requires_grad is other.requires_grad
            assert last.requires_grad is expected.requires_grad
            assert outputs.shape == (0, 2, 3)


class Start(nn.Module):
    """An initial state of one's own, as a module."""

    def forward(self, batch: int) -> Tensor:
        return torch.full((batch, 3), 0.5)


def put_on_the_cell(cell: nn.Module) -> None:
    cell.initial_state = Start()  # type: ignore[assignment]


def put_on_a_part(cell: nn.Module) -> None:
    assert isinstance(cell, bptt.cells.Stack)
    cell.cells[0].initial_state = Start()  # type: ignore[assignment]


def put_on_the_class_of_a_part(cell: nn.Module) -> None:
    assert isinstance(cell, bptt.cells.Stack)
    kind: Any = type(cell.cells[0])
    kind.initial_state = lambda self, batch: torch.full((batch, 3), 0.5)


@pytest.mark.parametrize(
    ("stacked", "put"),
    [(False, put_on_the_cell), (True, put_on_a_part), (True, put_on_the_class_of_a_part)],
)
def test_an_initial_state_that_comes_later_is_asked(
    stacked: bool, put: Callable[[nn.Module], None]
) -> None:
    kind: Any = type("Part", (Own,), {})
    cell = bptt.cells.Stack(kind(9), nn.GRUCell(3, 3)) if stacked else kind(9)
    inputs = torch.randn(4, 2, 2)
    twice(cell, inputs)
    put(cell)
    found, expected = (unfolded(cell, inputs, backend=b) for b in ("auto", "eager"))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(unfolded(cell, inputs), expected)


def test_a_refusal_is_found_at_once_and_ends_with_what_it_is_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here the mode of a part."""
    looked: list[int] = []
    find = Foreign.find

    def noted(self: Foreign, *given: Any) -> Any:
        looked.append(1)
        return find(self, *given)

    class Dropped(Own):
        def __init__(self) -> None:
            super().__init__(9)
            self.drop = nn.Sequential(nn.Dropout(0.5))

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return super().forward(self.drop(input), state)

    cell, inputs = Dropped(), torch.randn(4, 2, 2)
    with pytest.warns(UserWarning, match="Python loop"):
        unfolded(cell, inputs)
    monkeypatch.setattr(Foreign, "find", noted)
    unfolded(cell, inputs)
    assert not looked
    cell.drop.eval()
    assert "_Loop" in type(unfolded(cell, inputs).grad_fn).__name__
    cell.drop.train()
    assert "_Loop" not in type(unfolded(cell, inputs).grad_fn).__name__
