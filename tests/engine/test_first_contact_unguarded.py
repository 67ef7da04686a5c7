"""Changes that Dynamo does not guard, and calls so small that PyTorch is as fast."""

from __future__ import annotations

import collections
import functools
import os
from os import getenv
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.runtime import native

from .contact import SIZE, agree, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


@pytest.mark.parametrize("how", ["os.getenv", "getenv", "alias"])
def test_an_environment_variable_that_changes(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = getenv
    steps = {
        "os.getenv": lambda s, i, h: torch.tanh(drive(s, i, h) * float(os.getenv("GAIN_", "1"))),
        "getenv": lambda s, i, h: torch.tanh(drive(s, i, h) * float(getenv("GAIN_", "1"))),
        "alias": lambda s, i, h: torch.tanh(drive(s, i, h) * float(other("GAIN_", "1"))),
    }
    cell = cell_of(steps[how])
    agree(cell)
    monkeypatch.setenv("GAIN_", "-3")
    agree(cell)


class Helper:
    """A class whose method a step calls."""

    def scale(self, value: Tensor) -> Tensor:
        return value * 0.5

    @property
    def gain(self) -> float:
        return 0.9

    @staticmethod
    def shift(value: Tensor) -> Tensor:
        return value + 0.1


def edited(function: FunctionType, other: Any) -> None:
    """As tools do that put new code into what is running."""
    function.__code__ = other.__code__


@pytest.mark.parametrize("part", ["method", "property", "static", "forward", "submodule"])
def test_new_code_in_an_old_function(part: str) -> None:
    own = type("Own", (Helper,), dict(vars(Helper)))
    for name in ("scale", "gain", "shift"):  # functions of its own
        value = vars(Helper)[name]
        inner = getattr(value, "fget", getattr(value, "__func__", value))
        copied = FunctionType(inner.__code__, inner.__globals__, name)
        setattr(own, name, type(value)(copied) if inner is not value else copied)

    class Inner(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return value * 2

    class Cell(nn.Module):
        hidden_size = SIZE

        def __init__(self) -> None:
            super().__init__()
            self.helper, self.inner = own(), Inner()
            self.w = nn.Parameter(torch.eye(SIZE) * 0.5)

        def forward(self, i: Tensor, h: Tensor) -> Tensor:
            h = self.helper.shift(self.helper.scale(h @ self.w)) * self.helper.gain
            return torch.tanh(self.inner(h) + i)

    cell = Cell()
    agree(cell)
    bptt.unfold(cell, given())
    if part == "method":
        edited(own.scale, lambda self, value: value * -1.5)
    elif part == "property":
        edited(vars(own)["gain"].fget, lambda self: -0.7)
    elif part == "static":
        edited(own.shift, lambda value: value - 2.0)
    elif part == "forward":
        edited(Cell.forward, lambda self, i, h: torch.sin(i + h @ self.w))
    else:
        edited(Inner.forward, lambda self, value: value * -3)
    agree(cell)


@pytest.mark.usefixtures("lenient")
def test_methods_of_tensors_that_change() -> None:
    try:
        Tensor.leak_ = lambda self: self * 0.5  # type: ignore[attr-defined]
        cell = cell_of(lambda s, i, h: torch.tanh((s.u(i) + h @ s.w).leak_()))
        agree(cell)
        Tensor.leak_ = lambda self: self * -3.0  # type: ignore[attr-defined]
        agree(cell)
    finally:
        del Tensor.leak_  # type: ignore[attr-defined]
    cell = cell_of(lambda s, i, h: (s.u(i) + h @ s.w).tanh())
    agree(cell)
    try:
        Tensor.tanh = lambda self: torch.sigmoid(self) * 0.3  # type: ignore[method-assign]
        agree(cell)
    finally:
        del Tensor.tanh
    agree(cell)


@pytest.mark.parametrize("make", [lambda: cell_of(drive), lambda: nn.GRUCell(SIZE, SIZE)])
def test_another_call_of_all_modules(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make()
    agree(cell)
    call = nn.Module.__call__

    def halved(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = call(self, *args, **kwargs)
        return found * 0.5 if self is cell else found

    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "__call__", halved)
        agree(cell)
    agree(cell)
    bptt.unfold(cell, given(), backend="native")


TABLE = torch.tensor([0.5, 1.0, 2.0, 0.1])[:SIZE].to(torch.float64)


@functools.lru_cache
def twice_the_table() -> Tensor:
    return 2 * TABLE


def test_what_a_cache_keeps() -> None:
    TABLE.abs_()
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w * twice_the_table()))
    agree(cell)
    TABLE.mul_(-3)
    agree(cell)


def test_a_key_that_comes_into_a_chain_of_maps() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.conf["gain"])
    cell.conf = collections.ChainMap({}, {"gain": 0.5})
    agree(cell)
    cell.conf["gain"] = -2.0
    agree(cell)


