"""Captured tensors, gradients of a step's own, and hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import bptt
from bptt.engine import Plan, Reason, Unsupported

from .eligible import SIZE, Custom, accepted, found, refused


def test_a_captured_tensor_that_needs_a_gradient() -> None:
    gain = torch.ones(SIZE, requires_grad=True, dtype=torch.float64)
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive) * gain).double()
    inputs = torch.randn(5, 3, SIZE, dtype=torch.float64)
    grads = []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend)
        grads.append(torch.autograd.grad(outputs.square().sum(), [gain, *cell.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


def test_a_captured_constant() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    accepted(
        Custom(lambda self, drive, state, input: torch.tanh(drive) * mask + state * (1 - mask))
    )


def test_a_parameter_by_another_road() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive) * self.others[0].exp()
    ).double()
    cell.gain = nn.Parameter(torch.randn(SIZE, dtype=torch.float64))
    cell.others = [cell.gain]
    accepted(cell)


def test_gradients_switched_off() -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        with torch.no_grad():
            gain = torch.sigmoid(state)
        return torch.tanh(drive) * gain

    assert refused(step).reason is Reason.AUTOGRAD


def test_a_detached_state() -> None:
    accepted(
        Custom(lambda self, drive, state, input: torch.tanh(drive) * torch.sigmoid(state.detach()))
    )


def test_a_backward_of_its_own() -> None:
    class Surrogate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

    assert (
        refused(lambda self, drive, state, input: Surrogate.apply(drive)).reason is Reason.AUTOGRAD
    )


def test_a_forward_hook_is_part_of_the_step() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive)).double()
    accepted(cell)
    handle = cell.h.register_forward_hook(lambda module, given, made: made * 0.5)
    accepted(cell)
    handle.remove()
    accepted(cell)


def test_backward_hooks() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive))
    assert isinstance(found(cell), Plan)
    handle = cell.h.register_full_backward_hook(lambda *given: None)
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.HOOKS
    handle.remove()
    assert isinstance(found(cell), Plan)
