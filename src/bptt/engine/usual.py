"""What need not be found anew in every call.

On a short window the loop takes a few microseconds; to check arguments, to allocate zeros to start
from and to look a plan up by all that it depends on takes some thirty.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from bptt.cells import LSTM, Embedded, Stack
from bptt.engine.plans import KNOWN, Plan, context_of_call, plan_for
from bptt.engine.reasons import Ineligible
from bptt.state import State, initial_state, leaves, optional


class Usual:
    """Calls of an unchanged cell with inputs of one kind, known to fit it.

    Args:
        cell: the cell; it is not kept alive.
    """

    __slots__ = ("_cell", "_lanes", "_plans", "_zero", "_zeros")

    def __init__(self, cell: nn.Module) -> None:
        self._cell = weakref.ref(cell)
        self._plans: dict[Any, Plan] = {}
        self._zero = _starts_at_zero(cell)
        self._zeros: State | None = None
        self._lanes = -1

    def initial(self, inputs: Tensor, lanes: int) -> State:
        """As `bptt.state.initial_state`, but nobody may change it in place."""
        if lanes == self._lanes:
            assert self._zeros is not None
            return self._zeros
        with torch.inference_mode(False):  # it outlives the mode of this call
            state = initial_state(self._own(), lanes, like=inputs)
        if self._zero:
            self._zeros, self._lanes = state, lanes
        return state

    def plan(self, inputs: Tensor, state: State, initial: State) -> Plan | Ineligible:
        """As `bptt.engine.plans.plan_for`."""
        grad = torch.is_grad_enabled()
        key: Any = (grad, grad and inputs.requires_grad)
        if state is not self._zeros or initial is not state:
            given = leaves(state)
            needs = grad and any(s.requires_grad for s in (*given, *leaves(initial)))
            key = (*key, needs, *[(s.shape[1:], s.dtype, type(s)) for s in given])
        found = self._plans.get(key)
        if found is None:
            made = plan_for(self._own(), inputs, state, initial)
            if isinstance(made, Ineligible):
                return made
            found = self._plans[key] = made
        return found

    def _own(self) -> nn.Module:
        cell = self._cell()
        assert cell is not None  # it is being called
        return cell


def usual_of(cell: nn.Module, inputs: Tensor) -> Usual | None:
    """What `keep` kept of such a call; None if nothing, the cell has changed since, or PyTorch is
    in a mode of which plans know nothing."""
    known = KNOWN.get(cell)
    if known is None or not known.usual or context_of_call() is not None:
        return None
    assert known.guard is not None
    return known.usual.get(_kind(inputs)) if known.guard.holds() else None


def keep(cell: nn.Module, inputs: Tensor) -> None:
    """Remember that a cell has a plan, and fits such inputs."""
    known = KNOWN.get(cell)
    if known is not None:
        known.usual.setdefault(_kind(inputs), Usual(cell))


def _kind(inputs: Tensor) -> Any:
    shape = inputs.shape
    return len(shape), shape[2:], inputs.dtype, inputs.device, type(inputs)


def _starts_at_zero(cell: nn.Module) -> bool:
    """Whether its initial state is always the same zeros; what a user's own method gives may
    change."""
    if optional(cell, "initial_state") is None:
        return True
    if "initial_state" in cell.__dict__:
        return False
    own: Any = getattr(type(cell), "initial_state", None)
    if own is Stack.initial_state:
        return all(map(_starts_at_zero, cell.cells))  # type: ignore[arg-type]  # it is a Stack
    if own is Embedded.initial_state:
        return _starts_at_zero(cell.cell)  # type: ignore[arg-type]  # an Embedded
    return own is LSTM.initial_state
