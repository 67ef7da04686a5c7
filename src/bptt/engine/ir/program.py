"""Step programs as plain data: values, instructions, and what passes between the parts.

Every value is a row ``[width]``, the same for every lane; lanes never mix. A value lives in a
space:

======== =============================================================================
state    leaf j of the state before the step (resets applied)
next     leaf j of the state after it
time     a tensor hoisted over time, at this step
unit     a parameter per unit, the same for every lane and step
saved    written by the forward step for the backward one
grad     gradient with respect to ``next``
enter    gradient with respect to ``state``
delta    written by the backward step for what follows the loop
temp     the result of an instruction, in single assignment
======== =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from bptt.engine.ir.printer import listing


@dataclass(frozen=True)
class Value:
    """A row value: its space, its number there, its width."""

    space: str
    index: int
    width: int

    def __str__(self) -> str:
        """As it is printed."""
        return f"{'t' if self.space == 'temp' else self.space}{self.index}"


@dataclass(frozen=True)
class Operand:
    """Some columns of a value; width 1 broadcasts over a wider result."""

    value: Value
    offset: int
    width: int

    def __str__(self) -> str:
        """As it is printed."""
        if self.offset == 0 and self.width == self.value.width:
            return str(self.value)
        return f"{self.value}[{self.offset}:{self.offset + self.width}]"


Argument: TypeAlias = Operand | float | None


@dataclass(frozen=True)
class Piece:
    """Columns to be laid beside others; an argument of width 1 is repeated ``width`` times."""

    argument: Operand | float
    width: int

    def __str__(self) -> str:
        """As it is printed."""
        one = isinstance(self.argument, float) or self.argument.width == 1
        return f"{self.argument}*{self.width}" if one and self.width > 1 else str(self.argument)


@dataclass(frozen=True)
class Instruction:
    """``result = opcode(arguments)``.

    ``matmul`` is ``init + a @ matrices[matrix]`` with arguments (init or None, a); ``pack`` lays
    its pieces side by side, which costs nothing where their producers can write into place.
    """

    opcode: str
    result: Value
    arguments: tuple[Argument, ...] = ()
    matrix: int | None = None
    pieces: tuple[Piece, ...] = ()

    def __str__(self) -> str:
        """As it is printed."""
        if self.opcode == "pack":
            body = "[" + ", ".join(map(str, self.pieces)) + "]"
        elif self.opcode == "matmul":
            init, a = self.arguments
            body = f"{a} @ matrix{self.matrix}" + (f" + {init}" if init is not None else "")
        else:
            body = f"{self.opcode}({', '.join(map(str, self.arguments))})"
        return f"{self.result}[{self.result.width}] = {body}"

    def operands(self) -> list[Operand]:
        """All that the instruction reads."""
        read = [*self.arguments, *(p.argument for p in self.pieces)]
        return [a for a in read if isinstance(a, Operand)]


@dataclass(frozen=True)
class Write:
    """What a step leaves behind: a value of an outer space, made of pieces."""

    target: Value
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.target} = {', '.join(map(str, self.pieces))}"

    def operands(self) -> list[Operand]:
        """All that is written."""
        return [p.argument for p in self.pieces if isinstance(p.argument, Operand)]


@dataclass(frozen=True)
class Step:
    """One direction of a step program."""

    instructions: tuple[Instruction, ...]
    writes: tuple[Write, ...]

    def count(self, *opcodes: str) -> int:
        """How many instructions have one of these opcodes (any, if none is given; packs are not
        counted)."""
        if not opcodes:
            return sum(i.opcode != "pack" for i in self.instructions)
        return sum(i.opcode in opcodes for i in self.instructions)


def living(instructions: list[Instruction], read: list[Operand]) -> list[Instruction]:
    """Without those whose results nobody reads."""
    needed = {o.value for o in read}
    kept: list[Instruction] = []
    for instruction in reversed(instructions):
        if instruction.result in needed:
            needed.update(o.value for o in instruction.operands())
            kept.append(instruction)
    return kept[::-1]


@dataclass(frozen=True)
class Code:
    """A piece of straight-line PyTorch: how it reads, and how it runs. Two are equal if they read
    alike."""

    text: str
    run: Callable[..., Any] = field(compare=False, repr=False)
    graph: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Given:
    """A tensor that the step takes from PyTorch: a source as it is, or a result of the hoisted
    part.

    ``source`` is its index among the sources (for a hoisted tensor: -1 if it is the input itself),
    or None.
    """

    name: str
    source: int | None
    shape: tuple[int, ...]
    differentiable: bool
    dtype: torch.dtype


@dataclass(frozen=True)
class Gathered:
    """An array over all steps that a product after the loop reads."""

    space: str  # state, next, time, saved or delta
    index: int
    offset: int
    width: int

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.space}{self.index}[{self.offset}:{self.offset + self.width}]"


@dataclass(frozen=True)
class After:
    """What is left to do when the backward loop has run.

    Attributes:
        code: ``(*gathered arrays [steps * lanes, width], *extras) -> (*gradients of params)``.
        gathered: which arrays it reads.
        extras: results of the preparation that it reads as well.
        times: the gradient of each hoisted tensor, as an array over all steps, or None.
        has_gradient: which params have one.
    """

    code: Code
    gathered: tuple[Gathered, ...]
    extras: tuple[int, ...]
    times: tuple[Gathered | None, ...]
    has_gradient: tuple[bool, ...]


@dataclass(frozen=True)
class StepProgram:
    """A cell's step, forward and backward, and what PyTorch runs before and after the loop.

    Attributes:
        cell: the name of the cell's class.
        dtype: "float32" or "float64".
        sources: names of the cell's tensors.
        params: tensors derived from parameters alone, as the step takes them.
        times: tensors hoisted over time.
        states: widths of the state's leaves.
        hoisted: ``(lanes, *sources, input) -> (*params, *times)``, None if the step takes both as
        they are. folds: whether the hoisted part may run on all steps folded into the lanes.
        prepare: ``(*params) -> (*matrices, *units, *extras)`` as the step reads them. matrices,
        units: shapes and widths of what it reads. forward, backward: the step; backward is None if
        no gradient was asked for. saved: widths of what is saved. recomputed: how many instructions
        of the forward step the backward one repeats. deltas: widths of what the backward step
        writes. after: what remains after the loop. reached: of each leaf of the new state, as bits,
        those of (*params, *times, *state) that its gradient reaches. step: the step as
        PyTorch code, ``(lanes, *params, *times, *state) -> new state``.
    """

    cell: str
    dtype: str
    sources: tuple[str, ...]
    params: tuple[Given, ...]
    times: tuple[Given, ...]
    states: tuple[int, ...]
    hoisted: Code | None
    folds: bool
    prepare: Code
    matrices: tuple[tuple[int, int], ...]
    units: tuple[int, ...]
    forward: Step
    backward: Step | None
    saved: tuple[int, ...]
    recomputed: int
    deltas: tuple[int, ...]
    after: After | None
    reached: tuple[int, ...]
    step: Code

    def __str__(self) -> str:
        """As it is printed."""
        return listing(self)
