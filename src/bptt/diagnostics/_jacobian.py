"""Jacobians of a cell's step along a trajectory: products with many tangents and many steps at
once, and no graph that grows over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from bptt.diagnostics._trajectory import Trajectory
from bptt.state import State, leaves, map_state, rebuild

FLOATS = 2**21
"""So many numbers of Jacobians are held at a time; they should stay in cache."""


def push(cell: nn.Module, inputs: Tensor, state: State, tangents: Tensor) -> Tensor:
    """J_t V_t for steps that are laid out as lanes.

    Args:
        cell: the cell.
        inputs: [step, ...].
        state: the states that entered; leaves [step, ...].
        tangents: V, [step or 1, width, tangent].

    Returns:
        [step, width, tangent].
    """
    steps = len(inputs)
    given = tangents.expand(steps, *tangents.shape[1:]).permute(2, 0, 1)
    try:
        with torch.no_grad():
            moved = _forward_mode(cell, inputs, state, given)
        return moved.permute(1, 2, 0)
    except (RuntimeError, NotImplementedError):
        # What forward mode or vmap cannot do (a torch.autograd.Function without a jvp, values
        # read out of tensors), reverse mode can: rows in place of columns.
        return _by_rows(cell, inputs, state) @ tangents


def _forward_mode(cell: nn.Module, inputs: Tensor, state: State, given: Tensor) -> Tensor:
    def along(tangent: Tensor) -> Tensor:
        step: Callable[[State], Any] = lambda entering: cell(inputs, entering)  # noqa: E731
        return _flat(jvp(step, (state,), (_nested(tangent, state),))[1])

    return vmap(along, randomness="same")(given)


def _by_rows(cell: nn.Module, inputs: Tensor, state: State) -> Tensor:
    """J [step, width, width], one row for all steps at a time."""
    with torch.enable_grad():
        entering = map_state(lambda leaf: leaf.detach().requires_grad_(), state)
        new = _flat(cell(inputs, entering))
        sources = leaves(entering)
        rows = []
        for i in range(new.shape[1]):
            if not new.requires_grad:
                rows.append(torch.zeros_like(new))
                continue
            found = torch.autograd.grad(
                new[:, i].sum(), sources, retain_graph=True, allow_unused=True
            )
            parts = [
                torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)
            ]
            rows.append(torch.cat([p.flatten(1) for p in parts], dim=1))
    return torch.stack(rows, dim=1)


def _flat(state: State) -> Tensor:
    return torch.cat([leaf.flatten(1) for leaf in leaves(state)], dim=1)


def _nested(flat: Tensor, like: State) -> State:
    """[step, width] as a state."""
    sizes = [leaf[0].numel() for leaf in leaves(like)]
    parts = torch.split(flat, sizes, dim=1)
    shaped = [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves(like), strict=True)]
    return rebuild(like, shaped)


def jacobian(cell: nn.Module, trajectory: Trajectory, steps: Tensor) -> Tensor:
    """∂state_t/∂state_{t−1} of so many steps, float64 [step, width, width]."""
    like = leaves(trajectory.entering)[0]
    eye = torch.eye(trajectory.width, dtype=like.dtype, device=like.device)[None]
    state = map_state(lambda leaf: leaf[steps], trajectory.entering)
    return push(cell, trajectory.inputs[steps], state, eye).double()
