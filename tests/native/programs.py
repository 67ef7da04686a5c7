"""Random valid step programs and runs of them, over every instruction and space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .oracle import BINARY, REDUCTION, TERNARY, UNARY, Case

Slot = tuple[str, int, int, int]
ARITY = {name: n for n, table in ((1, UNARY), (2, BINARY), (3, TERNARY)) for name in table}


class Writer:
    """Draws a program line by line, knowing which slots may be read."""

    def __init__(self, draw: st.DrawFn, reverse: bool) -> None:
        self.draw = draw
        self.reverse = reverse
        widths = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 17, 33])
        self.widths = draw(st.lists(widths, min_size=1, max_size=3))
        self.states = draw(st.lists(st.sampled_from(self.widths), min_size=1, max_size=3))
        some = st.lists(st.sampled_from([*self.widths, 1]), max_size=3)
        self.time = [(w, draw(st.sampled_from("rw"))) for w in draw(some)]
        self.rows, self.units = draw(some), draw(some)
        self.scratch: list[int] = []
        self.matrices: list[tuple[int, int]] = []
        self.lines: list[tuple[Any, ...]] = []
        self.readable: list[Slot] = []
        for space, sizes in self._given().items():
            self.readable += [(space, i, 0, w) for i, w in enumerate(sizes)]
        self.readable += [("time", i, 0, w) for i, (w, mode) in enumerate(self.time) if mode == "r"]
        self.readable += [self._slice(s) for s in list(self.readable) if s[3] > 1]

    def _given(self) -> dict[str, list[int]]:
        given = {"row": self.rows, "unit": self.units, "state": self.states}
        return {**given, "next": self.states, "grad": self.states} if self.reverse else given

    def _slice(self, slot: Slot) -> Slot:
        space, index, offset, width = slot
        first = self.draw(st.integers(0, width - 1))
        return (space, index, offset + first, self.draw(st.integers(1, width - first)))

    def operand(self, width: int) -> Slot | float:
        fitting = [s for s in self.readable if s[3] in (1, width)]
        constant = st.sampled_from([0.0, 1.0, -0.5, 2.0, 0.25])
        return self.draw(st.one_of(constant, st.sampled_from(fitting)) if fitting else constant)

    def fresh(self, width: int) -> Slot:
        self.scratch.append(width)
        return ("scratch", len(self.scratch) - 1, 0, width)

    def line(self, name: str, dst: Slot, *operands: Any) -> Slot:
        self.lines.append((name, dst, *operands))
        if dst not in self.readable:
            self.readable.append(dst)
        return dst

    def bounded(self, slot: Slot) -> None:
        """Keeps values of a random program small, and NaN away (where selects it out)."""
        self.line("minimum", slot, slot, 4.0)
        self.line("maximum", slot, slot, -4.0)
        mask = self.line("eq", self.fresh(slot[3]), slot, slot)
        self.line("where", slot, mask, slot, 0.5)

    def product(self, dst: Slot) -> None:
        sources = [s for s in self.readable if s != dst]
        a = self.draw(st.sampled_from(sources))
        self.matrices.append((a[3], dst[3]))
        init = self.draw(st.one_of(st.none(), st.just(self.operand(dst[3]))))
        self.line("matmul", dst, init, a, len(self.matrices) - 1)
        self.bounded(dst)

    def pointwise(self, name: str, dst: Slot) -> None:
        operands = [self.operand(dst[3]) for _ in range(ARITY[name])]
        self.line(name, dst, *operands)
        self.bounded(dst)

    def anything(self, dst: Slot) -> None:
        kind = self.draw(
            st.sampled_from(["matmul", "pointwise", "pointwise", "pointwise", "reduction"])
        )
        if kind == "matmul":
            self.product(dst)
        elif kind == "reduction" and dst[3] == 1:
            source = self.draw(st.sampled_from([s for s in self.readable if s != dst]))
            name = self.draw(st.sampled_from(sorted(REDUCTION)))
            alike = [s for s in self.readable if s != dst and s[3] == source[3]]
            other = [self.draw(st.sampled_from(alike))] if name == "dot" else []
            self.line(name, dst, source, *other)
            self.bounded(dst)
        else:
            self.pointwise(self.draw(st.sampled_from(sorted(ARITY))), dst)

    def program(self, dtype: str) -> dict[str, Any]:
        for _ in range(self.draw(st.integers(0, 6))):
            self.anything(self.fresh(self.draw(st.sampled_from([*self.widths, 1]))))
        written = [("time", i, 0, w) for i, (w, mode) in enumerate(self.time) if mode == "w"]
        target = "grad_in" if self.reverse else "next"
        for slot in [*written, *((target, j, 0, w) for j, w in enumerate(self.states))]:
            self.anything(slot)
        return {
            "dtype": dtype,
            "reverse": self.reverse,
            "states": self.states,
            "scratch": self.scratch,
            "time": self.time,
            "rows": self.rows,
            "units": self.units,
            "matrices": self.matrices,
            "instructions": self.lines,
        }


def _arrays(
    generator: np.random.Generator, dtype: str, shapes: list[tuple[int, ...]]
) -> list[np.ndarray]:
    return [generator.normal(size=s).astype(dtype) for s in shapes]


@st.composite
def cases(draw: st.DrawFn, dtype: str = "float64") -> Case:
    reverse = draw(st.booleans())
    program = Writer(draw, reverse).program(dtype)
    steps, batch = draw(st.sampled_from([0, 1, 2, 5])), draw(st.sampled_from([0, 1, 3, 32]))
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    per_step = [(steps, batch, n) for n in program["states"]]
    per_lane = [(batch, n) for n in program["states"]]
    case = Case(
        program,
        steps,
        batch,
        states=_arrays(g, dtype, [(steps + 1, batch, n) for n in program["states"]]),
        time=_arrays(g, dtype, [(steps, batch, w) for w, _ in program["time"]]),
        rows=_arrays(g, dtype, [(batch, w) for w in program["rows"]]),
        units=_arrays(g, dtype, [(w,) for w in program["units"]]),
        matrices=_arrays(g, dtype, program["matrices"]),
        initial=_arrays(g, dtype, per_lane),
        reset=g.random((steps, batch)) < 0.3 if draw(st.booleans()) else None,
        lengths=g.integers(0, steps + 2, batch) if draw(st.booleans()) else None,
    )
    if not reverse:
        return case
    return replace(
        case,
        clip=draw(st.sampled_from([None, 0.5])),
        final_grads=draw(st.sampled_from([[], _arrays(g, dtype, per_lane)])),
        step_grads=draw(st.sampled_from([[], _arrays(g, dtype, per_step)])),
        start_grads=_arrays(g, dtype, per_lane),
        initial_grads=_arrays(g, dtype, per_lane),
    )
