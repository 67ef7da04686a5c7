"""Operators and states outside the set are named, with the line that they are on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bptt.engine import Reason, Unsupported, compile, plan_for
from bptt.errors import CellError

from .eligible import SIZE, Custom, found, refused


class Cumulative(Custom):
    """A cell with an operator outside the set."""

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """The operator is on the second line."""
        drive = self.x(input) + self.h(state)
        return torch.cumsum(drive, 1)


def test_an_operator_outside_the_set_is_named_with_its_line() -> None:
    reason = found(Cumulative())
    line = Cumulative.forward.__code__.co_firstlineno + 3
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.OPERATOR
    assert reason.operator == "aten::cumsum"
    assert reason.location == f"{__file__}:{line}"
    assert str(reason).startswith(f"aten::cumsum at {__file__}:{line} (")


@pytest.mark.parametrize(
    "step",
    [
        lambda self, drive, state, input: torch.einsum(
            "bij,bj->bi", state[:, :, None] * drive[:, None], drive
        ),
        lambda self, drive, state, input: torch.bmm(
            drive[:, None], state[:, :, None].expand(-1, -1, 4)
        )[:, 0],
        lambda self, drive, state, input: nn.functional.conv1d(
            drive[:, None], torch.ones(1, 1, 3), padding=1
        )[:, 0],
    ],
    ids=["einsum", "bmm", "convolution"],
)
def test_products_of_states_are_outside_the_set(step: Any) -> None:
    reason = refused(step)
    assert reason.reason in (Reason.OPERATOR, Reason.LANES)


def test_a_state_of_another_rank() -> None:
    class Image(nn.Module):
        def initial_state(self, batch: int) -> Tensor:
            return torch.zeros(batch, 2, 3)

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return torch.tanh(state + input.sum())

    cell = Image()
    state = cell.initial_state(3)
    reason = plan_for(cell, torch.randn(5, 3, SIZE), state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.RANK


def test_compile_says_why_not() -> None:
    with pytest.raises(CellError, match="cumsum"):
        compile(Custom(lambda self, drive, state, input: drive.cumsum(1)), SIZE)
