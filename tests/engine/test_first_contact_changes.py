"""What changes between two calls of a cell is seen by the next one, wherever it stands."""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from .contact import SIZE, Base, Step, agree, cell_of, differ, drive, given

pytestmark = pytest.mark.usefixtures("core", "double")

GAIN = 1.0
FIELD = torch.ones(SIZE, dtype=torch.float64)
SETTINGS = {"gain": 1.0, "act": torch.tanh}
MODULE = types.SimpleNamespace(gain=1.0)


def helper(x: Tensor) -> Tensor:
    return torch.tanh(x)


class Act:
    """A callable that has an attribute."""

    a = 1.0

    def __init__(self) -> None:
        self.b, self.tensor, self.inner = 1.0, torch.ones(SIZE), types.SimpleNamespace(c=1.0)

    def __call__(self, v: Tensor) -> Tensor:
        return v * self.b * self.a * self.inner.c * self.tensor


class Slotted:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 1.0


def in_closure() -> tuple[Step, Callable[[Any], None]]:
    gain = 1.0

    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(h @ s.w + i) * gain

    def change(cell: Any) -> None:
        nonlocal gain
        gain = 0.5

    return step, change


def with_everything(step: Step) -> Any:
    """A fresh class and all that a step below reads."""
    base = type("Fresh", (Base,), {"alpha": 1.0, "limit": None})
    cell = cell_of(step, base)
    cell.act, cell.slotted, cell.number = Act(), Slotted(), 1.0
    cell.list, cell.tuple = [nn.LeakyReLU(1.0)], (nn.LeakyReLU(1.0), nn.Linear(SIZE, SIZE))
    cell.table = {"act": nn.LeakyReLU(1.0), "gain": 1.0, "deep": {"a": [1.0]}}
    cell.plain, cell.array, cell.order = torch.ones(1), np.ones(SIZE), [0, 1, 2, 3]
    cell.function, cell.drop = torch.tanh, nn.Dropout(0.0)
    cell.register_buffer("kept", torch.ones(SIZE))
    return cell


def setter(way: str, value: Any) -> Callable[[Any], None]:
    """Set what a dotted way leads to."""
    *first, last = way.split(".")

    def change(cell: Any) -> None:
        for name in first:
            cell = getattr(cell, name)
        setattr(cell, last, value)

    return change


def globally(name: str, value: Any) -> Callable[[Any], None]:
    return lambda cell: globals().__setitem__(name, value)


def on_class(name: str, value: Any, level: int = 0) -> Callable[[Any], None]:
    return lambda cell: setattr(type(cell).__mro__[level], name, value)


