"""What calls of one cell differ in besides its values: sizes, numbers of Python's, classes, lanes;
and values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine import unsupported
from bptt.engine.frontend import capture, foreign, front
from bptt.engine.frontend.capture import Captured

from .contact import SIZE, agree, cell_of, drive, given

pytestmark = pytest.mark.usefixtures("core", "double")

Made = Callable[[Any, Tensor, Tensor], Tensor]

OF_THE_INPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda i: i.mean(-1, keepdim=True),
    "variance": lambda i: i.var(-1, keepdim=True),
    "half": lambda i: i.chunk(2, -1)[0].sum(-1, keepdim=True),
    "last": lambda i: i[:, -1:],
    "size": lambda i: i.sum(-1, keepdim=True) / i.shape[-1],
}


@pytest.mark.parametrize("name", OF_THE_INPUT)
def test_inputs_of_any_width(name: str) -> None:
    read = OF_THE_INPUT[name]
    cell = cell_of(lambda s, i, h: torch.tanh(h @ s.w + read(i)))
    for width in (3, 4, 5, 7, 3):
        agree(cell, given(size=width))
        with torch.no_grad():
            agree(cell, given(size=width))


OF_A_MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda m: m.mean(0),
    "variance": lambda m: m.var(0),
    "last": lambda m: m[-1],
    "weights": lambda m: m.sum(1).softmax(0) @ m,
}


@pytest.mark.parametrize("name", OF_A_MEMORY)
def test_a_plain_tensor_that_grows(name: str) -> None:
    read = OF_A_MEMORY[name]
    cell = cell_of(lambda s, i, h: torch.tanh(h @ s.w + i) * read(s.memory))
    for rows in (3, 4, 5, 7, 9):
        cell.memory = given(1, rows, seed=rows)[:, 0].detach()
        agree(cell)


@pytest.mark.parametrize("inner", [(), (3,)], ids=["features", "nodes and features"])
def test_a_state_whose_own_size_changes(inner: tuple[int, ...]) -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(h * s.w.sum() + i.mean()))
    for width in (3, 4, 5, 6):
        agree(cell, state=torch.zeros(3, width, *inner))


OF_A_NUMBER: dict[str, Made] = {
    "leak": lambda s, i, h: h * s.a + (1 - s.a) * i,
    "quotient": lambda s, i, h: torch.tanh(h @ s.w) + i / (1 - s.a**2),
    "remainder": lambda s, i, h: torch.tanh(h @ s.w) + i * (s.a % 0.3) + i * (s.a // 0.3),
    "root": lambda s, i, h: torch.tanh(h @ s.w) * math.sqrt(s.a) + i,
    "power": lambda s, i, h: torch.tanh(h @ s.w) ** s.a + i,
    "bound": lambda s, i, h: (torch.tanh(h @ s.w) + i).clamp(max=s.a),
    "huge": lambda s, i, h: torch.tanh(h @ s.w) * (s.a * 1e300) * 1e-300 + i,
    "beside lanes": lambda s, i, h: torch.tanh(h @ s.w) * (s.a / len(i)) + i,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", OF_A_NUMBER)
def test_a_number_of_python_that_changes(name: str, dtype: torch.dtype) -> None:
    """What Python computes of it is computed in double precision."""
    cell = cell_of(OF_A_NUMBER[name], a=0.5).to(dtype)
    tolerance = 1e-9 if dtype is torch.float64 else 2e-6
    inputs = given().detach().to(dtype)
    for a in (0.5, 0.7, 0.9, 1 - 1e-9, 0.0, 0.25):
        cell.a = a
        if not (a == 0.0 and name == "power"):  # whose gradient at zero is anything
            agree(cell, inputs, tolerance=tolerance)


def test_a_number_that_changes_is_no_reason_for_the_loop() -> None:
    cell = cell_of(OF_A_NUMBER["leak"], a=0.5)
    for k in range(30):
        cell.a = 1 / (2 + k)
        bptt.unfold(cell, given(), backend="native")


class Equal(nn.Module):
    """Two of them are equal if they are configured alike."""

    hidden_size = 1

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((1,), weight))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(state * self.w + input)


class EqualGRU(nn.GRUCell):
    __eq__ = Equal.__eq__
    __hash__ = Equal.__hash__


def test_equal_cells_are_two() -> None:
    for weight in (0.5, 1.5):
        agree(Equal(weight), given(size=1))
    for seed in (1, 2):
        torch.manual_seed(seed)
        agree(EqualGRU(SIZE, SIZE))


class Helper:
    def act(self, value: Tensor) -> Tensor:
        return value


class Listed(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value


@pytest.mark.parametrize("changed", [(Helper, "act"), (Listed, "forward")], ids=["object", "list"])
def test_a_helper_s_class_changes(
    changed: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(s.helper.act(i) + s.listed[0]["it"](h) @ s.w)

    cell = cell_of(step, helper=Helper(), listed=[{"it": Listed()}])
    before = agree(cell)
    monkeypatch.setattr(*changed, lambda self, value: value * 2)
    after = agree(cell)
    assert not torch.equal(before.values["outputs"], after.values["outputs"])


def test_an_assertion_of_the_cell_s() -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        torch._assert_async(torch.isfinite(i).all())  # what becomes of ``assert`` (not in tests)
        return drive(s, i, h)

    cell, inputs = cell_of(step), given().detach()
    agree(cell, inputs)
    inputs[2, 1] = math.nan
    with pytest.raises(RuntimeError), pytest.warns(match="assert"):
        bptt.unfold(cell_of(step), inputs)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_zero_times_what_is_not_finite(zero: float, bad: float) -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        return h.sum(-1, keepdim=True) * zero + 0 / (h * h + 1) + torch.tanh(h @ s.w) + i

    state = torch.ones(3, SIZE)
    state[1, 2] = bad
    with torch.no_grad():
        agree(cell_of(step), state=state)


def test_weights_that_lie_elsewhere_at_the_backward_step() -> None:
    """As PyTorch's own: ``parameter.data = ...`` changes nothing of what was computed."""
    found = []
    for backend in ("auto", "eager"):
        torch.manual_seed(0)
        cell, inputs = nn.GRUCell(SIZE, SIZE), given()
        loss = bptt.unfold(cell, inputs, backend=backend)[0].sin().sum()
        for weight in (cell.weight_ih, cell.weight_hh):
            weight.data = weight.data * 2
        loss.backward()
        found.append([inputs.grad, cell.weight_hh.grad, cell.weight_ih.grad])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lanes", ["equal", "other"])
