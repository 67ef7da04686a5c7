"""Gradients of gradients, and many gradients at once: the loop once more, step by step in PyTorch,
so that autograd and its transforms see all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bptt.engine.backends import eager
from bptt.engine.ir.program import StepProgram
from bptt.engine.runtime.primals import hoisted
from bptt.state import State, leaves, rebuild

if TYPE_CHECKING:
    from bptt.engine.runtime.loop import Call


def differentiable(
    call: Call,
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Any],
) -> list[Tensor | None]:
    """The same gradients as `bptt.engine.runtime.loop.backward_loop`, by plain operators:
    functions that can be differentiated, and of gradients that only PyTorch can read.

    The states that ``kept`` begins with are read at the start alone, which outputs that were
    changed in place do not share.
    """
    began = [states[0] for states in kept[: len(call.plan.program.states)]]
    return _in_steps(call, tensors, began, needed, grads, torch.is_grad_enabled())


class _StepAsCell(nn.Module):
    """The step of a program as a cell: its input is all hoisted tensors side by side."""

    def __init__(self, program: StepProgram, params: list[Tensor]) -> None:
        super().__init__()
        self.program = program
        self.params = params

    def forward(self, input: Tensor, state: State) -> State:
        """One step in PyTorch."""
        batch = input.shape[0]
        widths = [int(torch.Size(t.shape).numel()) for t in self.program.times]
        parts = torch.split(input, widths, dim=1) if widths else ()
        given = self.program.step.graph.graph.find_nodes(op="placeholder")[1 + len(self.params) :]
        times = [
            p.reshape(batch, *t.shape).to(g.meta["val"].dtype)
            for p, t, g in zip(parts, self.program.times, given, strict=False)
        ]
        return rebuild(
            state, list(self.program.step.run(batch, *self.params, *times, *leaves(state)))
        )


@torch.enable_grad()
def _in_steps(
    call: Call,
    tensors: Sequence[Tensor],
    began: list[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Any],
    create_graph: bool,
) -> list[Tensor | None]:
    program, n = call.plan.program, len(call.plan.program.states)
    # Apart even where two are the same tensor (a start that resets return to), so that each gets
    # its own part.
    tensors = [t.view_as(t) if need else t for t, need in zip(tensors, needed, strict=True)]
    states_given = call.plan.wanted.state
    primals = list(tensors[: len(tensors) - 2 * n]) if states_given else list(tensors)
    given = hoisted(program, primals[:-1], primals[-1]) if call.plan.frame.inline else primals
    first = len(program.params)
    times = [
        t.reshape(call.steps, call.batch, t.shape[2:].numel()).to(call.start[0].dtype)
        for t in given[first:]
    ]
    joined = (
        torch.cat(times, dim=2) if times else call.start[0].new_zeros((call.steps, call.batch, 0))
    )
    start = rebuild(call.nested, list(tensors[-2 * n : -n]) if states_given else began)
    initial = rebuild(call.nested, list(tensors[-n:]) if states_given else call.initial)
    _, last, states = eager.run(
        _StepAsCell(program, given[:first]),
        joined,
        start,
        initial=initial,
        reset=call.reset,
        lengths=call.lengths,
        return_states=True,
        clip=call.clip,
    )
    assert states is not None
    every = leaves(states)
    results = [every[j] for j in call.exposed] + leaves(last)
    pairs = [
        (r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad
    ]
    asked = [t for t, need in zip(tensors, needed, strict=True) if need]
    if not pairs or not asked:
        return [None] * len(tensors)
    found = iter(
        torch.autograd.grad(
            [r for r, _ in pairs],
            asked,
            [g for _, g in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needed]
