"""What the backward step reads from memory, and what it repeats.

Products, reductions and transcendental functions that it needs are saved, unless they are part of
the new state; cheap pointwise operators on what is there anyway are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bptt.engine.ir.ops import OPERATORS
from bptt.engine.ir.program import Instruction, Operand, Piece, Value, Write

Interval = tuple[int, int]


@dataclass(frozen=True)
class Split:
    """The joint program in two: what the backward step is, and what the forward one must save for
    it."""

    forward: tuple[Instruction, ...]
    backward: tuple[Instruction, ...]
    writes: tuple[Write, ...]
    saved: tuple[Operand, ...]
    recomputed: int
    gathered: tuple[Operand, ...]


def reachable(made: dict[Value, Instruction], roots: list[Operand]) -> set[Value]:
    """The temporaries that some operands depend on."""
    found: set[Value] = set()
    waiting = [o.value for o in roots]
    while waiting:
        value = waiting.pop()
        if value.space == "temp" and value not in found:
            found.add(value)
            waiting.extend(o.value for o in made[value].operands())
    return found


class Saver:
    """Walks back from what the backward step leaves, and finds each forward value where it is
    cheapest. Without ``keep_times``, hoisted tensors are gone by then, as temporaries are."""

    def __init__(
        self, instructions: list[Instruction], forward: tuple[Write, ...], keep_times: bool
    ) -> None:
        self.gone = ("temp",) if keep_times else ("temp", "time")
        self.made = {i.result: i for i in instructions}
        roots = [o for w in forward for o in w.operands()]
        self.ahead = reachable(self.made, roots)
        self.in_next = _places(forward)
        self.intervals: dict[Value, Interval] = {}
        self.behind: set[Value] = set()

    def available(self, operand: Operand) -> bool:
        """Whether the backward step has it without saving or repeating anything."""
        return operand.value.space not in self.gone or operand.value in self.in_next

    def need(self, operand: Operand, gathered: bool = False) -> None:
        """Make sure that the backward step can read an operand."""
        value = operand.value
        if self.available(operand) or value in self.behind:
            return
        known = value in self.intervals
        if known or (self.was_ahead(value) and (gathered or not self._worth_repeating(value))):
            low, high = operand.offset, operand.offset + operand.width
            before = self.intervals.get(value, (low, high))
            self.intervals[value] = (min(low, before[0]), max(high, before[1]))
            return
        self.behind.add(value)
        for read in self.made[value].operands():
            self.need(read)

    def was_ahead(self, value: Value) -> bool:
        """Whether the forward step has it."""
        return value.space == "time" or value in self.ahead

    def _cheap(self, value: Value) -> bool:
        return value in self.made and OPERATORS[self.made[value].opcode].cheap

    def _worth_repeating(self, value: Value) -> bool:
        """Cheap, and not at the price of saving more than the value itself."""
        if not self._cheap(value):
            return False
        price = self._price(value, set())
        return price == 0 or price <= value.width

    def _price(self, value: Value, seen: set[Value]) -> int:
        total = 0
        for read in self.made[value].operands():
            source = read.value
            if source in seen or self.available(read):
                continue
            seen.add(source)
            if source in self.intervals or source in self.behind or not self.was_ahead(source):
                continue
            cheap = self._cheap(source)
            total += min(read.width, self._price(source, seen)) if cheap else read.width
        return total


def _places(writes: tuple[Write, ...]) -> dict[Value, Operand]:
    """Where in the new state a whole temporary lies."""
    places: dict[Value, Operand] = {}
    for write in writes:
        offset = 0
        for piece in write.pieces:
            a = piece.argument
            if (
                isinstance(a, Operand)
                and a.value.space == "temp"
                and a.width == a.value.width == piece.width
            ):
                places.setdefault(a.value, Operand(write.target, offset, piece.width))
            offset += piece.width
    return places


def split(
    instructions: list[Instruction],
    forward: tuple[Write, ...],
    backward: tuple[Write, ...],
    gathered: list[Operand],
    keep_times: bool = True,
) -> Split:
    """Cut a joint program into its two directions.

    ``gathered`` are the rows that products after the loop read over all steps.
    """
    saver = Saver(instructions, forward, keep_times)
    for operand in gathered:
        saver.need(operand, gathered=saver.was_ahead(operand.value))
    for write in backward:
        for operand in write.operands():
            saver.need(operand)
    saved = tuple(Operand(v, lo, hi - lo) for v, (lo, hi) in saver.intervals.items())
    places = dict(saver.in_next)
    index = {operand.value: k for k, operand in enumerate(saved)}

    def found(operand: Operand) -> Operand:
        value = operand.value
        if value in places:
            return replace(
                places[value], offset=places[value].offset + operand.offset, width=operand.width
            )
        if value in index and value not in saver.behind:
            kept = saved[index[value]]
            target = Value("saved", index[value], kept.width)
            return Operand(target, operand.offset - kept.offset, operand.width)
        return operand

    behind = [i for i in instructions if i.result in saver.behind]
    return Split(
        forward=tuple(i for i in instructions if i.result in saver.ahead),
        backward=tuple(moved(i, found) for i in behind),
        writes=tuple(Write(w.target, _moved_pieces(w.pieces, found)) for w in backward),
        saved=saved,
        recomputed=sum(i.result in saver.ahead and i.opcode != "pack" for i in behind),
        gathered=tuple(found(o) for o in gathered),
    )


def moved(instruction: Instruction, found: object) -> Instruction:
    """The same instruction on other operands."""
    assert callable(found)
    arguments = tuple(found(a) if isinstance(a, Operand) else a for a in instruction.arguments)
    pieces = _moved_pieces(instruction.pieces, found)
    return replace(instruction, arguments=arguments, pieces=pieces)


def _moved_pieces(pieces: tuple[Piece, ...], found: object) -> tuple[Piece, ...]:
    assert callable(found)
    return tuple(
        replace(p, argument=found(p.argument)) if isinstance(p.argument, Operand) else p
        for p in pieces
    )
