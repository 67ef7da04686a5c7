"""What the loop must know of its program, resolved once so that a call need not look for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bptt.engine.graphs.nodes import ends, placeholders
from bptt.engine.ir.program import Gathered, StepProgram

if TYPE_CHECKING:
    from bptt.engine.backends.base import Kernel
    from bptt.engine.passes.prologue_epilogue import Frame

Place = tuple[str, int, int, int, bool]
"""Where rows over all steps lie: (array, its number, first column, width, whether that is all of
it)."""


@dataclass(frozen=True, slots=True, eq=False)
class CallingConvention:
    """Numbers and places.

    Attributes:
        leaves: how many leaves the state has.
        widths: their widths.
        given, first, last: of what the prologue gives, matrices and units are ``[:given]``, extras
            ``[given:first]``, hoisted tensors ``[first:last]``, and kept values ``[last:]``.
        plain_times: whether every hoisted tensor is rows of the loop's own dtype, computed before
            the loop.
        time_widths: columns of each hoisted tensor.
        saved_width, delta_width: columns that all saved values, and all deltas, take together.
        reads_times: whether the backward pass reads hoisted tensors.
        rows: what the products after the loop read.
        times: the gradients of hoisted tensors, with their own shapes where these are not [width].
        primals: how many differentiable tensors come before those of the state.
        first_time_primal: the first of them that has a row for each step and lane.
        idle: the sources among the primals that nothing reads; what they are, and what graph they
            hang on, does not matter to the loop.
        keep: which results of the prologue the backward pass reads.
        ready: how many results the prologue gives.
        unread: which primals, and start and initial leaves behind them, the backward pass knows by
            their shapes alone: autograd would not save them.
    """

    leaves: int
    widths: tuple[int, ...]
    given: int
    first: int
    last: int
    plain_times: bool
    time_widths: tuple[int, ...]
    saved_width: int
    delta_width: int
    reads_times: bool
    rows: tuple[Place, ...]
    times: tuple[tuple[Place, tuple[int, ...] | None] | None, ...]
    primals: int
    first_time_primal: int
    idle: tuple[int, ...]
    keep: tuple[int, ...]
    ready: int
    unread: tuple[int, ...]


def convention_of(
    program: StepProgram, frame: Frame, kernel: Kernel, dtypes: tuple[bool, ...]
) -> CallingConvention:
    """Resolve a program; ``dtypes`` tells which hoisted tensors have the loop's own dtype."""
    after, inline = program.after, frame.inline
    given = len(program.matrices) + len(program.units)
    first = given + (0 if after is None else len(after.extras))
    widths = tuple(_product(t.shape) for t in program.times)
    computed = all(t.source is None and len(t.shape) == 1 for t in program.times)
    last = first + len(program.times)
    ready = len(frame.prologue.graph.graph.output_node().args[0])
    keep = {*kernel.read_back, *range(given, first), *range(last, ready)}
    if _reads_times(program):
        keep |= set(range(first, last))
    params, sources = len(program.params), len(program.sources)
    kept = tuple(sorted(keep)) if after is not None else ()
    return CallingConvention(
        leaves=len(program.states),
        widths=program.states,
        given=given,
        first=first,
        last=last,
        plain_times=computed and all(dtypes),
        time_widths=widths,
        saved_width=sum(program.saved),
        delta_width=sum(program.deltas),
        reads_times=_reads_times(program),
        rows=() if after is None else tuple(_place(g, program) for g in after.gathered),
        times=()
        if after is None
        else tuple(
            None if g is None else (_place(g, program), t.shape if len(t.shape) != 1 else None)
            for g, t in zip(after.times, program.times, strict=True)
        ),
        primals=sources + 1 if inline else params + len(program.times),
        first_time_primal=sources if inline else params,
        idle=_idle(program) if inline else (),
        keep=kept,
        ready=ready,
        unread=_unread(program, frame, kept),
    )


def _unread(program: StepProgram, frame: Frame, keep: tuple[int, ...]) -> tuple[int, ...]:
    """See `CallingConvention`."""
    if frame.epilogue is None or program.after is None:
        return ()
    ahead, behind = frame.prologue.graph.graph, frame.epilogue.graph.graph
    primals, results = placeholders(ahead)[1:], ends(ahead)
    read = {i for i, node in enumerate(placeholders(behind)[1 : 1 + len(primals)]) if node.users}
    turned = dict(frame.turned)
    read |= {turned[i] for i in keep if i in turned}
    read |= {primals.index(results[i]) for i in keep if results[i] in primals}
    if not frame.inline:  # what runs outside made them: nobody else has them
        given = [*program.params, *program.times]
        read |= {i for i, g in enumerate(given) if g.source is None}
    n = len(program.states)
    # The loop has copies of start and initial leaves; what products with it are gradients of,
    # autograd would save.
    read |= {len(primals) + g.index for g in program.after.gathered if g.space == "state"}
    return tuple(i for i in range(len(primals) + 2 * n) if i not in read)


def _idle(program: StepProgram) -> tuple[int, ...]:
    """The numbers of the sources that neither the step nor what runs before it reads."""
    read = {given.source for given in (*program.params, *program.times)}
    if program.hoisted is not None:
        given = placeholders(program.hoisted.graph.graph)[1:]
        read |= {i for i, node in enumerate(given) if node.users}
    return tuple(i for i in range(len(program.sources)) if i not in read)


def _product(shape: tuple[int, ...]) -> int:
    width = 1
    for n in shape:
        width *= n
    return width


def _place(g: Gathered, program: StepProgram) -> Place:
    if g.space in ("delta", "saved"):
        widths = program.deltas if g.space == "delta" else program.saved
        return (g.space, 0, sum(widths[: g.index]) + g.offset, g.width, g.width == sum(widths))
    if g.space == "time":
        return (
            g.space,
            g.index,
            g.offset,
            g.width,
            g.width == _product(program.times[g.index].shape),
        )
    return (g.space, g.index, g.offset, g.width, g.width == program.states[g.index])


def _reads_times(program: StepProgram) -> bool:
    if program.backward is None or program.after is None:
        return False
    read = [o.value.space for i in program.backward.instructions for o in i.operands()]
    read += [o.value.space for w in program.backward.writes for o in w.operands()]
    return "time" in read or any(g.space == "time" for g in program.after.gathered)
