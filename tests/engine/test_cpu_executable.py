"""Unfoldings that the core runs whole, beside the same program run in parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import _core
from bptt.engine import plan_for
from bptt.engine.runtime import native
from bptt.engine.runtime.compile_cache import Plan
from bptt.state import initial_state, leaves

from .zoo import LayerNormGRU

VARIANTS = [name for name, usable in _core.variants().items() if usable]
CELLS = {
    "elman": lambda: bptt.cells.Elman(9, 70),
    "leaky without bias": lambda: bptt.cells.Leaky(3, 19, rate=0.3, bias=False),
    "gru": lambda: bptt.cells.GRU(9, 70),
    "lstm": lambda: bptt.cells.LSTM(17, 33),
    "normalised gru": lambda: LayerNormGRU(9, 35),
    "stack": lambda: bptt.cells.Stack(bptt.cells.GRU(5, 21), bptt.cells.LSTM(21, 10)),
}


def found(cell: nn.Module, whole: bool, steps: int, lanes: int, **options: Any) -> list[Tensor]:
    """Outputs, last state and all gradients, whole or in parts."""
    torch.manual_seed(1)
    dtype, size = next(cell.parameters()).dtype, getattr(cell, "input_size", 9)
    inputs = torch.randn(steps, lanes, size, dtype=dtype, requires_grad=True)
    reset = torch.rand(steps, lanes) < 0.1 if options.pop("resets", False) else None
    start = initial_state(cell, lanes)
    plan = plan_for(cell, inputs, start, start)
    assert isinstance(plan, Plan)
    assert plan.executable is not None
    outputs, last, _ = native.run(
        cell,
        inputs,
        start,
        initial=start,
        reset=reset,
        lengths=None,
        return_states=False,
        clip=None,
        plan=plan if whole else replace(plan, executable=None),
        **options,
    )
    results = [outputs, *leaves(last)]
    sum((r * torch.randn_like(r)).sum() for r in results).backward()  # type: ignore[union-attr]  # of tensors
    gradients = [t.grad for t in (inputs, *cell.parameters())]
    cell.zero_grad()
    return [*results, *[g for g in gradients if g is not None]]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_whole_is_in_parts(kind: str, resets: bool, variant: str) -> None:
    torch.manual_seed(0)
    cell = CELLS[kind]().double()
    _core.use_isa(variant)
    try:
        for steps, lanes in [(1, 1), (2, 3), (300, 1), (70, 13)]:
            one = found(cell, True, steps, lanes, resets=resets)
            other = found(cell, False, steps, lanes, resets=resets)
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(
                    a, b, rtol=1e-12, atol=1e-12 * float(b.detach().abs().max())
                )
    finally:
        _core.use_isa(None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CELLS)
def test_threads_do_not_show(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cell = CELLS[kind]().to(dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(found(cell, True, 300, 8))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_inputs_of_any_strides() -> None:
    cell, inputs = bptt.cells.GRU(4, 6).double(), torch.randn(5, 4, 7, dtype=torch.float64)
    turned = inputs.permute(2, 0, 1).requires_grad_()
    expected, _ = bptt.unfold(cell, turned, backend="eager")
    gradients = torch.autograd.grad(expected.sum(), [turned, *cell.parameters()])
    outputs, _ = bptt.unfold(cell, turned, backend="native")
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(
        torch.autograd.grad(outputs.sum(), [turned, *cell.parameters()]), gradients
    )
