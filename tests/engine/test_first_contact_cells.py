"""Kinds of cells and of arguments: scripted, lazy, batch-normalised, without width; one tensor in
two roles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bptt import cells

from .contact import SIZE, Base, Step, agree, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


# -- kinds ----------------------------------------------------------------------------------------


class Normalised(nn.GRUCell):
    def __init__(self) -> None:
        super().__init__(SIZE, SIZE)
        self.norm = nn.BatchNorm1d(SIZE)

    def output(self, state: Tensor) -> Tensor:
        return self.norm(state)


class Wide(nn.Module):
    """Its second leaf has no width."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, SIZE), torch.zeros(batch, 0)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.cell(input, state[0]), state[1]


class Nothing(nn.Module):
    """A state of no width at all."""

    hidden_size = 0

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(SIZE))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return state

    def output(self, state: Tensor) -> Tensor:
        return state.sum(1, keepdim=True) + self.w


class Lazy(nn.Module):
    hidden_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.LazyLinear(SIZE), nn.Linear(SIZE, SIZE)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.u(input) + self.v(state))


class Both(NamedTuple):
    h: Tensor
    c: Tensor


class Named(nn.LSTMCell):
    """A state that is a named tuple."""

    def initial_state(self, batch: int) -> Both:
        return Both(torch.zeros(batch, SIZE), torch.ones(batch, SIZE))

    def forward(self, input: Tensor, state: Any) -> Any:
        h, c = state
        return Both(*super().forward(input, (h, c)))


class NamedByName(Named):
    def forward(self, input: Tensor, state: Any) -> Any:
        return Both(*nn.LSTMCell.forward(self, input, (state.h, state.c)))


class Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / (1 + 10 * ctx.saved_tensors[0].abs()) ** 2


def same_weight(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(nn.functional.linear(i, s.w) + h @ s.w.t() + s.u(h) * s.w[0])


class Tied(Base):
    """One parameter by three names."""

    def __init__(self) -> None:
        super().__init__()
        self.u.weight = self.w
        self.again = self.u

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.again(input) + state @ self.w.t() + self.u(state))


class Keywords(Base):
    """Arguments by other names, one that has a default, more of any kind."""

    def forward(self, x: Tensor, h: Tensor, scale: float = 0.5, *more: Any, **named: Any) -> Tensor:
        return drive(self, x, h) * scale


class Gathering(Base):
    def forward(self, *arguments: Tensor) -> Tensor:
        return drive(self, *arguments)


class Counting(nn.Module):
    """A whole number in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, SIZE), torch.zeros(batch, 1, dtype=torch.int64)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, count = state
        return self.cell(input, h) / (1 + count), count + 1


class Square(nn.Module):
    """A matrix for a state: fast weights."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.v = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, SIZE, SIZE)

    def output(self, state: Tensor) -> Tensor:
        return state.sum(2)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return 0.5 * state + self.k(input)[:, :, None] * self.v(input)[:, None]


KINDS: dict[str, Callable[[], nn.Module]] = {
    "batch norm of the output": Normalised,
    "a leaf without width": Wide,
    "a state without width": Nothing,
    "lazy": Lazy,
    "scripted": lambda: torch.jit.script(nn.GRUCell(SIZE, SIZE)),
    "scripted child": lambda: cells.Stack(torch.jit.script(nn.GRUCell(SIZE, SIZE))),
    "scripted function": lambda: cell_of(lambda s, i, h: scripted(s.u(i), h)),
    "compiled": lambda: torch.compile(nn.GRUCell(SIZE, SIZE), backend="eager"),
    "named tuple": lambda: Named(SIZE, SIZE),
    "named tuple by name": lambda: NamedByName(SIZE, SIZE),
    "autograd.Function": lambda: cell_of(
        lambda s, i, h: 0.9 * h + s.u(i) - Surrogate.apply(h @ s.w)
    ),
    "one weight in many places": lambda: cell_of(same_weight),
    "tied": Tied,
    "keywords": Keywords,
    "gathering": Gathering,
    "counting": Counting,
    "fast weights": Square,
    "checkpointed": lambda: cell_of(
        lambda s, i, h: torch.utils.checkpoint.checkpoint(drive, s, i, h, use_reentrant=False)
    ),
    "batch norm of the input": lambda: cell_of(
        lambda s, i, h: torch.tanh(s.norm(s.u(i)) + h @ s.w), norm=nn.BatchNorm1d(SIZE)
    ),
    "the input twice, the state not": lambda: cell_of(lambda s, i, h: torch.tanh(s.u(i) * i)),
    "the state alone": lambda: cell_of(lambda s, i, h: torch.tanh(h @ s.w + 0.3)),
    "neither": lambda: cell_of(lambda s, i, h: s.w[:1].expand(len(h), -1) * 1.0),
    "the state itself": lambda: cell_of(lambda s, i, h: h),
    "the input itself": lambda: cell_of(lambda s, i, h: i),
    "a view of the input": lambda: cell_of(lambda s, i, h: i.flip(1)[:, :SIZE]),
}


