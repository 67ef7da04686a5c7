"""A traced step in three parts: what depends on parameters alone, on the input, and on the state.

Every node of the trace is of one kind: PARAMS (run once), TIME (hoisted over all steps) or STATE
(the step proper). Views are sunk into the step: it takes whole tensors and slices them itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from bptt.engine.graphs.nodes import (
    LANES,
    arguments,
    lane_axis,
    overload_packet,
    placeholders,
    where_is,
)
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten

VIEWS = frozenset(
    {
        _aten.t,
        _aten.transpose,
        _aten.permute,
        _aten.view,
        _aten.reshape,
        _aten._unsafe_view,
        _aten.slice,
        _aten.select,
        _aten.split,
        _aten.split_with_sizes,
        _aten.unsafe_split,
        _aten.unsafe_chunk,
        _aten.chunk,
        _aten.unsafe_split_with_sizes,
        _aten.unbind,
        _aten.unsqueeze,
        _aten.squeeze,
        _aten.expand,
        _aten.alias,
        _aten.narrow,
        _aten.lift_fresh_copy,
    }
)


class Kind(enum.IntEnum):
    """What a node depends on; the greatest of its arguments' kinds."""

    PARAMS = 0
    TIME = 1
    STATE = 2


@dataclass(frozen=True)
class Partition:
    """The three parts, and what passes between them.

    Attributes:
        hoisted: graph ``(lanes, *sources, input) -> (*params, *times)``, or None if there is
        nothing to run. step: graph ``(lanes, *params, *times, *state) -> new state``. params: for
        each params-derived tensor of the step, the index of the source that it is, or None. times:
        for each hoisted tensor, whether it is the input itself. param_sources, time_sources: which
        sources each of them depends on. foldable: whether the hoisted part may run on all steps
        folded into the lanes. projects: whether all that is hoisted over time are linear maps of
        the input.
    """

    hoisted: GraphModule | None
    step: GraphModule
    params: tuple[int | None, ...]
    times: tuple[bool, ...]
    param_sources: tuple[frozenset[int], ...]
    time_sources: tuple[frozenset[int], ...]
    foldable: bool
    projects: bool

    def time_floats(self, dtype: torch.dtype) -> tuple[bool, ...]:
        """Which hoisted tensors have this dtype."""
        inputs = [n for n in self.step.graph.nodes if n.op == "placeholder"][1 + len(self.params) :]
        return tuple(n.meta["val"].dtype is dtype for n in inputs[: len(self.times)])


def is_view(node: Node) -> bool:
    """Whether a node only rearranges what it is given."""
    return node.op == "call_function" and (
        overload_packet(node) in VIEWS
        or (getattr(node.target, "__name__", "") == "getitem" and is_view(arguments(node)[0]))
    )


def classify(graph: Graph, sources: int, hoist: bool = True) -> dict[Node, Kind]:
    """The kind of every node; tensors of the lanes' size that depend on nothing belong to the
    step. Without ``hoist`` everything does."""
    kinds: dict[Node, Kind] = {}
    for i, node in enumerate(placeholders(graph)):
        kinds[node] = Kind.PARAMS if i < sources else Kind.TIME if i == sources else Kind.STATE
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        kind = max((kinds[a] for a in node.all_input_nodes), default=Kind.PARAMS)
        made_of_nothing = kind is Kind.PARAMS and lane_axis(node) is not None
        kinds[node] = Kind.STATE if made_of_nothing or not hoist else kind
    return kinds


def sink(traced: GraphModule, sources: int) -> Partition | None:
    """The parts with nothing hoisted over time but linear maps of the input: what else is made of
    it belongs to the step, where it needs no memory over time. None if there is nothing else, or
    if the input is read in any other way."""
    graph = traced.graph
    kinds = classify(graph, sources)
    given = placeholders(graph)[sources]
    if not given.users or not all(_projects(n, given, kinds) for n in given.users):
        return None
    if not any(kinds[u] is Kind.TIME and not is_view(u) for n in given.users for u in n.users):
        return None
    own = GraphModule(traced, Graph())
    old: dict[Node, Node] = {}
    own.graph.output(own.graph.graph_copy(graph, old))
    own.graph.output_node().meta = dict(graph.output_node().meta)
    return partition(own, sources, sunk=True)


def _projects(node: Node, given: Node, kinds: dict[Node, Kind]) -> bool:
    """Whether a node is a linear map of the input ``given``."""
    packet, read = overload_packet(node), list(node.args)
    if packet not in (_aten.mm, _aten.addmm) or node.kwargs:
        return False
    left = 0 if packet is _aten.mm else 1
    rest = [a for i, a in enumerate(read) if i != left]
    return read[left] is given and all(
        isinstance(a, Node) and kinds[a] is Kind.PARAMS for a in rest
    )


