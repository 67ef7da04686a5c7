"""A step's output: a leaf of the state, or what the cell's own ``output`` makes of it."""

from __future__ import annotations

from torch import Tensor, nn

from bptt.cells._stack import output_of
from bptt.engine.eager import _nothing
from bptt.state import State, leaves, map_state


def output_leaf(cell: nn.Module, state: State) -> int | None:
    """Which leaf of the state is the output of a step, None if it is none of them."""
    given = leaves(state)
    result = output_of(cell, state)
    return next((j for j, leaf in enumerate(given) if leaf is result), None)


def outputs_of(cell: nn.Module, states: State) -> Tensor:
    """The outputs of all steps, from states with leaves [T, B, ...], all at once."""
    steps, batch = leaves(states)[0].shape[:2]
    if not steps:
        return _nothing(cell, map_state(lambda s: s.new_zeros(s.shape[1:]), states), False)[0]
    flat = map_state(lambda s: s.reshape(steps * batch, *s.shape[2:]), states)
    result = output_of(cell, flat)
    return result.reshape(steps, batch, *result.shape[1:])
