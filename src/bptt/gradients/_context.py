"""Where a window starts, and how it is unfolded: the contexts of truncated BPTT.

Each context follows one pass over one batch. For every window it gives the unfolding
(`unfolding`), moves on before the update (`move`), and may do so after it (`renew`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from bptt.gradients._window import Passage, Unfolding, advance
from bptt.network import Network
from bptt.state import State, at, detach, map_state
from bptt.streams import Batch, Chunk


@dataclass(frozen=True)
class Span:
    """A window's place in its batch: it unfolds the steps ``start`` to ``stop - 1``, counts from
    its ``first`` step on, and the next one starts at ``follow`` (the end, after the last)."""

    start: int
    stop: int
    first: int
    follow: int


class Context(Protocol):
    """What a pass carries from window to window; ``state`` is None at the initial state."""

    state: State | None

    @property
    def entered(self) -> State | None:
        """The state in which the window begins."""

    def unfolding(self, network: Network, chunk: Chunk, span: Span) -> Unfolding:
        """How this window is unfolded."""

    def move(self, network: Network, batch: Batch, span: Span, passage: Passage) -> None:
        """Go on to where the next window starts, with the weights from before the update."""

    def renew(self, network: Network, batch: Batch, span: Span) -> None:
        """The same, with the updated weights."""


@dataclass
class Carried:
    """The next window starts in the state that this one passed through."""

    state: State | None

    @property
    def entered(self) -> State | None:
        """The context itself."""
        return self.state

    def unfolding(self, network: Network, chunk: Chunk, span: Span) -> Unfolding:
        """All steps from the context, leaving the states if the next window starts within."""
        context, keep = self.state, span.follow < span.stop
        return lambda initial: _replay(network, chunk, context, initial, span.first, keep)

    def move(self, network: Network, batch: Batch, span: Span, passage: Passage) -> None:
        """Take the state passed through; run over the gap where the next window starts later."""
        if span.follow < span.stop:
            assert passage.states is not None
            self.state = at(passage.states, span.follow - span.start - 1)
        else:
            self.state = _over_gap(network, batch, span, passage.end)

    def renew(self, network: Network, batch: Batch, span: Span) -> None:
        """Nothing: the state is from before the update."""


@dataclass
class Recomputed:
    """The next window starts where the updated weights lead from this one's start."""

    state: State | None

    @property
    def entered(self) -> State | None:
        """The context itself."""
        return self.state

    def unfolding(self, network: Network, chunk: Chunk, span: Span) -> Unfolding:
        """All steps from the context."""
        context = self.state
        return lambda initial: _replay(network, chunk, context, initial, span.first, False)

    def move(self, network: Network, batch: Batch, span: Span, passage: Passage) -> None:
        """Nothing: the weights are not yet updated."""

    def renew(self, network: Network, batch: Batch, span: Span) -> None:
        """Run the cell again from where this window started."""
        self.state = advance(network, batch.chunk(span.start, span.follow), self.state)


@dataclass
class Stored:
    """Every step is visited once; the older steps of a window are linearised where they were
    visited. ``state`` is the newest; ``visited`` are the states that entered the steps of the
    next window that lie before it."""

    state: State | None
    visited: list[State] = field(default_factory=list)

    @property
    def entered(self) -> State | None:
        """The oldest state that is remembered."""
        return self.visited[0] if self.visited else self.state

    def unfolding(self, network: Network, chunk: Chunk, span: Span) -> Unfolding:
        """The older steps linearised, the new ones from the newest state."""
        visited, newest = self.visited, self.state
        return lambda initial: _linearised(network, chunk, visited, newest, initial, span.first)

    def move(self, network: Network, batch: Batch, span: Span, passage: Passage) -> None:
        """Remember the states of the new steps, forget those that no window reaches any more."""
        assert passage.states is not None
        before = self.state
        if before is None:
            like = batch.chunk(span.start, span.start + 1).inputs
            before = detach(network.initial_state(batch.lanes, like=like))
        new = span.stop - span.start - len(self.visited)
        after = [at(passage.states, t) for t in range(new - 1)]
        self.visited = [*self.visited, before, *after][span.follow - span.start :]
        self.state = _over_gap(network, batch, span, passage.end)

    def renew(self, network: Network, batch: Batch, span: Span) -> None:
        """Nothing: the states are those of the first visit."""


def _over_gap(network: Network, batch: Batch, span: Span, end: State) -> State:
    """The state at the next window's start, if this one ends before it."""
    if span.follow <= span.stop:
        return end
    return advance(network, batch.chunk(span.stop, span.follow), end)


def _replay(
    network: Network,
    chunk: Chunk,
    context: State | None,
    initial: State,
    first: int,
    keep: bool,
) -> tuple[Tensor, Passage]:
    """Unfold ``chunk`` from ``context``; with ``keep``, leave the states after every step."""
    reset, lengths = chunk.any_reset, chunk.lengths
    if not keep:
        outputs, end = network.unfold(
            chunk.inputs, context, reset=reset, lengths=lengths, initial=initial
        )
        return outputs[first:], Passage(detach(end))
    outputs, end, states = network.unfold_states(
        chunk.inputs, context, reset=reset, lengths=lengths, initial=initial
    )
    return outputs[first:], Passage(detach(end), detach(states))


def _linearised(
    network: Network,
    chunk: Chunk,
    visited: list[State],
    newest: State | None,
    initial: State,
    first: int,
) -> tuple[Tensor, Passage]:
    """Linearise the first ``len(visited)`` steps of ``chunk`` at the states that entered them when
    first visited, and unfold the others from ``newest``.

    The values are those stored, the Jacobians those of today's weights at them: the economy of
    Williams and Peng (1990). Leaves the states after each of the new steps.
    """
    path: State | None = None
    for t, entered in enumerate(visited):
        step = chunk.part(t, t + 1)
        _, path = network.unfold(
            step.inputs,
            _spliced(entered, path),
            reset=step.any_reset,
            lengths=step.lengths,
            initial=initial,
        )
    new = chunk.part(len(visited), chunk.steps)
    outputs, passage = _replay(
        network,
        new,
        newest if newest is None else _spliced(newest, path),
        initial,
        first - len(visited),
        keep=True,
    )
    return outputs, passage


def _spliced(value: State, path: State | None) -> State:
    """The values of ``value``, through which the gradient goes on to ``path``."""
    return value if path is None else map_state(_Splice.apply, value, path)


class _Splice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, path: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)  # what no loss reaches has none
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[None, Tensor | None]:
        return None, gradient