def other_forward(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(s.u(i) - h @ s.w)


def in_place(pick: Callable[[Any], Tensor], by: float = 0.5) -> Callable[[Any], None]:
    def change(cell: Any) -> None:
        with torch.no_grad():
            pick(cell).mul_(by)

    return change


def one_more(cell: Any) -> None:
    cell.list.append(nn.LeakyReLU(-2.0))


def through_list(s: Any, i: Tensor, h: Tensor) -> Tensor:
    x = drive(s, i, h)
    for module in s.list:
        x = module(x)
    return x


def moved_to_other_class(cell: Any) -> None:
    cell.__class__ = type("Other", (Base,), {"forward": other_forward})


def on_grad(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return drive(s, i, h) * (0.5 if s.w.requires_grad else 1.0)


def on_place(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return drive(s, i, h) * float(os.environ.get("BPTT_TEST_GAIN", "1"))


def normalised(cell: Any) -> None:
    parametrizations.weight_norm(cell.u)
    cell.u.parametrizations.weight.original0.data *= 0.5


closed, reopen = in_closure()

CHANGES: dict[str, tuple[Step, Callable[[Any], None]]] = {
    "class attribute": (lambda s, i, h: drive(s, i, h) * s.alpha, on_class("alpha", 0.5, 1)),
    "class attribute, of the type": (
        lambda s, i, h: drive(s, i, h) * type(s).alpha,
        on_class("alpha", 0.5, 1),
    ),
    "class attribute that shadows one": (
        lambda s, i, h: drive(s, i, h) * s.alpha,
        on_class("alpha", 0.5, 0),
    ),
    "class attribute shadowed by one's own": (
        lambda s, i, h: drive(s, i, h) * s.alpha,
        setter("alpha", 0.5),
    ),
    "class attribute from None": (
        lambda s, i, h: drive(s, i, h) if s.limit is None else drive(s, i, h).clamp(max=s.limit),
        on_class("limit", 0.1, 1),
    ),
    "global number": (lambda s, i, h: drive(s, i, h) * GAIN, globally("GAIN", 0.5)),
    "global tensor": (lambda s, i, h: drive(s, i, h) * FIELD, globally("FIELD", FIELD * 0.5)),
    "global tensor in place": (
        lambda s, i, h: drive(s, i, h) * FIELD,
        lambda cell: FIELD.mul_(0.5),
    ),
    "global dictionary": (
        lambda s, i, h: drive(s, i, h) * SETTINGS["gain"],
        lambda cell: SETTINGS.__setitem__("gain", 0.5),
    ),
    "function in a global dictionary": (
        lambda s, i, h: SETTINGS["act"](s.u(i) + h),
        lambda cell: SETTINGS.__setitem__("act", torch.sigmoid),
    ),
    "attribute of a global": (
        lambda s, i, h: drive(s, i, h) * MODULE.gain,
        lambda cell: setattr(MODULE, "gain", 0.5),
    ),
    "global function": (
        lambda s, i, h: helper(s.u(i) + h @ s.w),
        globally("helper", torch.sigmoid),
    ),
    "closure": (closed, reopen),
    "default argument": (
        lambda s, i, h, gain=1.0: drive(s, i, h) * gain,
        lambda cell: setattr(type(cell).forward, "__defaults__", (0.5,)),
    ),
    "environment": (on_place, lambda cell: os.environ.__setitem__("BPTT_TEST_GAIN", "0.5")),
    "number": (lambda s, i, h: drive(s, i, h) * s.number, setter("number", 0.5)),
    "number to whole": (lambda s, i, h: drive(s, i, h) * s.number, setter("number", 3)),
    "function": (lambda s, i, h: s.function(s.u(i) + h @ s.w), setter("function", torch.sin)),
    "callable's attribute": (lambda s, i, h: s.act(drive(s, i, h)), setter("act.b", 0.5)),
    "callable's object": (lambda s, i, h: s.act(drive(s, i, h)), setter("act.inner.c", 0.5)),
    "callable's class": (
        lambda s, i, h: s.act(drive(s, i, h)),
        lambda cell: setattr(cell.act, "__class__", type("Half", (Act,), {"a": 0.5})),
    ),
    "callable's tensor": (
        lambda s, i, h: s.act(drive(s, i, h)),
        in_place(lambda cell: cell.act.tensor),
    ),
    "slot": (lambda s, i, h: drive(s, i, h) * s.slotted.a, setter("slotted.a", 0.5)),
    "module in a list": (
        lambda s, i, h: s.list[0](drive(s, i, h)),
        lambda cell: setattr(cell.list[0], "negative_slope", 0.5),
    ),
    "module in a list, another": (
        lambda s, i, h: s.list[0](drive(s, i, h)),
        lambda cell: cell.list.__setitem__(0, nn.LeakyReLU(0.5)),
    ),
    "one more in a list": (through_list, one_more),
    "module in a tuple": (
        lambda s, i, h: s.tuple[0](drive(s, i, h)),
        lambda cell: setattr(cell.tuple[0], "negative_slope", 0.5),
    ),
    "weights of a module in a tuple": (
        lambda s, i, h: torch.tanh(s.tuple[1](h).detach() + i),
        in_place(lambda cell: cell.tuple[1].weight),
    ),
    "module in a dictionary": (
        lambda s, i, h: s.table["act"](drive(s, i, h)),
        lambda cell: setattr(cell.table["act"], "negative_slope", 0.5),
    ),
    "number deep in a dictionary": (
        lambda s, i, h: drive(s, i, h) * s.table["deep"]["a"][0],
        lambda cell: cell.table["deep"]["a"].__setitem__(0, 0.5),
    ),
    "index list": (lambda s, i, h: drive(s, i, h)[:, s.order], lambda cell: cell.order.reverse()),
    "float(tensor)": (
        lambda s, i, h: drive(s, i, h) * float(s.plain),
        in_place(lambda cell: cell.plain),
    ),
    "tensor.item()": (
        lambda s, i, h: drive(s, i, h) * s.plain.item(),
        in_place(lambda cell: cell.plain),
    ),
    "tensor in place": (lambda s, i, h: drive(s, i, h) * s.plain, in_place(lambda c: c.plain)),
    "tensor, another": (lambda s, i, h: drive(s, i, h) * s.plain, setter("plain", torch.zeros(1))),
    "tensor of another shape": (
        lambda s, i, h: drive(s, i, h) * s.plain,
        setter("plain", torch.full((SIZE,), 0.5)),
    ),
    "tensor of another dtype": (
        lambda s, i, h: drive(s, i, h) * s.plain,
        setter("plain", torch.tensor([3])),
    ),
    "NumPy array": (
        lambda s, i, h: drive(s, i, h) * float(s.array[0]),
        lambda cell: cell.array.__setitem__(0, 0.5),
    ),
    "NumPy array as a tensor": (
        lambda s, i, h: drive(s, i, h) * torch.from_numpy(s.array),
        lambda cell: cell.array.__setitem__(0, 0.5),
    ),
    "buffer in place": (lambda s, i, h: drive(s, i, h) * s.kept, in_place(lambda c: c.kept)),
    "buffer, another": (lambda s, i, h: drive(s, i, h) * s.kept, setter("kept", FIELD * 0.25)),
    "__class__": (drive, moved_to_other_class),
    "forward of the class": (drive, on_class("forward", other_forward)),
    "forward of the cell": (
        drive,
        lambda cell: setattr(cell, "forward", lambda i, h: other_forward(cell, i, h)),
    ),
    "forward of a child": (drive, setter("u.forward", lambda x: x * 0.5)),
    "child, another": (drive, setter("u", nn.Linear(SIZE, SIZE, bias=False))),
    "child of another kind": (drive, setter("u", nn.Tanh())),
    "parameter, another": (drive, setter("w", nn.Parameter(torch.eye(SIZE)))),
    "parameter to a plain tensor": (
        drive,
        lambda cell: (cell.__delattr__("w"), setattr(cell, "w", torch.eye(SIZE))),
    ),
    "parameter in place": (drive, in_place(lambda cell: cell.w)),
    "square weight transposed": (
        lambda s, i, h: torch.tanh(h @ s.w + i),
        lambda cell: setattr(cell.w, "data", cell.w.data.t()),
    ),
    "parameter transposed": (drive, lambda cell: setattr(cell.w, "data", cell.w.data.t())),
    "parameter's data, another": (drive, lambda cell: setattr(cell.w, "data", cell.w.data * 0.5)),
    "bias to None": (drive, setter("u.bias", None)),
    "frozen": (on_grad, lambda cell: cell.w.requires_grad_(False)),
    "evaluation": (
        lambda s, i, h: drive(s, i, h) * (1.0 if s.training else 0.5),
        lambda cell: cell.eval(),
    ),
    "evaluation of a child": (
        lambda s, i, h: drive(s, i, h) * (1.0 if s.u.training else 0.5),
        lambda cell: cell.u.eval(),
    ),
    "dropout": (lambda s, i, h: s.drop(drive(s, i, h)), setter("drop.p", 0.5)),
    "state_dict": (
        drive,
        lambda cell: cell.load_state_dict({n: t * 0.5 for n, t in cell.state_dict().items()}),
    ),
    "state_dict, assigned": (
        drive,
        lambda cell: cell.load_state_dict(
            {n: t * 0.5 for n, t in cell.state_dict().items()}, assign=True
        ),
    ),
    "weight_norm": (drive, normalised),
    "parametrization": (
        drive,
        lambda cell: parametrize.register_parametrization(cell, "w", nn.Softsign()),
    ),
    "pruning": (drive, lambda cell: prune.l1_unstructured(cell, "w", 0.5)),
}


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    """What the tests change outside their cells is put back."""
    kept = dict(globals())
    settings, gain, field = dict(SETTINGS), MODULE.gain, FIELD.clone()
    yield
    for name in ("GAIN", "FIELD", "helper"):
        globals()[name] = kept[name]
    SETTINGS.update(settings)
    MODULE.gain = gain
    kept["FIELD"].copy_(field)
    os.environ.pop("BPTT_TEST_GAIN", None)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_after_the_first_calls(name: str) -> None:
    step, change = CHANGES[name]
    cell = with_everything(step)
    before = agree(cell)
    agree(cell)
    change(cell)
    assert differ(before, agree(cell)), "the change changes nothing"
    agree(cell)


@pytest.mark.parametrize("name", ["class attribute", "module in a list", "tensor in place"])
def test_a_copy_changes_alone(name: str) -> None:
    step, change = CHANGES[name]
    cell = with_everything(step)
    agree(cell)
    other = copy.deepcopy(cell)
    agree(other)
    change(other)
    agree(other)
    agree(cell)


def test_every_mode_in_turn() -> None:
    cell = with_everything(lambda s, i, h: s.drop(drive(s, i, h)) * (1 if s.training else 0.5))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4), (torch.float64, 1e-5)):
        cell.to(dtype)
        inputs = given().detach().to(dtype)
        for frozen in (False, True):
            cell.w.requires_grad_(not frozen)
            for training in (True, False):
                cell.train(training)
                agree(cell, inputs.requires_grad_(frozen), tolerance=tolerance)
                with torch.no_grad():
                    agree(cell, inputs, tolerance=tolerance)


def test_swapped_tensors() -> None:
    for cell in (nn.GRUCell(SIZE, SIZE), with_everything(drive)):
        before = agree(cell)
        name = "weight_hh" if isinstance(cell, nn.GRUCell) else "w"
        fresh = nn.Parameter(torch.ones_like(getattr(cell, name)))
        torch.utils.swap_tensors(getattr(cell, name), fresh)
        assert differ(before, agree(cell))


def test_conversion_that_swaps_tensors() -> None:
    cell = with_everything(drive)
    agree(cell)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        cell.float().double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    agree(cell)
