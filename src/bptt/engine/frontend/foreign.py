"""What is known of a cell whose code is not: the graphs of its steps, what stands for its tensors
in each kind of call, and why a kind of call has none.

Dynamo asks whether a cell is what it was; what Dynamo does not ask is asked here. A cell that
cannot be captured is not asked again under the same conditions.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn

from bptt.engine import _torch_compat as compat
from bptt.engine.backends.eager import check_step
from bptt.engine.frontend import capture
from bptt.engine.frontend.builtin import row_kind
from bptt.engine.frontend.capture import Captured, Steps
from bptt.engine.frontend.form import Form, Found
from bptt.engine.frontend.graph import Step
from bptt.engine.frontend.guards import (
    Classes,
    hooked,
    hooks_of,
    methods_of_tensors,
    structure_of,
)
from bptt.engine.frontend.leaf import (
    Leaf,
    alike,
    as_given,
    as_reset,
    of_leaves,
    reset_kind,
    seen_alike,
    stand_in,
    step_needs_gradient,
    two_lanes,
)
from bptt.engine.frontend.one_lane import serves
from bptt.engine.frontend.verdicts import Refused, Verdict
from bptt.engine.unsupported import Reason, Refusal, Unsupported
from bptt.errors import CellError
from bptt.state import State, leaves, map_state, optional

KINDS = 256
"""So many kinds of call of one cell are kept."""
MEMORY = 64 << 20
"""So many bytes may the tensors take that stand for the inputs and states of one cell."""
RECAPTURES, CALLS = 8, 100
"""A cell that must be captured more often than that for one kind of call, within so many calls,
stays on the Python loop."""
_PASSING = frozenset((Reason.CONTEXT, Reason.DEVICE))
"""Reasons that may be gone in the next call."""


def kind_of(cell: nn.Module, inputs: Tensor, state: State) -> Any:
    """What calls of a cell have in common that are captured alike, but for changes of the cell."""
    alone = inputs.shape[1] == 1  # Dynamo takes it for a constant
    return (torch.is_grad_enabled(), cell.training, alone, *place_of(inputs, state))


def _more(kind: Any, cell: nn.Module) -> Any:
    """A kind of call, and the modes of all that the cell is made of."""
    return kind, tuple([module.training for module in nn.Module.modules(cell)])


def place_of(inputs: Tensor, state: State) -> Any:
    """The shapes and dtypes of a call's tensors, but for steps and lanes."""
    return (inputs.shape[2:], inputs.dtype, *[(s.shape[1:], s.dtype) for s in leaves(state)])


class _StandIns(NamedTuple):
    """What stands for input and state in a call of a compiled step, and the graph that was found to
    be every step's."""

    input: Tensor
    state: Any
    captured: Captured

    @property
    def rows(self) -> list[Tensor]:
        """Input and leaves."""
        return [self.input, *leaves(self.state)]

    @property
    def size(self) -> int:
        """The bytes that they take."""
        return sum(row.untyped_storage().nbytes() for row in self.rows)


class _Known:
    """What stands for the tensors of each kind of call, the oldest of many forgotten; a thread adds
    while it holds `compat.alone`."""

    def __init__(self) -> None:
        self._table: OrderedDict[Any, _StandIns] = OrderedDict()
        self._size = 0

    def get(self, key: Any) -> _StandIns | None:
        """What stands for such a call."""
        return self._table.get(key)

    def keep(self, key: Any, known: _StandIns) -> None:
        """Take this from now on."""
        before = self._table.pop(key, None)
        self._table[key] = known
        self._size += known.size - (0 if before is None else before.size)
        while len(self._table) > KINDS or (self._size > MEMORY and len(self._table) > 1):
            self._size -= self._table.popitem(last=False)[1].size


