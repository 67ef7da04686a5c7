"""Many sizes, classes and modes in one process: nothing grows, and nothing gets slower."""

from __future__ import annotations

import gc
import resource
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import bptt
from bptt.engine import Plan
from bptt.engine._torch_compat import CompiledStep
from bptt.engine.frontend import capture, front
from bptt.engine.frontend.capture import Captured
from bptt.engine.frontend.foreign import RECAPTURES
from bptt.engine.frontend.form import Form

from .contact import SIZE, Base, agree, assert_close, cell_of, drive, given, seen

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


class Sized(nn.Module):
    """One class of all sizes."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.u, self.w = nn.Linear(SIZE, hidden_size), nn.Linear(hidden_size, hidden_size)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.u(input) + self.w(state))


def memory() -> float:
    """MiB that this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def native(cell: nn.Module, inputs: Tensor) -> None:
    """The cell has a program, and it is right."""
    found, _ = bptt.unfold(cell, inputs, backend="native")
    expected = bptt.unfold(cell, inputs, backend="eager")[0]
    tolerance = 1e-9 if inputs.dtype is torch.float64 else 1e-5
    assert_close("outputs", found, expected, tolerance)


@pytest.mark.parametrize("make", [lambda n: nn.GRUCell(SIZE, n), Sized])
def test_more_sizes_of_one_class_than_a_code_object_takes(make: Callable[[int], Any]) -> None:
    cells = [make(n) for n in range(1, 12)]
    for cell in cells:
        native(cell, given())
    for cell in cells:
        agree(cell)
        native(cell, given(1))


def test_more_lanes_and_steps_than_a_code_object_takes() -> None:
    cell = cell_of(drive)
    for lanes in range(1, 15):
        agree(cell, given(lanes, 1 + lanes % 4))
        native(cell, given(lanes))


@pytest.mark.parametrize("make", [lambda: nn.GRUCell(SIZE, SIZE), lambda: cell_of(drive)])
def test_one_cell_in_every_mode(make: Callable[[], Any]) -> None:
    cell = make()
    for _ in range(2):
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
            cell.to(dtype)
            inputs = given().detach().to(dtype)
            for training in (True, False):
                cell.train(training)
                for frozen in (True, False):
                    next(cell.parameters()).requires_grad_(not frozen)
                    for needs in (True, False):
                        agree(cell, inputs.clone().requires_grad_(needs), tolerance=tolerance)
                    for mode in (torch.no_grad, torch.inference_mode):
                        with mode():
                            agree(cell, inputs, tolerance=tolerance)
                    native(cell, inputs)


class Rated(Base):
    """An attribute decides, as a schedule would set it."""

    rate = 0.5

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return drive(self, input, state) * self.rate


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """What is captured during the test."""
    found: list[Captured] = []

    class Counted(Captured):
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            found.append(self)

    monkeypatch.setattr(capture, "Captured", Counted)
    return found


@pytest.mark.parametrize("kind", ["set before each call", "counted in the step", "new each time"])
def test_an_attribute_of_another_value_in_each_call(kind: str, captures: list[Captured]) -> None:
    """However often it changes, few calls capture it."""

    def counting(s: Any, i: Tensor, h: Tensor) -> Tensor:
        s.count += 1
        return drive(s, i, h)

    cell: Any = Rated() if kind != "counted in the step" else cell_of(counting, count=0)
    inputs = given(3, 10)
    for k in range(40):
        if kind == "set before each call":
            cell.rate = 1 / (2 + k)
        elif kind == "new each time":
            setattr(cell, f"seen_{k}", 1.0)
        bptt.unfold(cell, inputs)
    assert len(captures) <= 2 * (RECAPTURES + 1)  # a first and a later step each
    if kind == "set before each call":
        for _ in range(3):
            cell.rate *= 0.9
            agree(cell, inputs)


def test_a_value_that_changes_is_warned_of_once() -> None:
    cell, inputs = Rated(), given()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for k in range(30):
            cell.rate = 1 / (2 + k)
            bptt.unfold(cell, inputs)
    assert len([w for w in heard if "unfolded" in str(w.message)]) <= 1


def test_a_refused_cell_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, inputs = cell_of(lambda s, i, h: drive(s, i, h) * (1 if h.sum() > 9 else 2)), given(3, 10)
    asked = []
    call = capture.call
    monkeypatch.setattr(capture, "call", lambda *args: asked.append(1) or call(*args))
    for training in (True, False, True, False):
        cell.train(training)
        for _ in range(3):
            bptt.unfold(cell, inputs)
    assert len(asked) == 2  # once in each mode


@pytest.mark.parametrize("kind", ["GRUCell", "own", "refused", "constant"])
def test_cells_and_their_classes_are_let_go(kind: str) -> None:
    constant = torch.randn(SIZE)
    makers: dict[str, Callable[[], Any]] = {
        "GRUCell": lambda: nn.GRUCell(SIZE, SIZE),
        "own": lambda: cell_of(lambda s, i, h: drive(s, i, h)),
        "refused": lambda: cell_of(lambda s, i, h: drive(s, i, h) * float(h.sum())),
        "constant": lambda: cell_of(lambda s, i, h: drive(s, i, h) * s.c, c=constant.clone()),
    }
    gone = []
    for _ in range(3):
        cell = makers[kind]()
        seen(cell, given(), "auto")
        seen(cell, given(1), "auto")
        gone += [weakref.ref(cell), weakref.ref(next(cell.parameters()))]
        if kind != "GRUCell":
            gone.append(weakref.ref(type(cell)))
        if kind == "constant":
            gone.append(weakref.ref(cell.c))
        del cell
    gc.collect()
    assert [one() for one in gone] == [None] * len(gone)


def small(k: int) -> nn.Module:
    """A cell of a class of its own."""
    return cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w))


@pytest.mark.parametrize("make", [lambda k: Sized(1 + k), small], ids=["sizes", "classes"])
def test_nothing_is_kept_of_cells_that_are_gone(make: Callable[[int], nn.Module]) -> None:
    kinds = (Captured, Form, Plan, CompiledStep, GraphModule, Node, Sized)

    def alive() -> list[int]:
        gc.collect()
        found = Counter(map(type, gc.get_objects()))
        return [sum(n for t, n in found.items() if issubclass(t, kind)) for kind in kinds]

    native(make(0), given(2, 3).detach())
    before = alive()
    for k in range(1, 4):
        native(make(k), given(2, 3).detach())
    assert alive() == before


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda k: Sized(1 + k), small], ids=["sizes", "classes"])
def test_hundreds_of_cells(make: Callable[[int], nn.Module]) -> None:
    """What PyTorch itself notes of each compiled function is some 0.3 MiB a cell."""
    for k in range(100):
        native(make(k), given(2, 3).detach())
    before = memory()
    for k in range(100, 300):
        native(make(k), given(2, 3).detach())
    assert memory() - before < 200


def test_a_call_looks_through_few_forms_however_many_cells_there_are() -> None:
    inputs = given(2, 3).detach()
    cells = [cell_of(drive), *(Sized(1 + k) for k in range(30)), *(cell_of(drive) for _ in "abc")]
    with torch.no_grad():
        for cell in cells:
            bptt.unfold(cell, inputs)
    for cell in cells:
        steps = front._FRONTS.get(cell)._steps
        assert 1 <= steps.step.forms <= 2
