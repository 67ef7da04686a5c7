"""From a call to the form of its step: what is known of each cell, built in (`BuiltIn`) or not
(`bptt.engine.frontend.foreign`)."""

from __future__ import annotations

import atexit
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from bptt._identity import ByIdentity
from bptt.engine import _torch_compat as compat
from bptt.engine.frontend.builtin import Standing, Twin, is_built_in
from bptt.engine.frontend.foreign import RECAPTURES, Foreign, kind_of, place_of
from bptt.engine.frontend.form import Form, Found
from bptt.engine.frontend.guards import hooked
from bptt.engine.unsupported import Reason, Refusal, Unsupported
from bptt.state import State, map_state

FORMS = 256
"""So many forms of built-in cells are kept."""

_FORMS: OrderedDict[Any, Form] = OrderedDict()
atexit.register(_FORMS.clear)  # the core's programs go before the core does


class BuiltIn:
    """What is known of a built-in cell.

    Args:
        cell: the cell; it is not kept alive.
        changes: how often it was not what it had been.
    """

    def __init__(self, cell: nn.Module, changes: int = 0) -> None:
        self.changes = changes
        self._standing = Standing(cell)
        self._forms: dict[Any, Form] = {}

    def holds(self, cell: nn.Module) -> bool:
        """Whether the cell is what it was."""
        return self._standing.holds(cell)

    def tensors(self) -> list[Tensor]:
        """Its tensors as they are now."""
        return self._standing.tensors()

    def find(self, cell: nn.Module, inputs: Tensor, state: State) -> Found:
        """The form of this call."""
        place = place_of(inputs, state)
        form = self._forms.get(place)
        if form is None:
            form = self._forms[place] = self._form(cell, place, inputs, state)
        tensors = self._standing.tensors()
        return Found(form, tensors, tensors)

    def _form(self, cell: nn.Module, place: Any, inputs: Tensor, state: State) -> Form:
        key = (self._standing.key, place)
        found = _FORMS.get(key)
        if found is None:
            twin = Twin(cell)
            example = torch.empty((1, *inputs.shape[2:]), dtype=inputs.dtype, device="meta")
            blank = map_state(lambda s: torch.empty_like(s, device="meta"), state)
            found = _FORMS[key] = Form(
                type(cell).__name__,
                lambda: twin.step(example, blank),
                lambda: twin.output(blank),
                any(kind.needs_gradient for kind in twin.kinds),
                built_in=True,
            )
            while len(_FORMS) > FORMS:
                _FORMS.popitem(last=False)
        return found


Front = BuiltIn | Foreign
_FRONTS: ByIdentity[Front] = ByIdentity()
atexit.register(_FRONTS.clear)


def find(cell: nn.Module, inputs: Tensor, state: State, initial: State | None = None) -> Found:
    """The form of a call with inputs [T, B, ...], a state with leaves [B, ...], and one that resets
    return to, if they do.

    Raises:
        Refusal: there is none.
    """
    front = _front_of(cell)
    if isinstance(front, Foreign):
        if compat.capture_is_off():
            raise Refusal(Reason.CONTEXT, "torch.compile, which is switched off")
        return front.find(cell, inputs, state, state if initial is None else initial)
    return front.find(cell, inputs, state)


def refused(cell: nn.Module, inputs: Tensor, state: State) -> Unsupported | None:
    """Why such a call was refused lately; None if it was not."""
    front = _FRONTS.get(cell)
    return front.refused(cell, inputs, state) if isinstance(front, Foreign) else None


def refuse(cell: nn.Module, inputs: Tensor, state: State, reason: Unsupported) -> None:
    """What `find` gave for such a call has no program."""
    front = _FRONTS.get(cell)
    if isinstance(front, Foreign):
        front.refuse(cell, kind_of(cell, inputs, state), reason)


def forget(cell: nn.Module) -> None:
    """Capture the cell's steps anew in the next call."""
    front = _FRONTS.get(cell)
    if isinstance(front, Foreign):
        front.forget(cell)


def built_in_of(cell: nn.Module) -> BuiltIn | None:
    """What is known of a cell, if its code is known."""
    front = _front_of(cell)
    return front if isinstance(front, BuiltIn) else None


def _front_of(cell: nn.Module) -> Front:
    front = _FRONTS.get(cell)
    changes = 0
    if isinstance(front, BuiltIn) and not front.holds(cell):
        changes, front = front.changes + 1, None
    elif isinstance(front, Foreign) and front.hooked and not hooked(cell):
        front = None
    if front is None:
        # One that changes in every call is captured: a number that changes may be a call's own.
        known = changes <= RECAPTURES and is_built_in(cell)
        front = BuiltIn(cell, changes) if known else Foreign(cell)
        _FRONTS[cell] = front
    return front
