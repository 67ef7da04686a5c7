"""Steps from their text, as `bptt.engine.ir.program` prints them, for tests of passes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, Value, Write

_RESULT = re.compile(r"t(\d+)\[(\d+)\] = (.*)")
_WRITE = re.compile(r"([a-z]+)(\d+) = (.*)")
_CALL = re.compile(r"([a-z_0-9]+)\((.*)\)")
_MATMUL = re.compile(r"(.+) @ matrix(\d+)(?: \+ (.+))?")
_OPERAND = re.compile(r"([a-z]+)(\d+)(?:\[(\d+):(\d+)\])?")


def parse(text: str, widths: Mapping[str, int]) -> tuple[list[Instruction], list[Write]]:
    """The instructions and writes of a step, a line each.

    Args:
        text: as `str` gives them.
        widths: how many columns each value has that the step is given: ``{"state0": 4}``.

    Raises:
        ValueError: a line is none of a step.
    """
    known = {name: _value(name, width) for name, width in widths.items()}
    instructions, writes = [], []
    for line in filter(None, map(str.strip, text.splitlines())):
        result, write = _RESULT.fullmatch(line), _WRITE.fullmatch(line)
        if result is not None:
            number, width, body = result.groups()
            value = Value("temp", int(number), int(width))
            instructions.append(_instruction(value, body, known))
            known[f"t{number}"] = value
        elif write is not None:
            space, number, body = write.groups()
            pieces = _pieces(body, known)
            target = Value(space, int(number), sum(piece.width for piece in pieces))
            writes.append(Write(target, pieces))
        else:
            raise ValueError(f"no line of a step: {line}")
    return instructions, writes


def _value(name: str, width: int) -> Value:
    space = name.rstrip("0123456789")
    return Value("temp" if space == "t" else space, int(name[len(space) :]), width)


def _instruction(result: Value, body: str, known: Mapping[str, Value]) -> Instruction:
    if body.startswith("["):
        return Instruction("pack", result, pieces=_pieces(body[1:-1], known))
    product = _MATMUL.fullmatch(body)
    if product is not None:
        row, matrix, start = product.groups()
        begin = None if start is None else _argument(start, known)
        return Instruction("matmul", result, (begin, _argument(row, known)), int(matrix))
    call = _CALL.fullmatch(body)
    if call is None:
        raise ValueError(f"no instruction: {body}")
    opcode, arguments = call.groups()
    return Instruction(opcode, result, tuple(_argument(a, known) for a in arguments.split(", ")))


def _pieces(body: str, known: Mapping[str, Value]) -> tuple[Piece, ...]:
    return tuple(_piece(part, known) for part in body.split(", ") if part)


def _piece(part: str, known: Mapping[str, Value]) -> Piece:
    name, _, times = part.partition("*")
    argument = _argument(name, known)
    assert argument is not None
    width = argument.width if isinstance(argument, Operand) else 1
    return Piece(argument, int(times) if times else width)


def _argument(text: str, known: Mapping[str, Value]) -> Argument:
    operand = _OPERAND.fullmatch(text)
    if operand is None:
        return float(text)
    space, number, low, high = operand.groups()
    value = known.get(space + number)
    if value is None:
        raise ValueError(f"{text} is not there")
    if low is None:
        return Operand(value, 0, value.width)
    return Operand(value, int(low), int(high) - int(low))
