"""What need not be found anew in every call.

On a short window the loop takes a few microseconds; to check arguments, to allocate zeros to start
from and to look a plan up by all that it depends on takes some thirty.
"""

from __future__ import annotations

import atexit
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from bptt._identity import ByIdentity
from bptt.cells import LSTM, Embedded, Stack
from bptt.engine._torch_compat import is_compiling
from bptt.engine.frontend import BuiltIn, built_in_of
from bptt.engine.runtime.compile_cache import Plan, context_of_call, plan_for
from bptt.engine.unsupported import Unsupported
from bptt.state import State, initial_state, leaves, optional, weight_of


class Dispatch:
    """Calls of a cell with inputs of one kind, known to fit it.

    Args:
        cell: the cell; it is not kept alive.
        inputs: such inputs.
        built_in: what is known of it, if its code is known.
        least: see `bptt.engine.runtime.compile_cache.Plan`.
    """

    __slots__ = ("_built_in", "_cell", "_lanes", "_plans", "_told", "_zero", "_zeros", "least")

    def __init__(
        self, cell: nn.Module, inputs: Tensor, built_in: BuiltIn | None, least: int
    ) -> None:
        self.least = least
        self._cell = weakref.ref(cell)
        self._built_in, self._told = built_in, _told(cell, inputs)
        self._plans: dict[Any, Plan] = {}
        self._zero = _starts_at_zero(cell)
        self._zeros: State | None = None
        self._lanes = -1

    def holds(self, cell: nn.Module, inputs: Tensor) -> bool:
        """Whether what the checks of arguments look at is as it was."""
        if self._built_in is not None:
            return self._built_in.holds(cell)
        return bool(self._told == _told(cell, inputs))

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

    def plan(self, inputs: Tensor, state: State, initial: State) -> Plan | Unsupported:
        """As `bptt.engine.runtime.compile_cache.plan_for`."""
        if self._built_in is None:
            return plan_for(self._own(), inputs, state, initial)
        grad = torch.is_grad_enabled()
        key: Any = (grad, grad and inputs.requires_grad)
        if state is not self._zeros or initial is not state:
            given = leaves(state)
            needs = grad and any(s.requires_grad for s in (*given, *leaves(initial)))
            key = (*key, needs, *[(s.shape[1:], s.dtype, type(s)) for s in given])
        found = self._plans.get(key)
        if found is not None:
            tensors = self._built_in.tensors()
            return found.bound(tensors, tensors)
        made = plan_for(self._own(), inputs, state, initial)
        if isinstance(made, Plan):
            self._plans[key] = made
        return made

    def _own(self) -> nn.Module:
        cell = self._cell()
        assert cell is not None  # it is being called
        return cell


_KNOWN: ByIdentity[dict[Any, Dispatch]] = ByIdentity()
atexit.register(_KNOWN.clear)  # the core's programs go before the core does


def dispatch_of(cell: nn.Module, inputs: Tensor) -> Dispatch | None:
    """What `keep` kept of such a call; None if nothing, the cell has changed since, or PyTorch is
    in a mode of which plans know nothing."""
    known = None if is_compiling() else _KNOWN.get(cell)
    if not known or context_of_call() is not None:
        return None
    dispatch = known.get(_kind(inputs))
    if dispatch is not None and not dispatch.holds(cell, inputs):
        known.clear()
        return None
    return dispatch


def keep(cell: nn.Module, inputs: Tensor, plan: Plan) -> None:
    """Remember that a cell has such a plan, and fits such inputs."""
    kind = _kind(inputs)
    known = _KNOWN.setdefault(cell, {})
    if kind not in known:
        known[kind] = Dispatch(cell, inputs, built_in_of(cell), plan.least)


def _told(cell: nn.Module, inputs: Tensor) -> Any:
    """What the initial state depends on besides the inputs."""
    hidden = _starts(cell)
    if inputs.is_floating_point():
        return hidden
    weight = weight_of(cell)  # which then tells the dtype
    return hidden, None if weight is None else weight.dtype


def _starts(cell: nn.Module) -> Any:
    """What tells a cell's initial state, and those of its parts."""
    own = optional(cell, "initial_state")
    # Python binds a method anew each time.
    told: Any = (optional(cell, "hidden_size"), getattr(own, "__func__", own))
    if isinstance(cell, Stack):
        return (told, *map(_starts, cell.cells))
    if isinstance(cell, Embedded):
        return told, _starts(cell.cell)
    return told


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
