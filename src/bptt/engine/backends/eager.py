"""The eager executor: a Python loop over the steps, the oracle of every other executor.

It runs any cell, on any device, under plain autograd, and says nothing about speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bptt.cells._stack import output_of
from bptt.errors import CellError
from bptt.state import State, describe, head, lane_mask, map_state, same_structure, select, stack


def run(
    cell: nn.Module,
    inputs: Tensor,
    state: State,
    *,
    initial: State,
    reset: Tensor | None,
    lengths: Tensor | None,
    return_states: bool,
    clip: float | None,
) -> tuple[Tensor, State, State | None]:
    """Unfold ``cell`` over ``inputs`` [time, lane, ...], from ``state``.

    Each step: lanes flagged in ``reset`` [time, lane] return to ``initial``; the cell runs; lanes
    past their ``lengths`` [lane] keep the state that they had (from before the reset).

    Returns the outputs [time, lane, ...], the last state, and, if asked for, the states after
    every step with leaves [time, lane, ...].
    """
    outputs, states, last = run_steps(
        cell, inputs.unbind(0), state, initial, reset, lengths, clip, keep=return_states
    )
    if not outputs:
        return _nothing(cell, state, return_states)
    return torch.stack(outputs), last, stack(states) if return_states else None


def run_steps(
    cell: nn.Module,
    inputs: Sequence[Any],
    state: State,
    initial: State,
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
    keep: bool,
) -> tuple[list[Tensor], list[State], State]:
    """`run` over what the cell reads at each step, tensors or not.

    Returns the output of each step, the state after each step if they are to be kept, and the last
    state.
    """
    resets = [False] * len(inputs) if reset is None else reset.any(dim=1).tolist()
    shortest = int(lengths.min()) if lengths is not None and len(lengths) else len(inputs)
    outputs: list[Tensor] = []
    states: list[State] = []
    for t, step in enumerate(inputs):
        entering = state
        if resets[t]:
            assert reset is not None
            entering = select(reset[t], initial, state)
        if clip is not None:
            entering = map_state(lambda leaf: _clip_gradient(leaf, clip), entering)
        new = cell(step, entering)
        check_step(cell, new, entering)
        output = output_of(cell, new)
        if lengths is not None and t >= shortest:
            new = select(t < lengths, new, state)
            active = lane_mask(t < lengths, output)
            output = torch.where(active, output, torch.zeros_like(output))
        state = new
        outputs.append(output)
        if keep:
            states.append(state)
    return outputs, states, state


def _nothing(
    cell: nn.Module, state: State, return_states: bool
) -> tuple[Tensor, State, State | None]:
    """What zero steps give: empty outputs of the right shape, and the state as it was."""

    def empty(leaf: Tensor) -> Tensor:
        return leaf.new_empty((0, *leaf.shape))

    return empty(output_of(cell, state)), state, map_state(empty, state) if return_states else None


def _clip_gradient(leaf: Tensor, clip: float) -> Tensor:
    """The same tensor, through which the gradient passes clipped to ±``clip``."""
    if not leaf.requires_grad:
        return leaf
    passing = leaf.view_as(leaf)
    passing.register_hook(  # type: ignore[no-untyped-call]  # untyped in torch
        lambda gradient: gradient.clamp(-clip, clip)
    )
    return passing


def check_step(cell: nn.Module, new: Any, old: State) -> None:
    """Refuse a cell that does not return a state like the one it was given.

    Raises:
        CellError: with what was returned, what was expected, and the mend.
    """
    if same_structure(new, old):
        leaf = head(new)
        if leaf.dtype != head(old).dtype:
            raise CellError(
                f"{type(cell).__name__} was given a state of {head(old).dtype} and returned one "
                f"of {leaf.dtype}: convert the inputs or the cell so that both agree."
            )
        return
    name = type(cell).__name__
    if isinstance(new, tuple) and len(new) == 2 and same_structure(new[1], old):
        raise CellError(
            f"{name} returned (output, state). A cell returns its new state alone; where the "
            "output of a step is not the state's first tensor, give the cell a method "
            "`output(state)` that returns it."
        )
    raise CellError(
        f"{name} was given a state of the shape {describe(old)} and returned {describe(new)}: a "
        "cell must return a state of the same nesting and shapes."
    )
