"""Whether a cell has a step program, and the reason where it has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bptt.engine import Plan, Unsupported, plan_for

from .oracle import assert_same, case, results

SIZE = 4


class Custom(nn.Module):
    """A plain cell whose step is a function of (self, input, state)."""

    hidden_size = SIZE

    def __init__(self, step: Any = None) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.step = step

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """The drive, and what the test makes of it."""
        return self.step(self, self.x(input) + self.h(state), state, input)


def found(cell: nn.Module, batch: int = 3) -> Plan | Unsupported:
    """The plan of a cell with input and state [*, 4]."""
    inputs, state = torch.randn(5, batch, SIZE), torch.zeros(batch, SIZE)
    return plan_for(cell, inputs, state, state, kernel="interpreted")


def refused(step: Any) -> Unsupported:
    """Why a step has no program."""
    reason = found(Custom(step))
    assert isinstance(reason, Unsupported), reason
    return reason


def accepted(cell: nn.Module) -> None:
    """The cell has a program that equals the loop."""
    given = case(cell, SIZE, 6, 3)
    assert_same(results(given, "interpreted"), results(given, "eager"), 1e-11)
