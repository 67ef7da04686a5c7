"""The verb: unfold a cell over time.

`unfold` refuses what does not fit, fills in the states, chooses an executor and runs it. Executors
live in `bptt.engine`; all have the signature of `bptt.engine.backends.eager.run`, which is their
oracle.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from bptt._identity import ByIdentity
from bptt.cells._base import PlainCell
from bptt.engine import Plan, Reason, Unsupported, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import batched_segments, native, verify
from bptt.engine.runtime.dispatch_cache import dispatch_of, keep
from bptt.errors import CellError, OptionError, ShapeError, one_of
from bptt.state import (
    State,
    check_given,
    describe,
    initial_state,
    is_state,
    lane_mask,
    leaves,
    map_state,
    tells_state,
    weight_of,
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
        _check_clip(clip_state_gradient)
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
        start, own = given, _returned_to(cell, given, initial, reset, lanes)
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
        _check_devices(inputs, start)
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
    if plan is not None:
        with suppress(IndexError):  # of an embedding: the cell has its own words for it
            ran = native.run(cell, inputs, start, plan=plan, **options)
    outputs, last, states = ran or eager.run(cell, inputs, start, **options)
    if return_states:
        assert states is not None
        return outputs, last, states
    return outputs, last


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
    if why.reason in _SILENT or _WARNED.get(cell):
        return
    _WARNED[cell] = True
    warnings.warn(
        f"{type(cell).__name__} is unfolded by a Python loop, not natively: {why}. "
        "backend='eager' says that this is meant.",
        stacklevel=stacklevel,
    )


def _returned_to(
    cell: nn.Module, state: State, initial: State | None, reset: Tensor | None, lanes: int
) -> State:
    """Where resets lead, for a cell that does not tell the state that it starts in."""
    if not is_state(state) or any(leaf.dim() < 1 or len(leaf) != lanes for leaf in leaves(state)):
        raise ShapeError(
            f"the state has the shape {describe(state)}, but inputs have {lanes} lane(s): it must "
            "be a tensor [lane, ...] or a nested tuple of such tensors."
        )
    if initial is not None:
        check_given(cell, initial, state, "initial")
        return initial
    if reset is not None:
        raise CellError(
            f"a reset returns to the initial state, and {type(cell).__name__} does not tell one "
            f"like the given {describe(state)}: give initial=, or the cell a method "
            "`initial_state(batch)`."
        )
    return state  # nothing returns to it


_FITS: ByIdentity[bool] = ByIdentity()


def check_cell(cell: nn.Module) -> None:
    """Refuse what cannot be called as ``cell(input, state)``.

    Raises:
        CellError: with the signature that it has.
    """
    if not isinstance(cell, nn.Module):
        raise CellError(
            f"a cell must be a torch.nn.Module with forward(input, state) -> state, not a "
            f"{type(cell).__name__}."
        )
    forward = cell.__dict__.get("forward") or type(cell).forward
    if type(cell).__call__ is not nn.Module.__call__ or _FITS.get(forward):
        return
    try:
        signature = inspect.signature(cell.forward)
    except (TypeError, ValueError):  # compiled code does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise CellError(
            f"a cell must be callable as forward(input, state) -> state, but "
            f"{type(cell).__name__} has forward{signature}: a state of several tensors is one "
            "tuple, and what else a step needs comes with its input or is an attribute."
        ) from None
    with suppress(TypeError):  # it has no weak references
        _FITS[forward] = True


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


def check_arguments(cell: nn.Module, inputs: Tensor) -> None:
    """Refuse a cell and inputs that do not fit each other.

    Raises:
        CellError, ShapeError: with what was given and the mend.
    """
    check_cell(cell)
    if not isinstance(inputs, Tensor):
        raise ShapeError(f"inputs must be a torch.Tensor, not a {type(inputs).__name__}.")
    if inputs.dim() < 2:
        raise ShapeError(
            f"inputs must be [time, lane, feature], not {list(inputs.shape)}: for one lane, "
            "inputs[:, None, :] adds the dimension."
        )
    size = getattr(cell, "input_size", None)
    if isinstance(size, int) and inputs.is_floating_point():
        if inputs.dim() == 2:
            raise ShapeError(
                f"inputs must be [time, lane, {size}], not {list(inputs.shape)}: for one lane, "
                "inputs[:, None, :] adds the dimension."
            )
        if inputs.shape[-1] != size:
            raise ShapeError(
                f"inputs have {inputs.shape[-1]} features, {list(inputs.shape)}, but "
                f"{type(cell).__name__} reads {size}."
            )
    check_dtype(cell, inputs)


def check_dtype(cell: nn.Module, inputs: Tensor) -> None:
    """Refuse inputs that the cell's weights cannot be multiplied with.

    Raises:
        ShapeError: with both dtypes and the mend.
    """
    weight = weight_of(cell)
    if weight is None or weight.dtype == inputs.dtype:
        return
    name = type(cell).__name__
    if inputs.is_floating_point():
        raise ShapeError(
            f"inputs are {inputs.dtype}, but the parameters of {name} are {weight.dtype}: convert "
            f"one, as in inputs.to({weight.dtype})."
        )
    if isinstance(cell, (PlainCell, nn.RNNCellBase)):
        raise ShapeError(
            f"inputs are {inputs.dtype}, indices, but {name} multiplies them with its weights: "
            f"numbers must be floating, as in inputs.to({weight.dtype}); indices need a cell that "
            "embeds them."
        )


def _check_clip(clip: float) -> None:
    number = isinstance(clip, (int, float)) and not isinstance(clip, bool)
    if not (number and clip > 0):
        raise OptionError(f"clip_state_gradient must be a number above 0, not {clip!r}.")


def _check_devices(inputs: Tensor, state: State) -> None:
    for leaf in leaves(state):
        if leaf.device != inputs.device:
            raise ShapeError(
                f"inputs are on {inputs.device}, the state is on {leaf.device}: move one of them "
                "(a cell's own initial_state makes it where the cell's weights are)."
            )


def check_reset(reset: Tensor | None, steps: int, lanes: int) -> Tensor | None:
    """Refuse a reset that is not bool [time, lane].

    Raises:
        ShapeError: with what it is.
    """
    if reset is None:
        return None
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool:
        kind = reset.dtype if isinstance(reset, Tensor) else type(reset).__name__
        raise ShapeError(f"reset must be a bool tensor [time, lane], not {kind}.")
    if tuple(reset.shape) != (steps, lanes):
        raise ShapeError(
            f"reset has the shape {list(reset.shape)}, but inputs have [time, lane] = "
            f"[{steps}, {lanes}]."
        )
    return reset


def check_lengths(lengths: Tensor | None, steps: int, lanes: int) -> Tensor | None:
    """Refuse lengths that are not whole numbers [lane] up to ``steps``; give them as int64.

    Raises:
        ShapeError: with what they are.
    """
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor) or lengths.dtype not in (torch.int64, torch.int32):
        kind = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise ShapeError(f"lengths must be an int64 tensor [lane], not {kind}.")
    if tuple(lengths.shape) != (lanes,):
        raise ShapeError(f"lengths has the shape {list(lengths.shape)}, expected [{lanes}].")
    if lanes and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ShapeError(
            f"lengths must lie between 0 and the {steps} steps of inputs, not "
            f"{int(lengths.min())} to {int(lengths.max())}."
        )
    return lengths.to(torch.int64)
