"""Step programs as data: what is printed can be read again, and what is none is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bptt.engine import Plan, StepProgram, plan_for
from bptt.engine.ir.interpreter import _Lanes
from bptt.engine.ir.ops import OPERATORS, Kind
from bptt.engine.ir.parser import parse
from bptt.engine.ir.program import Operand, Piece, Step, Value
from bptt.engine.ir.verifier import InvalidProgram, verify
from bptt.state import initial_state

from .zoo import ZOO


def program_of(name: str) -> StepProgram:
    cell = ZOO[name](5, 6)
    inputs = torch.randn(3, 2, 5, requires_grad=True)
    start = initial_state(cell, 2)
    plan = plan_for(cell, inputs, start, start)
    assert isinstance(plan, Plan), plan
    return plan.program


def widths(program: StepProgram) -> dict[str, int]:
    """Of all that either direction reads."""
    spaces: dict[str, Any] = {
        "state": program.states,
        "next": program.states,
        "grad": program.states,
        "time": [int(torch.Size(t.shape).numel()) for t in program.times],
        "unit": program.units,
        "saved": program.saved,
    }
    return {f"{s}{i}": w for s, each in spaces.items() for i, w in enumerate(each)}


@pytest.mark.parametrize("name", ZOO)
def test_what_is_printed_is_read_again(name: str) -> None:
    program = program_of(name)
    for step in (program.forward, program.backward):
        assert step is not None
        text = "\n".join(map(str, [*step.instructions, *step.writes]))
        instructions, writes = parse(text, widths(program))
        assert (tuple(instructions), tuple(writes)) == (step.instructions, step.writes)


@pytest.mark.parametrize("name", ZOO)
def test_every_program_is_one(name: str) -> None:
    verify(program_of(name))


def spoiled(step: Step, how: str) -> Step:
    """A step that is none."""
    first, *rest = step.instructions
    if how == "order":
        return replace(step, instructions=tuple(reversed(step.instructions)))
    if how == "twice":
        return replace(step, instructions=(first, *step.instructions))
    if how == "missing":
        return replace(step, instructions=tuple(rest))
    if how == "opcode":
        return replace(step, instructions=(replace(first, opcode="tan"), *rest))
    if how == "width":
        wide = replace(first, result=replace(first.result, width=first.result.width + 1))
        return replace(step, instructions=(wide, *rest))
    if how == "matrix":
        changed = [replace(i, matrix=9) if i.opcode == "matmul" else i for i in step.instructions]
        return replace(step, instructions=tuple(changed))
    if how == "not written":
        return replace(step, writes=step.writes[1:])
    if how == "written twice":
        return replace(step, writes=(*step.writes, step.writes[0]))
    if how == "outside":
        stray = Piece(Operand(Value("state", 0, 6), 3, 6), 6)
        return replace(step, writes=(replace(step.writes[0], pieces=(stray,)), *step.writes[1:]))
    stranger = Piece(Operand(Value("state", 7, 6), 0, 6), 6)
    return replace(step, writes=(replace(step.writes[0], pieces=(stranger,)), *step.writes[1:]))


HOW = [
    "order", "twice", "missing", "opcode", "width", "matrix", "not written", "written twice",
    "outside", "stranger",
]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("backward", [False, True])
def test_what_is_no_program_is_found(how: str, backward: bool) -> None:
    program = program_of("gru")
    verify(program)
    step = program.backward if backward else program.forward
    assert step is not None
    broken = spoiled(step, how)
    changed = replace(program, backward=broken) if backward else replace(program, forward=broken)
    with pytest.raises(InvalidProgram):
        verify(changed)


@pytest.mark.parametrize(
    "text", ["t0[4] = ", "t0[4] = add(t9, state0)", "next0 := state0", "next0 = t3", "next0 = one"]
)
def test_what_is_no_text_of_a_step_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no line of a step|no instruction|is not there|float"):
        parse(text, {"state0": 4})


@pytest.mark.parametrize("opcode", [o for o, op in OPERATORS.items() if op.commutative])
def test_what_is_commutative_is(opcode: str) -> None:
    a, b = torch.randn(2, 3, 4).sign() * torch.randint(0, 3, (2, 3, 4))
    meaning = OPERATORS[opcode].meaning
    assert meaning is not None
    assert torch.equal(meaning(a, b), meaning(b, a))


def test_the_interpreter_knows_every_operator() -> None:
    for opcode, operator in OPERATORS.items():
        if operator.kind in (Kind.POINTWISE, Kind.REDUCTION):
            names = ["state0"] * operator.arity
            width = 1 if operator.kind is Kind.REDUCTION else 4
            text = f"t0[{width}] = {opcode}({', '.join(names)})\nnext0 = t0"
            instructions, writes = parse(text, {"state0": 4})
            lanes = _Lanes(2, torch.rand(2, 4), [])
            lanes.put("state", [torch.rand(2, 4)])
            found = lanes.run(Step(tuple(instructions), tuple(writes)))
            assert found[writes[0].target].shape == (2, width)
