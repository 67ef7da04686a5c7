"""Nested state: a tensor, or a (nested) tuple of tensors, carried from step to step.

Every leaf has the lanes in its first dimension. These few functions are all that the rest of the
library knows about nesting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, Union

import torch
from torch import Tensor

from bptt.errors import CellError, ShapeError

State: TypeAlias = Union[Tensor, tuple["State", ...]]  # noqa: UP007 (a recursive alias)


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in leaves(part)]


def rebuild(like: State, tensors: list[Tensor]) -> State:
    """The inverse of `leaves`: nest ``tensors`` as ``like`` is nested."""
    return _rebuild(like, iter(tensors))


def _rebuild(like: State, tensors: Iterator[Tensor]) -> State:
    if isinstance(like, Tensor):
        return next(tensors)
    return nested([_rebuild(part, tensors) for part in like], like)


def map_state(function: Callable[..., Tensor], first: State, *rest: State) -> State:
    """Apply ``function`` to the leaves of one or more states of the same nesting."""
    if isinstance(first, Tensor):
        return function(first, *rest)
    parts = [
        map_state(function, part, *(other[i] for other in rest)) for i, part in enumerate(first)
    ]
    return nested(parts, first)


def nested(parts: list[Any], like: Any) -> tuple[Any, ...]:
    """Parts as a tuple; of the class of ``like``, where that is a named tuple."""
    made: tuple[Any, ...] = type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    return made


def detach(state: State) -> State:
    """The same values, cut from the graph that made them."""
    return map_state(Tensor.detach, state)


def head(state: State) -> Tensor:
    """The state's first tensor: the output of a step, unless the cell defines ``output``."""
    while not isinstance(state, Tensor):
        state = state[0]
    return state


def lane_mask(mask: Tensor, like: Tensor) -> Tensor:
    """``mask`` [..., lane] with trailing dimensions added, to broadcast over ``like``."""
    return mask.reshape(mask.shape + (1,) * (like.dim() - mask.dim()))


def select(mask: Tensor, chosen: State, other: State) -> State:
    """Lane by lane: ``chosen`` where ``mask`` [lane] is true, else ``other``.

    Selecting, never multiplying: what is not chosen may be NaN and gets a gradient of exactly zero.
    """
    return map_state(lambda a, b: torch.where(lane_mask(mask, a), a, b), chosen, other)


def stack(states: list[State]) -> State:
    """States of successive steps as one state with leaves [time, lane, ...]."""
    return map_state(lambda *tensors: torch.stack(tensors), states[0], *states[1:])


def at(states: State, index: int) -> State:
    """One step's state out of stacked states."""
    return map_state(lambda leaf: leaf[index], states)


def describe(state: Any) -> str:
    """The shapes of a state, for messages: ``([4, 8], [4, 8])``."""
    if isinstance(state, Tensor):
        return str(list(state.shape))
    if isinstance(state, tuple):
        return "(" + ", ".join(map(describe, state)) + ")"
    return type(state).__name__


def is_state(value: Any) -> bool:
    """Whether a value is a tensor or a nested tuple of tensors."""
    if isinstance(value, Tensor):
        return True
    return isinstance(value, tuple) and len(value) > 0 and all(map(is_state, value))


def same_structure(one: Any, other: Any) -> bool:
    """Whether two values nest alike and their leaves have equal shapes."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same_structure, one, other))
    return False


def weight_of(cell: torch.nn.Module) -> Tensor | None:
    """The first floating parameter: it tells the dtype and device that a cell works in."""
    # Walking all submodules costs more than a small step; most cells own a weight themselves.
    for parameter in cell._parameters.values():
        if parameter is not None and parameter.is_floating_point():
            return parameter
    return next((p for p in cell.parameters() if p.is_floating_point()), None)


def optional(module: torch.nn.Module, name: str) -> Any:
    """``getattr(module, name, None)``, without the exception that a module raises inwardly: where
    there is none that takes as long as a small step."""
    kind = type(module)
    plain = getattr(kind, "__getattr__", None) is torch.nn.Module.__getattr__
    if plain and not hasattr(kind, name) and name not in module.__dict__:
        tables = (module._parameters, module._buffers, module._modules)
        return next((table[name] for table in tables if name in table), None)
    return getattr(module, name, None)


def tells_state(cell: torch.nn.Module, given: State) -> bool:
    """Whether a cell tells a state that a ``given`` one can be compared with.

    ``hidden_size`` of a cell of one's own is the width of one tensor, and says nothing of a tuple.
    """
    known = isinstance(cell, torch.nn.RNNCellBase) or type(cell).__module__.startswith("bptt.")
    if known or optional(cell, "initial_state") is not None:
        return True
    return isinstance(getattr(cell, "hidden_size", None), int) and isinstance(given, Tensor)


def initial_state(cell: torch.nn.Module, batch: int, like: Tensor | None = None) -> State:
    """The state in which a cell starts: leaves [batch, ...].

    It is the cell's own ``initial_state(batch)`` where there is one, else zeros of
    ``[batch, cell.hidden_size]``, twice for `torch.nn.LSTMCell`. ``like`` gives the device and
    dtype of the zeros where the cell has no parameters.

    Raises:
        CellError: the cell has neither, or its ``initial_state`` gives something else.
    """
    own = optional(cell, "initial_state")
    if own is not None:
        state: State = own(batch)
        _check_initial(cell, state, batch)
        return state
    size = getattr(cell, "hidden_size", None)
    if not isinstance(size, int):
        raise CellError(
            f"{type(cell).__name__} does not tell the shape of its state: give it an attribute "
            "`hidden_size`, or a method `initial_state(batch)` that returns the starting state."
        )
    reference = weight_of(cell)
    if reference is None:
        reference = like
    if reference is None:
        zeros = torch.zeros(batch, size)
    elif reference.is_floating_point():
        zeros = reference.new_zeros(batch, size)
    else:  # indices have no dtype to take
        zeros = torch.zeros(batch, size, device=reference.device)
    if isinstance(cell, torch.nn.LSTMCell):
        return zeros, torch.zeros_like(zeros)
    return zeros


def _check_initial(cell: torch.nn.Module, state: Any, batch: int) -> None:
    def well_formed(part: Any) -> bool:
        if isinstance(part, Tensor):
            return part.dim() >= 1 and part.shape[0] == batch
        return isinstance(part, tuple) and len(part) > 0 and all(map(well_formed, part))

    if not well_formed(state):
        raise CellError(
            f"{type(cell).__name__}.initial_state({batch}) must return a tensor [{batch}, ...] or "
            f"a nested tuple of such tensors, not {describe(state)}."
        )


def check_given(cell: torch.nn.Module, state: State, expected: State, name: str) -> None:
    """Refuse a given state that does not fit the cell's own.

    Raises:
        ShapeError: the nesting or the shapes differ.
    """
    if not same_structure(state, expected):
        raise ShapeError(
            f"{name} has the shape {describe(state)}, but {type(cell).__name__} with "
            f"{head(expected).shape[0]} lane(s) carries {describe(expected)}."
        )
    for given, own in zip(leaves(state), leaves(expected), strict=True):
        if given.dtype != own.dtype:
            raise ShapeError(
                f"{name} is {given.dtype}, but {type(cell).__name__} carries {own.dtype}: convert "
                f"it, as in state.to({own.dtype})."
            )
