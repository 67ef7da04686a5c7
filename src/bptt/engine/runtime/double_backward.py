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
    """The step of a program as a cell: its input is what was hoisted, one tensor each."""

    def __init__(self, program: StepProgram, params: list[Tensor]) -> None:
        super().__init__()
        self.program = program
        self.params = params

    def forward(self, times: Sequence[Tensor], state: State) -> State:
        """One step in PyTorch."""
        held = leaves(state)
        return rebuild(
            state, list(self.program.step.run(len(held[0]), *self.params, *times, *held))
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
    times = [t.unbind(0) for t in given[first:]]
    start = rebuild(call.nested, list(tensors[-2 * n : -n]) if states_given else began)
    initial = rebuild(call.nested, list(tensors[-n:]) if states_given else call.initial)
    _, states, last = eager.run_steps(
        _StepAsCell(program, given[:first]),
        list(zip(*times, strict=True)) if times else [()] * call.steps,
        start,
        initial,
        call.reset,
        call.lengths,
        call.clip,
        keep=True,
    )
    every = [leaves(state) for state in states]
    # Step by step: the gradient of the gradient of a stack fills as much memory for each step.
    results = [[state[j] for state in every] for j in call.exposed]
    arriving = [None if g is None else g.unbind(0) for g in grads[: len(results)]]
    results += [[leaf] for leaf in leaves(last)]
    arriving += [None if g is None else (g,) for g in grads[len(arriving) :]]
    pairs = [
        (r, g)
        for each, given in zip(results, arriving, strict=True)
        if given is not None
        for r, g in zip(each, given, strict=True)
        if r.requires_grad
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