def partition(
    traced: GraphModule, sources: int, hoist: bool = True, sunk: bool = False
) -> Partition:
    """Cut a trace that `bptt.engine.graphs.algebraic` has rewritten into its parts; without
    ``hoist``, the step takes parameters and input as they are. Of a ``sunk`` trace only the first
    operators on the input are hoisted."""
    graph = traced.graph
    kinds = classify(graph, sources, hoist)
    given = placeholders(graph)[sources]
    if sunk:
        for node, kind in kinds.items():
            if kind is Kind.TIME and node is not given and given not in node.all_input_nodes:
                kinds[node] = Kind.STATE
    _sink_views(graph, kinds)
    output = graph.find_nodes(op="output")[0]
    needed = _ancestors(output, lambda n: kinds[n] is Kind.STATE)
    boundary: list[Node] = []
    for node in [*(n for n in graph.nodes if n in needed), output]:
        for argument in node.all_input_nodes:
            if kinds[argument] is not Kind.STATE and argument not in boundary:
                boundary.append(argument)
    inputs = placeholders(graph)
    states = inputs[sources + 1 :]
    params = [n for n in boundary if kinds[n] is Kind.PARAMS]
    times = [n for n in boundary if kinds[n] is Kind.TIME]
    step_nodes = [n for n in graph.nodes if n in needed and n.op != "placeholder"]
    step = _extract(traced, [*params, *times, *states], step_nodes, list(output.args[0]))
    work = [n for n in [*params, *times] if n.op != "placeholder"]
    hoisted = None
    if work:
        inside = _ancestors_of(work)
        body = [n for n in graph.nodes if n in inside and n.op != "placeholder"]
        hoisted = _extract(traced, inputs[: sources + 1], body, [*params, *times])
    index = {n: i for i, n in enumerate(inputs)}
    return Partition(
        hoisted=hoisted,
        step=step,
        params=tuple(index.get(n) for n in params),
        times=tuple(n in index for n in times),
        param_sources=tuple(_sources_of(n, index, sources) for n in params),
        time_sources=tuple(_sources_of(n, index, sources) for n in times),
        foldable=all(_row_wise(n, kinds) for n in (_ancestors_of(times) if times else ())),
        projects=all(_projects(n, given, kinds) for n in times),
    )


def _sink_views(graph: Graph, kinds: dict[Node, Kind]) -> None:
    """Views of parameters and inputs that the step uses become the step's own."""
    for node in reversed(graph.nodes):
        if node.op == "call_function" and kinds[node] is not Kind.STATE and is_view(node):
            users = [u for u in node.users if u.op == "output" or kinds[u] is Kind.STATE]
            if not users or _view_of_other_rank(node):
                continue
            if len(users) == len(node.users):
                kinds[node] = Kind.STATE
                continue
            with graph.inserting_before(node):
                twin = graph.node_copy(node)
            kinds[twin] = Kind.STATE
            for user in users:
                user.replace_input_with(node, twin)


def _view_of_other_rank(node: Node) -> bool:
    """An input of higher rank is cut up outside the step, which knows rows alone."""
    first = node.args[0]
    value = first.meta.get("val") if isinstance(first, Node) else None
    return isinstance(value, Tensor) and (value.dim() > 3 or not value.is_floating_point())


def _ancestors(node: Node, keep: Any) -> set[Node]:
    found: set[Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        current = waiting.pop()
        if current not in found and keep(current):
            found.add(current)
            waiting.extend(current.all_input_nodes)
    return found


def _ancestors_of(nodes: list[Node]) -> set[Node]:
    found = set(nodes)
    for node in nodes:
        found |= _ancestors(node, lambda n: True)
    return found


def _sources_of(node: Node, index: dict[Node, int], sources: int) -> frozenset[int]:
    return frozenset(index[n] for n in _ancestors_of([node]) if n in index and index[n] < sources)


def _extract(
    traced: GraphModule, inputs: list[Node], body: list[Node], outputs: list[Any]
) -> GraphModule:
    """A graph of its own, with the number of lanes as its first argument in place of the traced
    one."""
    graph = Graph()
    lanes = graph.placeholder("lanes")
    new: dict[Node, Node] = {}
    for node in inputs:
        new[node] = graph.placeholder(node.name)
        new[node].meta = dict(node.meta)
    for node in body:
        copied = graph.node_copy(node, lambda n: new[n])
        copied.args = lanes_by_name(copied.args, lanes)
        copied.kwargs = lanes_by_name(copied.kwargs, lanes)
        new[node] = copied
    graph.output([new[n] for n in outputs])
    graph.output_node().meta = {}
    return GraphModule(traced, graph)


def whole_graph(traced: GraphModule) -> GraphModule:
    """A trace as it is, with the number of lanes as its first argument."""
    inputs = placeholders(traced.graph)
    body = [n for n in traced.graph.nodes if n.op not in ("placeholder", "output")]
    return _extract(traced, inputs, body, list(arguments(traced.graph.output_node())[0]))


def lanes_by_name(value: Any, lanes: Node) -> Any:
    """Arguments with the traced number of lanes replaced by a node that holds this call's."""
    if isinstance(value, (list, tuple)):
        return type(value)(lanes_by_name(v, lanes) for v in value)
    if isinstance(value, dict):
        return {k: lanes_by_name(v, lanes) for k, v in value.items()}
    return lanes if type(value) is int and value == LANES[0] else value


def compare_traces(one: GraphModule, other: GraphModule) -> None:
    """Refuse a step in which the number of lanes is more than a size.

    Raises:
        Refusal: naming the first operator at which the two traces part.
    """
    first, second = list(one.graph.nodes), list(other.graph.nodes)
    for a, b in zip(first, second, strict=False):
        same = a.op == b.op and (a.target == b.target or a.op == "get_attr")
        if not same or not _alike(a.args, b.args) or not _alike(a.kwargs, b.kwargs):
            raise Refusal(Reason.LANES, f"{a.target} with the number of lanes", where_is(a))
    if len(first) != len(second):
        raise Refusal(Reason.LANES, "the number of lanes")


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Node):
        return isinstance(b, Node)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and all(k in b and _alike(v, b[k]) for k, v in a.items())
    if type(a) is int and a == LANES[0]:
        return bool(b == LANES[1])
    return type(a) is type(b) and (a == b or a != a)


