"""What `bptt.unfold` and its like are given: refused, with the mend, where it does not fit."""

from __future__ import annotations

import inspect
from contextlib import suppress

import torch
from torch import Tensor, nn

from bptt._identity import ByIdentity
from bptt.cells._base import PlainCell
from bptt.errors import CellError, OptionError, ShapeError
from bptt.state import State, check_given, describe, is_state, leaves, weight_of


def returned_to(
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


def check_clip(clip: float) -> None:
    """Refuse a bound that is no number above 0.

    Raises:
        OptionError: it is not.
    """
    number = isinstance(clip, (int, float)) and not isinstance(clip, bool)
    if not (number and clip > 0):
        raise OptionError(f"clip_state_gradient must be a number above 0, not {clip!r}.")


def check_devices(inputs: Tensor, state: State) -> None:
    """Refuse inputs and a state that are on two devices.

    Raises:
        ShapeError: with both.
    """
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
