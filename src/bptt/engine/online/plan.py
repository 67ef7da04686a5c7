"""The plan of an online learner as plain data, in the words of the core (native/src/online.h)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class View(NamedTuple):
    """Elements of a buffer as a matrix: offset, rows, columns and their strides."""

    buffer: int
    offset: int
    rows: int
    columns: int
    row_stride: int
    column_stride: int


class Place(NamedTuple):
    """Columns of an array of rows (``space`` "array", ``shift`` steps later), or of a buffer, the
    same for every row ("buffer")."""

    space: str
    number: int
    shift: int
    offset: int
    width: int


Operand: TypeAlias = Place | float | None


class RowOp(NamedTuple):
    """An instruction on rows; of a product, ``b`` is the first summand. ``at_first``: whether the
    backward loop needs it at the first step, where no gradient of the state is asked for."""

    opcode: str
    result: Place
    a: Operand
    b: Operand
    c: Operand
    matrix: int
    at_first: bool


class Leaf(NamedTuple):
    """A leaf of the state: its arrays (states, the same with resets applied, carried gradients) and
    buffers (the initial state, one row for all lanes or one each, and its gradient or -1)."""

    width: int
    states: int
    entered: int
    carries: int
    initial: int
    initial_is_shared: bool
    initial_gradient: int
