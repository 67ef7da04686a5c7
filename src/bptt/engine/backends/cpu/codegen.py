"""Lowering: values get their places in memory, and a step becomes a program of the core.

A temporary that is written outside, or packed beside others, is computed in that very place if no
other place has it yet; all others share scratch arrays by the time that they live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bptt.engine.ir.program import (
    Argument,
    Instruction,
    Operand,
    Piece,
    Step,
    StepProgram,
    Value,
    Write,
    living,
)

Slot = tuple[str, int, int, int]


@dataclass(frozen=True)
class Lowered:
    """A program of the core, and which arrays it takes: numbers of hoisted tensors, whether the
    array of all that is saved and that of all deltas, and numbers among the matrices followed by
    the units."""

    program: Any
    times: tuple[int, ...]
    saved: bool
    deltas: bool
    units: tuple[int, ...]
    matrices: tuple[int, ...]


class _Memory:
    """Places of temporaries: outer ones first, then scratch arrays, reused once their value is
    dead."""

    def __init__(self, step: Step, writes: tuple[Write, ...]) -> None:
        self.made = {i.result: i for i in step.instructions}
        self.places: dict[Value, Slot] = {}
        self.widths: list[int] = []
        self.copies: list[tuple[Slot, Piece]] = []
        self._free: dict[int, list[int]] = {}
        self._parents: dict[Value, Value] = {}
        for write in writes:
            self.copies += self._lay(write.pieces, (write.target.space, write.target.index, 0, 0))
        self.packing = {
            i.result: self._plan_pack(i) for i in reversed(step.instructions) if i.opcode == "pack"
        }
        self._last = _last_uses(step.instructions, self._parents)

    def _plan_pack(self, pack: Instruction) -> list[tuple[Slot, Piece]]:
        if pack.result not in self.places:
            self.places[pack.result] = self._array(pack.result.width)
        space, index, offset, _ = self.places[pack.result]
        return self._lay(pack.pieces, (space, index, offset, 0), pack.result)

    def _lay(
        self, pieces: tuple[Piece, ...], base: Slot, parent: Value | None = None
    ) -> list[tuple[Slot, Piece]]:
        """Place producers in an outer array; what is left must be copied."""
        copies, offset = [], base[2]
        for piece in pieces:
            slot = (base[0], base[1], offset, piece.width)
            a = piece.argument
            whole = (
                isinstance(a, Operand)
                and a.value in self.made
                and a.width == a.value.width == piece.width
            )
            if whole and a.value not in self.places:  # type: ignore[union-attr]  # `whole`: an operand
                self.places[a.value] = slot  # type: ignore[union-attr]  # as above
                if parent is not None:
                    self._parents[a.value] = parent  # type: ignore[union-attr]  # as above
            else:
                copies.append((slot, piece))
            offset += piece.width
        return copies

    def _array(self, width: int) -> Slot:
        self.widths.append(width)
        return ("scratch", len(self.widths) - 1, 0, width)

    def place(self, value: Value, position: int) -> Slot:
        """Where the result of the instruction at ``position`` goes."""
        if value not in self.places:
            free = self._free.get(value.width)
            self.places[value] = (
                ("scratch", free.pop(), 0, value.width) if free else self._array(value.width)
            )
        return self.places[value]

    def release(self, instruction: Instruction, position: int) -> None:
        """Give back the scratch arrays of values read for the last time."""
        for value in {o.value for o in instruction.operands()} | {instruction.result}:
            slot = self.places.get(value)
            inner = value in self._parents or value in self.packing
            if (
                slot
                and slot[0] == "scratch"
                and not inner
                and self._last.get(value, position) == position
            ):
                self._free.setdefault(slot[3], []).append(slot[1])

    def slot(self, argument: Argument) -> Slot | float | None:
        """An argument as the core reads it."""
        if not isinstance(argument, Operand):
            return argument
        value = argument.value
        space, index, offset, _ = self.places.get(value, (value.space, value.index, 0, 0))
        return (space, index, offset + argument.offset, argument.width)


def _last_uses(
    instructions: tuple[Instruction, ...], parents: dict[Value, Value]
) -> dict[Value, int]:
    return {o.value: position for position, i in enumerate(instructions) for o in i.operands()}


def _emit(step: Step, writes: tuple[Write, ...]) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The instructions of the core, in the order of the step, and the widths of the scratch
    arrays."""
    memory = _Memory(step, writes)
    outer = {o.value for w in writes for o in w.operands()}
    out: list[tuple[Any, ...]] = []
    for position, i in enumerate(step.instructions):
        if i.opcode == "pack":
            out += [("copy", slot, memory.slot(p.argument)) for slot, p in memory.packing[i.result]]
            continue
        target = memory.place(i.result, position)
        arguments = [memory.slot(a) for a in i.arguments]
        extra = () if i.matrix is None else (i.matrix,)
        out.append((i.opcode, target, *arguments, *extra))
        if i.result not in outer and not outer & {o.value for o in i.operands()}:
            memory.release(i, position)
    out += [("copy", slot, memory.slot(p.argument)) for slot, p in memory.copies]
    return out, memory.widths


