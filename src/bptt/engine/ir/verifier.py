"""What every step program must be, whatever pass made it.

Where `bptt.engine.unsupported.STRICT` is set, as in all tests, the pipeline verifies after each
pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bptt.engine.ir.ops import OPERATORS, Kind
from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, StepProgram, Value, Write

Widths = Mapping[str, Sequence[int]]
"""The widths of the values of each space that a step may read."""


class InvalidProgram(AssertionError):
    """A pass made something that is no program."""


def verify(program: StepProgram) -> None:
    """Check both directions of a program, and what is gathered after the loop.

    Raises:
        InvalidProgram: with the instruction at fault.
    """
    times = [_columns(given.shape) for given in program.times]
    given = {"state": program.states, "time": times, "unit": program.units}
    verify_step(
        program.forward.instructions,
        program.forward.writes,
        given,
        program.matrices,
        {"next": program.states, "saved": program.saved},
    )
    if program.backward is None:
        return
    behind = given | {"next": program.states, "saved": program.saved, "grad": program.states}
    verify_step(
        program.backward.instructions,
        program.backward.writes,
        behind,
        program.matrices,
        {"enter": program.states, "delta": program.deltas},
    )
    arrays = {
        "state": program.states,
        "next": program.states,
        "time": times,
        "saved": program.saved,
        "delta": program.deltas,
    }
    assert program.after is not None
    for place in [*program.after.gathered, *(p for p in program.after.times if p is not None)]:
        widths = arrays.get(place.space, ())
        _expect(place.index < len(widths), f"{place} is not there")
        _expect(place.offset + place.width <= widths[place.index], f"{place} is too wide")


def verify_step(
    instructions: Sequence[Instruction],
    writes: Sequence[Write],
    given: Widths,
    matrices: Sequence[tuple[int, int]],
    outer: Widths | None = None,
    kept: Sequence[Operand] = (),
) -> None:
    """Check the instructions of a step, in their order.

    Args:
        instructions: what the step does.
        writes: what it leaves.
        given: the widths of what it may read.
        matrices: the shapes [k, n] of its matrices.
        outer: the widths of all that it must write; None if that is not to be checked.
        kept: what is read elsewhere.

    Raises:
        InvalidProgram: with the instruction at fault.
    """
    made: set[Value] = set()
    for instruction in instructions:
        place = f"`{instruction}`"
        operator = OPERATORS.get(instruction.opcode)
        _expect(operator is not None, f"{place}: no such operator")
        assert operator is not None
        result = instruction.result
        _expect(result.space == "temp" and result.width > 0, f"{place}: a result is a temporary")
        _expect(result not in made, f"{place}: {result} is there already")
        _expect(len(instruction.arguments) == operator.arity, f"{place}: wrong number of arguments")
        for operand in instruction.operands():
            _check_operand(operand, made, given, place)
        _check_widths(instruction, operator.kind, matrices, place)
        made.add(result)
    for write in writes:
        for operand in write.operands():
            _check_operand(operand, made, given, f"`{write}`")
        _check_pieces(write.pieces, write.target.width, f"`{write}`")
    for operand in kept:
        _check_operand(operand, made, given, f"{operand}, which is read elsewhere")
    if outer is not None:
        wanted = {Value(s, i, w) for s, widths in outer.items() for i, w in enumerate(widths)}
        written = [write.target for write in writes]
        _expect(set(written) == wanted, f"{written} is written in place of {wanted}")
        _expect(len(written) == len(wanted), f"something is written twice: {written}")


def _check_operand(operand: Operand, made: set[Value], given: Widths, place: str) -> None:
    value = operand.value
    if value.space == "temp":
        _expect(value in made, f"{place} reads {value}, which is not there yet")
    else:
        widths = given.get(value.space, ())
        there = value.index < len(widths) and widths[value.index] == value.width
        _expect(there, f"{place} reads {value}[{value.width}], which is not given")
    inside = operand.offset >= 0 and operand.offset + operand.width <= value.width
    _expect(inside and operand.width > 0, f"{place}: {operand} is outside of its value")


def _check_widths(
    instruction: Instruction, kind: Kind, matrices: Sequence[tuple[int, int]], place: str
) -> None:
    width, arguments = instruction.result.width, instruction.arguments
    if kind is Kind.LAYOUT:
        _check_pieces(instruction.pieces, width, place)
    elif kind is Kind.POINTWISE:
        widths = {_width(argument) for argument in arguments}
        _expect(widths <= {1, width}, f"{place}: arguments of {sorted(widths)} columns")
    elif kind is Kind.REDUCTION:
        widths = {_width(argument) for argument in arguments}
        _expect(width == 1 and len(widths) == 1, f"{place}: a reduction of {sorted(widths)}")
    else:
        number = instruction.matrix
        there = number is not None and 0 <= number < len(matrices)
        _expect(there, f"{place}: there is no such matrix")
        assert number is not None
        start, row = arguments
        fits = (_width(row), width) == tuple(matrices[number])
        _expect(fits, f"{place}: the matrix is {list(matrices[number])}")
        _expect(start is None or _width(start) == width, f"{place}: the start is of another width")


def _check_pieces(pieces: Sequence[Piece], width: int, place: str) -> None:
    _expect(sum(piece.width for piece in pieces) == width, f"{place}: pieces of another width")
    for piece in pieces:
        _expect(_width(piece.argument) in (1, piece.width), f"{place}: {piece} is of another width")


def _width(argument: Argument) -> int:
    return argument.width if isinstance(argument, Operand) else 1


def _columns(shape: Sequence[int]) -> int:
    width = 1
    for size in shape:
        width *= size
    return width


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidProgram(message)
