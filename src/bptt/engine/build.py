"""Compiling a cell: the two stages one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from bptt.engine.derive import derive
from bptt.engine.guard import Snapshot
from bptt.engine.nodes import LANES, where_is
from bptt.engine.outputs import output_leaf
from bptt.engine.partition import Partition, all_row_wise, compare_traces, partition, sink
from bptt.engine.plans import Wanted
from bptt.engine.program import StepProgram
from bptt.engine.reasons import Reason, Refusal
from bptt.engine.rewrite import clean, rearrange
from bptt.engine.sources import Source
from bptt.engine.tracing import trace_cell, trace_output
from bptt.state import State, leaves, map_state


@dataclass(frozen=True, eq=False)
class Analysis:
    """A cell's step in parts, and where its output comes from (see `bptt.engine.plans.Plan`).

    ``sunk`` are the parts with less hoisted (see `bptt.engine.partition.sink`), if there are such.
    """

    step: Partition
    sunk: Partition | None
    output: int | None


def analyse(
    cell: nn.Module,
    sources: tuple[Source, ...],
    tensors: list[Tensor],
    example: Tensor,
    state: State,
    hoist: bool = True,
) -> Analysis:
    """Stage 1: trace one step with two numbers of lanes, and part the trace.

    ``example`` are inputs [T, B, ...]: only what follows the first two dimensions counts. Without
    ``hoist`` the whole step is one part.

    Raises:
        Refusal: no step program can hold the cell.
    """
    _check_leaves(state)
    before = Snapshot(cell)
    try:
        step = example.new_empty((1, *example.shape[2:]))
        traced = [trace_cell(cell, sources, tensors, step, state, lanes) for lanes in LANES]
        output = _output(cell, sources, tensors, state)
    finally:
        changed = before.restore()
    if changed is not None:
        raise Refusal(Reason.MUTATION, f"attribute {changed}")
    compare_traces(*traced)
    graph = traced[0]
    _check_captured(graph, tensors)
    clean(graph)
    rearrange(graph, len(sources))
    sunk = sink(graph, len(sources)) if hoist else None
    return Analysis(partition(graph, len(sources), hoist), sunk, output)


def _output(
    cell: nn.Module, sources: tuple[Source, ...], tensors: list[Tensor], state: State
) -> int | None:
    if getattr(cell, "output", None) is None:
        return 0
    with torch.no_grad():
        leaf = output_leaf(cell, map_state(lambda s: s.new_zeros((1, *s.shape[1:])), state))
    if leaf is not None:
        return leaf
    traced = trace_output(cell, sources, tensors, state)
    clean(traced)
    if not all_row_wise(traced, len(sources)):
        raise Refusal(Reason.LANES, f"{type(cell).__name__}.output")
    return None


def _check_leaves(state: State) -> None:
    for leaf in leaves(state):
        if leaf.dim() != 2:
            raise Refusal(Reason.RANK, f"a state of {leaf.dim()} dimensions")
        if leaf.dtype not in (torch.float32, torch.float64):
            raise Refusal(Reason.DTYPE, f"a state of {leaf.dtype}")
        if leaf.dtype is not leaves(state)[0].dtype:
            raise Refusal(Reason.DTYPE, "a state of two dtypes")


def _check_captured(graph: GraphModule, tensors: list[Tensor]) -> None:
    """Tensors that a cell holds elsewhere than in parameters and buffers are constants, if they may
    be."""
    own = {id(t): i for i, t in enumerate(tensors)}
    placeholders = graph.graph.find_nodes(op="placeholder")
    for node in graph.graph.find_nodes(op="get_attr"):
        held = getattr(graph, str(node.target))
        if id(held) in own:  # a parameter by another road, as out of a plain list
            node.replace_all_uses_with(placeholders[own[id(held)]])
        elif isinstance(held, Tensor) and held.requires_grad:
            line = where_is(node) or next((where_is(u) for u in node.users), None)
            raise Refusal(Reason.CAPTURED, f"a tensor {list(held.shape)}", line)


def assemble(
    cell: nn.Module,
    sources: tuple[Source, ...],
    parts: Partition,
    dtype: torch.dtype,
    wanted: Wanted,
) -> StepProgram:
    """Stage 2: the program for the gradients that are wanted."""
    return derive(type(cell).__name__, tuple(s.name for s in sources), parts, dtype, wanted)
