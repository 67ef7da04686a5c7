"""What a step makes of parameters alone, or of inputs alone, is hoisted out of the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations

from bptt.engine import Plan, compile, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import native

from .eligible import SIZE, Custom, accepted
from .zoo import Embedding


@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrizations_are_evaluated_before_tracing(normalise: Any) -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive)).double()
    normalise(cell.h)
    accepted(cell)


def test_encoders_of_the_input_are_hoisted() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive + torch.fft.fft(input).real.cumsum(1))
    )
    accepted(cell)
    assert compile(cell.float(), SIZE).forward.count() == 2


def test_what_mixes_lanes_in_the_input_sees_each_step_alone() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive + (input - input.mean(0))))
    program = compile(cell, SIZE)
    assert not program.folds
    accepted(cell)


def test_sorting_over_lanes_of_the_input_is_not_folded() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(
            drive + input.sort(0).values + input.softmax(0)
        )
    )
    assert not compile(cell, SIZE).folds
    accepted(cell)


def test_embeddings_read_indices() -> None:
    cell = Embedding(7, SIZE).double()
    inputs, state = torch.randint(0, 7, (6, 3)), torch.zeros(3, SIZE, dtype=torch.float64)
    plan = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(plan, Plan)
    options: Any = {"initial": state, "reset": None, "lengths": None}
    options |= {"return_states": False, "clip": None}
    outputs = [
        eager.run(cell, inputs, state, **options)[0],
        native.run(cell, inputs, state, plan=plan, **options)[0],
    ]
    grads = [torch.autograd.grad(o.square().sum(), list(cell.parameters())) for o in outputs]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


def test_constants_made_in_the_step() -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        fresh = torch.zeros(state.shape[0], SIZE, dtype=state.dtype) + torch.tensor(
            0.5, dtype=state.dtype
        )
        fresh[:, 1:3] = drive[:, :2]
        fresh.mul_(2.0)
        return torch.tanh(drive * fresh + torch.full_like(state, 0.1))

    accepted(Custom(step))
