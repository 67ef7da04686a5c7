"""What a learner of the core is told of a network and a method, and the states that it gives."""

from __future__ import annotations

import torch
from torch import Tensor

from bptt.engine.online.learner import Learner
from bptt.gradients import Truncated
from bptt.network import Network
from bptt.state import State, leaves, map_state
from bptt.training._slots import Slots


def configure(learner: Learner, windows: Truncated, clip: float | None, slots: Slots) -> None:
    """Tell the core of a method and an optimizer."""
    learner.core.configure(
        min(windows.depth, learner.steps),
        windows.stride,
        windows.loss,
        windows.context == "recomputed",
        windows.combine == "mean",
        -1.0 if clip is None else float(clip),
        slots.told,
    )


def tell(learner: Learner, network: Network) -> None:
    """Tell the core of the initial state, where it is not learned."""
    if learner.learned_initial:
        return
    like = (
        learner.tensors[0].new_empty(0) if learner.tensors else torch.empty(0, dtype=learner.dtype)
    )
    with torch.no_grad():
        initial = network.initial_state(learner.lanes, like=like)
    for buffer, leaf in zip(learner.initial, leaves(initial), strict=True):
        assert buffer is not None
        learner.core.set_buffer(buffer, plain(leaf, learner))


def plain(leaf: Tensor, learner: Learner) -> Tensor:
    """A leaf as the core reads it."""
    return leaf.detach().to(learner.dtype).contiguous()


def state_of(learner: Learner, what: str) -> State | None:
    """A state out of the core; None at the initial state."""
    state = map_state(
        lambda leaf: torch.empty_like(leaf, memory_format=torch.contiguous_format), learner.state
    )
    return state if learner.core.state(what, leaves(state)) else None