@torch.jit.script
def scripted(x: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(x + h)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:.*Lazy")
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_cells(name: str) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(KINDS[name]())
    for lanes in (3, 1, SIZE) if "norm" not in name else (3, SIZE):
        agree(made[0], given(lanes), twin=made[1])
    made[0].eval(), made[1].eval()
    agree(made[0], given(3), twin=made[1])


def test_a_cell_comes_back_from_pickle_and_from_a_copy() -> None:
    cell = Tied()
    agree(cell)
    agree(copy.deepcopy(cell))
    agree(pickle.loads(pickle.dumps(cell)))
    agree(copy.copy(cell))


# -- one tensor in two roles ----------------------------------------------------------------------


def pair(s: Any, i: Tensor, h: Any) -> Any:
    return torch.tanh(s.u(i) + h[0] @ s.w), torch.sin(h[1] + h[0])


def made_of_two() -> Any:
    cell = cell_of(pair)
    type(cell).initial_state = lambda s, batch: (torch.zeros(batch, SIZE),) * 2
    return cell


@pytest.mark.parametrize("make", [lambda: nn.LSTMCell(SIZE, SIZE), made_of_two])
@pytest.mark.parametrize("lanes", [3, 1])
def test_the_same_tensor_twice_in_the_state(make: Callable[[], Any], lanes: int) -> None:
    z = torch.randn(lanes, SIZE, requires_grad=True)
    agree(make(), given(lanes), state=(z, z))
    agree(make(), given(lanes), state=(z, z[:]))
    agree(make(), given(lanes), state=(z.detach(), z.detach()))
    agree(make(), given(lanes), state=(z, z), initial=(z, z), reset=torch.ones(5, lanes).bool())


def test_views_of_one_tensor() -> None:
    both = torch.randn(3, 2 * SIZE, requires_grad=True)
    more = {"both": both}
    agree(made_of_two(), state=both.chunk(2, 1), more=more)
    agree(made_of_two(), state=(both[:, :SIZE], both[:, 1 : SIZE + 1]), more=more)
    agree(made_of_two(), state=(both[:, ::2], both[:, ::2]), more=more)


@pytest.mark.parametrize("step", [drive, lambda s, i, h: torch.tanh(h @ s.w + i * s.w[0])])
def test_a_parameter_for_the_state(step: Step) -> None:
    cell = cell_of(step)
    agree(cell, given(SIZE), state=cell.w)
    agree(cell, given(SIZE), state=cell.w.t())
    agree(cell, given(SIZE), state=cell.w.detach())
    agree(cell, given(SIZE), initial=cell.u.weight, reset=torch.rand(5, SIZE) < 0.4)


def test_the_state_for_an_input_and_the_input_for_a_state() -> None:
    cell, z = cell_of(drive), torch.randn(SIZE, SIZE, requires_grad=True)
    agree(cell, z[None], state=z, more={"z": z})
    agree(cell, z[None].expand(5, -1, -1), state=z, more={"z": z})
    agree(cell, cell.w[None], more={"w": cell.w})
    agree(cell, given(SIZE), state=z, initial=z, reset=torch.rand(5, SIZE) < 0.4, more={"z": z})
    inputs = given()
    agree(cell, inputs, state=inputs[0], more={"inputs": inputs})
    agree(cell, inputs, state=inputs[-1], more={"inputs": inputs})


def test_two_inputs_of_the_step_that_are_one_buffer() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w * s.one + s.other))
    cell.register_buffer("one", torch.randn(SIZE))
    cell.register_buffer("other", cell.one)
    agree(cell)
    cell.other = torch.randn(SIZE)
    agree(cell)
    agree(cell, given(SIZE), state=cell.one.expand(SIZE, -1))


# -- states that change their kind ----------------------------------------------------------------

SHIFTING: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda h: h.t().contiguous().t(),
    "detached": torch.Tensor.detach,
    "expanded": lambda h: h[:, :1].expand(-1, SIZE),
    "a slice": lambda h: torch.cat([h, h], 1)[:, 2 : 2 + SIZE],
}


@pytest.mark.parametrize("name", SHIFTING)
def test_states_of_another_layout_from_the_second_step_on(name: str) -> None:
    shift = SHIFTING[name]
    cell = cell_of(lambda s, i, h: shift(torch.tanh(s.u(i) + h @ s.w)) + h.stride(0) * 0.1)
    for lanes in (3, 1):
        agree(cell, given(lanes))
    view = cell_of(lambda s, i, h: shift(torch.tanh(s.u(i) + h @ s.w) * h.stride(1)))
    for lanes in (3, 1):
        agree(view, given(lanes))


def test_a_state_that_begins_with_one_row() -> None:
    cell = cell_of(drive)
    type(cell).initial_state = lambda s, batch: torch.zeros(1, SIZE)
    agree(cell, given(3))
    agree(cell, given(1))


def test_a_state_whose_dtype_changes() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h.to(i.dtype) @ s.w))
    type(cell).initial_state = lambda s, batch: torch.zeros(batch, SIZE, dtype=torch.float32)
    agree(cell)
