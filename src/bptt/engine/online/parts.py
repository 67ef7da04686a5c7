"""The parts of a learner's plan: programs as stages, and how rows become gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bptt.engine.ir.program import Gathered, Operand, Write
from bptt.engine.online.fixed import Buffers, Fixed, Recorder, RowsOf
from bptt.engine.online.plan import Place, RowOp
from bptt.engine.online.rows import Arrays, Direction, Stages, columns
from bptt.engine.online.trace import Unit

Table = dict[tuple[str, int], Place]
"""Where values of outer spaces lie: (space, number) to place."""


class Parts:
    """Arrays, buffers and instructions, collected unit by unit.

    Attributes:
        dummies: by the identity of a tensor of the caller's, the dummy that stands for it; their
            buffers come first.
    """

    def __init__(self, dtype: torch.dtype, tensors: list[Tensor]) -> None:
        self.buffers = Buffers(dtype)
        self.arrays = Arrays()
        self.matrices: list[tuple[Any, bool]] = []
        self.prepare: list[Fixed] = []
        self.after: list[Fixed] = []
        self.deltas: set[int] = set()
        self.dummies = {id(t): self.buffers.new(*t.shape) for t in tensors}
        self._shares: dict[int, list[Tensor]] = {}

    def lower(
        self,
        unit: Unit,
        table: Table,
        domain: str,
        ahead: frozenset[str],
        back: frozenset[str],
        written: tuple[str, ...],
        *,
        scaled: bool,
    ) -> tuple[Stages, Stages]:
        """Lower a program both ways and record its gradients; ``table`` learns where what it
        saves lies."""
        program = unit.program
        assert program.backward is not None
        matrices, units, extras = self._prepared(unit)
        first = len(self.matrices)
        self.matrices += [(self.buffers.view(m), True) for m in matrices]
        for i, u in enumerate(units):
            number = self.buffers.number(u)
            table["unit", i] = Place("buffer", number, 0, int(u.storage_offset()), program.units[i])
        found = []
        for step, named, spaces in (
            (program.forward, "saved", ahead),
            (program.backward, "delta", back),
        ):
            targets = {
                w.target: table[w.target.space, w.target.index]
                for w in step.writes
                if w.target.space in written
            }
            names = [w.target for w in step.writes if w.target.space == named]
            direction = Direction(
                step,
                self.arrays,
                lambda value: table.get((value.space, value.index)),
                targets,
                domain,
                first,
                spaces,
                names,
            )
            stages = direction.stages_of()
            for write in step.writes:
                if write.target.space == named:
                    table[named, write.target.index] = self._named(direction, stages, write, domain)
            if named == "delta":
                self.deltas |= (
                    {table[named, w.index].number for w in names} if domain == "window" else set()
                )
            found.append(stages)
        self._after(unit, table, domain, extras, scaled)
        return found[0], found[1]

    def _named(self, direction: Direction, stages: Stages, write: Write, domain: str) -> Place:
        """Where a saved value or a delta lies: where it was computed, if that is an array that
        nothing changes any more."""
        operand = write.pieces[0].argument
        assert isinstance(operand, Operand)
        lies = direction.place(operand)
        assert lies is not None
        apart = lies.space == "array" and operand.value.space != "grad"
        if apart and (write.target.space == "saved" or operand.value.space == "temp"):
            return lies
        own = self.arrays.new(write.target.width, domain)
        stages.behind.append(RowOp("copy", own, lies, None, None, -1, True))
        return own

    def _after(
        self,
        unit: Unit,
        table: Table,
        domain: str,
        extras: list[Any],
        scaled: bool,
    ) -> None:
        """Record how rows become gradients."""
        after = unit.program.after
        assert after is not None

        def rows(g: Gathered) -> RowsOf:
            return RowsOf(columns(table[g.space, g.index], g.offset, g.width), domain)

        recorder = Recorder(self.buffers, scaled=scaled)
        given = [*(rows(g) for g in after.gathered), *(extras[i] for i in after.extras)]
        results = iter(recorder.walk(after.code.graph, given))
        self.after += recorder.recorded
        for g, has in zip(unit.program.params, after.has_gradient, strict=True):
            result = next(results) if has else None
            if result is not None:
                assert g.source is not None
                key = id(unit.tensors[g.source])
                if unit.tensors[g.source].requires_grad:
                    self._shares.setdefault(key, []).append(result)

    def _prepared(self, unit: Unit) -> tuple[list[Tensor], list[Tensor], list[Any]]:
        """Record what is derived from parameters: matrices, units, what the gradients need."""
        program, recorder = unit.program, Recorder(self.buffers)
        given = []
        for g in program.params:
            assert g.source is not None
            given.append(self.dummies[id(unit.tensors[g.source])])
        results = recorder.walk(program.prepare.graph, given)
        matrices = results[: len(program.matrices)]
        units = results[len(matrices) : len(matrices) + len(program.units)]
        extras = results[len(matrices) + len(units) :]
        units = [u if u.numel() < 2 or u.stride(-1) == 1 else recorder.copied(u) for u in units]
        self.prepare += recorder.recorded
        return matrices, units, extras

    def gradients(self, numbers: dict[int, int]) -> dict[int, int]:
        """The buffer of each tensor's whole gradient; more than one share is added up."""
        found: dict[int, int] = {}
        recorder = Recorder(self.buffers)
        for key, shares in self._shares.items():
            shape = self.dummies[key].shape
            total = shares[0].reshape(shape) if shares[0].is_contiguous() else shares[0]
            if not (len(shares) == 1 and self._is_gradient(total)):
                if len(shares) == 1 and self._turn(total):
                    total = total.t()
                else:
                    total = recorder.emit("copy", shape, [total])
                    for share in shares[1:]:
                        recorder.into("add", total, [total, share])
            found[numbers[key]] = self.buffers.number(total)
        self.after += recorder.recorded
        return found

    def _is_gradient(self, total: Tensor) -> bool:
        """Whether a buffer holds this and nothing else, and is no source."""
        number = self.buffers.number(total)
        return self.buffers.is_whole(total) and number >= len(self.dummies)

    def _turn(self, total: Tensor) -> bool:
        """Turn the product that made a transposed gradient, if it made nothing else."""
        if total.dim() != 2 or not self.buffers.is_whole(total.t()):
            return False
        users = [
            f
            for f in self.after
            if any(
                isinstance(o, Tensor) and self.buffers.same(o, total)
                for o in [f.result, *f.operands]
            )
        ]
        if len(users) != 1 or users[0].kind != "cross" or users[0].right is None:
            return False
        one = users[0]
        if not self.buffers.is_whole(one.result) or one.result.shape != total.t().shape:
            return False
        one.left, one.right = one.right, one.left
        one.result = one.result.view(total.shape)
        return True

    def told(self, f: Fixed) -> tuple[Any, ...]:
        """An instruction as the core reads it."""
        result = tuple(self.buffers.view(f.result))
        if f.kind == "cross":
            assert f.left is not None
            right = None if f.right is None else tuple(f.right.place)
            return ("cross", f.left.domain, result, tuple(f.left.place), right, f.scaled, False)
        operands = [
            tuple(self.buffers.view(o)) if isinstance(o, Tensor) else float(o) for o in f.operands
        ]
        return (f.kind, f.opcode, result, operands)