class Foreign:
    """What is known of a cell whose code is not."""

    def __init__(self, cell: nn.Module) -> None:
        self.hooked = hooked(cell)
        self._verdicts: dict[Any, Verdict] = {}
        self._captures: dict[Any, deque[int]] = {}
        self._calls = 0
        self._classes = Classes.of(cell)
        self._structure = structure_of(cell)
        self._methods = methods_of_tensors()
        self._steps: Steps | None = None
        self._known = _Known()
        self._refused: Refused | None = None

    def _take(self, cell: nn.Module) -> Steps:
        """The compiled step that cells of this structure share."""
        shared = _SHARED.setdefault(type(cell), WeakValueDictionary())
        steps = shared.get(self._structure)
        if steps is None or not steps.serves():
            steps = shared[self._structure] = Steps()
        self._steps = steps
        return steps

    def forget(self, cell: nn.Module) -> None:
        """Capture all anew: Dynamo forgets nothing by itself."""
        shared = _SHARED.get(type(cell))
        if shared is not None and shared.get(self._structure) is self._steps:
            shared.pop(self._structure, None)
        self._classes, self._structure = Classes.of(cell), structure_of(cell)
        self._methods = methods_of_tensors()
        self._steps = None
        self._known = _Known()

    def find(self, cell: nn.Module, inputs: Tensor, state: State, initial: State) -> Found:
        """The form of this call, with the state that resets return to, if it has any.

        Raises:
            Refusal: the step cannot be captured.
        """
        self._calls += 1
        kind = kind_of(cell, inputs, state)
        verdict = self._verdicts.get(_more(kind, cell)) if self._verdicts else None
        if verdict is not None:
            if verdict.holds(cell):
                self._refused = Refused.of(cell, kind, verdict)
                raise Refusal.of(verdict.reason)
            self._verdicts.clear()
        if not self._classes.hold() or self._methods is not methods_of_tensors():
            self._count(cell, kind)
            self.forget(cell)
        try:
            return self._found(cell, kind, inputs, state, initial)
        except Refusal as error:
            reason, hooked = error.unsupported, any(hooks_of(cell))
            if hooked:
                reason = Unsupported(Reason.HOOKS, f"backward hooks of {type(cell).__name__}")
            if reason.reason not in _PASSING:
                self._conclude(cell, kind, Verdict(reason, hooked))
            raise Refusal.of(reason) from None

    def refuse(self, cell: nn.Module, kind: Any, reason: Unsupported) -> None:
        """The step that was found for such a call has no program: it is not asked again, which
        takes longer than some steps."""
        if reason.reason not in _PASSING:
            self._conclude(cell, kind, Verdict(reason))

    def refused(self, cell: nn.Module, inputs: Tensor, state: State) -> Unsupported | None:
        """The latest verdict, if the call is like the one that it is of: to look for it among all
        takes as long as a small step."""
        last = self._refused
        if last is None or last.kind != kind_of(cell, inputs, state) or not last.holds(cell):
            return None
        return last.verdict.reason

    def _conclude(self, cell: nn.Module, kind: Any, verdict: Verdict) -> None:
        self._verdicts[_more(kind, cell)] = verdict
        self._refused = Refused.of(cell, kind, verdict)

    def _found(
        self, cell: nn.Module, kind: Any, inputs: Tensor, state: State, initial: State
    ) -> Found:
        mixed = reset_kind(state, initial)
        key = (kind, mixed, _signature(inputs, state))
        steps = self._steps or self._take(cell)
        known = self._known.get(key)
        made = capture.made()
        flat: tuple[Any, ...] = ()
        if known is not None:
            captured, flat = capture.call(steps.step, cell, known.rows, known.input, known.state)
            if captured is not known.captured:
                known = None
        if known is None:
            with compat.alone():
                first, entering = _stand_ins(inputs, state)
                known, flat = self._every_step(cell, steps, first, entering, initial)
                self._known.keep(key, known)
        step, tensors = known.captured, known.captured.tensors(flat)
        read, read_tensors = self._read(cell, steps, known)
        if inputs.shape[1] == 1:
            if step.served_by is None or (read is not None and read.served_by is None):
                with compat.alone():
                    self._generalize(cell, steps, known, tensors, read, read_tensors)
            step = step.served_by or step
            read = read and read.served_by
        if capture.made() > made:
            self._count(cell, kind)
            if steps.forms >= compat.LIMIT // 2:  # the next call takes others
                self._steps = None
                self._known = _Known()
        form = step.forms.get(read)
        if form is None:
            form = self._form(cell, step, known, tensors, read, read_tensors)
            step.forms[read] = form
        return Found(form, tensors, read_tensors)

    def _watch(self, steps: Steps, captured: Captured) -> None:
        """Look in every call at the code of the classes that a step read."""
        self._classes = self._classes.more(captured.kinds, captured.environment)
        steps.classes.setdefault(self._classes.kinds, self._classes)

    def _every_step(
        self, cell: nn.Module, steps: Steps, first: Tensor, entering: Any, initial: State
    ) -> tuple[_StandIns, tuple[Any, ...]]:
        """Capture the step as the ``first`` one sees its input and state, as all later ones do,
        and as those after a reset to ``initial`` do, if they see it otherwise; refuse a step that
        is another then."""
        if any(hooks_of(cell)):
            raise Refusal(Reason.HOOKS, f"backward hooks of {type(cell).__name__}")
        lanes, listing = len(first), None
        for _ in range(3):
            captured, flat = capture.call(
                steps.step, cell, [first, *leaves(entering)], first, entering
            )
            self._watch(steps, captured)
            _check_contract(cell, captured, entering)
            if listing is not None and captured.listing != listing:
                raise Refusal(Reason.CONTROL_FLOW, "a first step that differs from the next ones")
            listing = captured.listing
            if alike(captured.returned, entering):
                after: Any = map_state(as_reset, entering, initial)
                if not all(map(seen_alike, leaves(after), leaves(entering))):
                    other, _ = capture.call(steps.step, cell, [first, *leaves(after)], first, after)
                    self._watch(steps, other)
                    if other.listing != listing:
                        raise Refusal(Reason.CONTROL_FLOW, "a step that differs after a reset")
                return _StandIns(first, entering, captured), flat
            entering = of_leaves(lambda leaf: leaf.made(lanes), captured.returned)
        raise Refusal(Reason.CONTROL_FLOW, "a state whose kind changes from step to step")

    def _generalize(
        self,
        cell: nn.Module,
        steps: Steps,
        known: _StandIns,
        tensors: list[Tensor],
        read: Captured | None,
        read_tensors: list[Tensor],
    ) -> None:
        """Find what serves the graphs of a call of one lane: those of two lanes, if they are the
        same for one."""
        one, rows = known.captured, [row_kind(row) for row in known.rows]
        one.served_by = one
        if read is not None:
            read.served_by = read
        if not all(row.is_contiguous() for row in known.rows):
            return
        with suppress(Refusal):
            wide, state = two_lanes(known.input), map_state(two_lanes, known.state)
            two, _ = self._every_step(cell, steps, wide, state, state)
            if serves(two.captured, one, tensors, rows):
                one.served_by = two.captured
            output, _ = self._read(cell, steps, two)
            if read and output and serves(output, read, read_tensors, rows[1:]):
                read.served_by = output

    def _read(
        self, cell: nn.Module, steps: Steps, known: _StandIns
    ) -> tuple[Captured | None, list[Tensor]]:
        """The graph of the cell's `output`, where it has one, and its tensors."""
        if optional(cell, "output") is None:
            return None, []
        captured, flat = capture.call(steps.output, cell, known.rows[1:], known.state)
        self._watch(steps, captured)
        return captured, captured.tensors(flat)

    def _form(
        self,
        cell: nn.Module,
        captured: Captured,
        known: _StandIns,
        tensors: list[Tensor],
        read: Captured | None,
        read_tensors: list[Tensor],
    ) -> Form:
        step = captured.step(tensors, [row_kind(row) for row in known.rows])
        output: int | Step = 0
        if read is not None:
            if read.order is None or isinstance(read.returned, tuple):
                raise Refusal(Reason.CONTRACT, f"{type(cell).__name__}.output gives no tensor")
            place = ~read.order[0]
            rows = [row_kind(row) for row in known.rows[1:]]
            output = place if place >= 0 else read.step(read_tensors, rows)
        needs = any(t.requires_grad for t in tensors)
        return Form(type(cell).__name__, lambda: step, lambda: output, needs, built_in=False)

    def _count(self, cell: nn.Module, kind: Any) -> None:
        """Bound how often a cell is captured anew."""
        made = self._captures.setdefault(kind, deque(maxlen=RECAPTURES))
        if len(made) == RECAPTURES and self._calls - made[0] < CALLS:
            what = "something that the cell reads and that changes in every call"
            self._conclude(cell, kind, Verdict(Unsupported(Reason.MUTATION, what)))
            raise Refusal(Reason.MUTATION, what)
        made.append(self._calls)


