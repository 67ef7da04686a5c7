"""The arithmetic of one unfolding, forward and backward, without autograd.

A call of this on a short window is over in some ten microseconds, so both functions do little in
Python: what can be known beforehand is in `bptt.engine.backends.cpu.calling_convention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bptt.engine.backends.cpu.calling_convention import Place
from bptt.reuse import empty
from bptt.state import State

if TYPE_CHECKING:
    from bptt.engine.runtime.compile_cache import Plan


Ran = tuple[list[Tensor], Sequence[Tensor]]
"""Results, and what the backward loop wants to see again."""


class Call:
    """One unfolding: what the loop needs besides its differentiable tensors.

    ``start`` and ``initial`` are leaves [B, n]; ``exposed`` the leaves of which every step is asked
    for; ``nested`` a state, for its nesting; ``ran`` what the loop gave, if it was run already.
    """

    __slots__ = (
        "batch",
        "clip",
        "exposed",
        "initial",
        "lengths",
        "nested",
        "plan",
        "ran",
        "reset",
        "start",
        "steps",
    )

    def __init__(
        self,
        plan: Plan,
        steps: int,
        batch: int,
        start: list[Tensor],
        initial: list[Tensor],
        reset: Tensor | None,
        lengths: Tensor | None,
        clip: float | None,
        exposed: tuple[int, ...],
        nested: State,
        ran: Ran | None = None,
    ) -> None:
        self.plan, self.steps, self.batch = plan, steps, batch
        self.start, self.initial = start, initial
        self.reset, self.lengths, self.clip = reset, lengths, clip
        self.exposed, self.nested, self.ran = exposed, nested, ran


def forward_loop(call: Call, primals: Sequence[Tensor]) -> Ran:
    """The loop, from what `bptt.engine.runtime.primals.primals_of` gives.

    Gives every step's state of the exposed leaves and the last state of all leaves; and what the
    backward loop wants to see again: states, what is saved, and what ran before the loop.
    """
    plan, steps, batch = call.plan, call.steps, call.batch
    convention = plan.convention
    rows = steps * batch
    if rows and plan.executable is not None:
        return plan.executable.forward(call, _even(primals))
    frame = plan.frame
    if frame.deep or not frame.inline:
        ready: Sequence[Any] = frame.prologue.run(rows, *primals)
    else:
        ready = frame.prologue.run(rows, *primals[:-1], _as_rows(primals[-1], rows))
    if frame.turned:
        ready = list(ready)
        for i, primal in frame.turned:
            ready[i] = primals[primal].detach().t()
    ready = _in_rows(plan, ready)
    shapes = [(steps + 1, batch, leaf.shape[1]) for leaf in call.start]
    if convention.saved_width:
        shapes.append((steps, batch, convention.saved_width))
    made = empty(call.start[0], shapes)
    saved = made.pop() if convention.saved_width else None
    states = made
    for buffer, leaf in zip(states, call.start, strict=True):
        buffer[0].copy_(leaf)
    if rows:
        times = _over_time(call, ready)
        plan.kernel.forward(
            states, times, saved, ready[: convention.given], call.initial, call.reset, call.lengths
        )
    results = [states[j][1:] for j in call.exposed]
    for buffer in states:
        results.append(torch.select_copy(buffer, 0, steps))
    if not plan.wanted.any:
        return results, ()
    again = [ready[i] for i in convention.keep]
    return results, (*states, *again) if saved is None else (*states, saved, *again)


def _even(primals: Sequence[Tensor]) -> Sequence[Tensor]:
    """Heads whose input's rows follow each other."""
    return primals if primals[-1].is_contiguous() else (*primals[:-1], primals[-1].contiguous())


def _in_rows(plan: Plan, ready: Sequence[Any]) -> list[Any]:
    """What runs before the loop may end in a view that only PyTorch can read."""
    matrices, given = len(plan.program.matrices), plan.convention.given
    return [
        *[matrix.resolve_neg() for matrix in ready[:matrices]],
        *[_readable(unit) for unit in ready[matrices:given]],
        *ready[given:],
    ]


def _as_rows(inputs: Tensor, rows: int) -> Tensor:
    """[T, B, ...] as [T * B, ...]."""
    return inputs.reshape(rows, *inputs.shape[2:])


def _over_time(call: Call, ready: Sequence[Tensor]) -> list[Tensor]:
    """Hoisted tensors as the loop reads them: [T, B, w] in the loop's dtype, rows contiguous."""
    convention, steps, batch = call.plan.convention, call.steps, call.batch
    times = ready[convention.first : convention.last]
    if call.plan.frame.deep and convention.plain_times:
        return list(times)
    if convention.plain_times:
        widths = convention.time_widths
        return [_readable(t).view(steps, batch, w) for t, w in zip(times, widths, strict=True)]
    found, dtype = [], call.start[0].dtype
    for time, width in zip(times, convention.time_widths, strict=True):
        array = time.reshape(steps, batch, width)
        found.append(_readable(array if array.dtype is dtype else array.to(dtype)))
    return found