def test_numbers_of_the_call_that_are_infinite() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh((s.u(i) + h @ s.w) * s.gain))
    for gain in (1.0, 2.0, 3.0, 4.0, torch.inf, 5.0, -torch.inf):
        cell.gain = gain
        agree(cell, given().detach())
        with torch.no_grad():
            bptt.unfold(cell, given(), backend="native")


@pytest.mark.parametrize(("steps", "lanes"), [(8, 0), (0, 3), (0, 0)])
def test_nothing_is_verified_where_nothing_is_computed(
    steps: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(native, "run", failing)
    cell = cell_of(drive)
    for _ in range(2):
        bptt.unfold(cell, torch.zeros(steps, lanes, SIZE))


def test_few_operators_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until as many run as PyTorch runs while a program is looked up."""
    steps, run = [], native.run

    def counted(cell: Any, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        steps.append(len(inputs))
        return run(cell, inputs, *args, **kwargs)

    monkeypatch.setattr(native, "run", counted)
    cell = cell_of(lambda s, i, h: h + i)
    for n in (8, 8, 24):
        bptt.unfold(cell, torch.zeros(n, 3, SIZE))
    assert steps == []
    bptt.unfold(cell, torch.zeros(25, 3, SIZE))
    assert steps[-1] == 25
    bptt.unfold(cell, torch.zeros(8, 3, SIZE), backend="native")
    assert steps[-1] == 8


class Bag:
    """Its attributes are in a table of its own."""

    def __init__(self, **table: float) -> None:
        self.__dict__["table"] = table

    def __getattr__(self, name: str) -> float:
        return self.table[name]


def test_a_helper_that_answers_unknown_names_with_a_key_error() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.bag.gain)
    cell.bag = Bag(gain=0.5)
    agree(cell)
    bptt.unfold(cell, given(), backend="native")


class Equal:
    """Its `==` gives no truth value, as that of arrays."""

    gain = 0.5

    def __eq__(self, other: object) -> Any:
        raise ValueError("ambiguous")

    __hash__ = object.__hash__


def test_a_helper_that_cannot_be_compared() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.helper.gain)
    cell.helper = Equal()
    bptt.unfold(cell, given(), backend="native")
    agree(cell)


def test_errors_on_recompilation_are_of_other_code() -> None:
    with torch._dynamo.config.patch(error_on_recompile=True):
        first, second = cell_of(drive), cell_of(drive)
        agree(first)
        agree(second, given(1))
    bptt.unfold(second, given(), backend="native")


@pytest.mark.parametrize(
    "ask", [lambda h: h.is_leaf, lambda h: not h.requires_grad, lambda h: h.grad_fn is None]
)
@pytest.mark.parametrize("first", [None, 1, 9])
def test_a_step_that_asks_how_its_state_came_about(ask: Any, first: int | None) -> None:
    """A reset mixes rows that need a gradient into a state that needs none."""
    cell = cell_of(lambda s, i, h: torch.tanh(h) * (1.0 if ask(h) else 0.5) + 0.1)
    inputs, state = torch.randn(9, 3, SIZE), torch.randn(3, SIZE)
    if first is not None:
        bptt.unfold(cell, inputs[:first], state)
    reset = torch.zeros(9, 3, dtype=torch.bool)
    reset[4, 1] = True
    ends = []
    for backend in ("auto", "eager"):
        initial = torch.full((3, SIZE), 0.4).requires_grad_()
        found, _ = bptt.unfold(cell, inputs, state, initial=initial, reset=reset, backend=backend)
        ends.append([found.detach(), *torch.autograd.grad(found.sum(), initial)])
    for found, expected in zip(*ends, strict=True):
        torch.testing.assert_close(found, expected)
