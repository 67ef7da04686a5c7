"""Straight-line PyTorch around a step, as instructions on buffers that the core can run by itself.

What is derived from parameters before a window (transposes, slices, sums of biases) and what makes
their gradients out of rows after it are graphs of a few operators. They are walked with dummy
tensors: an operator that gives a view needs no instruction, as the dummy's strides say where its
elements lie; every other one gets a buffer of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from bptt.engine.online.plan import Place, View
from bptt.engine.unsupported import Reason, Refusal


@dataclass(frozen=True, eq=False)
class RowsOf:
    """An array of rows [rows, width] as a graph after the loop sees it, or its transpose."""

    place: Place
    domain: str
    turned: bool = False


@dataclass(eq=False)
class Fixed:
    """One instruction: ``kind`` is pointwise, sum, product or cross (a sum over rows)."""

    kind: str
    opcode: str
    result: Tensor
    operands: list[Tensor | float] = field(default_factory=list)
    left: RowsOf | None = None
    right: RowsOf | None = None
    scaled: bool = False


_POINTWISE = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "neg": "neg",
    "abs": "abs",
    "sign": "sign",
    "reciprocal": "reciprocal",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "softplus": "softplus",
    "erf": "erf",
    "pow": "pow",
    "clone": "copy",
    "contiguous": "copy",
}

_VIEWS = frozenset(
    (
        "t",
        "transpose",
        "permute",
        "view",
        "_unsafe_view",
        "reshape",
        "slice",
        "select",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "chunk",
        "unsafe_chunk",
        "unbind",
        "unsqueeze",
        "squeeze",
        "expand",
        "alias",
        "detach",
        "narrow",
        "getitem",
    )
)

_CONSTANTS = frozenset(
    ("full", "zeros", "ones", "scalar_tensor", "zeros_like", "ones_like", "full_like")
)


class Buffers:
    """Buffers and the dummies that stand for them; instructions in order, in the hands of the
    caller."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.sizes: list[int] = []
        self.values: dict[int, Tensor] = {}
        self._dummies: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def new(self, *shape: int) -> Tensor:
        """A dummy with a buffer of its own, zero at first."""
        dummy = torch.zeros(max(1, torch.Size(shape).numel()), dtype=self.dtype)
        self._numbers[dummy.untyped_storage().data_ptr()] = len(self.sizes)
        self.sizes.append(dummy.numel())
        self._dummies.append(dummy)
        return dummy[: torch.Size(shape).numel()].view(shape)

    def constant(self, value: Tensor) -> Tensor:
        """A dummy whose buffer holds these values."""
        dummy = self.new(*value.shape)
        dummy.copy_(value)
        self.values[self.number(dummy)] = value.detach().to(self.dtype).reshape(-1).contiguous()
        return dummy

    def number(self, dummy: Tensor) -> int:
        """The buffer that a dummy lies in."""
        return self._numbers[dummy.untyped_storage().data_ptr()]

    def same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two dummies lie in one buffer."""
        return self.number(one) == self.number(other)

    def is_whole(self, dummy: Tensor) -> bool:
        """Whether a dummy is all of its buffer, in order."""
        return dummy.is_contiguous() and dummy.numel() == self.sizes[self.number(dummy)]

    def view(self, dummy: Tensor) -> View:
        """Where a dummy's elements lie."""
        if dummy.dim() > 2:
            raise Refusal(Reason.OPERATOR, "parameters of more than two dimensions")
        shape = (1,) * (2 - dummy.dim()) + tuple(dummy.shape)
        strides = (0,) * (2 - dummy.dim()) + tuple(int(s) for s in dummy.stride())
        rows, columns = (0 if n == 1 else s for n, s in zip(shape, strides, strict=True))
        columns = 1 if shape[1] == 1 else columns
        return View(
            self.number(dummy),
            int(dummy.storage_offset()),
            shape[0],
            shape[1],
            int(rows),
            int(columns),
        )


