"""Equal operators on neighbouring columns become one, and nothing else changes."""

from __future__ import annotations

import torch

import bptt
from bptt.engine.ir.program import Instruction, Operand, Piece, Value, Write
from bptt.engine.passes.horizontal_fusion import merge_neighbours


def temp(index: int, width: int) -> Value:
    return Value("temp", index, width)


def whole(value: Value) -> Operand:
    return Operand(value, 0, value.width)


TIME = Value("time", 0, 8)
NEXT = Value("next", 0, 8)


def test_neighbouring_slices_are_joined() -> None:
    a, b = temp(0, 4), temp(1, 4)
    steps = [
        Instruction("tanh", a, (Operand(TIME, 0, 4),)),
        Instruction("tanh", b, (Operand(TIME, 4, 4),)),
    ]
    left = Write(NEXT, (Piece(whole(a), 4), Piece(whole(b), 4)))
    found, writes, _ = merge_neighbours(steps, (left,), [])
    assert [str(i) for i in found] == ["t2[8] = tanh(time0)"]
    assert writes == (Write(NEXT, (Piece(whole(temp(2, 8)), 8),)),)


def test_columns_that_change_places_stay_apart() -> None:
    """Joined they would have to be copied to where they belong."""
    a, b = temp(0, 4), temp(1, 4)
    steps = [
        Instruction("tanh", a, (Operand(TIME, 0, 4),)),
        Instruction("tanh", b, (Operand(TIME, 4, 4),)),
    ]
    left = Write(NEXT, (Piece(whole(b), 4), Piece(whole(a), 4)))
    assert merge_neighbours(steps, (left,), []) == (steps, (left,), [])


def test_an_operator_on_its_own_result_is_not_joined_with_it() -> None:
    a, b = temp(0, 4), temp(1, 4)
    steps = [
        Instruction("mul", a, (Operand(TIME, 0, 4), 2.0)),
        Instruction("mul", b, (whole(a), 2.0)),
    ]
    pack = Instruction("pack", temp(2, 8), pieces=(Piece(whole(a), 4), Piece(whole(b), 4)))
    left = Write(NEXT, (Piece(whole(temp(2, 8)), 8),))
    found, _, _ = merge_neighbours([*steps, pack], (left,), [])
    assert [i.opcode for i in found] == ["mul", "mul", "pack"]


def test_kept_operands_follow() -> None:
    a, b = temp(0, 4), temp(1, 4)
    steps = [
        Instruction("tanh", a, (Operand(TIME, 0, 4),)),
        Instruction("tanh", b, (Operand(TIME, 4, 4),)),
    ]
    left = Write(NEXT, (Piece(whole(a), 4), Piece(whole(b), 4)))
    pack = Instruction("pack", temp(2, 8), pieces=(Piece(whole(a), 4), Piece(whole(b), 4)))
    _, _, kept = merge_neighbours([*steps, pack], (left,), [whole(temp(2, 8))])
    assert [(k.width, k.value.width) for k in kept] == [(8, 8)]


def test_gates_of_a_gru_run_side_by_side() -> None:
    program = bptt.engine.compile(bptt.cells.GRU(3, 5), 3)
    assert program.forward.count("sigmoid") == 1
    assert program.forward.count("add") == 1
    torch.manual_seed(0)
    cell, inputs = bptt.cells.GRU(3, 5).double(), torch.randn(9, 2, 3, dtype=torch.float64)
    native, _ = bptt.unfold(cell, inputs, backend="native")
    eager, _ = bptt.unfold(cell, inputs, backend="eager")
    torch.testing.assert_close(native, eager)
