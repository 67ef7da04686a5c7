"""Truth values, numbers at the ends of a dtype, and plain tensors in the place of parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import cells

from .contact import SIZE, Step, agree, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


def beside(truth: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """A step that adds a number made of truth values."""

    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        return 0.5 * drive(s, i, h) + 0.1 * truth(h, i).to(h.dtype)

    return step


TRUTHS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a sum": lambda h, i: (h > 0.1) + (i > 0.1),
    "a sum with True": lambda h, i: (h > 0.1) + True,
    "a product": lambda h, i: (h > 0.1) * (i > 0.1),
    "xor of numbers": lambda h, i: torch.logical_xor(h, i),
    "and of numbers": lambda h, i: torch.logical_and(h, i),
    "or of numbers": lambda h, i: torch.logical_or(h, i),
    "not of a number": lambda h, i: torch.logical_not(h),
    "a sum over features": lambda h, i: (h > 0.1).sum(1, keepdim=True, dtype=torch.bool),
    "a count over features": lambda h, i: (h > 0.1).sum(1, keepdim=True),
    "a sum over features as numbers": lambda h, i: (h > 0.1).sum(1, keepdim=True, dtype=h.dtype),
    "any": lambda h, i: (h > 0.1).any(1, keepdim=True),
    "the larger": lambda h, i: torch.maximum(h > 0.1, i > 0.1),
    "a comparison of truths": lambda h, i: (h > 0.1) < (i > 0.1),
    "a power": lambda h, i: (h > 0.1).to(h.dtype) ** (i > 0.1),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_truth_values(name: str) -> None:
    """Whatever the first call held: here zeros, of which no operator tells much."""
    cell = cell_of(beside(TRUTHS[name]))
    with torch.no_grad():
        bptt.unfold(cell, torch.zeros(4, 3, SIZE))
    agree(cell, given(steps=8))
    agree(cell, given(steps=8, seed=5) * 3)


NUMBERS = [torch.inf, -torch.inf, torch.nan, 2.0**-140, 2.0**140, 2.0**-1060, 0.25, -8.0, 3.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", NUMBERS)
def test_division_by_a_number(number: float, dtype: torch.dtype) -> None:
    cell = cell_of(lambda s, i, h: drive(s, i, h) + (h / number).clamp(-1, 1)).to(dtype)
    inputs = given().detach().to(dtype)
    with torch.no_grad():
        agree(cell, inputs, tolerance=1e-9 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("place", [0, slice(0, 2), slice(None)])
def test_a_number_assigned_to_a_part(place: Any) -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        made = drive(s, i, h).clone()
        made[:, place] = 0.25
        return made + 0.5 * h

    cell = cell_of(step)
    agree(cell, given())
    bptt.unfold(cell, given(), backend="native")


KNOWN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "RNNCell": (lambda: nn.RNNCell(SIZE, SIZE), "weight_hh"),
    "GRUCell": (lambda: nn.GRUCell(SIZE, SIZE), "weight_hh"),
    "LSTMCell": (lambda: nn.LSTMCell(SIZE, SIZE), "bias_ih"),
    "Elman": (lambda: cells.Elman(SIZE, SIZE), "weight_hh"),
    "GRU": (lambda: cells.GRU(SIZE, SIZE), "weight_ih"),
    "Stack": (lambda: cells.Stack(cells.GRU(SIZE, SIZE), nn.GRUCell(SIZE, SIZE)), ""),
}


@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_a_plain_tensor_in_the_place_of_a_parameter(name: str, needs: bool) -> None:
    make, parameter = KNOWN[name]
    torch.manual_seed(1)
    cell: Any = make()
    owner, own = (cell.cells[1], "weight_hh") if not parameter else (cell, parameter)
    agree(cell, given())
    value = getattr(owner, own).detach().clone()
    delattr(owner, own)
    setattr(owner, own, value.requires_grad_(needs))
    for factor in (1.0, 0.5, -1.0):
        with torch.no_grad():
            value.mul_(factor)
        agree(cell, given(), more={"plain": value} if needs else None)


def test_a_step_that_asks_whether_it_is_compiled() -> None:
    """It computes what it computes in the Python loop."""

    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        new = drive(s, i, h)
        if torch.compiler.is_compiling() or torch.compiler.is_dynamo_compiling():
            return new.clamp(-0.1, 0.1)
        return new

    agree(cell_of(step), given())


def test_a_trace_that_fails_is_no_matter_for_a_log() -> None:
    """PyTorch's has a traceback of it on standard error."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addHandler(handler)
    try:
        cell = cell_of(lambda s, i, h: drive(s, i, h) + torch.bmm(h[:, None], s.w[None])[:, 0])
        agree(cell, given(lanes=1))
    finally:
        log.removeHandler(handler)
    assert not told
