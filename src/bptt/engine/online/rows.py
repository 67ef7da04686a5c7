"""A step program as stages of row instructions, for windows whose every value has its own array.

What depends on the input alone runs ahead of the loop, on the rows of all steps at once; so does
what the backward step repeats without the gradient; and what no state's gradient needs runs behind
the loop, again on all rows. Only the rest is done step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, Step, Value
from bptt.engine.online.plan import Operand as Row
from bptt.engine.online.plan import Place, RowOp

Outer = Callable[[Value], Place | None]
"""Where a value of an outer space lies, all of its columns; None: nowhere."""


class Arrays:
    """The arrays of a learner: width and domain of each."""

    def __init__(self) -> None:
        self.declared: list[tuple[int, str]] = []

    def new(self, width: int, domain: str) -> Place:
        """An array of its own."""
        self.declared.append((width, domain))
        return Place("array", len(self.declared) - 1, 0, 0, width)


@dataclass
class Stages:
    """The instructions of one direction."""

    ahead: list[RowOp] = field(default_factory=list)
    loop: list[RowOp] = field(default_factory=list)
    behind: list[RowOp] = field(default_factory=list)


def columns(place: Place, offset: int, width: int) -> Place:
    """Some columns of a place."""
    return place._replace(offset=place.offset + offset, width=width)


class Direction:
    """Lowers one direction of a step.

    Args:
        step: the instructions and what they leave.
        arrays: gets the new arrays.
        outer: where values of outer spaces lie.
        targets: where what the step leaves is written, by value; what is not there is only named
            (`place` tells where it lies).
        domain: of arrays of all rows, "window" or "counted".
        first: the matrices before this program's own.
    """

    def __init__(
        self,
        step: Step,
        arrays: Arrays,
        outer: Outer,
        targets: dict[Value, Place],
        domain: str,
        first: int,
        fixed_spaces: frozenset[str],
        named: Iterable[Value] = (),
    ) -> None:
        self.arrays, self.outer, self.targets = arrays, outer, targets
        self.domain, self.first = domain, first
        self.made = {i.result: i for i in step.instructions}
        self.writes = {w.target: w.pieces for w in step.writes if w.target in targets}
        asked = set(named)
        self.left = {w.target: w.pieces for w in step.writes if w.target in asked}
        kept = [*self.writes.values(), *self.left.values()]
        alive = self._closure(p.argument for pieces in kept for p in pieces)
        self.instructions = [i for i in step.instructions if i.result in alive]
        self._stage(fixed_spaces)
        self.places: dict[Value, Place] = {}
        self.copies: list[tuple[Place, Piece]] = []
        self.packing: dict[Value, list[tuple[Place, Piece]]] = {}
        self._lay_out()

    # -- what runs when --------------------------------------------------------------------------

    def _closure(self, arguments: Iterable[Argument]) -> set[Value]:
        """The temporaries that these need."""
        found: set[Value] = set()
        waiting = [a.value for a in arguments if isinstance(a, Operand)]
        while waiting:
            value = waiting.pop()
            if value in self.made and value not in found:
                found.add(value)
                waiting += [o.value for o in self.made[value].operands()]
        return found

    def _stage(self, fixed_spaces: frozenset[str]) -> None:
        """``ahead``: of what is known before the loop; ``loop``: what the writes need; else
        behind."""
        self.stages: dict[Value, str] = {}
        needed = self._closure(p.argument for ps in self.writes.values() for p in ps)
        for i in self.instructions:
            early = all(
                o.value.space in fixed_spaces or self.stages.get(o.value) == "ahead"
                for o in i.operands()
            )
            self.stages[i.result] = "ahead" if early else "loop" if i.result in needed else "behind"
        behind = [i for i in self.instructions if self.stages[i.result] == "behind"]
        after = [o for i in behind for o in i.operands()]
        after += [
            p.argument for ps in self.left.values() for p in ps if isinstance(p.argument, Operand)
        ]
        self.at_first = self._closure(after)
        self.outlives = {o.value for o in after}
        for i in self.instructions:
            if self.stages[i.result] != "loop":
                self.outlives |= {i.result} | {o.value for o in i.operands()}
            else:
                self.outlives |= {
                    o.value for o in i.operands() if self.stages.get(o.value) == "ahead"
                }

    # -- where it lies ---------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Places of all temporaries: in what is written, in what they are packed into, or apart."""
        for target, pieces in self.writes.items():
            self.copies += self._lay(pieces, self.targets[target], loop_only=True)
        for i in reversed(self.instructions):
            if i.opcode != "pack":
                continue
            if i.result not in self.places:
                self.places[i.result] = self._array(i.result)
            whole = self.arrays.declared[self.places[i.result].number][1] != "step"
            self.packing[i.result] = self._lay(
                i.pieces, self.places[i.result], loop_only=not whole, parent=i.result
            )
        for i in self.instructions:
            if i.result not in self.places:
                self.places[i.result] = self._array(i.result)

    def _array(self, value: Value) -> Place:
        all_rows = value in self.outlives or self.domain == "counted"
        return self.arrays.new(value.width, self.domain if all_rows else "step")

    def _lay(
        self, pieces: tuple[Piece, ...], base: Place, loop_only: bool, parent: Value | None = None
    ) -> list[tuple[Place, Piece]]:
        """Place producers in an outer array; what is left must be copied."""
        copies, offset = [], 0
        for piece in pieces:
            slot = columns(base, offset, piece.width)
            offset += piece.width
            a = piece.argument
            if isinstance(a, Operand) and self._may_lie(a, piece, loop_only, parent):
                self.places[a.value] = slot
            else:
                copies.append((slot, piece))
        return copies

    def _may_lie(self, a: Operand, piece: Piece, loop_only: bool, parent: Value | None) -> bool:
        whole = a.value in self.made and a.width == a.value.width == piece.width
        if not whole or a.value in self.places:
            return False
        stage = self.stages[a.value]
        if loop_only and stage != "loop":
            return False
        # What is carried on is changed by the loop; who reads it later needs a place of its own.
        if parent is None and a.value in self.outlives:
            return False
        if parent is not None and a.value in self.outlives and loop_only:
            return False
        order = ("ahead", "loop", "behind")
        return parent is None or order.index(stage) <= order.index(self.stages[parent])

    def place(self, operand: Operand) -> Place | None:
        """Where some columns lie."""
        value = operand.value
        found = self.places.get(value) or self.outer(value)
        return None if found is None else columns(found, operand.offset, operand.width)

    # -- instructions ----------------------------------------------------------------------------

    def stages_of(self) -> Stages:
        """All instructions, in order."""
        found = Stages()
        for i in self.instructions:
            into: list[RowOp] = getattr(found, self.stages[i.result])
            into += self._lowered(i)
        found.loop += [self._copy(slot, piece, False) for slot, piece in self.copies]
        return found

    def _lowered(self, i: Instruction) -> list[RowOp]:
        at_first = i.result in self.at_first
        if i.opcode == "pack":
            return [self._copy(slot, piece, at_first) for slot, piece in self.packing[i.result]]
        result = self.places[i.result]
        if i.opcode == "matmul":
            init, a = (self._row(x) for x in i.arguments)
            assert i.matrix is not None
            return [RowOp("matmul", result, a, init, None, self.first + i.matrix, at_first)]
        given = [self._row(x) for x in i.arguments]
        a, b, c = [*given, None, None][:3]
        return [RowOp(i.opcode, result, a, b, c, -1, at_first)]

    def _row(self, argument: Argument) -> Row:
        if argument is None or isinstance(argument, (int, float)):
            return None if argument is None else float(argument)
        found = self.place(argument)
        assert found is not None, argument
        return found

    def _copy(self, slot: Place, piece: Piece, at_first: bool) -> RowOp:
        return RowOp("copy", slot, self._row(piece.argument), None, None, -1, at_first)
