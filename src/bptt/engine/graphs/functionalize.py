"""Single assignments: operators that write in place become operators that give a new value.

Nodes of a trace may name the same memory. Here each memory has a root (the node that first owned
it), whole names of it, and views of it. A write gives the memory a new value: later readers of any
whole name read that instead; a view taken before, and read after, has no value of its own any more
and is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

from bptt.engine.graphs.nodes import name_of, where_is
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten

_SAME = (_aten.alias.default, _aten.detach.default)
_SCATTER = {
    _aten.slice.Tensor: _aten.slice_scatter.default,
    _aten.select.int: _aten.select_scatter.default,
}


class _Memories:
    """What is known of each memory while the graph is walked."""

    def __init__(self) -> None:
        self.root: dict[Node, Node] = {}
        self.whole: dict[Node, bool] = {}
        self.latest: dict[Node, Node] = {}
        self.stale: set[Node] = set()

    def enter(self, node: Node) -> None:
        """A node that writes nothing: which memory its value lies in."""
        source = _aliased(node, self.root)
        if source is None:
            self.root[node], self.whole[node] = node, True
            return
        self.root[node] = self.root[source]
        self.whole[node] = self.whole[source] and node.target in _SAME

    def reading(self, node: Node, reader: Node) -> Node:
        """The node to read in place of this one."""
        root = self.root[node]
        if node in self.stale:
            raise Refusal(
                Reason.OPERATOR, f"{name_of(reader)} of a view written to since", where_is(reader)
            )
        return self.latest.get(root, node) if self.whole[node] else node

    def written(self, root: Node, value: Node) -> None:
        """The memory of ``root`` has a new value."""
        self.stale.update(n for n, r in self.root.items() if r is root and not self.whole[n])
        self.latest[root] = value
        self.root[value], self.whole[value] = root, True


def _aliased(node: Node, roots: dict[Node, Node]) -> Node | None:
    """The argument that a node's value shares memory with."""
    if getattr(node.target, "__name__", "") == "getitem":
        several: Node = node.args[0]  # type: ignore[assignment]  # torch.fx types its arguments as anything
        return several if roots[several] is not several else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or not isinstance(node.args[0], Node):
        return None
    return node.args[0] if any(r.alias_info is not None for r in schema.returns) else None


def without_writes(graph: Graph) -> None:
    """Rewrite a graph in place.

    Raises:
        Refusal: a write to what the graph was given, or one that cannot be told as a new value.
    """
    memories = _Memories()
    for node in list(graph.nodes):
        for argument in node.all_input_nodes:
            latest = memories.reading(argument, node)
            if latest is not argument and not _writes(node, argument):
                node.replace_input_with(argument, latest)
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            _rewrite(graph, node, memories)
        else:
            memories.enter(node)


def _writes(node: Node, argument: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable and node.args[0] is argument)


def _rewrite(graph: Graph, node: Node, memories: _Memories) -> None:
    target = node.args[0]
    assert isinstance(target, Node)
    root, whole = memories.root[target], memories.whole[target]
    if root.op in ("placeholder", "get_attr"):
        raise Refusal(
            Reason.MUTATION, f"{name_of(node)} on what the cell was given", where_is(node)
        )
    if whole:
        node.replace_input_with(target, memories.latest.get(root, target))
    _make_functional(node, target)
    if whole:
        memories.written(root, node)
        return
    view: Any = target.target
    scatter = _SCATTER.get(view)
    base = target.args[0]
    if scatter is None or not isinstance(base, Node) or not memories.whole[base]:
        raise Refusal(Reason.OPERATOR, f"{name_of(node)} into a view", where_is(node))
    with graph.inserting_after(node):
        whole_now = memories.latest.get(root, root)
        placed = graph.call_function(scatter, (whole_now, node, *target.args[1:]))
        placed.meta = {"val": root.meta["val"], "stack_trace": node.meta.get("stack_trace")}
    memories.root[node], memories.whole[node] = node, True
    memories.written(root, placed)


OVERWRITES = "overwrites"
"""In the meta of what was put in the place of other values: autograd goes on to those, with zeros,
where the graph no longer does."""


def _make_functional(node: Node, target: Node) -> None:
    packet = getattr(node.target, "overloadpacket", node.target)
    name, overload = str(packet).split(".")[-1], getattr(node.target, "_overloadname", "")
    if name in ("copy_", "fill_", "zero_"):
        node.meta[OVERWRITES] = True
    if name == "copy_":
        node.target = _aten.expand.default
        node.args = (node.args[1], list(target.meta["val"].shape))
        return
    if name == "fill_" and isinstance(node.args[1], Node):  # one number in a tensor
        node.target = _aten.expand.default
        node.args = (node.args[1], list(target.meta["val"].shape))
        return
    if name in ("fill_", "zero_"):
        node.target = _aten.full_like.default
        node.args = (target, node.args[1] if name == "fill_" else 0.0)
        return
    twin = getattr(getattr(_aten, name.rstrip("_"), None), overload, None)
    if not name.endswith("_") or twin is None:
        raise Refusal(Reason.OPERATOR, name_of(node), where_is(node))
    node.target = twin