def backward_loop(
    call: Call,
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    needed: Sequence[bool],
    grads: Sequence[Any],
) -> Sequence[Any]:
    """The gradients of ``tensors`` (primals, and start and initial leaves if they need any), from
    those of the results of `forward_loop`."""
    plan, steps, batch = call.plan, call.steps, call.batch
    convention = plan.convention
    n, primals, rows = convention.leaves, convention.primals, steps * batch
    states = kept[:n]
    exposed = len(call.exposed)
    if n == 1 == exposed:
        step_grads: list[Tensor | None] = [_gradient(grads[0])]
    else:
        step_grads = [None] * n
        for j, grad in zip(call.exposed, grads, strict=False):
            step_grads[j] = _gradient(grad)
    final_grads = [_gradient(g) for g in grads[exposed:]]
    of_state = [None] * n
    start_grads, initial_grads = (
        _state_gradients(call, states, needed[primals:])
        if plan.wanted.state
        else (of_state, of_state)
    )
    if rows and plan.executable is not None:
        found: Sequence[Any] = plan.executable.backward(
            call,
            _even(tensors[:primals]),
            kept,
            needed,
            final_grads,
            step_grads,
            start_grads,
            initial_grads,
        )
        return (*found, *start_grads, *initial_grads) if plan.wanted.state else found
    saved, again = None, kept[n:]
    if convention.saved_width:
        saved, again = kept[n], kept[n + 1 :]
    ready: list[Any] = [None] * convention.ready
    for i, value in zip(convention.keep, again, strict=True):
        ready[i] = value
    deltas = (
        states[0].new_empty((steps, batch, convention.delta_width))
        if convention.delta_width
        else None
    )
    times = _over_time(call, ready) if convention.reads_times and rows else ()
    if rows:
        plan.kernel.reverse(
            states,
            times,
            saved,
            deltas,
            ready[: convention.given],
            call.initial,
            call.reset,
            call.lengths,
            call.clip,
            final_grads,
            step_grads,
            start_grads,
            initial_grads,
        )
    else:
        _pass_through(final_grads, start_grads)
    if True in needed[:primals]:
        arrays = {"delta": deltas, "saved": saved}
        found = _finish(call, tensors[:primals], ready, arrays, states, times)
    else:
        found = (None,) * primals
    return (*found, *start_grads, *initial_grads) if plan.wanted.state else found


def _gradient(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else _readable(grad)


def _state_gradients(
    call: Call, states: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Arrays for the gradients of the start, and (zero at first) of what resets return to."""
    n, reset = len(states), call.reset is not None
    start = [
        torch.empty_like(s[0]) if flag else None for s, flag in zip(states, needed[:n], strict=True)
    ]
    back = [
        torch.zeros_like(s[0]) if flag and reset else None
        for s, flag in zip(states, needed[n:], strict=True)
    ]
    return start, back


def _finish(
    call: Call,
    primals: Sequence[Tensor],
    ready: Sequence[Tensor],
    arrays: dict[str, Tensor | None],
    states: Sequence[Tensor],
    times: Sequence[Tensor],
) -> Sequence[Any]:
    """The products after the loop: gradients of the primals."""
    convention, frame, rows = call.plan.convention, call.plan.frame, call.steps * call.batch
    assert frame.epilogue is not None
    known: dict[Place, Tensor] = {}

    def gather(place: Place) -> Tensor:
        if place not in known:
            known[place] = _gathered(call, place, arrays, states, times)
        return known[place]

    gathered = [gather(p) for p in convention.rows]
    hoisted: list[Tensor] = []
    for entry in convention.times:
        if entry is not None:
            gradient = gather(entry[0])
            hoisted.append(gradient if entry[1] is None else gradient.reshape(rows, *entry[1]))
    own = primals
    if frame.inline:
        own = (*primals[:-1], _as_rows(primals[-1], rows))
    found: Sequence[Any] = frame.epilogue.run(
        rows,
        *own,
        *ready[convention.given : convention.first],
        *ready[convention.last :],
        *gathered,
        *hoisted,
    )
    if frame.inline and found[-1] is None:
        return found
    first = convention.first_time_primal
    return (
        *found[:first],
        *(
            g if g is None else g.reshape(h.shape)
            for g, h in zip(found[first:], primals[first:], strict=True)
        ),
    )


def _gathered(
    call: Call,
    place: Place,
    arrays: dict[str, Any],
    states: Sequence[Tensor],
    times: Sequence[Tensor],
) -> Tensor:
    """Rows over all steps and lanes, [T * B, width]."""
    space, index, offset, width, whole = place
    rows = call.steps * call.batch
    if space == "state":
        before = states[index][:-1]
        if call.reset is not None:
            before = torch.where(call.reset[:, :, None], call.initial[index], before)
        array = before.reshape(rows, before.shape[2])
    elif space == "next":
        array = states[index][1:].reshape(rows, states[index].shape[2])
    elif space == "time":
        array = times[index].reshape(rows, times[index].shape[2])
    else:
        array = arrays[space].view(rows, arrays[space].shape[2])
    return array if whole else array.narrow(1, offset, width)


def _pass_through(
    final_grads: Sequence[Tensor | None], start_grads: Sequence[Tensor | None]
) -> None:
    """No steps: the last state is the first."""
    for to, grad in zip(start_grads, final_grads, strict=True):
        if to is not None:
            to.zero_() if grad is None else to.copy_(grad)


def _readable(array: Tensor) -> Tensor:
    """The same numbers as the core can read them: those of a row follow each other, and none waits
    to be negated, as those of an imaginary part may."""
    if array.is_neg():
        array = array.resolve_neg()
    return array if array.stride(-1) == 1 or array.shape[-1] == 1 else array.contiguous()
