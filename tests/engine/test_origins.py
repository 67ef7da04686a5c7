"""Refusals name the operator that stands in the cell, and its line, wherever it was refused: as
written, in its decomposition, or in its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bptt.engine import Plan, Reason, Unsupported, plan_for

from .oracle import assert_same, case, results

SIZE = 4


class Cell(nn.Module):
    """A step with one operator of interest."""

    hidden_size = SIZE

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.alone = nn.Parameter(torch.tensor(0.3))
        self.gate = nn.Parameter(torch.tensor([0.2, 0.4, 0.6, 0.8]))
        self.row = nn.Parameter(torch.full((1, SIZE), 0.7))
        self.step = step

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.step(self, self.x(input) + self.h(state), state)


STEPS: list[tuple[str, Any]] = [
    ("lerp", lambda self, drive, state: torch.lerp(state, drive, self.alone)),
    ("lerp", lambda self, drive, state: torch.lerp(state, drive, torch.tensor(0.3))),
    ("addcdiv", lambda self, drive, state: torch.addcdiv(drive, state, 1 + self.alone.abs())),
    ("_softmax", lambda self, drive, state: torch.softmax(drive, 0)),
    ("logsumexp", lambda self, drive, state: drive - torch.logsumexp(drive, 0)),
    ("mse_loss", lambda self, drive, state: drive * nn.functional.mse_loss(drive, state)),
    ("roll", lambda self, drive, state: drive.roll(1, 0)),
    ("mean", lambda self, drive, state: drive - drive.mean(0)),
    ("cumsum", lambda self, drive, state: drive.cumsum(1)),
]


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("operator", "step"), STEPS)
def test_the_operator_and_its_line(operator: str, step: Any, grad: bool) -> None:
    cell = Cell(step)
    state = torch.zeros(3, SIZE)
    with torch.set_grad_enabled(grad):
        found = plan_for(cell, torch.randn(5, 3, SIZE), state, state, kernel="interpreted")
    if not grad and isinstance(found, Plan):
        return  # it is the gradient alone that is out of the set
    assert isinstance(found, Unsupported)
    assert found.reason in (Reason.LANES, Reason.OPERATOR)
    assert found.operator == f"aten::{operator}"
    assert found.location == f"{__file__}:{step.__code__.co_firstlineno}"


@pytest.mark.parametrize("gate", ["gate", "row"])
def test_a_learned_gate_between_two_states(gate: str) -> None:
    """Its decomposition compares the parameter with a half: a truth value of the step's own."""

    def step(self: Any, drive: Tensor, state: Tensor) -> Tensor:
        return torch.lerp(state, torch.tanh(drive), getattr(self, gate))

    given = case(Cell(step).double(), SIZE, 6, 3)
    assert_same(results(given, "interpreted"), results(given, "eager"), 1e-11)
    assert_same(results(given, "native"), results(given, "eager"), 1e-11)
