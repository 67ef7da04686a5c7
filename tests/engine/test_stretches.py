"""Calls whose hoisted part passes through much memory run some steps at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.runtime import compile_cache

from .contact import SIZE, Base, agree, cell_of, given

pytestmark = pytest.mark.usefixtures("core", "double")


class Wide(Base):
    """A hidden layer on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(SIZE, 64)
        self.narrow = nn.Linear(64, SIZE)


def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """The hidden layer is hoisted."""
    return torch.tanh(s.narrow(torch.relu(s.wide(i))) + s.u(h))


def pair(s: Any, i: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The same with two leaves."""
    return step(s, i, h[0]), h[1] * 0.5 + h[0]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that takes three steps of three lanes at a time."""
    monkeypatch.setattr(compile_cache, "PASSING", 4 * 3 * 3 * 64 * 8)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("two", [False, True])
def test_some_steps_at_a_time_give_the_same(two: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = compile_cache.Plan.at_once

    def at_once(plan: Any, steps: int, lanes: int) -> int:
        seen.append(real(plan, steps, lanes))
        return seen[-1]

    monkeypatch.setattr(compile_cache.Plan, "at_once", at_once)
    cell = cell_of(pair if two else step, Wide)
    state: Any = torch.randn(3, SIZE, requires_grad=True)
    if two:
        state = (state, torch.randn(3, SIZE, requires_grad=True))
    inputs = given(steps=30)
    reset = torch.zeros(30, 3, dtype=torch.bool)
    reset[7, 1] = reset[12] = True
    lengths = torch.tensor([30, 0, 11])
    agree(cell, inputs, state=state)
    assert 3 in seen
    assert bptt.explain(cell, inputs[:3], state).program is not None  # so many steps run natively
    agree(cell, inputs, state=state, initial=state, reset=reset, return_states=True)
    agree(cell, inputs, state=state, lengths=lengths, clip_state_gradient=0.01)
    with torch.no_grad():
        agree(cell, inputs, state=state, lengths=lengths, return_states=True)


def test_what_is_not_large_runs_at_once() -> None:
    cell = cell_of(step, Wide)
    bptt.unfold(cell, given())
    plan = compile_cache.plan_for(cell, given(), given()[0], given()[0])
    assert isinstance(plan, compile_cache.Plan)
    assert plan.passing == 64 * 8
    assert plan.at_once(1000, 3) == 1000
    assert plan.at_once(16384, 1024) == 8
    assert plan.at_once(16384, 1 << 20) == plan.least


class Read(Wide):
    """A hidden layer on the state, for the output alone."""

    def output(self, state: Tensor) -> Tensor:
        """Two layers."""
        return self.narrow(torch.relu(self.wide(state)))


@pytest.mark.usefixtures("small")
def test_a_large_function_of_the_output_counts_as_well() -> None:
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(h) + i), Read)
    plan = compile_cache.plan_for(cell, given(), given()[0], given()[0])
    assert isinstance(plan, compile_cache.Plan)
    assert plan.passing == 64 * 8
    agree(cell, given(steps=30))
    agree(cell, given(steps=30), lengths=torch.tensor([30, 0, 11]), return_states=True)
