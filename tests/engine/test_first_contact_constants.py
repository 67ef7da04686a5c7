"""Constants of every kind in a cell of one's own: ``auto`` is as ``eager``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bptt

from .contact import SIZE, Step, agree, assert_close, cell_of, given

pytestmark = pytest.mark.usefixtures("core", "double")

A = torch.tensor(0.5, dtype=torch.float64)
B = torch.tensor(2.0, dtype=torch.float64)
ROW = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
SAME_ROW = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
SQUARE = torch.linspace(-1, 1, SIZE * SIZE, dtype=torch.float64).reshape(SIZE, SIZE)
SINGLE = torch.tensor(0.3, dtype=torch.float32)
WHOLE = torch.tensor([2, 1, 3, 1])
KEEP = torch.tensor([True, False, True, True])
ORDER = torch.tensor([2, 0, 3, 1])
NUMBER, ARRAY = 0.7, np.array([0.5, 1.5, -1.0, 2.0])
COMPLEX = torch.tensor(0.6 + 0.8j, dtype=torch.complex128)
SPARSE = torch.eye(SIZE, dtype=torch.float64).to_sparse()


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@dataclasses.dataclass
class Table:
    a: Tensor
    b: Tensor


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = torch.tensor(0.5), torch.tensor(2.0)


class Scaled:
    """A callable with a constant of its own."""

    def __init__(self) -> None:
        self.by = torch.tensor([0.5, 2.0, -1.0, 1.5])

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.by


@functools.lru_cache(maxsize=1)
def kept_table() -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def in_closure() -> Step:
    a, b = torch.tensor(0.5), torch.tensor(2.0)
    return lambda s, i, h: torch.tanh(h + (i - a) / b) * ((i - a) / b)


def in_defaults(s: Any, i: Tensor, h: Tensor, a: Tensor = A, b: Tensor = B) -> Tensor:
    return torch.tanh(h @ s.w + (i - a) / b) * ((i - a) / b)


def made_twice(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(h @ s.w + (i - torch.tensor(0.5)) / torch.tensor(2.0)) * (
        (i - torch.tensor(0.5)) / torch.tensor(2.0)
    )


def written(s: Any, i: Tensor, h: Tensor) -> Tensor:
    fresh = torch.zeros(len(h), SIZE)
    fresh[:, 1:3] = h[:, :2]
    fresh += ROW
    return torch.tanh(s.u(i) + fresh)


KINDS: dict[str, Step] = {
    "global, of the input twice": lambda s, i, h: torch.tanh(h + (i - A) / B) * ((i - A) / B),
    "global, of the state twice": lambda s, i, h: torch.tanh(i + (h - A) / B) * ((h - A) / B),
    "global, of both": lambda s, i, h: torch.tanh((h - A) / B + (i - A) / B) * (h - B) * (i - B),
    "one by two names": lambda s, i, h: torch.tanh(h @ s.w * ROW + i * s.again),
    "two alike": lambda s, i, h: torch.tanh(h @ s.w * ROW + i * SAME_ROW),
    "a view of another": lambda s, i, h: torch.tanh(h @ SQUARE + i * SQUARE[1] + SQUARE[:, 2]),
    "attributes": lambda s, i, h: torch.tanh(h + (i - s.a) / s.b) * ((i - s.a) / s.b),
    "attributes, of the state": lambda s, i, h: torch.tanh(i + (h - s.a) / s.b) * (h - s.a),
    "dictionary": lambda s, i, h: torch.tanh(h + (i - s.table["a"]) / s.table["b"]) * s.table["a"],
    "list": lambda s, i, h: torch.tanh(h * s.list[0] + i / s.list[1]) * s.list[0],
    "named tuple": lambda s, i, h: torch.tanh(h * s.pair.a + i / s.pair.b) * (i - s.pair.a),
    "dataclass": lambda s, i, h: torch.tanh(h * s.data.a + i / s.data.b) * (i - s.data.a),
    "slots": lambda s, i, h: torch.tanh(h * s.slotted.a + i / s.slotted.b) * (i - s.slotted.a),
    "callable": lambda s, i, h: torch.tanh(s.scaled(h @ s.w) + s.scaled(i)),
    "partial": lambda s, i, h: torch.tanh(s.part(h @ s.w) + s.part(i)),
    "kept by a cache": lambda s, i, h: torch.tanh(h @ s.w * kept_table() + i / kept_table()),
    "closure": in_closure(),
    "default argument": in_defaults,
    "made in the step": lambda s, i, h: torch.tanh(torch.ones(SIZE) + s.u(i) + h @ s.w),
    "made in the step, twice": made_twice,
    "made and written": written,
    "arange": lambda s, i, h: torch.tanh(s.u(i) * torch.arange(4.0) + h @ s.w + torch.arange(4)),
    "eye": lambda s, i, h: torch.tanh(s.u(i) + h @ (s.w - 0.5 * torch.eye(SIZE))),
    "new_tensor": lambda s, i, h: torch.tanh(s.u(i) + h * h.new_tensor([1.0, 2.0, 0.5, 0.1])),
    "as_tensor": lambda s, i, h: torch.tanh(s.u(i) * torch.as_tensor(ARRAY) + h @ s.w),
    "from_numpy": lambda s, i, h: torch.tanh(i + h * torch.from_numpy(ARRAY)),
    "numpy number": lambda s, i, h: torch.tanh(i * ARRAY[3] + h * np.float64(0.3)),
    "number": lambda s, i, h: torch.tanh(i * NUMBER + h @ s.w / NUMBER),
    "item": lambda s, i, h: torch.tanh(i * A.item() + h @ s.w * float(B)),
    "one-element row": lambda s, i, h: torch.tanh(s.u(i) * s.one + h @ s.w + s.one),
    "0-dim of float32": lambda s, i, h: torch.tanh(s.u(i) * SINGLE + h @ s.w * SINGLE),
    "0-dim whole": lambda s, i, h: torch.tanh(s.u(i) * s.three + h @ s.w / s.three),
    "whole row": lambda s, i, h: torch.tanh(s.u(i) * WHOLE + h @ s.w / WHOLE),
    "whole row, converted": lambda s, i, h: torch.tanh(s.u(i) + h * WHOLE.to(h.dtype)),
    "bool": lambda s, i, h: torch.where(KEEP, torch.tanh(h @ s.w + i), h),
    "bool, of the input": lambda s, i, h: torch.tanh(torch.where(KEEP, s.u(i), -i) + h @ s.w),
    "bool buffer": lambda s, i, h: torch.where(s.keep, torch.tanh(h @ s.w + i), h),
    "bool times": lambda s, i, h: torch.tanh(h @ s.w * KEEP + s.u(i) * ~KEEP),
    "bool that selects": lambda s, i, h: torch.tanh(F.pad(h[:, KEEP], (0, 1)) + s.u(i)),
    "masked_fill": lambda s, i, h: torch.tanh((h @ s.w).masked_fill(KEEP, 0.2) + s.u(i)),
    "index list": lambda s, i, h: torch.tanh(h[:, [1, 0, 3, 2]] + s.u(i)),
    "index list, of the input": lambda s, i, h: torch.tanh(s.u(i)[:, [1, 0, 3, 2]] + h @ s.w),
    "index tensor": lambda s, i, h: torch.tanh(h[:, ORDER] @ s.w + i[:, ORDER]),
    "index_select": lambda s, i, h: torch.tanh(h.index_select(1, ORDER) + s.u(i)),
    "gather": lambda s, i, h: torch.tanh(h.gather(1, ORDER.expand(len(h), -1)) + s.u(i)),
    "of the weight's rows": lambda s, i, h: torch.tanh(h @ s.w[ORDER] + i),
    "masked weight": lambda s, i, h: torch.tanh(h @ (s.w * SQUARE) + s.u(i)),
    "fixed matrix": lambda s, i, h: torch.tanh(h @ SQUARE + i @ SQUARE.t()),
    "fixed matrix, on the left": lambda s, i, h: torch.tanh((SQUARE @ h.t()).t() + s.u(i)),
    "F.linear": lambda s, i, h: torch.tanh(F.linear(h, s.w, ROW) + F.linear(i, SQUARE, ROW)),
    "layer_norm": lambda s, i, h: torch.tanh(F.layer_norm(h @ s.w, (SIZE,), ROW) + s.u(i)),
    "a sum of all kinds": lambda s, i, h: torch.tanh(s.u(i) + ROW + h @ s.w),
    "a sum, the constant first": lambda s, i, h: torch.tanh(ROW + h @ s.w + i + A),
    "beside a linear map": lambda s, i, h: torch.tanh(s.u(i) * s.row + h @ s.w),
    "clamp": lambda s, i, h: (s.u(i) + h @ s.w).clamp(min=-ROW.abs(), max=ROW.abs()),
    "lerp": lambda s, i, h: torch.lerp(h, torch.tanh(s.u(i)), ROW.sigmoid()),
    "addcmul": lambda s, i, h: torch.tanh(torch.addcmul(h @ s.w, i, ROW, value=0.5)),
    "einsum of the input": lambda s, i, h: torch.tanh(torch.einsum("bi,ij->bj", i, s.w) + h),
    "einsum of the state": lambda s, i, h: torch.tanh(torch.einsum("bi,ij->bj", h, s.w) + i),
    "einsum with a constant": lambda s, i, h: torch.tanh(
        torch.einsum("bi,ij,j->bj", h, s.w, ROW) + torch.einsum("bi,i->b", i, ROW)[:, None]
    ),
    "complex": lambda s, i, h: torch.tanh((h * COMPLEX + s.u(i)).imag + i),
    "sparse": lambda s, i, h: torch.tanh((SPARSE @ h.t()).t() + s.u(i)),
}


def with_all(step: Step) -> Any:
    """A cell that has each of the attributes above."""
    cell = cell_of(step, a=torch.tensor(0.5), b=torch.tensor(2.0), again=ROW, row=ROW.clone())
    cell.table, cell.list = {"a": cell.a, "b": cell.b}, [cell.a, cell.b]
    cell.pair, cell.data, cell.slotted = Pair(A, B), Table(A, B), Slotted()
    cell.scaled, cell.part = Scaled(), functools.partial(torch.mul, torch.tensor(1.5))
    cell.one, cell.three = torch.tensor([0.4]), torch.tensor(3)
    cell.register_buffer("keep", KEEP.clone())
    return cell


@pytest.mark.parametrize("name", KINDS)
def test_constants(name: str) -> None:
    cell = with_all(KINDS[name])
    for lanes in (3, 1, SIZE):
        agree(cell, given(lanes))


NATIVE = (
    "global, of the input twice",
    "global, of the state twice",
    "attributes",
    "made in the step",
    "beside a linear map",
)


@pytest.mark.parametrize("name", NATIVE)
def test_plain_constants_stay_native(name: str) -> None:
    cell, inputs = with_all(KINDS[name]), given()
    found, _ = bptt.unfold(cell, inputs, backend="native")
    assert_close("outputs", found, bptt.unfold(cell, inputs, backend="eager")[0])


@pytest.mark.parametrize("name", ["global, of the input twice", "attributes, of the state"])
@pytest.mark.parametrize("needs", [(False, True), (True, False), (False, False)])
def test_constants_whatever_needs_a_gradient(name: str, needs: tuple[bool, bool]) -> None:
    inputs, state = given().detach().requires_grad_(needs[0]), torch.randn(3, SIZE)
    agree(with_all(KINDS[name]), inputs, state=state.requires_grad_(needs[1]))


@pytest.mark.parametrize("name", ["global, of the input twice", "bool buffer", "whole row"])
def test_constants_in_single_precision(name: str) -> None:
    cell = with_all(KINDS[name]).float()
    agree(cell, given().detach().float().requires_grad_(), tolerance=1e-5)


METHODS: dict[str, Callable[[], Any]] = {
    "full": bptt.Full,
    "segments": lambda: bptt.Full(segment=7),
    "truncated": lambda: bptt.Truncated(6, 3),
    "forward": bptt.RTRL,
}


@pytest.mark.filterwarnings("ignore:.*Python loop")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["global, of the input twice", "made in the step, twice"])
def test_constants_in_training(method: str, name: str) -> None:
    ends = []
    for backend in ("auto", "eager"):
        torch.manual_seed(0)
        network = bptt.Network(with_all(KINDS[name]), nn.Linear(SIZE, 1), backend=backend)
        series = torch.sin(torch.arange(40.0)[:, None] * torch.tensor([0.3, 0.5, 0.7, 0.9]))
        stream = bptt.Stream(series, series.sum(1, keepdim=True))
        bptt.fit(
            network,
            stream,
            method=METHODS[method](),
            optimizer=lambda p: torch.optim.SGD(p, 0.05),
            epochs=2,
            progress=False,
        )
        ends.append([p.detach() for p in network.parameters()])
        ends[-1].append(torch.tensor(bptt.evaluate(network, stream).loss))
    for found, expected in zip(*ends, strict=True):
        assert_close("weights", found, expected)


def test_constants_of_the_output_and_of_the_start() -> None:
    cell = with_all(lambda s, i, h: torch.tanh(h @ s.w + (i - A) / B))
    type(cell).output = lambda s, h: (h - A) / B * ((h - A) / B) + ROW
    type(cell).initial_state = lambda s, batch: ROW.expand(batch, SIZE) * A
    agree(cell)


def test_a_constant_that_needs_a_gradient() -> None:
    gain = torch.randn(SIZE, requires_grad=True)
    agree(cell_of(lambda s, i, h: torch.tanh(h @ s.w + i) * gain), more={"gain": gain})


def test_a_constant_of_as_many_rows_as_lanes() -> None:
    noise = torch.randn(3, SIZE)
    cell = cell_of(lambda s, i, h: torch.tanh(h @ s.w + i + noise))
    agree(cell, given(3))
    agree(cell, given(1))


def test_a_constant_of_the_number_of_lanes() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(h @ s.w + h * torch.tensor(float(len(i))) + 1 + i))
    for lanes in (3, 7, 1, 12):
        agree(cell, given(lanes))


def test_constants_follow_a_deepcopy_and_what_is_loaded() -> None:
    import copy

    cell = with_all(KINDS["attributes"])
    agree(cell)
    other = copy.deepcopy(cell)
    other.a.fill_(-1.5)
    agree(other)
    agree(cell)
    other.load_state_dict(
        {n: t + 1 for n, t in cell.state_dict().items() if t.is_floating_point()}, strict=False
    )
    agree(other)
