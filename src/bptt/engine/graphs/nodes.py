"""Small questions to nodes of a trace."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Graph, Node

from bptt.engine.unsupported import line_of_trace

LANES = (100_003, 99_991)
"""The numbers of lanes in the two traces: primes, far from the size of any layer."""


def overload_packet(node: Node) -> Any:
    """The operator of a node without its overload: ``aten.add`` of ``aten.add.Tensor``."""
    return getattr(node.target, "overloadpacket", node.target)


def name_of(node: Node) -> str:
    """An operator's name as PyTorch prints it, without its overload."""
    if node.op != "call_function":
        return str(node.target)
    return str(overload_packet(node)).replace("aten.", "aten::")


def where_is(node: Node) -> str | None:
    """The cell's source line of a node."""
    return line_of_trace(node.meta.get("stack_trace"))


def lane_axis(node: Node) -> int | None:
    """The dimension of a node's value that counts lanes."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    axes = [i for i, n in enumerate(value.shape) if n == LANES[0]]
    return axes[0] if axes else None


def arguments(node: Node) -> Any:
    """The arguments of a node, for who knows their types from its operator."""
    return node.args


def ends(graph: Graph) -> list[Any]:
    """What a graph returns."""
    return list(arguments(graph.output_node())[0])


def placeholders(graph: Graph) -> list[Node]:
    """What a graph is given."""
    return list(graph.find_nodes(op="placeholder"))
