"""Equal operators on neighbouring columns as one operator: gates that are treated alike.

An operator that follows a rearrangement of columns runs once for each contiguous piece of its
arguments (`bptt.engine.lowering.builder`), and gates cut out of one projection are often put side
by side again later. Joining what is alike makes longer rows of fewer instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bptt.engine.ir.ops import is_pointwise
from bptt.engine.ir.program import Argument, Instruction, Operand, Piece, Value, Write

_MOST = 512
"""Longer steps are left as they are: looking for neighbours takes its time."""


def merge_neighbours(
    instructions: list[Instruction], writes: tuple[Write, ...], kept: list[Operand]
) -> tuple[list[Instruction], tuple[Write, ...], list[Operand]]:
    """Join what is alike; ``writes`` and ``kept`` operands are read elsewhere, and follow."""
    if len(instructions) > _MOST:
        return instructions, writes, kept
    merger = _Merger(instructions, writes, kept)
    merger.packs()
    merger.slices()
    return merger.ordered(), merger.written(), [merger.found(o) for o in kept]


class _Merger:
    """Instructions by their results, and where in a wider result a joined one lies."""

    def __init__(
        self, instructions: list[Instruction], writes: tuple[Write, ...], kept: list[Operand]
    ) -> None:
        self.made = {i.result: i for i in instructions}
        self.moved: dict[Value, Operand] = {}
        self.writes = writes
        self.kept = [(Piece(o, o.width),) for o in kept if o.value in self.made]
        self._next = 1 + max((i.result.index for i in instructions), default=0)

    def packs(self) -> None:
        """Pieces laid side by side that are results of equal operators."""
        for pack in [i for i in self.made.values() if i.opcode == "pack"]:
            parts = [p.argument for p in pack.pieces]
            if all(
                isinstance(p.argument, Operand) and p.argument.width == p.width for p in pack.pieces
            ):
                self._try(parts, pack)

    def slices(self) -> None:
        """Equal operators on neighbouring slices."""
        before = -1
        while before != len(self.made):
            before = len(self.made)
            for one, other in _side_by_side(self._current()):
                if one.result in self.made and other.result in self.made:
                    self._try([_whole(one.result), _whole(other.result)])

    def _try(self, parts: Sequence[Argument], pack: Instruction | None = None) -> None:
        """Join ``parts`` if fewer instructions come of it; a pack of them is then no more."""
        made, moved, cost = dict(self.made), dict(self.moved), self._cost()
        if pack is not None:
            del self.made[pack.result]
        joined = self._join(parts)
        if isinstance(joined, Operand) and pack is not None:
            self.moved[pack.result] = joined
        if joined is None or self._cost() >= cost:
            self.made, self.moved = made, moved

    def _join(self, parts: Iterable[Argument]) -> Argument:
        """One argument that is ``parts`` side by side, or all of them if narrow."""
        args = [self.found(p) if isinstance(p, Operand) else p for p in parts]
        first = args[0]
        narrow = not isinstance(first, Operand) or first.width == 1
        if narrow and all(a == first for a in args):
            return first
        operands = [a for a in args if isinstance(a, Operand)]
        if len(operands) != len(args):
            return None
        return _consecutive(operands) or self._packed(operands) or self._equal(operands)

    def _packed(self, operands: list[Operand]) -> Operand | None:
        for instruction in self.made.values():
            if instruction.opcode == "pack":
                pieces = [p.argument for p in instruction.pieces if isinstance(p.argument, Operand)]
                alike = [self.found(p) for p in pieces] == operands
                if alike and instruction.result.width == sum(o.width for o in operands):
                    return _whole(instruction.result)
        return None

    def _equal(self, operands: list[Operand]) -> Operand | None:
        """Results of one operator: the operator on their arguments side by side."""
        members = [self.made.get(o.value) for o in operands]
        first = members[0]
        if first is None or not is_pointwise(first.opcode) or first.result.width == 1:
            return None
        if len({o.value for o in operands}) < len(operands):
            return None
        rows: list[Instruction] = []
        for member, operand in zip(members, operands, strict=True):
            if member is None or member.opcode != first.opcode or operand != _whole(operand.value):
                return None
            rows.append(member)
        if any(self._depends(row, {r.result for r in rows}) for row in rows):
            return None
        arguments: list[Argument] = []
        for k in range(len(first.arguments)):
            parts = [row.arguments[k] for row in rows]
            wide = [isinstance(p, Operand) and p.width > 1 for p in parts]
            joined = self._join(parts) if all(wide) or not any(wide) else None
            if joined is None or (
                isinstance(joined, Operand) and not any(wide) and joined.width > 1
            ):
                return None
            arguments.append(joined)
        if any(row.result not in self.made for row in rows):  # joined on the way
            return None
        result = Value("temp", self._next, sum(row.result.width for row in rows))
        self._next += 1
        offset = 0
        for row in rows:
            self.moved[row.result] = Operand(result, offset, row.result.width)
            del self.made[row.result]
            offset += row.result.width
        self.made[result] = Instruction(first.opcode, result, tuple(arguments))
        return _whole(result)

    def _depends(self, instruction: Instruction, on: set[Value]) -> bool:
        seen: set[Value] = set()
        waiting = [self.found(o).value for o in instruction.operands()]
        while waiting:
            value = waiting.pop()
            if value in on:
                return True
            if value in self.made and value not in seen:
                seen.add(value)
                waiting.extend(self.found(o).value for o in self.made[value].operands())
        return False

    def found(self, operand: Operand) -> Operand:
        """The operand where it lies now."""
        while operand.value in self.moved:
            wider = self.moved[operand.value]
            operand = Operand(wider.value, wider.offset + operand.offset, operand.width)
        return operand

    def _cost(self) -> int:
        """Instructions, and copies into places that producers cannot write to."""
        packs = [i.pieces for i in self.made.values() if i.opcode == "pack"]
        laid: set[Value] = set()
        cost = len(self.made)
        for pieces in [*(w.pieces for w in self.writes), *self.kept, *packs]:
            for piece in self._pieces(pieces):
                a = piece.argument
                free = isinstance(a, Operand) and a == _whole(a.value) and a.value in self.made
                cost += not free or a.value in laid  # type: ignore[union-attr]  # `free`: an operand
                if isinstance(a, Operand):
                    laid.add(a.value)
        return cost

    def _pieces(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Pieces where they lie now; neighbours that lie side by side are one."""
        joined: list[Piece] = []
        for piece in pieces:
            a = piece.argument
            a = self.found(a) if isinstance(a, Operand) else a
            last = joined[-1].argument if joined else None
            both = None
            if isinstance(a, Operand) and isinstance(last, Operand) and a.width == piece.width > 1:
                both = _consecutive([last, a]) if last.width == joined[-1].width else None
            if both is not None:
                joined[-1] = Piece(both, both.width)
            else:
                joined.append(Piece(a, piece.width))
        return tuple(joined)

    def _current(self) -> list[Instruction]:
        """The instructions on the operands as they lie now."""
        return [
            replace(
                i,
                arguments=tuple(
                    self.found(a) if isinstance(a, Operand) else a for a in i.arguments
                ),
                pieces=self._pieces(i.pieces),
            )
            for i in self.made.values()
        ]

    def ordered(self) -> list[Instruction]:
        """The instructions, each after what it reads."""
        made = {i.result: i for i in self._current()}
        done: dict[Value, Instruction] = {}
        for last in list(made.values()):
            waiting = [last]
            while waiting:
                now = waiting[-1]
                ahead = [made[o.value] for o in now.operands() if o.value in made]
                ahead = [i for i in ahead if i.result not in done]
                if ahead:
                    waiting += ahead
                else:
                    done[waiting.pop().result] = now
        return list(done.values())

    def written(self) -> tuple[Write, ...]:
        """What is left behind, where it lies now."""
        return tuple(Write(w.target, self._pieces(w.pieces)) for w in self.writes)


def _whole(value: Value) -> Operand:
    return Operand(value, 0, value.width)


def _consecutive(operands: list[Operand]) -> Operand | None:
    """The columns of all, if they follow each other in one value."""
    value, end = operands[0].value, operands[0].offset
    for operand in operands:
        if operand.value != value or operand.offset != end:
            return None
        end += operand.width
    return Operand(value, operands[0].offset, end - operands[0].offset)


def _side_by_side(instructions: list[Instruction]) -> list[tuple[Instruction, Instruction]]:
    """Pairs of equal operators whose first wide arguments are neighbours."""
    starts: dict[tuple[str, Value, int], Instruction] = {}
    for i in instructions:
        wide = next((o for o in i.operands() if o.width == i.result.width > 1), None)
        if wide is not None and is_pointwise(i.opcode):
            starts.setdefault((i.opcode, wide.value, wide.offset), i)
    found = []
    for (opcode, value, offset), one in starts.items():
        other = starts.get((opcode, value, offset + one.result.width))
        if other is not None:
            found.append((one, other))
    return found
