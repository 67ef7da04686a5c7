"""A call of one lane, served by the graph of any number of them.

Dynamo takes a size of one for a constant: the graph of one lane has a 1 where the step has the
number of lanes (``x.view(len(x), heads, -1)``), and cannot be traced with other numbers. Where the
graph of several lanes computes the same for one lane, operator by operator, its program
serves both.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.fx import GraphModule

from bptt.engine.frontend.capture import Captured
from bptt.engine.frontend.graph import Kind, same_constant, traced_with
from bptt.engine.unsupported import Refusal


def serves(
    several: Captured, one: Captured, tensors: Sequence[Tensor], rows: Sequence[Kind]
) -> bool:
    """Whether the graph of ``several`` lanes is the same as that of ``one`` where there is one.

    ``tensors`` are what ``one`` reads in this call, ``rows`` the kinds of what has a row a lane.
    """
    if one.sources != several.sources or one.numbers or several.numbers:
        return False
    try:
        return _same(*(traced_with(graph.step(tensors, rows), 1) for graph in (one, several)))
    except Refusal:
        return False


def _same(one: GraphModule, other: GraphModule) -> bool:
    """Whether two traces are the same operators on the same tensors."""
    ours, theirs = list(one.graph.nodes), list(other.graph.nodes)
    if [n.format_node() for n in ours] != [n.format_node() for n in theirs]:
        return False
    return all(
        same_constant(one, n, other, m)
        for n, m in zip(ours, theirs, strict=True)
        if n.op == "get_attr"
    )
