"""The builder of instructions: rows as columns of values, pieces, common subexpressions, constants.

A `Rows` is a tensor of the trace in symbols: for each of its features, which column of which value
it is. So every view, slice, stack or concatenation is a rearrangement of integers and costs nothing
at run time; an operator that follows runs once for each contiguous piece of its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bptt.engine.ir.ops import OPERATORS
from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, Value
from bptt.engine.lowering.fold import simplify
from bptt.engine.unsupported import Reason, Refusal

Columns = NDArray[np.int64]

_BASE = 1 << 32
PIECES = 64
"""More pieces than this in one operator, and the cell is better left to PyTorch."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor with lanes: codes of its columns, in its own shape but with one lane at ``axis``."""

    columns: Columns
    axis: int

    @property
    def rank(self) -> int:
        """Number of dimensions, the lanes' among them."""
        return self.columns.ndim


class Builder:
    """Instructions in single assignment; equal ones are built once.

    Attributes:
        backward: whether what is built now is the backward step's.
    """

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.values: list[Value | float] = []
        self.after_gradient: set[Value] = set()
        self.backward = False
        self._negated: dict[Operand, Operand | float] = {}
        self._bases: dict[Value | float, int] = {}
        self._memo: dict[object, Operand | float] = {}

    # -- columns ---------------------------------------------------------------------------------

    def columns_of(self, value: Value | float, width: int = 1) -> Columns:
        """All columns of a value, or a constant repeated."""
        base = self._bases.setdefault(value, len(self.values))
        if base == len(self.values):
            self.values.append(value)
        start = base * _BASE
        if isinstance(value, Value):
            return np.arange(start, start + value.width, dtype=np.int64)
        return np.full(width, start, dtype=np.int64)

    def columns_of_argument(self, argument: Operand | float, width: int) -> Columns:
        """The columns of an argument, repeated if it is narrow."""
        if isinstance(argument, Operand):
            columns = self.columns_of(argument.value)[argument.offset :][: argument.width]
            return np.broadcast_to(columns, (width,))
        return self.columns_of(argument, width)

    def _argument(self, columns: Columns) -> Operand | float:
        first = int(columns[0])
        value = self.values[first // _BASE]
        if not isinstance(value, Value):
            return value
        repeated = len(columns) > 1 and first == int(columns[1])
        return Operand(value, first % _BASE, 1 if repeated else len(columns))

    def pieces(self, columns: Columns) -> tuple[Piece, ...]:
        """A row of columns cut into contiguous (or repeated) pieces."""
        flat = columns.reshape(-1)
        cuts = [0, *_cuts(flat), len(flat)]
        if len(cuts) - 1 > PIECES:
            raise Refusal(Reason.OPERATOR, "features rearranged one by one")
        spans = pairwise(cuts)
        return tuple(Piece(self._argument(flat[a:b]), b - a) for a, b in spans if b > a)

    def contiguous(self, columns: Columns) -> Operand:
        """The columns side by side in one value: as they lie, or packed."""
        pieces = self.pieces(columns)
        only = pieces[0].argument if len(pieces) == 1 else None
        if (
            isinstance(only, Operand)
            and only.width == pieces[0].width
            and only.value.space != "unit"
        ):
            return only
        return self._append("pack", columns.size, pieces=pieces)

    # -- instructions ----------------------------------------------------------------------------

    def pointwise(self, opcode: str, *arguments: Rows) -> Rows:
        """An operator, element by element, on rows that broadcast against each other."""
        axis = _common_axis(arguments)
        whole = np.broadcast_arrays(*(a.columns for a in arguments))
        flat = [w.reshape(-1) for w in whole]
        cuts = sorted({0, len(flat[0]), *(c for f in flat for c in _cuts(f))})
        if len(cuts) - 1 > PIECES:
            raise Refusal(Reason.OPERATOR, f"{opcode} on features rearranged one by one")
        parts = [np.empty(0, dtype=np.int64)]
        for a, b in pairwise(cuts):
            result = self.emit(opcode, *(self._argument(f[a:b]) for f in flat))
            parts.append(self.columns_of_argument(result, b - a))
        return Rows(np.concatenate(parts).reshape(whole[0].shape), axis)

    def emit(self, opcode: str, *arguments: Operand | float) -> Operand | float:
        """One instruction, unless it simplifies to one of its arguments or was built before."""
        simple = simplify(opcode, arguments, self.backward)
        if simple is not None:
            return simple if not isinstance(simple, tuple) else self.emit(simple[0], *simple[1:])
        if opcode == "add":
            for one, other in (arguments, arguments[::-1]):
                if isinstance(other, Operand) and other in self._negated:  # a + (-b) is a - b
                    return self.emit("sub", one, self._negated[other])
        if OPERATORS[opcode].commutative:
            arguments = tuple(sorted(arguments, key=_order))
        width = max(a.width if isinstance(a, Operand) else 1 for a in arguments)
        result = self._append(opcode, width, arguments)
        if opcode == "neg":
            self._negated[result] = arguments[0]
        return result

    def reduce(self, opcode: str, columns: Columns) -> Columns:
        """A row reduction to one column."""
        result = self._append(opcode, 1, (self.contiguous(columns),))
        return self.columns_of_argument(result, 1)

    def matmul(self, init: Columns | None, a: Columns, matrix: int, width: int) -> Columns:
        """``init + a @ matrices[matrix]``."""
        arguments = (None if init is None else self._narrow(init), self.contiguous(a))
        return self.columns_of_argument(self._append("matmul", width, arguments, matrix), width)

    def _narrow(self, columns: Columns) -> Operand | float:
        pieces = self.pieces(columns)
        return pieces[0].argument if len(pieces) == 1 else self.contiguous(columns)

    def _append(
        self,
        opcode: str,
        width: int,
        arguments: tuple[Argument, ...] = (),
        matrix: int | None = None,
        pieces: tuple[Piece, ...] = (),
    ) -> Operand:
        key = (opcode, width, arguments, matrix, pieces)
        known = self._memo.get(key)
        if isinstance(known, Operand):
            return known
        result = Value("temp", len(self.instructions), width)
        made = Instruction(opcode, result, arguments, matrix, pieces)
        self.instructions.append(made)
        if any(o.value.space == "grad" or o.value in self.after_gradient for o in made.operands()):
            self.after_gradient.add(result)
        self._memo[key] = Operand(result, 0, width)
        return Operand(result, 0, width)

    def depends_on_gradient(self, rows: Rows) -> bool:
        """Whether rows are part of the backward step alone."""
        values = [self.values[int(b)] for b in np.unique(rows.columns // _BASE)]
        return any(
            v in self.after_gradient or v.space == "grad" for v in values if isinstance(v, Value)
        )


def _order(argument: Operand | float) -> tuple[object, ...]:
    if isinstance(argument, Operand):
        return (0, argument.value.space, argument.value.index, argument.offset, 0.0)
    return (1, "", 0, 0, argument)


def _common_axis(arguments: tuple[Rows, ...]) -> int:
    """Where the lanes are in the result: they must be in one place, counted from the last
    dimension."""
    rank = max(a.rank for a in arguments)
    places = {a.axis - a.rank for a in arguments if a.axis >= 0}
    if len(places) != 1:
        raise Refusal(Reason.LANES, "lanes in two dimensions")
    axis = rank + places.pop()
    for a in arguments:
        here = axis - rank
        if -here <= a.rank and a.columns.shape[here] != 1:
            raise Refusal(Reason.LANES, "a tensor of the lanes' size")
    return axis


def _cuts(flat: Columns) -> list[int]:
    """Where a row of columns stops being contiguous (steps of 1) or repeated (steps of 0)."""
    steps = np.diff(flat)
    ends = np.append(np.flatnonzero(steps[1:] != steps[:-1]) + 1, len(steps))
    cuts: list[int] = []
    start = 0
    while start < len(steps):
        if int(steps[start]) in (0, 1):
            start = int(ends[np.searchsorted(ends, start, side="right")])
        start += 1
        if start < len(flat):
            cuts.append(start)
        if len(cuts) > PIECES:
            break
    return cuts