def lower(program: StepProgram, step: Step, *, reverse: bool, save: bool) -> Lowered:
    """One direction for the core; without ``save`` the forward step keeps nothing for a backward
    one.

    All that is saved lies side by side in one array over time, and so do all deltas.
    """
    from bptt import _core

    writes = tuple(w for w in step.writes if save or w.target.space != "saved")
    if not save:
        step = Step(_without(step, writes), writes)
    raw, scratch = _emit(step, writes)
    used = _used(raw)
    times = sorted(i for s, i in used if s == "time")
    units = sorted(i for s, i in used if s == "unit")
    matrices = sorted({i[-1] for i in raw if i[0] == "matmul"})
    arrays = [(t_width(program.times[i].shape), "r") for i in times]
    moves = {("time", i): ("time", n, 0) for n, i in enumerate(times)}
    moves |= {("unit", i): ("unit", n, 0) for n, i in enumerate(units)}
    moves |= {("enter", j): ("grad_in", j, 0) for j in range(len(program.states))}
    several = {"saved": program.saved, "delta": program.deltas}
    there = {space: any(s == space for s, _ in used) for space in several}
    for space, widths in several.items():
        if there[space]:
            moves |= {
                (space, k): ("time", len(arrays), sum(widths[:k])) for k in range(len(widths))
            }
            written = space == "delta" or not reverse
            arrays.append((sum(widths), "w" if written else "r"))
    built = _core.Program(
        dtype=program.dtype,
        reverse=reverse,
        states=list(program.states),
        scratch=scratch,
        time=arrays,
        units=[program.units[i] for i in units],
        matrices=[program.matrices[i] for i in matrices],
        instructions=[_moved(i, moves, matrices) for i in raw],
    )
    first = len(program.matrices)
    return Lowered(
        built,
        tuple(times),
        there["saved"],
        there["delta"],
        tuple(first + i for i in units),
        tuple(matrices),
    )


def t_width(shape: tuple[int, ...]) -> int:
    """Columns of a hoisted tensor at one step."""
    width = 1
    for n in shape:
        width *= n
    return width


def _without(step: Step, writes: tuple[Write, ...]) -> tuple[Instruction, ...]:
    return tuple(living(list(step.instructions), [o for w in writes for o in w.operands()]))


def _used(raw: list[tuple[Any, ...]]) -> set[tuple[str, int]]:
    return {(a[0], a[1]) for i in raw for a in i[1:] if isinstance(a, tuple)}


def _moved(
    instruction: tuple[Any, ...],
    moves: dict[tuple[str, int], tuple[str, int, int]],
    matrices: list[int],
) -> tuple[Any, ...]:
    def one(argument: Any) -> Any:
        if isinstance(argument, tuple):
            space, index, offset, width = argument
            to, number, shift = moves.get((space, index), (space, index, 0))
            return (to, number, offset + shift, width)
        return argument

    if instruction[0] == "matmul":
        *primal, matrix = instruction
        return (*map(one, primal), matrices.index(matrix))
    return tuple(map(one, instruction))
