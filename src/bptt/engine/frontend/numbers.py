"""Python's numbers that change from call to call, in a captured step.

Dynamo takes such a number for an input, a tensor, and notes what the step computes of it. That is
computed in each call as Python does, and what meets a tensor is given to the program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from bptt.engine import _torch_compat as compat
from bptt.engine.graphs.nodes import name_of, placeholders, where_is
from bptt.engine.unsupported import Reason, Refusal

_ARITHMETIC = frozenset(
    name
    for base in ("add", "sub", "mul", "truediv", "div", "true_divide")
    for name in (base, f"i{base}", f"{base}_", f"__{base}__", f"__r{base}__", f"__i{base}__")
)
"""Operators that take a tensor of the other one's dtype as they take a number of Python's."""


@dataclass(frozen=True)
class Numbers:
    """What a graph computes of such numbers.

    Attributes:
        given: the graph's inputs that are numbers.
        computed: places of the nodes that compute numbers of them.
        ends: places of those that meet a tensor, and its dtype.
        names: of the ends.
    """

    given: tuple[int, ...] = ()
    computed: tuple[int, ...] = ()
    ends: tuple[tuple[int, torch.dtype], ...] = ()
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.ends)

    @staticmethod
    def of(module: GraphModule, given: Sequence[bool]) -> Numbers:
        """Those of a graph that was captured just now, and which of its inputs are numbers.

        Raises:
            Refusal: a number is used in a way in which a tensor would give another result.
        """
        nodes = list(module.graph.nodes)
        inputs = placeholders(module.graph)
        numbers = {node for node, is_number in zip(inputs, given, strict=True) if is_number}
        computed: list[int] = []
        ends: dict[int, torch.dtype] = {}
        for place, node in enumerate(nodes):
            met = [one for one in node.all_input_nodes if one in numbers]
            if not met:
                continue
            if node.op != "output" and not isinstance(compat.example_of(node), Tensor):
                if len(met) < len(node.all_input_nodes):
                    raise Refusal(Reason.LANES, "a number made of the number of lanes")
                numbers.add(node)
                computed.append(place)
                continue
            for one in met:
                dtype = _dtype_beside(node, one)
                if ends.setdefault(nodes.index(one), dtype) is not dtype:
                    raise _changing(node)
        names = tuple(nodes[place].name for place in ends)
        held = tuple(i for i, is_number in enumerate(given) if is_number)
        return Numbers(held, tuple(computed), tuple(ends.items()), names)

    def values(self, module: GraphModule, flat: Sequence[Any]) -> list[Tensor]:
        """The ends in a call with these inputs.

        Raises:
            Refusal: one of them is beyond what its dtype can hold.
        """
        nodes = list(module.graph.nodes)
        inputs = placeholders(module.graph)
        known: dict[Node, Any] = {inputs[i]: flat[i] for i in self.given}
        for place in self.computed:
            node = nodes[place]
            arguments = map_arg(node.args, known.__getitem__)
            options = map_arg(node.kwargs, known.__getitem__)
            if node.op == "call_method":
                known[node] = getattr(arguments[0], str(node.target))(*arguments[1:], **options)
            else:
                known[node] = node.target(*arguments, **options)
        found = []
        for place, dtype in self.ends:
            number = known[nodes[place]]
            if torch.finfo(dtype).max < abs(number) < math.inf:
                raise Refusal(Reason.CONTEXT, f"the number {number}, which {dtype} cannot hold")
            found.append(torch.tensor(number, dtype=dtype))
        return found

    def in_place(self, module: GraphModule, values: Sequence[Tensor]) -> dict[Node, Any] | None:
        """What the graph need not compute: numbers, and tensors in place of the ends."""
        if not self.computed:
            return None
        nodes = list(module.graph.nodes)
        found: dict[Node, Any] = {nodes[place]: None for place in self.computed}
        for (place, _), value in zip(self.ends, values, strict=True):
            found[nodes[place]] = value
        return found


def _dtype_beside(node: Node, number: Node) -> torch.dtype:
    """The dtype of the tensor that a number meets, which is that of their result."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op == "output" or name not in _ARITHMETIC or number not in node.args:
        raise _changing(node)
    others = [one for one in node.all_input_nodes if one is not number]
    value: Tensor = compat.example_of(node)
    if not all(
        isinstance(compat.example_of(one), Tensor) and compat.example_of(one).dtype is value.dtype
        for one in others
    ):
        raise _changing(node)
    if not value.dtype.is_floating_point or not isinstance(
        compat.example_of(number), torch.SymFloat
    ):
        raise _changing(node)
    return value.dtype


def _changing(node: Node) -> Refusal:
    what = "what it returns" if node.op == "output" else name_of(node)
    return Refusal(
        Reason.MUTATION, f"a number that changes from call to call, in {what}", where_is(node)
    )
