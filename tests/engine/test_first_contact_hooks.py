"""Hooks of modules, of tensors and of all modules, registered before or after the first calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

import bptt

from .contact import SIZE, agree, assert_close, cell_of, differ, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


def halved(*values: Any) -> Any:
    """What a forward hook, of a module or of all, makes of an output."""
    out = values[-1]
    return tuple(o * 0.5 for o in out) if isinstance(out, tuple) else out * 0.5


def halved_first(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0] * 0.5, *inputs[1:]


def halved_gradient(module: nn.Module, inward: tuple[Any, ...], outward: Any) -> tuple[Any, ...]:
    return tuple(None if g is None else g * 0.5 for g in inward)


def halved_outward(module: nn.Module, outward: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if g is None else g * 0.5 for g in outward)


Register = Callable[[Any, Any], AbstractContextManager[Any]]

HOOKS: dict[str, Register] = {
    "forward": lambda cell, child: cell.register_forward_hook(halved),
    "forward, of a child": lambda cell, child: child.register_forward_hook(halved),
    "before": lambda cell, child: cell.register_forward_pre_hook(halved_first),
    "before, of a child": lambda cell, child: child.register_forward_pre_hook(halved_first),
    "backward": lambda cell, child: cell.register_full_backward_hook(halved_gradient),
    "backward, of a child": lambda cell, child: child.register_full_backward_hook(halved_gradient),
    "before backward": lambda cell, child: child.register_full_backward_pre_hook(halved_outward),
    "forward, of all": lambda cell, child: hooks.register_module_forward_hook(halved),
    "before, of all": lambda cell, child: hooks.register_module_forward_pre_hook(halved_first),
    "backward, of all": lambda cell, child: hooks.register_module_full_backward_hook(
        halved_gradient
    ),
    "of a parameter": lambda cell, child: next(cell.parameters()).register_hook(lambda g: g * 0.5),
}

CELLS: dict[str, Callable[[], Any]] = {
    "own": lambda: cell_of(drive),
    "GRUCell": lambda: nn.GRUCell(SIZE, SIZE),
    "LSTMCell": lambda: nn.LSTMCell(SIZE, SIZE),
    "stack": lambda: bptt.cells.Stack(bptt.cells.Elman(SIZE, SIZE), bptt.cells.LSTM(SIZE, SIZE)),
}


def child_of(cell: Any) -> nn.Module:
    """The last module in it that is called, or itself."""
    return list(cell.modules())[-1]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_registered_after_the_first_calls(name: str, kind: str) -> None:
    cell = CELLS[kind]()
    before = agree(cell)
    with HOOKS[name](cell, child_of(cell)):
        assert differ(before, agree(cell)), "the hook changes nothing"
        agree(cell)
    assert not differ(before, agree(cell))


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_registered_first(name: str) -> None:
    cell = CELLS["own"]()
    with HOOKS[name](cell, child_of(cell)):
        before = agree(cell)
    assert differ(before, agree(cell)), "the hook changes nothing"


@pytest.mark.parametrize("name", ["forward", "before", "backward", "of a parameter"])
@pytest.mark.parametrize("after", [True, False])
def test_a_hook_that_only_looks(name: str, after: bool) -> None:
    heard: list[int] = []
    register: dict[str, Callable[[Any, Any], Any]] = {
        "forward": lambda c, f: c.u.register_forward_hook(f),
        "before": lambda c, f: c.u.register_forward_pre_hook(f),
        "backward": lambda c, f: c.u.register_full_backward_hook(f),
        "of a parameter": lambda c, f: c.w.register_hook(f),
    }
    cell, twin = cell_of(drive), cell_of(drive)
    if after:
        agree(cell)
    register[name](cell, lambda *given: heard.append(1))
    register[name](twin, lambda *given: heard.append(-1))
    agree(cell, twin=twin)
    assert len(heard) > 0
    assert sum(heard) == 0


def test_gradients_accumulated_are_seen_by_their_hook() -> None:
    for backend in ("auto", "eager"):
        cell, heard = cell_of(drive), []
        bptt.unfold(cell, given(), backend=backend)
        cell.w.register_post_accumulate_grad_hook(lambda p, heard=heard: heard.append(p.grad.sum()))
        bptt.unfold(cell, given(), backend=backend)[0].sum().backward()
        assert len(heard) == 1


def on_state(s: Any, i: Tensor, h: Tensor) -> Tensor:
    if h.requires_grad:
        h.register_hook(lambda g: g * 0)
    return drive(s, i, h)


def on_result(s: Any, i: Tensor, h: Tensor) -> Tensor:
    new = drive(s, i, h)
    if new.requires_grad:
        new.register_hook(lambda g: g * 0.5)
    return new


def on_part(s: Any, i: Tensor, h: Tensor) -> Tensor:
    part = h @ s.w
    if part.requires_grad:
        part.register_hook(lambda g: g.clamp(-0.1, 0.1))
    return torch.tanh(s.u(i) + part)


def on_input(s: Any, i: Tensor, h: Tensor) -> Tensor:
    if i.requires_grad:
        i.register_hook(lambda g: g * 2)
    return drive(s, i, h)


def on_weight(s: Any, i: Tensor, h: Tensor) -> Tensor:
    w = s.w * 1
    if w.requires_grad:
        w.register_hook(lambda g: g * 2)
    return torch.tanh(s.u(i) + h @ w)


@pytest.mark.parametrize("step", [on_state, on_result, on_part, on_input, on_weight])
@pytest.mark.parametrize("needs", [True, False])
def test_a_hook_of_a_tensor_in_the_step(step: Any, needs: bool) -> None:
    cell = cell_of(step)
    agree(cell, given().detach().requires_grad_(needs))
    agree(cell, given(1).detach().requires_grad_(needs))


@pytest.mark.parametrize("where", ["inputs", "state", "outputs", "last"])
def test_hooks_of_what_a_call_is_given_and_gives(where: str) -> None:
    ends = []
    for backend in ("auto", "eager"):
        cell, inputs, state = cell_of(drive), given(), torch.randn(3, SIZE).requires_grad_()
        with torch.no_grad():
            state.fill_(0.3)
        if where in ("inputs", "state"):
            (inputs if where == "inputs" else state).register_hook(lambda g: g * 3)
        outputs, last = bptt.unfold(cell, inputs, state, backend=backend)
        if where in ("outputs", "last"):
            (outputs if where == "outputs" else last).register_hook(lambda g: g * 3)
        loss = last.square().sum() if where == "last" else outputs.sin().sum()
        loss.backward()
        ends.append([inputs.grad, state.grad, cell.w.grad])
    for found, expected in zip(*ends, strict=True):
        assert_close(where, found, expected)


class Apart(nn.Module):
    """Two leaves, each with weights that the other never meets."""

    hidden_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.w = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator) * 0.4)
        self.v = nn.Parameter(torch.randn(SIZE, SIZE, generator=generator) * 0.4)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, SIZE), torch.zeros(batch, SIZE)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return torch.tanh(input + state[0] @ self.w), torch.tanh(input + state[1] @ self.v)


@pytest.mark.parametrize("steps", [2, 8])
@pytest.mark.parametrize("leaf", [0, 1])
def test_a_hook_of_a_weight_that_no_gradient_reaches_is_not_called(leaf: int, steps: int) -> None:
    ends = []
    for backend in ("auto", "eager"):
        cell, seen = Apart(), []
        bptt.unfold(cell, given()[:steps].detach(), backend=backend)  # the hook comes later
        cell.v.register_hook(lambda g, seen=seen: seen.append(g is None))
        bptt.unfold(cell, given()[:steps].detach(), backend=backend)[1][leaf].sum().backward()
        ends.append([seen, cell.w.grad, cell.v.grad])
    assert ends[0][0] == ends[1][0] == [False] * leaf
    for found, expected in zip(ends[0][1:], ends[1][1:], strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected)


def test_a_hook_of_a_weight_that_every_gradient_reaches_stays_native() -> None:
    cell = cell_of(drive)
    cell.w.register_hook(lambda g: g.clamp(-1, 1))
    bptt.unfold(cell, given(), backend="native")
