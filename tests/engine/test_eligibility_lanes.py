"""Steps that mix lanes have no program."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bptt import cells
from bptt.engine import Reason, Unsupported, compile

from .eligible import SIZE, Custom, accepted, found, refused


@pytest.mark.parametrize(
    "step",
    [
        lambda self, drive, state, input: drive - drive.mean(0),
        lambda self, drive, state, input: torch.softmax(drive, 0),
        lambda self, drive, state, input: drive.flip(0),
        lambda self, drive, state, input: torch.tanh(drive) @ state.t() @ state,
        lambda self, drive, state, input: drive.view(-1).view(4, -1).t(),
        lambda self, drive, state, input: drive / drive.shape[0],
        lambda self, drive, state, input: drive * math.log(len(drive)),
        lambda self, drive, state, input: torch.cat([drive[1:], drive[:1]]),
        lambda self, drive, state, input: drive + torch.arange(len(drive))[:, None],
    ],
    ids=[
        "mean",
        "softmax",
        "flip",
        "product",
        "view",
        "divided",
        "logarithm",
        "rolled",
        "numbered",
    ],
)
def test_mixing_of_lanes(step: Any) -> None:
    reason = refused(step)
    told = (Reason.LANES, Reason.OPERATOR, Reason.UNTRACEABLE, Reason.CONTROL_FLOW)
    assert reason.reason in told


def test_a_captured_tensor_of_the_lanes_size() -> None:
    noise = torch.randn(3, SIZE)
    reason = refused(lambda self, drive, state, input: torch.tanh(drive + noise))
    assert reason.reason is Reason.LANES


def test_an_output_that_mixes_lanes() -> None:
    class Mixed(cells.GRU):
        def output(self, state: Tensor) -> Tensor:
            return state - state.mean(0)

    reason = found(Mixed(SIZE, SIZE))
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.LANES


def test_the_number_of_lanes_in_hoisted_arithmetic() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive + input / input.shape[0]))
    assert not compile(cell, SIZE).folds
    accepted(cell)