def test_what_changes_in_every_call_is_captured_a_few_times(
    lanes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Captured] = []

    class Counted(Captured):
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            made.append(self)

    monkeypatch.setattr(capture, "Captured", Counted)
    cell = cell_of(lambda s, i, h: drive(s, i, h) * (1 + s.count), count=0)
    for k in range(30):
        cell.count = k
        bptt.unfold(cell, given(2 + k * (lanes == "other"), 8))
    assert len(made) <= 2 * (front.RECAPTURES + 1)


def test_a_step_without_a_program_is_not_captured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    call = capture.call
    monkeypatch.setattr(capture, "call", lambda *args: asked.append(1) or call(*args))
    cell = cell_of(lambda s, i, h: torch.sin(drive(s, i, h)).cumsum(-1))
    for lanes in (2, 3, 3, 2):
        agree(cell, given(lanes))
    assert len(asked) == 2  # the first step and the next ones, once


def test_what_stands_for_inputs_and_states_takes_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreign, "MEMORY", 20_000)
    cell = cell_of(drive)
    for lanes in range(2, 60):
        bptt.unfold(cell, given(lanes, 2))
    known = front._FRONTS.get(cell)
    assert isinstance(known, front.Foreign)
    kept = sum(one.size for one in known._known._table.values())
    assert 0 < kept == known._known._size <= 20_000


def test_an_attribute_named_as_a_method_of_modules() -> None:
    cell = cell_of(drive, modules=[1, 2])
    found = bptt.unfold(cell, given())[0]
    torch.testing.assert_close(found, bptt.unfold(cell, given(), backend="eager")[0])


@pytest.mark.usefixtures("lenient")
def test_whatever_goes_wrong_ends_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("never heard of it")

    monkeypatch.setattr(front, "is_built_in", fail)
    cell = cell_of(drive)
    with pytest.warns(match="never heard of it"):
        found = bptt.unfold(cell, given())[0]
    torch.testing.assert_close(found, bptt.unfold(cell, given(), backend="eager")[0])


def test_an_index_that_there_is_not_has_the_cell_s_own_error() -> None:
    embedded = bptt.cells.Embedded(nn.Embedding(5, SIZE), bptt.cells.GRU(SIZE, SIZE))
    indices = torch.randint(0, 5, (6, 3))
    bptt.unfold(embedded, indices)
    indices[3, 1] = 7
    with pytest.raises(bptt.CellError):
        bptt.unfold(embedded, indices)


def test_in_the_tests_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("never heard of it")

    monkeypatch.setattr(front, "is_built_in", fail)
    with pytest.raises(unsupported.EngineError, match="never heard of it"):
        bptt.unfold(cell_of(drive), given())
