"""The plain interpreter of step programs: one instruction after the other in PyTorch.

It is slow and exact, the middle oracle between the Python loop over a cell and the core: it reads
the same program as the core does, before anything is lowered. Its two functions take what the
core's take.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bptt.engine.ir.ops import OPERATORS
from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, Step, StepProgram, Value

Arrays = Sequence[Tensor | None]


class _Lanes:
    """The values of one step, for all lanes."""

    def __init__(self, batch: int, like: Tensor, matrices: Sequence[Tensor]) -> None:
        self.batch, self.like, self.matrices = batch, like, matrices
        self.values: dict[tuple[str, int], Tensor] = {}

    def put(self, space: str, tensors: Arrays) -> None:
        """Bring in the tensors of a space."""
        for i, tensor in enumerate(tensors):
            if tensor is not None:
                self.values[space, i] = tensor

    def get(self, argument: Argument) -> Tensor:
        """The columns that an argument names, [lanes or 1, width]."""
        if isinstance(argument, Operand):
            value = self.values[argument.value.space, argument.value.index]
            value = value if value.dim() == 2 else value[None]
            return value[:, argument.offset : argument.offset + argument.width]
        return self.like.new_tensor(0.0 if argument is None else argument).reshape(1, 1)

    def laid(self, pieces: tuple[Piece, ...]) -> Tensor:
        """Pieces side by side."""
        parts = [self.get(p.argument).expand(self.batch, p.width) for p in pieces]
        return torch.cat(parts, dim=1) if parts else self.like.new_empty(self.batch, 0)

    def run(self, step: Step) -> dict[Value, Tensor]:
        """Run all instructions; gives what the step writes."""
        for instruction in step.instructions:
            result = self._result(instruction).expand(self.batch, instruction.result.width)
            self.values["temp", instruction.result.index] = result
        return {w.target: self.laid(w.pieces) for w in step.writes}

    def _result(self, i: Instruction) -> Tensor:
        if i.opcode == "pack":
            return self.laid(i.pieces)
        arguments = [self.get(a) for a in i.arguments]
        if i.opcode == "matmul":
            assert i.matrix is not None
            product = arguments[1].expand(self.batch, -1) @ self.matrices[i.matrix]
            return product if i.arguments[0] is None else arguments[0] + product
        meaning = OPERATORS[i.opcode].meaning
        assert meaning is not None
        return meaning(*arguments)


def _entering(
    states: Sequence[Tensor], initial: Arrays, reset: Tensor | None, t: int
) -> list[Tensor]:
    if reset is None:
        return [s[t] for s in states]
    return [
        torch.where(reset[t][:, None], i, s[t]) if i is not None else s[t]
        for s, i in zip(states, initial, strict=True)
    ]


def forward(
    program: StepProgram,
    states: Sequence[Tensor],
    times: Sequence[Tensor],
    saved: Sequence[Tensor],
    units: Sequence[Tensor],
    matrices: Sequence[Tensor],
    initial: Arrays,
    reset: Tensor | None,
    lengths: Tensor | None,
) -> None:
    """Run t = 0 ... T-1: fill ``states`` [T + 1, B, n], and ``saved`` [T, B, w] unless it is
    empty."""
    steps, batch = len(states[0]) - 1, states[0].shape[1]
    for t in range(steps):
        lanes = _Lanes(batch, states[0], matrices)
        lanes.put("state", _entering(states, initial, reset, t))
        lanes.put("time", [u[t].reshape(batch, -1) for u in times])
        lanes.put("unit", units)
        written = lanes.run(program.forward)
        for value, result in written.items():
            if value.space == "next":
                array = states[value.index]
                past = None if lengths is None else (lengths <= t)[:, None]
                array[t + 1] = result if past is None else torch.where(past, array[t], result)
            elif saved:
                saved[value.index][t] = result


def reverse(
    program: StepProgram,
    states: Sequence[Tensor],
    times: Sequence[Tensor],
    saved: Sequence[Tensor],
    deltas: Sequence[Tensor],
    units: Sequence[Tensor],
    matrices: Sequence[Tensor],
    initial: Arrays,
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
    final_grads: Arrays,
    step_grads: Arrays,
    start_grads: Arrays,
    initial_grads: Arrays,
) -> None:
    """Run t = T-1 ... 0: fill ``deltas`` [T, B, w] and ``start_grads``, add to
    ``initial_grads``."""
    assert program.backward is not None
    steps, batch = len(states[0]) - 1, states[0].shape[1]
    carry = [
        torch.zeros_like(s[0]) if g is None else g for s, g in zip(states, final_grads, strict=True)
    ]
    for t in reversed(range(steps)):
        arriving = [c if g is None else c + g[t] for c, g in zip(carry, step_grads, strict=True)]
        lanes = _Lanes(batch, states[0], matrices)
        lanes.put("state", _entering(states, initial, reset, t))
        lanes.put("next", [s[t + 1] for s in states])
        lanes.put("time", [u[t].reshape(batch, -1) for u in times])
        lanes.put("saved", [s[t] for s in saved])
        lanes.put("unit", units)
        lanes.put("grad", arriving)
        past = None if lengths is None else (lengths <= t)[:, None]
        for value, result in lanes.run(program.backward).items():
            j = value.index
            if value.space == "delta":
                deltas[j][t] = result if past is None else result.masked_fill(past, 0.0)
                continue
            passed = result if clip is None else result.clamp(-clip, clip)
            if reset is not None:
                back = reset[t][:, None] if past is None else reset[t][:, None] & ~past
                to = initial_grads[j]
                if to is not None:
                    to += passed.masked_fill(~back, 0.0)
                passed = passed.masked_fill(back, 0.0)
            carry[j] = passed if past is None else torch.where(past, arriving[j], passed)
    for given, grad in zip(start_grads, carry, strict=True):
        if given is not None:
            given.copy_(grad)
