"""Unfoldings that the core runs whole: input projections, the loop, and the products after it.

Most cells read their input through linear maps, and all that is left after the loop are products
of rows with rows and sums of rows. Then one call of the core each way does it all; around a short
window a handful of calls of PyTorch would cost more than the loop. Other cells go in parts
(`bptt.engine.runtime.loop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.linalg import vecdot
from torch.nn.functional import linear

from bptt.engine.backends.cpu.calling_convention import CallingConvention, Place
from bptt.engine.backends.cpu.kernel import Native
from bptt.engine.graphs.nodes import ends, placeholders
from bptt.reuse import lender

if TYPE_CHECKING:
    from bptt.engine.backends.base import Kernel
    from bptt.engine.ir.program import StepProgram
    from bptt.engine.passes.prologue_epilogue import Frame
    from bptt.engine.runtime.loop import Call

_Columns = tuple[str, int, int, int]
_Product = tuple[str, int, int, _Columns, _Columns, int]


class _Partly(Exception):
    """Something is there that only PyTorch computes."""


@dataclass(frozen=True, slots=True, eq=False)
class Executable:
    """A program that runs whole.

    Attributes:
        core: the `bptt._core.Unfolding`.
        targets: which primals get a gradient from it.
        before: the leaves of which the products read the states before each step.
        shapes: stand-ins without memory for what the latest call allocated.
    """

    core: Any
    targets: tuple[bool, ...]
    before: tuple[bool, ...]
    shapes: dict[Any, list[Tensor]] = field(default_factory=dict)

    def _fresh(
        self, convention: CallingConvention, steps: int, batch: int, start: Tensor
    ) -> list[Tensor]:
        """New memory: states over time, last states, and what is saved, if anything is. To be
        made like another is the cheapest way for a tensor."""
        plain = type(start) is Tensor  # else it stands for another, maybe of symbolic size
        known = self.shapes.get((steps, batch)) if plain else None
        if known is None:
            sizes: list[tuple[int, ...]] = [
                (steps + 1, batch, width) for width in convention.widths
            ]
            sizes += [(batch, width) for width in convention.widths]
            sizes += [(steps, batch, convention.saved_width)] if convention.saved_width else []
            if not plain:
                return [start.new_empty(size) for size in sizes]
            self.shapes.clear()
            with torch.inference_mode(False):  # they outlive the mode of this call
                known = [torch.empty((), dtype=start.dtype).expand(size) for size in sizes]
            self.shapes[steps, batch] = known
        memory, n = lender(), convention.leaves
        if memory is not None:  # for all but the last states, which outlive the rest
            lent = [(k.shape, k.dtype) for k in (*known[:n], *known[2 * n :])]
            fresh = memory.empty(*lent)
            last = [torch.empty(k.shape, dtype=k.dtype) for k in known[n : 2 * n]]
            return [*fresh[:n], *last, *fresh[n:]]
        return [torch.empty_like(k, memory_format=torch.contiguous_format) for k in known]

    def forward(
        self, call: Call, primals: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """As `bptt.engine.runtime.loop.forward_loop`; it keeps the states, and what is saved."""
        convention, steps, batch, start = call.plan.convention, call.steps, call.batch, call.start
        fresh, n = self._fresh(convention, steps, batch, start[0]), convention.leaves
        states, last = fresh[:n], fresh[n : 2 * n]
        saved = fresh[-1] if convention.saved_width else None
        rest = (start, states, last, (), saved, call.initial, call.reset, call.lengths)
        threads = torch.get_num_threads()
        try:
            self.core.forward(steps, batch, primals, *rest, threads)
        except ValueError:
            self.core.forward(steps, batch, _in_rows(primals), *rest, threads)
        results = [states[j][1:] for j in call.exposed]
        results += last
        if saved is not None:
            states.append(saved)
        return results, states

    def backward(
        self,
        call: Call,
        primals: Sequence[Tensor],
        kept: Sequence[Tensor],
        needed: Sequence[bool],
        final_grads: Sequence[Tensor | None],
        step_grads: Sequence[Tensor | None],
        start_grads: Sequence[Tensor | None],
        initial_grads: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """The gradients of the primals; those of start and initial leaves are written."""
        convention = call.plan.convention
        n = convention.leaves
        gradients = [
            torch.empty_like(primal, memory_format=torch.contiguous_format)
            if target and need
            else None
            for primal, target, need in zip(primals, self.targets, needed, strict=False)
        ]
        rest = (
            kept[:n],
            (),
            kept[n] if convention.saved_width else None,
            call.initial,
            () if call.reset is None else self._before(call, kept),
            call.reset,
            call.lengths,
            torch.get_num_threads(),
            call.clip,
            final_grads,
            step_grads,
            start_grads,
            initial_grads,
            gradients,
        )
        try:
            self.core.backward(call.steps, call.batch, primals, *rest)
        except ValueError:
            self.core.backward(call.steps, call.batch, _in_rows(primals), *rest)
        return gradients

    def _before(self, call: Call, states: Sequence[Tensor]) -> list[Tensor | None]:
        """The states before each step as the step saw them, with resets applied."""
        assert call.reset is not None
        mask = call.reset.unsqueeze(2)
        return [
            torch.where(mask, initial, s[:-1]) if read else None
            for s, initial, read in zip(states, call.initial, self.before, strict=False)
        ]


def _in_rows(primals: Sequence[Tensor]) -> list[Tensor]:
    """Heads whose vectors' numbers follow each other. A bias seldom is a view: rather than look at
    each in every call, the core is let to refuse it, which it does before any work."""
    return [primal.contiguous() if primal.dim() == 1 else primal for primal in primals]


def executable_of(
    program: StepProgram,
    frame: Frame,
    kernel: Kernel,
    convention: CallingConvention,
    tensors: Sequence[Tensor],
    inputs: Tensor,
) -> Executable | None:
    """The whole form of a program, None if it must go in parts. ``tensors`` are its sources."""
    if not isinstance(kernel, Native) or not frame.inline or inputs.dim() != 3:
        return None
    read = [t for i, t in enumerate(tensors) if i not in convention.idle]
    if len({t.dtype for t in (*read, inputs)}) != 1:
        return None
    try:
        return _Matcher(program, frame, kernel, convention, inputs.shape[2]).whole()
    except _Partly:
        return None


class _Matcher:
    """Reads the two functions around the loop."""

    def __init__(
        self,
        program: StepProgram,
        frame: Frame,
        kernel: Native,
        convention: CallingConvention,
        width: int,
    ) -> None:
        self.program, self.frame, self.kernel, self.convention = program, frame, kernel, convention
        self.width = width
        self.primals = placeholders(frame.prologue.graph.graph)[1:]
        self.ready = ends(frame.prologue.graph.graph)

    def whole(self) -> Executable:
        from bptt import _core

        convention, ahead, behind = self.convention, self.kernel.saving, self.kernel.backward
        if (
            convention.first != convention.given
            or convention.last != convention.ready
            or convention.reads_times
        ):
            raise _Partly
        every = tuple(range(len(self.program.times)))
        if ahead.times != every:
            raise _Partly
        backward = self.program.backward is not None
        products = self._products() if backward else []
        core = _core.Unfolding(
            heads=len(self.primals),
            forward=(*self._parameters(ahead), list(every), ahead.saved),
            backward=(*self._parameters(behind), [], behind.saved) if backward else None,
            projections=[self._projection(i) for i in range(convention.first, convention.last)],
            products=products,
        )
        read = {p[3][:2] for p in products} | {p[4][:2] for p in products}
        return Executable(
            core,
            tuple(any(p[1] == primal for p in products) for primal in range(len(self.primals))),
            tuple(("state", j) in read for j in range(convention.leaves)),
        )

    def _parameters(self, low: Any) -> tuple[Any, list[tuple[int, bool]], list[int]]:
        turned = dict(self.frame.turned)
        matrices = [
            (turned[i], True) if i in turned else (self._head(self.ready[i]), False)
            for i in low.matrices
        ]
        return low.program, matrices, [self._head(self.ready[i]) for i in low.units]

    def _head(self, node: Any) -> int:
        if node not in self.primals:
            raise _Partly
        return self.primals.index(node)

    def _projection(self, i: int) -> tuple[int, list[int]]:
        node = self.ready[i]
        if not isinstance(node, Node) or node.target is not linear or node.kwargs:
            raise _Partly
        if node.args[0] is not self.primals[-1]:
            raise _Partly
        bias = node.args[2] if len(node.args) > 2 else None
        return self._head(node.args[1]), [] if bias is None else self._terms(bias)

    def _terms(self, node: Any) -> list[int]:
        if isinstance(node, Node) and node.target is torch.add and not node.kwargs:
            return [*self._terms(node.args[0]), *self._terms(node.args[1])]
        return [self._head(node)]

    def _products(self) -> list[_Product]:
        assert self.frame.epilogue is not None
        graph = self.frame.epilogue.graph.graph
        given = placeholders(graph)[1:]
        primals, rest = given[: len(self.primals)], given[len(self.primals) :]
        places = [
            *self.convention.rows,
            *(self._time(t) for t in self.convention.times if t is not None),
        ]
        rows = {node: _columns(p) for node, p in zip(rest, places, strict=False)}
        rows[primals[-1]] = ("input", 0, 0, self.width)
        found: list[_Product] = []
        for primal, node in enumerate(ends(graph)):
            if node is not None:
                found.append(_product(node, primal, rows, primals))
        return found

    def _time(self, entry: tuple[Place, tuple[int, ...] | None]) -> Place:
        if entry[1] is not None:
            raise _Partly
        return entry[0]


def _columns(place: Place) -> _Columns:
    space, index, offset, width, _ = place
    if space == "time":
        raise _Partly
    return space, index, offset, width


def _product(node: Any, primal: int, rows: dict[Any, _Columns], primals: list[Node]) -> _Product:
    if not isinstance(node, Node):
        raise _Partly
    if node.target is vecdot and node.kwargs == {"dim": 0} and all(a in rows for a in node.args):
        a, b = (rows[x] for x in node.args)
        return "dot", primal, 0, a, b, 0
    if node.kwargs:
        raise _Partly
    if node.target is torch.sum and node.args[1] == 0 and node.args[0] in rows:
        columns = rows[node.args[0]]
        return "sum", primal, 0, columns, columns, 0
    if node.target is not torch.mm:
        raise _Partly
    left, right = node.args
    if isinstance(left, Node) and left.target == "t" and left.args[0] in rows and right in rows:
        return "outer", primal, 0, rows[left.args[0]], rows[right], 0
    if left in rows and right in primals and primal == len(primals) - 1:
        columns = rows[left]
        return "multiply", primal, 0, columns, columns, primals.index(right)  # type: ignore[arg-type]  # `in primals`: a node
    raise _Partly
