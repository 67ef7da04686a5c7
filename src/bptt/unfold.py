"""The verb: unfold a cell over time.

`unfold` refuses what does not fit, fills in the states, chooses an executor and runs it. Executors
live in `bptt.engine`; all have the signature of `bptt.engine.backends.eager.run`, which is their
oracle.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from bptt import _missing_core
from bptt._identity import ByIdentity
from bptt.arguments import (
    check_arguments,
    check_clip,
    check_devices,
    check_lengths,
    check_reset,
    returned_to,
)
from bptt.engine import Plan, Reason, Unsupported, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import batched_segments, native, verify
from bptt.engine.runtime.dispatch_cache import dispatch_of, keep
from bptt.errors import CellError, one_of
from bptt.state import (
    State,
    check_given,
    initial_state,
    lane_mask,
    leaves,
    map_state,
    rebuild,
    tells_state,
)

BACKENDS = ("auto", "native", "eager")


@overload
def unfold(
    cell: nn.Module,
    inputs: Tensor,
    state: State | None = None,
    *,
    initial: State | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    return_states: Literal[False] = False,
    clip_state_gradient: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State]: ...


@overload
def unfold(
    cell: nn.Module,
    inputs: Tensor,
    state: State | None = None,
    *,
    initial: State | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    return_states: Literal[True],
    clip_state_gradient: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State, State]: ...


def unfold(
    cell: nn.Module,
    inputs: Tensor,
    state: State | None = None,
    *,
    initial: State | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    return_states: bool = False,
    clip_state_gradient: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State] | tuple[Tensor, State, State]:
    """Run ``cell`` over all steps of ``inputs``, keeping what the gradient needs.

    All copies of the cell share one set of parameters; the gradient of a parameter is the sum over
    the copies.

    Args:
        cell: any module with ``forward(input, state) -> state``; the state is a tensor
            [lane, hidden] or a nested tuple of tensors with the lanes first.
        inputs: [time, lane, feature], or [time, lane] of indices for a cell that embeds them.
        state: the state before the first step; default: ``initial``. A cell that is given one
            need not tell its shape.
        initial: the state that a reset returns to; default: the cell's own ``initial_state``,
            else zeros of its ``hidden_size``.
        reset: bool [time, lane]; a flagged lane returns to ``initial`` before that step, and no
            gradient crosses.
        lengths: int [lane]; past its length a lane's state stays as it is, and its outputs are
            zero and carry no gradient. What ``inputs`` holds there is never read.
        return_states: give the states after every step as well.
        clip_state_gradient: in the backward pass, clip the gradient of the state that each step
            was given elementwise to ± this value, before the step before it receives it
            (A. Graves, Generating sequences with recurrent neural networks, 2013). The gradient
            that a step's own output sends into its state is not clipped.
        backend: ``"auto"`` runs the cell's step program natively where it has one, and otherwise
            falls back to the Python loop, with one warning that names the operator at fault and
            its line; ``"native"`` makes an error of that; ``"eager"`` is the Python loop.

    Returns:
        ``(outputs, state)``, or ``(outputs, state, states)`` with ``return_states``: outputs
        [time, lane, ...] are ``cell.output(state)`` of every step where the cell defines it, else
        the state's first tensor; state is the last one; states has leaves [time, lane, ...].
        Outputs may be changed in place; natively the backward pass then unfolds once more.

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        CellError: the cell cannot be called with an input and a state, or returned something
            other than a state like the one it was given; it tells no state to start from or to
            reset to, and none is given; it has no step program and ``backend="native"``.
        OptionError: an option is unknown or out of range.
    """
    if backend not in BACKENDS:
        one_of(BACKENDS, backend=backend)
    if clip_state_gradient is not None:
        check_clip(clip_state_gradient)
    dispatch = (
        dispatch_of(cell, inputs) if backend != "eager" and isinstance(inputs, Tensor) else None
    )
    looped = backend == "eager"
    if dispatch is not None and len(inputs) < dispatch.least and backend == "auto":
        dispatch, looped = None, True
    if dispatch is None:
        check_arguments(cell, inputs)
    steps, lanes = inputs.shape[0], inputs.shape[1]
    given, lent = initial if state is None else state, None
    if given is not None and not tells_state(cell, given):
        start, own = given, returned_to(cell, given, initial, reset, lanes)
    else:
        lent = dispatch.initial(inputs, lanes) if dispatch else None
        own = initial_state(cell, lanes, like=inputs) if lent is None else lent
        if initial is not None:
            check_given(cell, initial, own, "initial")
            own = initial
        start = own
        if state is not None:
            check_given(cell, state, own, "state")
            start = state
    if dispatch is None or state is not None or initial is not None:
        check_devices(inputs, start)
    reset = check_reset(reset, steps, lanes)
    if reset is not None:
        reset = reset.to(inputs.device)
    lengths = check_lengths(lengths, steps, lanes)
    if lengths is not None:
        lengths = lengths.to(inputs.device)
        # Padding may hold anything, NaN included: it is cleared before any product can spread it.
        active = torch.arange(steps, device=inputs.device)[:, None] < lengths
        inputs = torch.where(lane_mask(active, inputs), inputs, torch.zeros_like(inputs))
    plan = None
    # What zero steps give is what was given: it needs a gradient as that does.
    nothing = not steps or not lanes
    if not looped and not (nothing and backend == "auto"):
        found = (
            dispatch.plan(inputs, start, own) if dispatch else plan_for(cell, inputs, start, own)
        )
        short = nothing
        if isinstance(found, Plan):
            short |= backend == "auto" and found.outrun(steps, lanes) is not None
        if isinstance(found, Plan) and not found.trust.program and not short:
            found = verify.trusted(cell, found, inputs, start, own)
        if isinstance(found, Plan) and found.wanted.any:
            found = native.hooked(found, inputs, start, own) or found
        plan = _accepted(cell, found, backend, inputs.device)
        if plan is not None and dispatch is None:
            keep(cell, inputs, plan)
        if short:
            plan = None
    ran = None
    if plan is None and dispatch is not None:  # what a native call need not look at
        check_arguments(cell, inputs)
        if own is lent:  # to the next calls, too: no cell may change it
            own = map_state(Tensor.clone, own)
            start = own if start is lent else start
    options: Any = {
        "initial": own,
        "reset": reset,
        "lengths": lengths,
        "return_states": return_states,
        "clip": clip_state_gradient,
    }
    at_once = steps if plan is None else plan.at_once(steps, lanes)
    if at_once < steps:
        told = _in_stretches(cell, inputs, start, at_once, {**options, "backend": backend})
        return told if return_states else told[:2]
    if plan is not None:
        with suppress(IndexError):  # of an embedding: the cell has its own words for it
            ran = native.run(cell, inputs, start, plan=plan, **options)
    outputs, last, states = ran or eager.run(cell, inputs, start, **options)
    if return_states:
        assert states is not None
        return outputs, last, states
    return outputs, last


def _in_stretches(
    cell: nn.Module, inputs: Tensor, state: State, steps: int, options: dict[str, Any]
) -> tuple[Tensor, State, State]:
    """`unfold`, so many steps at a time; outputs, the last state, and those after every step if
    they are asked for."""
    reset, lengths = options.pop("reset"), options.pop("lengths")
    options["clip_state_gradient"] = options.pop("clip")
    outputs, states = [], []
    for begin in range(0, len(inputs), steps):
        part = inputs[begin : begin + steps]
        output, state, *more = unfold(
            cell,
            part,
            state,
            reset=None if reset is None else reset[begin : begin + steps],
            lengths=None if lengths is None else (lengths - begin).clamp(0, len(part)),
            **options,
        )
        outputs.append(output)
        states.append([leaf for one in more for leaf in leaves(one)])
    every = [torch.cat(parts) for parts in zip(*states, strict=True)]
    return torch.cat(outputs), state, rebuild(state, every) if every else state


def unfold_side_by_side(
    cell: nn.Module,
    inputs: Sequence[Tensor],
    states: Sequence[State],
    *,
    initials: Sequence[State],
    resets: Sequence[Tensor | None],
    clip_state_gradient: float | None,
    backend: str,
) -> list[tuple[Tensor, State]] | None:
    """`unfold` of several runs of one lane each, equally long, which take little more time together
    than one of them; None if they cannot go together, after a warning if the engine is at fault.
    Arguments are not checked: they are parts of a run of which another part was unfolded."""
    if backend == "eager" or inputs[0].shape[1] != 1:
        return None
    plan = plan_for(cell, inputs[0], states[0], initials[0])
    if not isinstance(plan, Plan) or plan.executable is None:
        return None
    runs = zip(inputs, states, initials, strict=True)
    if plan.wanted.any and any(native.hooked(plan, *run) for run in runs):
        return None
    if not plan.trust.beside:
        found = verify.trusted_beside(cell, plan, inputs, states)
        if isinstance(found, Unsupported):
            _warn_once(cell, found, inputs[0].device, stacklevel=3)
            return None
    return batched_segments.run(
        cell, inputs, states, initials=initials, resets=resets, clip=clip_state_gradient, plan=plan
    )


_WARNED: ByIdentity[bool] = ByIdentity()
# Where PyTorch's own transforms are at work, or tensors are of a class that stands for others, the
# Python loop is what is expected: nothing is said.
_SILENT = {Reason.DEVICE, Reason.CONTEXT, Reason.CONTRACT}
_SLOW: set[str] = set()  # kinds of devices of which it was said


def _accepted(
    cell: nn.Module, found: Plan | Unsupported, backend: str, device: torch.device
) -> Plan | None:
    """The native executor's plan, or None for the Python loop."""
    if isinstance(found, Plan):
        return found
    if backend == "native":
        raise CellError(f"{type(cell).__name__} cannot be unfolded natively: {found}.")
    _warn_once(cell, found, device)
    return None


def _warn_once(
    cell: nn.Module, why: Unsupported, device: torch.device, stacklevel: int = 4
) -> None:
    if device.type not in ("cpu", "meta"):
        if why.reason is not Reason.CONTEXT:
            _warn_of_device(cell, device)
        return
    if why.reason is Reason.CORE:
        _missing_core.warn(stacklevel)
        return
    if why.reason in _SILENT or _WARNED.get(cell):
        return
    _WARNED[cell] = True
    warnings.warn(
        f"{type(cell).__name__} is unfolded by a Python loop, not natively: {why}. "
        "backend='eager' says that this is meant.",
        stacklevel=stacklevel,
    )


def _warn_of_device(cell: nn.Module, device: torch.device) -> None:
    if device.type in _SLOW:
        return
    _SLOW.add(device.type)
    warnings.warn(
        f"{type(cell).__name__} is unfolded by a Python loop on {device}, which is right but slow: "
        "the native executor runs on the CPU, where small networks are often faster. bptt.nn.GRU "
        "and its like use cuDNN. backend='eager' says that this is meant; it is said once.",
        stacklevel=5,
    )
