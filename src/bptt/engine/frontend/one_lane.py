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

from bptt.engine.frontend.capture import Captured, General
from bptt.engine.frontend.graph import Kind, Step, same_constant, traced_with
from bptt.engine.unsupported import Refusal


def general_of(
    one: Captured,
    tensors: Sequence[Tensor],
    several: Captured,
    rows: Sequence[Kind],
) -> General:
    """What serves the graph ``one`` of a single lane: ``several``, if it is the same there.

    ``tensors`` are what ``one`` reads in this call, ``rows`` the kinds of what has a row a lane.
    """
    if sorted(one.sources) != sorted(several.sources) or one.numbers != several.numbers:
        return General()
    held = range(len(one.sources), len(tensors))
    places = (*map(one.sources.index, several.sources), *held)
    step, alone = several.step([tensors[i] for i in places], rows), one.step(tensors, rows)

    def run(lanes: int, given: Sequence[Tensor], entering: Sequence[Tensor]) -> list[Tensor]:
        """The one lane's, of tensors in the order of the other."""
        return alone.run(lanes, [given[places.index(i)] for i in range(len(given))], entering)

    ours = Step(run, step.names, step.sources, step.rows)
    try:
        same = _same(traced_with(ours, 1), traced_with(step, 1))
    except Refusal:
        same = False
    return General(several, places) if same else General()


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
