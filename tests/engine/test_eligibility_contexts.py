"""Other dtypes, devices and contexts, and mistakes in a cell's contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import cells
from bptt.engine import Reason, Unsupported, plan_for
from bptt.errors import CellError

from .eligible import SIZE, Custom, found


def test_other_dtypes() -> None:
    cell = cells.GRU(SIZE, SIZE).to(torch.bfloat16)
    inputs, state = (
        torch.randn(5, 3, SIZE, dtype=torch.bfloat16),
        torch.zeros(3, SIZE, dtype=torch.bfloat16),
    )
    reason = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.DTYPE


def test_other_devices() -> None:
    cell = cells.GRU(SIZE, SIZE).to("meta")
    inputs, state = torch.randn(5, 3, SIZE, device="meta"), torch.zeros(3, SIZE, device="meta")
    reason = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.DEVICE


def test_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reason = found(cells.GRU(SIZE, SIZE))
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.CONTEXT


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_detection_sees_the_run_not_the_trace() -> None:
    with torch.autograd.set_detect_anomaly(True):
        assert not isinstance(found(cells.GRU(SIZE, SIZE)), Unsupported)


@pytest.mark.filterwarnings("error")  # nothing is said of a Python loop
def test_output_and_state_is_an_error_that_points_to_output() -> None:
    cell = Custom(lambda self, drive, state, input: (drive, drive))
    with pytest.raises(CellError, match=r"output\(state\)"):
        bptt.unfold(cell, torch.randn(5, 3, SIZE), torch.zeros(3, SIZE))


def test_a_broken_contract_is_told_with_the_callers_own_shapes() -> None:
    """Not with those that the tracer makes up."""

    class Narrow(nn.Module):
        hidden_size = 4

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return state[:, :3]

    with pytest.raises(
        CellError, match=r"given a state of the shape \[2, 4\] and returned \[2, 3\]"
    ):
        bptt.unfold(Narrow(), torch.randn(5, 2, 3))