class Recorder:
    """Walks a graph and records what is no view."""

    def __init__(self, buffers: Buffers, *, scaled: bool = False) -> None:
        self.buffers = buffers
        self.scaled = scaled
        self.recorded: list[Fixed] = []

    def walk(self, module: GraphModule, inputs: list[Any]) -> list[Any]:
        """The graph's results for these inputs: dummies, and rows where it may have them.

        Raises:
            Refusal: an operator that is not known here.
        """
        known: dict[Node, Any] = {}
        waiting = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(waiting)
            elif node.op == "get_attr":
                known[node] = self.buffers.constant(getattr(module, str(node.target)))
            elif node.op in ("call_function", "call_method"):
                known[node] = self._call(node, known)
        results = module.graph.output_node().args[0]
        return [known[r] if isinstance(r, Node) else r for r in results]  # type: ignore[union-attr]  # torch.fx types its arguments as anything

    def _call(self, node: Node, known: dict[Node, Any]) -> Any:
        packet = getattr(node.target, "overloadpacket", node.target)
        name = packet if isinstance(packet, str) else getattr(packet, "__name__", str(packet))
        arguments = torch.fx.node.map_arg(node.args, lambda n: known[n])
        options = dict(torch.fx.node.map_arg(node.kwargs, lambda n: known[n]))
        flat = torch.utils._pytree.tree_leaves((arguments, options))
        if any(isinstance(a, RowsOf) for a in flat):
            return self._of_rows(name, arguments)
        run: Callable[..., Any] = (
            getattr(torch.Tensor, name) if isinstance(node.target, str) else node.target
        )
        if name in _VIEWS:
            return self._view(run, arguments, options)
        if name in _CONSTANTS:
            return self.buffers.constant(run(*arguments, **options))
        if name in _POINTWISE:
            return self._pointwise(name, arguments, options)
        special = getattr(self, f"_{name}", None)
        if special is None:
            raise Refusal(Reason.OPERATOR, f"{name} on parameters")
        return special(*arguments, **options)

    # -- parameters alone ------------------------------------------------------------------------

    def _view(self, run: Callable[..., Any], arguments: Any, options: Any) -> Any:
        result = run(*arguments, **options)
        if isinstance(result, Tensor) and isinstance(arguments[0], Tensor):
            if result.untyped_storage().data_ptr() != arguments[0].untyped_storage().data_ptr():
                whole = self.copied(arguments[0])  # a reshape that no strides can express
                return run(whole, *arguments[1:], **options)
        return result

    def copied(self, dummy: Tensor) -> Tensor:
        """The same elements, in order, in a buffer of their own."""
        return self.emit("copy", dummy.shape, [dummy])

    def emit(self, opcode: str, shape: Any, operands: list[Tensor | float]) -> Tensor:
        """A pointwise instruction into a new buffer."""
        result = self.buffers.new(*shape)
        self.into(opcode, result, operands)
        return result

    def into(self, opcode: str, result: Tensor, operands: list[Tensor | float]) -> None:
        """A pointwise instruction into a dummy that is there."""
        given = [a.expand(result.shape) if isinstance(a, Tensor) else float(a) for a in operands]
        self.recorded.append(Fixed("pointwise", opcode, result, given))

    def _pointwise(self, name: str, arguments: Any, options: Any) -> Tensor:
        alpha = options.pop("alpha", 1)
        options.pop("memory_format", None)
        if alpha != 1 or options:
            raise Refusal(Reason.OPERATOR, f"{name} with options on parameters")
        shapes = [a.shape for a in arguments if isinstance(a, Tensor)]
        shape = np.broadcast_shapes(*shapes)
        return self.emit(_POINTWISE[name], shape, list(arguments))

    def _slice_scatter(
        self,
        base: Tensor,
        source: Tensor,
        dim: int = 0,
        start: int | None = None,
        end: int | None = None,
        step: int = 1,
    ) -> Tensor:
        place = [slice(None)] * base.dim()
        place[dim] = slice(start, end, step)
        return self._put(base, source, tuple(place))

    def _select_scatter(self, base: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
        place: list[Any] = [slice(None)] * base.dim()
        place[dim] = index
        return self._put(base, source, tuple(place))

    def _put(self, base: Tensor, source: Tensor, place: Any) -> Tensor:
        values = self.buffers.values.get(self.buffers.number(base))
        if values is not None and not values.any():
            result = self.buffers.new(*base.shape)  # it stays zero elsewhere
        else:
            result = self.copied(base)
        self.into("copy", result[place], [source])
        return result

    def _constant_pad_nd(self, source: Tensor, pad: list[int], value: float = 0) -> Tensor:
        if value != 0 or any(p < 0 for p in pad):
            raise Refusal(Reason.OPERATOR, "constant_pad_nd on parameters")
        ahead = list(pad[::2])[::-1]
        behind = list(pad[1::2])[::-1]
        free = source.dim() - len(ahead)
        ahead, behind = [0] * free + ahead, [0] * free + behind
        shape = [n + a + b for n, a, b in zip(source.shape, ahead, behind, strict=True)]
        result = self.buffers.new(*shape)
        place = tuple(slice(a, a + n) for n, a in zip(source.shape, ahead, strict=True))
        self.into("copy", result[place], [source])
        return result

    def _cat(self, parts: list[Tensor], dim: int = 0) -> Tensor:
        result = self.buffers.new(*torch.cat(list(parts), dim).shape)
        start = 0
        for part in parts:
            self.into("copy", result.narrow(dim, start, part.shape[dim]), [part])
            start += part.shape[dim]
        return result

    def _mm(self, a: Tensor, b: Tensor) -> Tensor:
        result = self.buffers.new(a.shape[0], b.shape[1])
        self.recorded.append(Fixed("product", "matmul", result, [a, b]))
        return result

    def _sum(self, source: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        dims = range(source.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
        wanted = sorted(d % source.dim() for d in dims)
        found = source
        for d in reversed(wanted):
            found = self._sum_one(found, d)
        if keepdim:
            for d in wanted:
                found = found.unsqueeze(d)
        return found

    def _sum_one(self, source: Tensor, dim: int) -> Tensor:
        if source.dim() > 2:
            raise Refusal(Reason.OPERATOR, "sum on parameters of more than two dimensions")
        kept = source.t() if source.dim() == 2 and dim == 0 else source
        rows = kept.shape[0] if kept.dim() == 2 else 1
        result = self.buffers.new(rows, 1)
        self.recorded.append(Fixed("sum", "sum", result, [kept]))
        return result[:, 0] if source.dim() == 2 else result[0, 0]

    # -- rows ------------------------------------------------------------------------------------

    def _of_rows(self, name: str, arguments: Any) -> Any:
        first = arguments[0]
        if name == "t":
            return RowsOf(first.place, first.domain, not first.turned)
        if name == "sum" and not first.turned and arguments[1:2] in ((0,), ([0],)):
            kept = len(arguments) > 2 and bool(arguments[2])
            result = self.buffers.new(first.place.width)
            self._cross(result[:, None], first, None)
            return result[None] if kept else result
        if name == "mm" and isinstance(first, RowsOf) and isinstance(arguments[1], RowsOf):
            left, right = first, arguments[1]
            if left.turned and not right.turned:
                result = self.buffers.new(left.place.width, right.place.width)
                self._cross(result, left, right)
                return result
        raise Refusal(Reason.OPERATOR, f"{name} over all steps")

    def _cross(self, result: Tensor, left: RowsOf, right: RowsOf | None) -> None:
        self.recorded.append(
            Fixed("cross", "cross", result, left=left, right=right, scaled=self.scaled)
        )
