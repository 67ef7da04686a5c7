"""Graphs that PyTorch runs around the loop, made short: what undoes itself goes, the rest is called
directly."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional

from bptt.engine.graphs.nodes import arguments
from bptt.engine.ir.program import Code

_aten = torch.ops.aten

_METHODS: dict[Any, str] = {
    _aten.t.default: "t",
    _aten.view.default: "reshape",
    _aten._unsafe_view.default: "reshape",
    _aten.unsqueeze.default: "unsqueeze",
    _aten.expand.default: "expand",
}
_FUNCTIONS: dict[Any, Any] = {
    _aten.addmm.default: torch.addmm,
    _aten.mm.default: torch.mm,
    _aten.add.Tensor: torch.add,
    _aten.mul.Tensor: torch.mul,
    _aten.sum.dim_IntList: torch.sum,
    torch.reshape: torch.reshape,
}
_SUMS = (_aten.sum.dim_IntList, torch.sum)
_SAME = (_aten.alias.default, _aten.detach.default)


def code_of(module: GraphModule) -> Code:
    """A graph as a function, without the ceremony of calling a module."""
    return Code("\n".join(_lines(module.graph)), module.forward, module)


def _lines(graph: Graph) -> list[str]:
    lines = []
    for node in graph.nodes:
        if node.op in ("call_function", "call_method"):
            packet = getattr(node.target, "overloadpacket", node.target)
            name = getattr(packet, "__name__", str(packet))
            options = (f"{k}={v}" for k, v in node.kwargs.items())
            lines.append(f"{node} = {name}({', '.join(map(str, [*node.args, *options]))})")
    return lines


def tidy(graph: Graph) -> Graph:
    """Shorten in place: no copies of names, no double transposes, each call made once."""
    graph.eliminate_dead_code()
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op not in ("call_function", "call_method"):
            continue
        _canonical(node)
        other = _instead(node)
        if other is None:
            key = (node.op, node.target, _hashable(node.args), _hashable(node.kwargs))
            other = seen.setdefault(key, node)
        if other is not node:
            node.replace_all_uses_with(other)
    _direct_sums(graph)
    _linear(graph)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.op == "call_function":
            if node.target in _METHODS:
                node.op, node.target = "call_method", _METHODS[node.target]
            else:
                node.target = _FUNCTIONS.get(node.target, node.target)
    graph.lint()
    return graph


def _linear(graph: Graph) -> None:
    """``addmm(b, x, t(W))`` is ``linear(x, W, b)``: one call for two, and it takes any number of
    dimensions."""
    for node in graph.nodes:
        right = node.args[1] if node.target is _aten.mm.default else None
        if isinstance(right, Node) and right.target is _aten.t.default and _is_input(node.args[0]):
            node.target, node.args = functional.linear, (node.args[0], right.args[0])
            continue
        weight = node.args[2] if node.target is _aten.addmm.default and not node.kwargs else None
        bias = arguments(node)[0].meta.get("val") if weight is not None else None
        vector = isinstance(bias, torch.Tensor) and bias.dim() == 1
        if vector and isinstance(weight, Node) and weight.target is _aten.t.default:
            node.target, node.args = functional.linear, (node.args[1], weight.args[0], node.args[0])


def _is_input(node: Any) -> bool:
    return isinstance(node, Node) and node.op == "placeholder"


def _canonical(node: Node) -> None:
    """Every transpose of a matrix is ``t``."""
    if node.op == "call_method" and node.target == "t":
        node.op, node.target = "call_function", _aten.t.default
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dim() != 2:
        return
    order = arguments(node)[1:]
    order = order[0] if node.target is _aten.permute.default else order
    turning = node.target in (_aten.permute.default, _aten.transpose.int)
    if turning and (order[0] % 2, order[1] % 2) in ((1, 0), (0, 1)):
        same = node.target is _aten.permute.default and order[0] % 2 == 0
        if not same:
            node.target, node.args = _aten.t.default, node.args[:1]


def _instead(node: Node) -> Node | None:
    """A node that has the same value already."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return None
    if node.target in _SAME:
        return source
    if node.target is _aten.t.default and source.target is _aten.t.default:
        inner: Node = source.args[0]  # type: ignore[assignment]  # torch.fx types its arguments as anything
        return inner
    return None


def _direct_sums(graph: Graph) -> None:
    """``view(sum(x, [0], keepdim), [n])`` is ``sum(x, 0)``."""
    for node in graph.nodes:
        if node.target not in (_aten.view.default, torch.reshape, "reshape"):
            continue
        source = arguments(node)[0]
        if isinstance(source, Node) and source.target is torch.reshape:
            source = arguments(source)[0]
            node.args = (source, *node.args[1:])
        if not isinstance(source, Node) or source.target not in _SUMS:
            continue
        shape = arguments(node)[1:]
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (list, tuple)) else shape
        if len(shape) == 1 and len(source.args) > 1 and source.args[1] in ([0], 0):
            node.op, node.target = "call_function", torch.sum
            node.args, node.kwargs = (source.args[0], 0), {}


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in value.items())
    return (type(value), value) if not isinstance(value, Node) else value
