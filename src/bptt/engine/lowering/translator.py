"""From a decomposed graph to instructions.

While a graph is walked, every value is one of four things: a number, `Param` (depends on parameters
alone: PyTorch computes it once, before the loop), `Rows` (the step's own), or `Contraction` (a sum
over the lanes, a parameter's gradient: PyTorch computes it once, after the loop).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from bptt.engine.graphs.hoist import VIEWS
from bptt.engine.graphs.nodes import LANES, ends, name_of, overload_packet, where_is
from bptt.engine.graphs.origins import origin_of
from bptt.engine.ir.program import Operand, Value
from bptt.engine.lowering.builder import Builder, Columns, Rows
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Param:
    """A node of the preparation, which runs before the loop."""

    node: Node
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Contraction:
    """A node of what follows the loop; linear in the gradient, so it may be summed over time
    first."""

    node: Node
    shape: tuple[int, ...]


Handler = Callable[..., Any]

HANDLERS: dict[Any, Handler] = {}
"""ATen operator (packet) to what builds its instructions; `operators` and `views` fill it."""


_H = TypeVar("_H", bound=Handler)


def handles(*packets: Any) -> Callable[[_H], _H]:
    """Register a handler ``(translator, value, *arguments)``; ``value`` is the traced result."""

    def register(handler: _H) -> _H:
        HANDLERS.update(dict.fromkeys(packets, handler))
        return handler

    return register


class Translator:
    """Walks one graph; collects instructions, and the graphs before and after the loop."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.builder = Builder()
        self.before = Graph()
        self.after = Graph()
        self.matrices: list[Param] = []
        self.units: list[Param] = []
        self.extras: list[Param] = []
        self.gathered: list[Operand] = []
        self.gathered_nodes: list[Node] = []
        self._extra_nodes: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self._prepared: dict[Any, Param] = {}
        self._finished: dict[Any, Contraction] = {}

    # -- walking ---------------------------------------------------------------------------------

    def walk(self, module: GraphModule, inputs: list[Any], results: int) -> list[Any]:
        """Translate a graph whose placeholders are ``inputs``; gives its outputs. What follows the
        first ``results`` of them is the backward step."""
        known: dict[Node, Any] = {}
        waiting = iter(inputs)
        ahead = set(ends(module.graph)[:results])
        for node in module.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(waiting)
            elif node.op == "get_attr":
                known[node] = self._constant(module, node)
            elif node.op == "call_function":
                known[node] = self._call(node, known)
            ahead.discard(node)
            self.builder.backward = not ahead
        output = module.graph.output_node().args[0]
        return [known[n] if isinstance(n, Node) else n for n in output]  # type: ignore[union-attr]  # torch.fx types its arguments as anything

    def _constant(self, module: GraphModule, node: Node) -> Param | float:
        held: Tensor = getattr(module, str(node.target))
        if held.numel() == 1 and held.dim() == 0:
            return float(held)
        name = f"constant{len(self.constants)}"
        self.constants[name] = held.detach()
        return Param(self.before.get_attr(name), tuple(held.shape), held.dtype)

    def _call(self, node: Node, known: dict[Node, Any]) -> Any:
        def resolve(argument: Any) -> Any:
            if isinstance(argument, Node):
                return known[argument]
            if isinstance(argument, (list, tuple)):
                return [resolve(a) for a in argument]
            return argument

        arguments = [resolve(a) for a in node.args]
        options = {k: resolve(v) for k, v in node.kwargs.items()}
        value = node.meta.get("val")
        try:
            return self._apply(node, value, arguments, options)
        except Refusal as refusal:
            told = refusal.unsupported
            if told.location is None:
                own = origin_of(node) or name_of(node)
                operator = own if told.reason is not Reason.RANK else told.operator
                raise Refusal(told.reason, operator, where_is(node)) from None
            raise

    def _apply(self, node: Node, value: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        if getattr(node.target, "__name__", "") == "getitem":
            return arguments[0][arguments[1]]
        counted = [a for a in [*arguments, *options.values()] if type(a) is int]
        if LANES[0] in counted and overload_packet(node) not in VIEWS:
            raise Refusal(Reason.LANES, f"{name_of(node)} with the number of lanes")
        everything = [*_flat(arguments), *_flat(list(options.values()))]
        if any(isinstance(a, Contraction) for a in everything):
            return self._afterwards(node, value, arguments, options)
        rows = any(isinstance(a, Rows) for a in everything)
        if not rows and not _has_lanes(value):
            return self._beforehand(node, value, arguments, options)
        handler = HANDLERS.get(overload_packet(node))
        if handler is None:
            raise Refusal(Reason.OPERATOR, name_of(node))
        return handler(self, value, *arguments, **options)

    def _beforehand(self, node: Node, value: Any, arguments: list[Any], options: Any) -> Any:
        if overload_packet(node) is _aten.scalar_tensor or not _flat_params(arguments):
            if isinstance(value, Tensor) and value.dim() == 0 and overload_packet(node) in HANDLERS:
                return HANDLERS[overload_packet(node)](self, value, *arguments, **options)
        target: Any = node.target
        packet = overload_packet(node)
        if packet in (_aten.alias, _aten.detach):
            return arguments[0]
        if (
            packet is _aten.permute
            and len(value.shape) == 2
            and [d % 2 for d in arguments[1]] == [1, 0]
        ):
            packet, target, arguments = _aten.t, _aten.t.default, arguments[:1]
        if packet is _aten.t and arguments[0].node.target is _aten.t.default:
            return Param(arguments[0].node.args[0], tuple(value.shape), value.dtype)
        key = (target, _key(arguments), _key(options))
        if key not in self._prepared:
            made = self.before.call_function(target, _nodes(arguments), _nodes(options))
            if isinstance(value, (list, tuple)):
                parts = [
                    Param(self._item(self.before, made, i), tuple(v.shape), v.dtype)
                    for i, v in enumerate(value)
                ]
                self._prepared[key] = parts  # type: ignore[assignment]  # some operators give several
            else:
                self._prepared[key] = Param(made, tuple(value.shape), value.dtype)
        return self._prepared[key]

    def _item(self, graph: Graph, node: Node, index: int) -> Node:
        import operator

        return graph.call_function(operator.getitem, (node, index))

    # -- after the loop --------------------------------------------------------------------------

    def _afterwards(self, node: Node, value: Any, arguments: list[Any], options: Any) -> Any:
        packet = overload_packet(node)
        everything = [*_flat(arguments), *_flat(list(options.values()))]
        if packet not in LINEAR or any(isinstance(a, Rows) for a in everything):
            raise Refusal(Reason.LANES, name_of(node))
        if packet in (_aten.alias, _aten.detach):
            return arguments[0]
        if packet is _aten.t or (
            packet is _aten.permute and [d % 2 for d in arguments[1]] == [1, 0]
        ):
            return self._turned(arguments[0], value)
        extra = {id(p): self._extra(p) for p in everything if isinstance(p, Param)}

        def inside(argument: Any) -> Any:
            if isinstance(argument, list):
                return [inside(a) for a in argument]
            if isinstance(argument, Param):
                return extra[id(argument)]
            return argument.node if isinstance(argument, Contraction) else argument

        return self.crossed(node.target, tuple(inside(a) for a in arguments), value.shape, options)

    def _turned(self, value: Contraction, shape: Any) -> Contraction:
        """The transpose of a product is the product of the transposes, and is contiguous."""
        if value.node.target is torch.mm:
            a, b = value.node.args
            return self.crossed(torch.mm, (self.transposed(b), self.transposed(a)), shape.shape)
        return Contraction(self.transposed(value.node), tuple(shape.shape))

    def transposed(self, node: Any) -> Node:
        """The transpose of a node of the after-graph, twice being none."""
        if node.op == "call_method" and node.target == "t":
            before: Node = node.args[0]
            return before
        return self.after.call_method("t", (node,))

    def crossed(
        self, target: Any, arguments: tuple[Any, ...], shape: Any, options: Any = None
    ) -> Contraction:
        """A call after the loop; the same call is made once."""
        key = (target, _key(list(arguments)), _key(options or {}))
        if key not in self._finished:
            made = self.after.call_function(target, arguments, options or {})
            self._finished[key] = Contraction(made, tuple(shape))
        return self._finished[key]

    def method(self, name: str, node: Node, *arguments: Any) -> Node:
        """A method call in the after-graph."""
        return self.after.call_method(name, (node, *arguments))

    def gather(self, columns: Columns) -> Node:
        """The array [steps * lanes, width] of some rows, for products after the loop."""
        operand = self.builder.contiguous(columns)
        if operand not in self.gathered:
            self.gathered.append(operand)
            self.gathered_nodes.append(self.after.placeholder(f"rows{len(self.gathered) - 1}"))
        return self.gathered_nodes[self.gathered.index(operand)]

    def _extra(self, param: Param) -> Node:
        for known, node in zip(self.extras, self._extra_nodes, strict=True):
            if known.node is param.node:
                return node
        self.extras.append(param)
        self._extra_nodes.append(self.after.placeholder(f"extra{len(self.extras) - 1}"))
        return self._extra_nodes[-1]

    # -- parameters ------------------------------------------------------------------------------

    def matrix(self, param: Param) -> int:
        """The number of a matrix that the step multiplies by."""
        param = self._in_dtype(param)
        for i, known in enumerate(self.matrices):
            if known.node is param.node:
                return i
        self.matrices.append(param)
        return len(self.matrices) - 1

    def _in_dtype(self, param: Param) -> Param:
        """The same numbers as the step computes with them: truths are 0 and 1."""
        if param.dtype is self.dtype:
            return param
        options: Any = {"dtype": self.dtype}
        key = (_aten._to_copy.default, param.node)
        if key not in self._prepared:
            made = self.before.call_function(_aten._to_copy.default, (param.node,), options)
            self._prepared[key] = Param(made, param.shape, self.dtype)
        return self._prepared[key]

    def as_rows(self, argument: Any) -> Rows:
        """Any argument of a pointwise operator as rows."""
        if isinstance(argument, Rows):
            return argument
        if isinstance(argument, (bool, int, float)):
            return Rows(self.builder.columns_of(float(argument)), -1)
        if not isinstance(argument, Param):
            raise Refusal(Reason.OPERATOR, str(argument))
        argument = self._in_dtype(argument)
        index = next(
            (i for i, u in enumerate(self.units) if u.node is argument.node), len(self.units)
        )
        if index == len(self.units):
            self.units.append(argument)
        width = int(np.prod(argument.shape)) if argument.shape else 1
        columns = self.builder.columns_of(Value("unit", index, width))
        return Rows(columns.reshape(argument.shape or (1,)), -1)


LINEAR = frozenset(
    {
        _aten.t,
        _aten.transpose,
        _aten.permute,
        _aten.view,
        _aten.reshape,
        _aten._unsafe_view,
        _aten.slice,
        _aten.select,
        _aten.unsqueeze,
        _aten.squeeze,
        _aten.expand,
        _aten.alias,
        _aten.add,
        _aten.sub,
        _aten.neg,
        _aten.mul,
        _aten.div,
        _aten.sum,
        _aten.clone,
        _aten.slice_scatter,
        _aten.cat,
        _aten.select_scatter,
        _aten.constant_pad_nd,
        _aten.detach,
        _aten.mm,
        _aten.split_with_sizes,
    }
)
"""What may follow a sum over the lanes: linear, so that the sum over time may come first."""


def _flat(values: list[Any]) -> list[Any]:
    return [x for v in values for x in (_flat(v) if isinstance(v, list) else [v])]


def _flat_params(values: list[Any]) -> list[Param]:
    return [v for v in _flat(values) if isinstance(v, Param)]


def _has_lanes(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(v, Tensor) and LANES[0] in v.shape for v in values)


def _nodes(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_nodes(v) for v in value)
    if isinstance(value, dict):
        return {k: _nodes(v) for k, v in value.items()}
    return value.node if isinstance(value, (Param, Contraction)) else value


def _key(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, (Param, Contraction)):
        return value.node
    return (type(value), value)
