"""A step's output where it is not a leaf of the state: what the cell's ``output`` makes of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bptt.cells._stack import output_of
from bptt.engine.backends.eager import _nothing
from bptt.engine.frontend.graph import RowFunction
from bptt.state import State, leaves, map_state


def outputs_by(
    function: RowFunction, tensors: list[Tensor], states: State, start: list[Tensor]
) -> Tensor:
    """The outputs of all steps by the captured function, from states with leaves [T, B, ...] and
    the ``tensors`` that it reads; ``start`` tells their shape where there are no steps."""
    each = leaves(states)
    steps, batch = each[0].shape[:2]
    if not steps:
        with torch.no_grad():
            one = function(tensors, start)
        return one.new_empty((0, *one.shape))
    result = function(tensors, [leaf.reshape(steps * batch, *leaf.shape[2:]) for leaf in each])
    if not _is_fresh(result):
        result = result.clone()
    return result.reshape(steps, batch, *result.shape[1:])


_FRESH = frozenset(
    {"AddBackward0", "AddmmBackward0", "MmBackward0", "MulBackward0", "SubBackward0"}
)
"""What gives new memory, and does not read it again for its gradient."""


def outputs_of(cell: nn.Module, states: State) -> Tensor:
    """The outputs of all steps, from states with leaves [T, B, ...], all at once; they may be
    changed in place."""
    steps, batch = leaves(states)[0].shape[:2]
    if not steps:
        return _nothing(cell, map_state(lambda s: s.new_zeros(s.shape[1:]), states), False)[0]
    flat = map_state(lambda s: s.reshape(steps * batch, *s.shape[2:]), states)
    result = output_of(cell, flat)
    if not _is_fresh(result):
        result = result.clone()
    return result.reshape(steps, batch, *result.shape[1:])


def _is_fresh(result: Tensor) -> bool:
    """Whether neither the graph nor a state shares the memory of what a cell made."""
    if result.grad_fn is not None:
        return result.grad_fn.name() in _FRESH
    return not torch.is_grad_enabled() and not result._is_view()
