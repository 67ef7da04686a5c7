"""A raw trace made ready for partition: written in single assignments, nothing refused in it, and
with products and sums arranged so that as much as possible is hoisted over time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from bptt.engine.graphs.functionalize import without_writes
from bptt.engine.graphs.hoist import Kind, classify
from bptt.engine.graphs.nodes import arguments, lane_axis, name_of, overload_packet, where_is
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten


def clean(traced: GraphModule) -> None:
    """Bring a trace into single assignments, and refuse what no step program can hold.

    Raises:
        Refusal: random numbers, writes to what the cell was given, or to views read later.
    """
    for node in traced.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in _tags(node):
            raise Refusal(Reason.RANDOMNESS, name_of(node), where_is(node))
    without_writes(traced.graph)
    traced.graph.eliminate_dead_code()


def rearrange(traced: GraphModule, sources: int) -> None:
    """Split products of concatenations, and gather what sums can be hoisted; then drop what is
    dead."""
    _split_products(traced.graph, sources)
    _gather_sums(traced.graph, sources)
    traced.graph.eliminate_dead_code()


def _tags(node: Node) -> Any:
    return getattr(node.target, "tags", ())


def _insert(graph: Graph, target: Any, args: tuple[Any, ...], like: Node) -> Node:
    """A new node at the point of insertion, with its fake value and the source line of ``like``."""
    node = graph.call_function(target, args)
    value = map_arg(args, lambda n: n.meta["val"])
    node.meta = {"val": target(*value), "stack_trace": like.meta.get("stack_trace")}
    return node


def _split_products(graph: Graph, sources: int) -> None:
    """``cat(x, h) @ W`` is ``x @ W_x + h @ W_h``: the first product can then be hoisted."""
    kinds = classify(graph, sources)
    for node in list(graph.nodes):
        packet = overload_packet(node)
        if packet not in (_aten.mm, _aten.addmm) or node.kwargs:
            continue
        joined, weight = node.args[-2], node.args[-1]
        if not _is_row_cat(joined) or kinds[weight] is not Kind.PARAMS:
            continue
        parts = joined.args[0]
        if len({kinds[p] for p in parts}) == 1:
            continue
        with graph.inserting_before(node):
            total, offset = node.args[0] if packet is _aten.addmm else None, 0
            for part in sorted(parts, key=lambda p: kinds[p]):
                offset = sum(p.meta["val"].shape[1] for p in parts[: parts.index(part)])
                width = part.meta["val"].shape[1]
                rows = _insert(graph, _aten.slice.Tensor, (weight, 0, offset, offset + width), node)
                product = (
                    _insert(graph, _aten.mm.default, (part, rows), node)
                    if total is None
                    else _insert(graph, _aten.addmm.default, (total, part, rows), node)
                )
                total = product
        node.replace_all_uses_with(total)
        kinds = classify(graph, sources)


def _is_row_cat(node: Any) -> bool:
    if not isinstance(node, Node) or overload_packet(node) is not _aten.cat:
        return False
    parts = arguments(node)[0]
    dim = node.args[1] if len(node.args) > 1 else 0
    same_part_twice = len(set(parts)) != len(parts)
    return dim in (1, -1) and all(p.meta["val"].dim() == 2 for p in parts) and not same_part_twice


def _gather_sums(graph: Graph, sources: int) -> None:
    """In a sum of three or more terms, those that do not depend on the state are added first.

    ``(x W + b) + (c + h U)`` becomes ``((x W + b) + c) + h U``: all but the product is hoisted.
    """
    kinds = classify(graph, sources)
    for node in reversed(list(graph.nodes)):
        if kinds.get(node) is not Kind.STATE or not _is_plain_add(node) or _inside_a_sum(node):
            continue
        terms = _terms(node, node, kinds)
        still = sorted(
            (t for t in terms if kinds[t[-1]] is not Kind.STATE),
            key=lambda t: (len(t), kinds[t[-1]]),
        )
        moving = [t for t in terms if kinds[t[-1]] is Kind.STATE]
        if len(still) < 2 or len(still[0]) != 1 or not moving or not _full_width(still, node):
            continue
        with graph.inserting_before(node):
            total = still[0][0]
            for term in [*still[1:], *moving]:
                operator = _aten.add.Tensor if len(term) == 1 else _aten.addmm.default
                parts = term if len(term) == 1 else (term[1], term[0])
                total = _insert(graph, operator, (total, *parts), node)
        node.replace_all_uses_with(total)
        kinds = classify(graph, sources)


def _is_plain_add(node: Any) -> bool:
    return (
        isinstance(node, Node)
        and node.target is _aten.add.Tensor
        and not node.kwargs
        and len(node.args) == 2
        and all(isinstance(a, Node) for a in node.args)
        and node.meta["val"].dim() == 2
        and lane_axis(node) == 0
    )


def _inside_a_sum(node: Node) -> bool:
    return len(node.users) == 1 and _is_plain_add(next(iter(node.users)))


def _terms(node: Node, top: Node, kinds: dict[Node, Kind]) -> list[tuple[Node, ...]]:
    """The terms of a sum: ``(node,)``, and ``(weight, rows)`` for a product rows @ weight."""
    mine = node is top or len(node.users) == 1
    if not mine or node.meta["val"].shape != top.meta["val"].shape or node.kwargs:
        return [(node,)]
    if _is_plain_add(node):
        return [t for a in node.args for t in _terms(a, top, kinds)]  # type: ignore[arg-type]  # torch.fx types its arguments as anything
    if node.target is _aten.addmm.default and kinds[node] is not Kind.PARAMS:
        bias, rows, weight = node.args
        return [*_terms(bias, top, kinds), (weight, rows)]  # type: ignore[arg-type, list-item]  # torch.fx types its arguments as anything
    return [(node,)]


def _full_width(terms: list[tuple[Node, ...]], node: Node) -> bool:
    """Whether the terms together have the whole shape of the sum, so that no later sum need
    widen."""
    whole: Tensor = node.meta["val"]
    products = any(len(t) == 2 for t in terms)
    shapes = [t[0].meta["val"].shape for t in terms if len(t) == 1]
    together: Any = torch.functional.broadcast_shapes
    return products or bool(together(*shapes) == whole.shape)
