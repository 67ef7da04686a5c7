"""A step as a graph of single operators, from whatever captured it.

A front end gives a `Step`: a function of flat tensors, which runs no code of the user's. It is
traced under fake tensors with two numbers of lanes that no layer has: what differs between the
traces depends on the number of lanes, everything else does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from bptt.engine.graphs.algebraic import clean
from bptt.engine.graphs.cleanup import code_of
from bptt.engine.graphs.hoist import all_row_wise, compare_traces, whole_graph
from bptt.engine.graphs.nodes import (
    LANES,
    arguments,
    name_of,
    overload_packet,
    placeholders,
    where_is,
)
from bptt.engine.graphs.tracing import fake_mode, first_stage
from bptt.engine.ir.program import Code
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten


@dataclass(frozen=True)
class Kind:
    """What a tensor is to a program: shape (without the lanes, for what has a row a lane), dtype,
    and whether it needs a gradient."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    needs_gradient: bool
    stride: tuple[int, ...] | None = None

    @staticmethod
    def of(tensor: Tensor) -> Kind:
        """The kind of a source."""
        plain = not tensor.is_contiguous()
        return Kind(
            tuple(tensor.shape),
            tensor.dtype,
            tensor.requires_grad,
            tensor.stride() if plain else None,
        )


@dataclass(frozen=True, eq=False)
class Step:
    """A function to trace: ``run(lanes, sources, rows) -> results``.

    Attributes:
        run: the function; ``rows`` are its inputs with a row a lane, as are its results.
        names: of the sources.
        sources: their kinds.
        rows: the kinds of the inputs.
    """

    run: Callable[[int, Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
    names: tuple[str, ...]
    sources: tuple[Kind, ...]
    rows: tuple[Kind, ...]


@dataclass(frozen=True, eq=False)
class Traced:
    """A step as a graph ``(*sources, *constants, *rows) -> results``.

    Attributes:
        graph: in single assignments, of operators of ATen.
        names: of sources and constants.
        constants: tensors that the step makes of nothing: further sources, always the same.
    """

    graph: GraphModule
    names: tuple[str, ...]
    constants: tuple[Tensor, ...]


def trace(step: Step) -> Traced:
    """Trace a step.

    Raises:
        Refusal: it cannot be traced, or depends on the number of lanes.
    """
    one, other = (traced_with(step, lanes) for lanes in LANES)
    compare_traces(one, other)
    names, constants = _as_inputs(one, other, len(step.sources))
    clean(one)
    _check_operators(one)
    return Traced(one, (*step.names, *names), constants)


def trace_rows(step: Step) -> RowFunction:
    """Trace a function that treats each row alone.

    Raises:
        Refusal: it cannot be traced, or mixes rows.
    """
    traced = trace(step)
    if not all_row_wise(traced.graph, len(traced.names)):
        raise Refusal(Reason.LANES, "an output that reads several lanes")
    return RowFunction(code_of(whole_graph(traced.graph)), traced.constants)


@dataclass(frozen=True, eq=False)
class RowFunction:
    """A function that treats each row alone: ``code`` is ``(lanes, *sources, *constants, *rows) ->
    [result]``."""

    code: Code
    constants: tuple[Tensor, ...]

    def __call__(self, sources: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """The result of so many rows."""
        result: Tensor = self.code.run(len(rows[0]), *sources, *self.constants, *rows)[0]
        return result


def traced_with(step: Step, lanes: int) -> GraphModule:
    """A step of so many lanes as a graph of single operators.

    Raises:
        Refusal: it cannot be traced.
    """
    mode = fake_mode()
    with mode:
        sources = [_fake(kind, kind.shape) for kind in step.sources]
        rows = [_fake(kind, (lanes, *kind.shape), always=True) for kind in step.rows]

    def run(*flat: Tensor) -> list[Tensor]:
        return step.run(lanes, flat[: len(sources)], flat[len(sources) :])

    with mode:  # so that what the step makes of nothing has no data either
        return first_stage(run, [*sources, *rows])


def _fake(kind: Kind, shape: tuple[int, ...], always: bool = False) -> Tensor:
    if kind.stride is not None and len(kind.stride) == len(shape):
        made = torch.empty_strided(shape, kind.stride, dtype=kind.dtype)
    else:
        made = torch.empty(shape, dtype=kind.dtype)
    floating = kind.dtype.is_floating_point
    return made.requires_grad_(floating and (always or kind.needs_gradient))


def _check_operators(graph: GraphModule) -> None:
    """Refuse operators whose meaning changes when all steps run at once."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and overload_packet(node) is _aten.embedding:
            given = [*arguments(node)[2:], *node.kwargs.values()]
            if any(flag is True for flag in given):
                what = "with scale_grad_by_freq or sparse gradients"
                raise Refusal(Reason.OPERATOR, f"{name_of(node)} {what}", where_is(node))


def _as_inputs(
    one: GraphModule, other: GraphModule, sources: int
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Turn the constants of a trace into inputs behind its sources; their names and values. The
    ``other`` trace must have the same.

    A number stays a number: the step can then be folded.
    """
    graph = one.graph
    first = placeholders(graph)[sources]
    mode = first.meta["val"].fake_mode
    found: list[Tensor] = []
    held = zip(graph.find_nodes(op="get_attr"), other.graph.find_nodes(op="get_attr"), strict=True)
    for node, twin in list(held):
        value = _constant(one, node)
        if not same_constant(one, node, other, twin):
            raise Refusal(Reason.LANES, "a constant made of the number of lanes", where_is(node))
        with graph.inserting_before(node if value.dim() == 0 else first):
            if value.dim() == 0:
                made = graph.call_function(
                    _aten.scalar_tensor.default, (value.item(),), {"dtype": value.dtype}
                )
            else:
                made = graph.placeholder(f"constant{len(found)}")
                found.append(value)
        with mode:
            made.meta = {**node.meta, "val": torch.empty(value.shape, dtype=value.dtype)}
        for user in list(node.users):
            if user.target in (_aten.lift_fresh_copy.default, _aten.lift_fresh.default):
                user.replace_all_uses_with(made)
                graph.erase_node(user)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    one.recompile()
    return tuple(f"constant{i}" for i in range(len(found))), tuple(found)


def _constant(graph: GraphModule, node: Node) -> Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise Refusal(Reason.UNTRACEABLE, name_of(node), where_is(node))
    return value.detach()


def same_constant(one: GraphModule, node: Node, other: GraphModule, twin: Node) -> bool:
    """Whether two traces hold the same constant at these nodes."""
    return _same(_constant(one, node), _constant(other, twin))


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    floating = one.is_floating_point() or one.is_complex()
    return (
        bool(torch.allclose(one, other, 0.0, 0.0, equal_nan=True))
        if floating
        else bool(torch.equal(one, other))
    )
