"""A plan is made once for a cell, and again where the cell changes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import nn

from bptt import cells
from bptt.engine import Plan

from .eligible import SIZE, accepted, found
from .oracle import assert_same, case, results


def program(cell: nn.Module, batch: int = 3) -> Any:
    """The program of a cell with input and state [*, 4]."""
    plan = found(cell, batch)
    assert isinstance(plan, Plan)
    return plan.program


def test_a_plan_is_made_once_and_dies_with_its_cell() -> None:
    cell = cells.GRU(SIZE, SIZE)
    assert program(cell) is program(cell, batch=2)
    with torch.no_grad():
        cell.weight_hh.mul_(2.0)
    first = program(cell)
    cell.weight_hh.requires_grad_(False)
    second = program(cell)
    cell.weight_hh.requires_grad_(True)
    assert first is program(cell)
    assert first is not second
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


def test_a_replaced_parameter_is_the_one_that_is_used() -> None:
    given = case(cells.GRU(SIZE, SIZE), SIZE, 4, 2)
    results(given, "interpreted")
    given.cell.weight_hh = nn.Parameter(given.cell.weight_hh.detach() * 0.5)
    assert_same(results(given, "interpreted"), results(given, "eager"), 1e-11)


def test_a_change_of_dtype_is_seen() -> None:
    cell = cells.GRU(SIZE, SIZE)
    assert isinstance(found(cell), Plan)
    accepted(cell.double())
    assert isinstance(found(cell.float()), Plan)