_ROW_WISE = frozenset(
    {
        _aten.mm,
        _aten.addmm,
        _aten.linear,
        _aten.embedding,
        _aten.cat,
        _aten.stack,
        _aten.native_layer_norm,
        _aten._softmax,
        _aten._log_softmax,
        _aten.sum,
        _aten.mean,
        _aten.amax,
        _aten.amin,
        _aten.cumsum,
        _aten.std,
        _aten.var,
        _aten.linalg_vector_norm,
        _aten.detach,
        _aten.zeros_like,
        _aten.ones_like,
        _aten.full_like,
        _aten.clone,
        _aten.one_hot,
        _aten.index_select,
        _aten.constant_pad_nd,
        _aten._to_copy,
        *VIEWS,
    }
)


def _row_wise(node: Node, kinds: dict[Node, Kind]) -> bool:
    """Whether all steps may be folded into the lanes: each row of the result is made of the same
    row of each argument, and the lanes come first all along."""
    if node.op != "call_function":
        return True
    target: Any = node.target
    counts = _counts_lanes([*node.args, *node.kwargs.values()])
    if kinds[node] is Kind.PARAMS:
        return not counts
    if getattr(target, "__name__", "") == "getitem":
        return True
    pointwise = torch.Tag.pointwise in getattr(target, "tags", ())
    if (pointwise and counts) or (not pointwise and overload_packet(node) not in _ROW_WISE):
        return False
    rows = [a for a in node.all_input_nodes if kinds[a] is Kind.TIME]
    values = [n.meta.get("val") for n in [node, *rows]]
    flat = [v for v in values if isinstance(v, Tensor)]
    flat += [
        v for vs in values if isinstance(vs, (list, tuple)) for v in vs if isinstance(v, Tensor)
    ]
    return all(v.dim() > 0 and v.shape[0] == LANES[0] for v in flat) and _left_operand_only(
        node, kinds
    )


def _counts_lanes(values: list[Any]) -> bool:
    """Whether the number of lanes itself is among some arguments."""
    return any(
        _counts_lanes(list(v)) if isinstance(v, (list, tuple)) else type(v) is int and v == LANES[0]
        for v in values
    )


def all_row_wise(traced: GraphModule, sources: int) -> bool:
    """Whether a graph ``(*sources, *rows) -> rows`` treats each row alone."""
    kinds: dict[Node, Kind] = {}
    for i, node in enumerate(traced.graph.nodes):
        above = max((kinds[a] for a in node.all_input_nodes), default=Kind.PARAMS)
        kinds[node] = Kind.TIME if node.op == "placeholder" and i >= sources else above
    return all(_row_wise(node, kinds) for node in traced.graph.nodes)


def _left_operand_only(node: Node, kinds: dict[Node, Kind]) -> bool:
    packet = overload_packet(node)
    if packet in (_aten.mm, _aten.linear):
        return kinds[arguments(node)[1]] is Kind.PARAMS
    if packet is _aten.addmm:
        return kinds[arguments(node)[2]] is Kind.PARAMS
    if packet is _aten.embedding:
        return kinds[arguments(node)[0]] is Kind.PARAMS
    if packet in (_aten._softmax, _aten._log_softmax, _aten.cumsum, _aten.index_select):
        rank = node.meta["val"].dim()
        return bool(arguments(node)[1] % rank != 0)
    return True
