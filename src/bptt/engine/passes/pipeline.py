"""From a partitioned trace to a step program: translate, differentiate, split, and describe the
rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from bptt.engine import unsupported
from bptt.engine.graphs.cleanup import code_of, tidy
from bptt.engine.graphs.differentiate import decompose, differentiate, fakes_for
from bptt.engine.graphs.hoist import Partition
from bptt.engine.ir.program import (
    After,
    Code,
    Gathered,
    Given,
    Instruction,
    Operand,
    Piece,
    Step,
    StepProgram,
    Value,
    Write,
)
from bptt.engine.ir.verifier import verify, verify_step
from bptt.engine.ir.wanted import Wanted
from bptt.engine.lowering import operators as _operators  # noqa: F401 (registers the handlers)
from bptt.engine.lowering import views as _views  # noqa: F401 (registers the handlers)
from bptt.engine.lowering.builder import Rows
from bptt.engine.lowering.translator import Contraction, Param, Translator
from bptt.engine.passes.fusion import dots, multiply_adds, start_products
from bptt.engine.passes.horizontal_fusion import merge_neighbours
from bptt.engine.passes.reduction_fusion import pair_sums
from bptt.engine.passes.rematerialization import split
from bptt.engine.unsupported import Reason, Refusal


@dataclass(frozen=True)
class Joint:
    """A translated step: its translator, and what came out, in rows."""

    translator: Translator
    states: tuple[Rows, ...]
    new: tuple[Rows, ...]
    gradients: tuple[Any, ...]


def derive(
    name: str, sources: tuple[str, ...], parts: Partition, dtype: torch.dtype, wanted: Wanted
) -> StepProgram:
    """The program of a partitioned step.

    Raises:
        Refusal: the step has an operator outside the set.
    """
    inputs = [n for n in parts.step.graph.nodes if n.op == "placeholder"][1:]
    params, times = _given(parts, inputs, sources, wanted)
    states = inputs[len(params) + len(times) :]
    flags = [g.differentiable for g in [*params, *times]] + [True for _ in states]
    fakes = fakes_for(inputs)
    reached: tuple[int, ...] = ()
    if wanted.any:
        module, reached = differentiate(parts.step, fakes, flags)
    else:
        module = decompose(parts.step, fakes)
    joint = _translate(module, params, times, states, dtype, wanted.any)
    return _assemble(name, sources, parts, dtype, params, times, joint, flags, reached)


def _given(
    parts: Partition, inputs: list[Node], sources: tuple[str, ...], wanted: Wanted
) -> tuple[tuple[Given, ...], tuple[Given, ...]]:
    """What the step takes from PyTorch, and which of it needs a gradient."""
    params = []
    for node, source, origin in zip(inputs, parts.params, parts.param_sources, strict=False):
        value = node.meta["val"]
        label = node.name if source is None else sources[source]
        needs = any(wanted.sources[i] for i in origin) and value.is_floating_point()
        shape = tuple(value.shape)
        params.append(Given(label, source, shape, needs and wanted.any, value.dtype))
    times = []
    rest = inputs[len(params) :]
    for node, is_input, origin in zip(rest, parts.times, parts.time_sources, strict=False):
        value = node.meta["val"]
        needs = wanted.input or any(wanted.sources[i] for i in origin if not is_input)
        needs = needs and value.is_floating_point()
        name = "input" if is_input else node.name
        given, shape = -1 if is_input else None, tuple(value.shape[1:])
        times.append(Given(name, given, shape, needs and wanted.any, value.dtype))
    return tuple(params), tuple(times)


def _translate(
    module: GraphModule,
    params: tuple[Given, ...],
    times: tuple[Given, ...],
    states: list[Node],
    dtype: torch.dtype,
    backward: bool,
) -> Joint:
    tr = Translator(dtype)
    given: list[Any] = [
        Param(tr.before.placeholder(f"param{i}"), p.shape, p.dtype) for i, p in enumerate(params)
    ]
    given += [_rows(tr, "time", i, t.shape) for i, t in enumerate(times)]
    shapes = [_state_shape(n) for n in states]
    leaves = tuple(_rows(tr, "state", j, s) for j, s in enumerate(shapes))
    given += leaves
    if backward:
        given += [_rows(tr, "grad", j, s) for j, s in enumerate(shapes)]
    results = tr.walk(module, given, len(leaves))
    new = []
    for j, result in enumerate(results[: len(leaves)]):
        rows = tr.as_rows(result)
        if rows.axis < 0:
            rows = Rows(rows.columns.reshape(1, -1), 0)
        new.append(rows)
        if rows.axis != 0:
            raise Refusal(Reason.LANES, f"leaf {j} of the new state")
    return Joint(tr, leaves, tuple(new), tuple(results[len(leaves) :]))


def _state_shape(node: Node) -> tuple[int, ...]:
    shape = tuple(node.meta["val"].shape[1:])
    if len(shape) != 1:
        raise Refusal(Reason.RANK, f"a state of {len(shape) + 1} dimensions")
    return shape


def _rows(tr: Translator, space: str, index: int, shape: tuple[int, ...]) -> Rows:
    width = int(torch.Size(shape).numel())
    return Rows(tr.builder.columns_of(Value(space, index, width)).reshape(1, *shape), 0)


def _assemble(
    name: str,
    sources: tuple[str, ...],
    parts: Partition,
    dtype: torch.dtype,
    params: tuple[Given, ...],
    times: tuple[Given, ...],
    joint: Joint,
    flags: list[bool],
    reached: tuple[int, ...],
) -> StepProgram:
    tr, build = joint.translator, joint.translator.builder
    widths = tuple(s.columns.size for s in joint.states)
    forward = tuple(
        Write(Value("next", j, widths[j]), build.pieces(rows.columns))
        for j, rows in enumerate(joint.new)
    )
    backward, after_nodes, time_rows = _roots(joint, params, times, flags, widths)
    gathered = list(tr.gathered)
    for operand in time_rows:
        if operand is not None and operand not in gathered:
            gathered.append(operand)
    last = gathered[len(tr.gathered) :]
    check = _checker(times, widths, tr)
    check("lowering", build.instructions, (*forward, *backward), gathered)
    instructions = start_products(build.instructions, (*forward, *backward), gathered)
    check("starts of products", instructions, (*forward, *backward), gathered)
    instructions, both, lying = merge_neighbours(instructions, (*forward, *backward), gathered)
    check("horizontal fusion", instructions, both, lying)
    forward, backward = both[: len(forward)], both[len(forward) :]
    of = dict(zip(gathered, lying, strict=True))
    read = lying[: len(tr.gathered)]
    if parts.projects:
        read = pair_sums(tr, instructions, read)
        lying = [*read, *(of[o] for o in last)]
        instructions = dots(instructions, both, lying)
        check("reduction fusion", instructions, both, lying)
    cut = split(instructions, forward, backward, lying, keep_times=not parts.projects)
    writes, deltas, places = _deltas(cut.writes, cut.gathered)
    saves = tuple(
        Write(Value("saved", k, o.width), (Piece(o, o.width),)) for k, o in enumerate(cut.saved)
    )
    ahead = (*forward, *saves)
    has_backward = bool(joint.gradients)
    after = None
    if has_backward:
        has = tuple(node is not None for node in after_nodes)
        code = _after_code(tr, after_nodes)
        rows = places[: len(read)]
        at = dict(zip(lying, places, strict=True))
        steps = tuple(None if o is None else at[of[o]] for o in time_rows)
        extras = tuple(range(len(tr.extras)))
        after = After(code, rows, extras, steps, has)
    program = StepProgram(
        cell=name,
        dtype=str(dtype).removeprefix("torch."),
        sources=sources,
        params=params,
        times=times,
        states=widths,
        hoisted=None if parts.hoisted is None else code_of(parts.hoisted),
        folds=parts.foldable,
        prepare=_prepare_code(tr),
        matrices=tuple((m.shape[0], m.shape[1]) for m in tr.matrices),
        units=tuple(int(torch.Size(u.shape).numel()) for u in tr.units),
        forward=Step(tuple(multiply_adds(list(cut.forward), ahead, [])), ahead),
        backward=Step(tuple(multiply_adds(list(cut.backward), writes, [])), writes)
        if has_backward
        else None,
        saved=tuple(o.width for o in cut.saved),
        recomputed=cut.recomputed,
        deltas=deltas,
        after=after,
        reached=reached,
        step=code_of(parts.step),
    )
    if unsupported.STRICT:
        verify(program)
    return program


_Check = Callable[[str, Sequence[Instruction], Sequence[Write], Sequence[Operand]], None]


def _checker(times: tuple[Given, ...], states: tuple[int, ...], tr: Translator) -> _Check:
    """What is done after each pass with the joint step, forward and backward: it is recorded where
    that is asked for, and verified under `unsupported.STRICT`, as in tests."""
    given = {
        "state": states,
        "grad": states,
        "time": [int(torch.Size(t.shape).numel()) for t in times],
        "unit": [int(torch.Size(u.shape).numel()) for u in tr.units],
    }
    matrices = [(m.shape[0], m.shape[1]) for m in tr.matrices]
    record = _RECORD.get()

    def check(
        name: str,
        instructions: Sequence[Instruction],
        writes: Sequence[Write],
        kept: Sequence[Operand],
    ) -> None:
        if unsupported.STRICT:
            verify_step(instructions, writes, given, matrices, kept=kept)
        if record is not None:
            record.append((name, "\n".join(map(str, [*instructions, *writes]))))

    return check


_RECORD: ContextVar[list[tuple[str, str]] | None] = ContextVar("record", default=None)


@contextmanager
def recorded() -> Iterator[list[tuple[str, str]]]:
    """Within, the joint step of every program that is made is noted after each pass: the pass, and
    the step as text."""
    record: list[tuple[str, str]] = []
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def _roots(
    joint: Joint,
    params: tuple[Given, ...],
    times: tuple[Given, ...],
    flags: list[bool],
    widths: tuple[int, ...],
) -> tuple[tuple[Write, ...], list[Node | None], list[Operand | None]]:
    """What the backward step leaves: the state's gradient, and what parameters and hoisted tensors
    need."""
    if not joint.gradients:
        return (), [], []
    build, gradients = joint.translator.builder, iter(joint.gradients)
    every = [next(gradients) if flag else None for flag in flags]
    crossed = every[: len(params)]
    rows = every[len(params) : len(params) + len(times)]
    states = every[len(params) + len(times) :]
    writes = []
    for j, gradient in enumerate(states):
        columns = (
            build.columns_of(0.0, widths[j])
            if gradient is None
            else _all(joint, gradient, widths[j])
        )
        writes.append(Write(Value("enter", j, widths[j]), build.pieces(columns)))
    after = [
        None if c is None else _crossed_node(joint.translator, c, p)
        for c, p in zip(crossed, params, strict=True)
    ]
    gathered = [
        None if r is None else build.contiguous(_all(joint, r, int(torch.Size(t.shape).numel())))
        for r, t in zip(rows, times, strict=True)
    ]
    return tuple(writes), after, gathered


def _all(joint: Joint, value: Any, width: int) -> Any:
    rows = joint.translator.as_rows(value)
    if rows.columns.size == 1 and width != 1:
        return joint.translator.builder.columns_of_argument(
            joint.translator.builder.pieces(rows.columns)[0].argument, width
        )
    return rows.columns.reshape(-1)


def _crossed_node(tr: Translator, value: Any, param: Given) -> Node | None:
    if isinstance(value, Contraction):
        return value.node
    if isinstance(value, (int, float, Param)):
        return None
    raise Refusal(Reason.LANES, f"the gradient of {param.name}")


def _deltas(
    writes: tuple[Write, ...], gathered: tuple[Operand, ...]
) -> tuple[tuple[Write, ...], tuple[int, ...], tuple[Gathered, ...]]:
    """Arrays over time for the rows that only the backward step knows."""
    deltas: list[Write] = []
    places: list[Gathered] = []
    for operand in gathered:
        value = operand.value
        if value.space in ("temp", "grad"):
            target = Value("delta", len(deltas), operand.width)
            deltas.append(Write(target, (Piece(operand, operand.width),)))
            places.append(Gathered("delta", target.index, 0, operand.width))
        else:
            places.append(Gathered(value.space, value.index, operand.offset, operand.width))
    return (*writes, *deltas), tuple(d.target.width for d in deltas), tuple(places)


def _prepare_code(tr: Translator) -> Code:
    """Before the loop: matrices, units (flat), and what the after-graph reads besides."""
    graph = tr.before
    flat = [
        graph.call_method("reshape", (u.node, -1)) if len(u.shape) != 1 else u.node
        for u in tr.units
    ]
    graph.output([*(m.node for m in tr.matrices), *flat, *(e.node for e in tr.extras)])
    graph.eliminate_dead_code()
    root = torch.nn.Module()
    for name, value in tr.constants.items():
        root.register_buffer(name, value)
    return code_of(GraphModule(root, tidy(graph)))


def _after_code(tr: Translator, nodes: list[Node | None]) -> Code:
    tr.after.output([n for n in nodes if n is not None])
    ordered = Graph()
    new: dict[Node, Node] = {}
    rows = 0
    for node in sorted(
        tr.after.nodes, key=lambda n: (n.op != "placeholder", n.name.startswith("extra"))
    ):
        if node.op == "placeholder" and not node.name.startswith("extra"):
            new[node] = ordered.placeholder(f"rows{rows}")
            rows += 1
        else:
            new[node] = ordered.node_copy(node, lambda n: new[n])
    return code_of(GraphModule(torch.nn.Module(), tidy(ordered)))
