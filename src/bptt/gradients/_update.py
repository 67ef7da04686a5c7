"""What every gradient method is, and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from bptt.errors import DataError, OptionError, ShapeError
from bptt.gradients._window import Inspection
from bptt.losses import Loss
from bptt.network import Network
from bptt.state import State, is_state, map_state
from bptt.streams import Stream

if TYPE_CHECKING:
    from bptt.gradients._problem import Problem


@dataclass(frozen=True)
class Update:
    """One update's worth of gradient, already added to ``.grad`` when it is yielded.

    Attributes:
        loss: the mean loss over the steps and lanes that this update counts.
        count: how many those are; 0 only on a part of a stream, where another part may count.
        start: the first step of the window, counted from the start of its batch.
        stop: the step after its last.
        batch: which batch of the pass the window lies in, from 0.
        state: the state at the window's end, detached; leaves [lane, ...].
        closure: clears the network's gradients, evaluates this window again from the same context
            with the present weights, and returns the loss, for optimizers that ask more than once
            (`torch.optim.LBFGS`).
        problem: what this update minimises, where it is a function of the weights alone (`Full`):
            its values without a gradient, and its residuals.
        inspect: runs over this window again from the same context, without a gradient, and tells
            the states and losses step by step; None where the method does not know.
    """

    loss: float
    count: int
    start: int
    stop: int
    batch: int
    state: State
    closure: Callable[[], Tensor] = field(repr=False)
    problem: Problem | None = field(default=None, repr=False)
    inspect: Callable[[], Inspection] | None = field(default=None, repr=False)


class GradientMethod(Protocol):
    """An object that turns a pass over a stream into updates."""

    @property
    def state(self) -> State | None:
        """The state after the last step of the last pass, detached."""

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream`` (one epoch), an `Update` at a time.

        At each one the gradients have been added to ``.grad``; the caller steps and clears before
        asking for the next. ``state`` starts the pass (detached); default: the initial state.
        A window in which nothing counts gives no update, unless the stream is a part of one
        (`Stream.part`): then every process has all windows, in step.
        """


def check_stream(stream: Stream, *, live: bool = False) -> None:
    """Refuse data that are no stream; unless ``live``, also those whose end is not in sight."""
    if not isinstance(stream, Stream):
        raise OptionError(
            f"the data must be a bptt.Stream, not a {type(stream).__name__}: "
            "bptt.Stream(inputs, targets)."
        )
    if stream.single_pass and not live:
        raise DataError(
            "the end of a stream from an iterator is not in sight: only Truncated and "
            "SlidingWindow can learn from it."
        )


def entering(stream: Stream, state: State | None, place: torch.device | None) -> State | None:
    """A given state, detached, on the device ``place``; refused where every batch starts anew."""
    if state is None:
        return None
    if not is_state(state):
        raise ShapeError(
            "state must be a tensor or a nested tuple of tensors, as update.state is, not "
            f"{type(state).__name__}."
        )
    if not stream.carries:
        raise OptionError(
            "a stream in batches of whole sequences starts each at the initial state: a given "
            "state has no place in it."
        )
    return map_state(lambda leaf: leaf.detach().to(place), state)
