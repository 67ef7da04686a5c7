"""The hoisted parts of a call, in PyTorch under autograd: params-derived tensors, and those over
time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bptt.engine.ir.program import StepProgram

if TYPE_CHECKING:
    from bptt.engine.runtime.compile_cache import Plan

FEW = 16
"""So many steps take no longer one by one than it takes to map a function."""


def primals_of(plan: Plan, inputs: Tensor) -> list[Tensor]:
    """The differentiable tensors of a call, as `bptt.engine.passes.prologue_epilogue.Frame` wants
    them: (*sources, input), or (*params, *times) from the hoisted part, run here under autograd."""
    sources = list(plan.tensors)
    inputs = inputs.resolve_neg()  # what waits to be negated is not seen from its memory
    if any(map(Tensor.is_neg, sources)):
        sources = [source.resolve_neg() for source in sources]
    if plan.frame.inline:
        for i in plan.convention.idle:
            sources[i] = sources[i].new_empty(0)
        return [*sources, inputs]
    return hoisted(plan.program, sources, inputs)


def hoisted(program: StepProgram, sources: list[Tensor], inputs: Tensor) -> list[Tensor]:
    """The step's params, then its times [T, B, ...]."""
    if program.hoisted is None:
        derived: list[Tensor] = []
    else:
        derived = _derive(program, sources, inputs)
    found: list[Tensor] = []
    for i, given in enumerate(program.params):
        found.append(derived[i] if given.source is None else sources[given.source])
    for i, given in enumerate(program.times, start=len(program.params)):
        found.append(inputs if given.source == -1 else derived[i])
    return found


def _derive(program: StepProgram, sources: list[Tensor], inputs: Tensor) -> list[Tensor]:
    assert program.hoisted is not None
    steps, batch = inputs.shape[0], inputs.shape[1]
    run, first = program.hoisted.run, len(program.params)
    if program.folds:
        flat = inputs.reshape(steps * batch, *inputs.shape[2:])
        found: list[Tensor] = list(run(steps * batch, *sources, flat))
        for i in range(first, len(found)):
            found[i] = found[i].reshape(steps, batch, *found[i].shape[1:])
        return found
    return _by_steps(program, sources, inputs)


def _by_steps(program: StepProgram, sources: list[Tensor], inputs: Tensor) -> list[Tensor]:
    """What mixes lanes sees each step's lanes alone: mapped over time, or step by step where there
    are few or it cannot be."""
    batch = inputs.shape[1]
    assert program.hoisted is not None
    run, first = program.hoisted.run, len(program.params)

    def step(given: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(batch, *sources, given))

    if not len(inputs):
        sample = step(inputs.new_zeros(inputs.shape[1:]))
        return [s if i < first else s.new_empty((0, *s.shape)) for i, s in enumerate(sample)]
    dims: Any = tuple(None if i < first else 0 for i in range(first + len(program.times)))
    if len(inputs) > FEW:
        with suppress(RuntimeError, ValueError):
            return list(torch.vmap(step, out_dims=dims)(inputs))
    each = [step(given) for given in inputs]
    return [e if i < first else torch.stack([s[i] for s in each]) for i, e in enumerate(each[0])]