_SHARED: WeakKeyDictionary[type, WeakValueDictionary[Any, Steps]] = WeakKeyDictionary()
"""The compiled steps of each class, by structure, while a cell uses them: Dynamo's guards keep the
class alive."""


def _stand_ins(inputs: Tensor, state: State) -> tuple[Tensor, Any]:
    """What stands for the input and the state of the first step of a call."""
    lanes = inputs.shape[1] or 2  # without lanes the graph is that of several
    shape, stride = (lanes, *inputs.shape[2:]), inputs.stride()[1:]
    leaf = not torch.is_grad_enabled()  # a view that is made without grad mode has no history
    first = stand_in(shape, stride, inputs.dtype, step_needs_gradient(inputs), leaf)
    return first, map_state(lambda leaf: as_given(leaf, lanes), state)


def _signature(inputs: Tensor, state: State) -> Any:
    """What of a call's tensors a step can see, but for what `place_of` tells."""
    return (
        inputs.shape[1],
        inputs.stride()[1:],
        step_needs_gradient(inputs),
        tuple((s.stride(), s.requires_grad, s.is_leaf) for s in leaves(state)),
        _nesting(state),
    )


def _nesting(state: Any) -> Any:
    """How a state nests, and of which classes."""
    if isinstance(state, Tensor):
        return None
    return type(state), *map(_nesting, state)


def _check_contract(cell: nn.Module, captured: Captured, entering: Any) -> None:
    lanes = leaves(entering)[0].shape[0]

    def blank(leaf: Leaf) -> Tensor:
        rows = lanes if leaf.rows is None else leaf.rows
        return torch.empty((rows, *leaf.shape), dtype=leaf.dtype, device="meta")

    try:
        check_step(cell, of_leaves(blank, captured.returned), entering)
    except CellError as error:
        raise Refusal(Reason.CONTRACT, str(error)) from error
