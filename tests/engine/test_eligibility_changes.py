"""Control flow, randomness, and what changes while a cell runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from bptt.engine import Plan, Reason, Unsupported

from .eligible import SIZE, Custom, found, refused


def test_control_flow_on_data() -> None:
    reason = refused(lambda self, drive, state, input: drive if drive.sum() > 0 else -drive)
    assert reason.reason is Reason.CONTROL_FLOW
    assert reason.location is not None
    assert reason.location.startswith(__file__)


def test_control_flow_on_attributes_is_traced_and_keyed() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive) if self.flag else torch.relu(drive)
    )
    for flag, opcode in ((True, "tanh"), (False, "relu"), (True, "tanh")):
        cell.flag = flag
        plan = found(cell)
        assert isinstance(plan, Plan)
        assert plan.program.forward.instructions[-1].opcode == opcode


def test_random_numbers() -> None:
    reason = refused(lambda self, drive, state, input: nn.functional.dropout(drive, 0.5))
    assert reason.reason is Reason.RANDOMNESS


def test_dropout_in_evaluation_is_nothing() -> None:
    cell = Custom(lambda self, drive, state, input: self.drop(torch.tanh(drive)))
    cell.drop = nn.Dropout(0.5)
    assert isinstance(found(cell), Unsupported)
    cell.eval()
    assert isinstance(found(cell), Plan)
    cell.train()
    assert isinstance(found(cell), Unsupported)


def test_buffers_that_change() -> None:
    cell = Custom(lambda self, drive, state, input: self.norm(drive))
    cell.norm = nn.BatchNorm1d(SIZE)
    before = cell.norm.running_mean.clone()
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert torch.equal(cell.norm.running_mean, before)
    assert type(cell.norm.running_mean) is Tensor


@pytest.mark.parametrize("change", ["number", "list", "tensor", "buffer"])
def test_a_cell_that_changes_while_it_runs(change: str) -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        if change == "number":
            self.count += 1
        elif change == "list":
            self.seen.append(1)
        elif change == "tensor":
            self.last = drive
        else:
            self.kept = drive.detach().mean(0)
        return torch.tanh(drive)

    cell = Custom(step)
    cell.count, cell.seen = 0, []
    cell.register_buffer("kept", torch.zeros(SIZE))
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.MUTATION
    named = {"number": "count", "list": "seen", "tensor": "last", "buffer": "_buffers"}
    assert named[change] in reason.operator
    assert (cell.count, cell.seen, "last" in cell.__dict__) == (0, [], False)
    assert torch.equal(cell.kept, torch.zeros(SIZE))


def test_a_state_written_in_place() -> None:
    reason = refused(lambda self, drive, state, input: state.mul_(0.5).add_(drive))
    assert reason.reason is Reason.MUTATION


def test_the_old_weight_norm_changes_the_module() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive))
    with pytest.warns(FutureWarning):
        weight_norm(cell.h)
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.MUTATION
