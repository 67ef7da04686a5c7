"""Runs of one lane each, unfolded side by side as the lanes of one, and differentiated one by one.

One lane is a product of one row a step, which takes as long as the weights take to come out of the
cache; a few rows take little longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bptt.engine.runtime import native
from bptt.engine.runtime.compile_cache import Plan
from bptt.engine.runtime.loop import Call, Ran, forward_loop
from bptt.engine.runtime.primals import primals_of
from bptt.state import State, leaves

ROWS = 4
"""Rows whose results the core's products keep in registers while they read the weights once."""


def run(
    cell: nn.Module,
    inputs: Sequence[Tensor],
    states: Sequence[State],
    *,
    initials: Sequence[State],
    resets: Sequence[Tensor | None],
    clip: float | None,
    plan: Plan,
) -> list[tuple[Tensor, State]]:
    """The outputs and the last state of each run; see `bptt.engine.runtime.native.run`.

    Args:
        cell: the cell.
        inputs: of each run, [T, 1, ...], all equally long.
        states: of each run, leaves [1, n].
        initials: of each run, what resets return to, leaves [1, n]: all the same values.
        resets: of each run, bool [T, 1], or None.
        clip: see `bptt.unfold`.
        plan: of each, one that runs whole.
    """
    results, kept = _joined(inputs, states, initials[0], resets, clip, plan)
    exposed = len(results) - plan.convention.leaves
    found = []
    runs = zip(inputs, states, initials, resets, strict=True)
    for i, (own, state, initial, reset) in enumerate(runs):
        lane = slice(i, i + 1)
        results_ = [r[:, lane] if j < exposed else r[lane] for j, r in enumerate(results)]
        outputs, last, _ = native.run(
            cell,
            own,
            state,
            initial=initial,
            reset=reset,
            lengths=None,
            return_states=False,
            clip=clip,
            plan=plan,
            ran=(results_, [array[:, lane] for array in kept]),
        )
        found.append((outputs, last))
    return found


@torch.no_grad()
def _joined(
    inputs: Sequence[Tensor],
    states: Sequence[State],
    initial: State,
    resets: Sequence[Tensor | None],
    clip: float | None,
    plan: Plan,
) -> Ran:
    """All in one loop."""
    steps, lanes = inputs[0].shape[0], len(inputs)
    start = [torch.cat(rows) for rows in zip(*map(leaves, states), strict=True)]
    back = [leaf.expand(lanes, -1).contiguous() for leaf in leaves(initial)]
    reset = None
    if any(mask is not None for mask in resets):
        none = torch.zeros(steps, 1, dtype=torch.bool)
        reset = torch.cat([none if mask is None else mask for mask in resets], dim=1)
    count = plan.convention.leaves
    exposed = (plan.output,) if isinstance(plan.output, int) else tuple(range(count))
    call = Call(plan, steps, lanes, start, back, reset, None, clip, exposed, states[0])
    return forward_loop(call, primals_of(plan, torch.cat(list(inputs), dim=1)))
