"""Full backpropagation through time, whole or in segments.

In segments: one forward pass keeps the states at the segments' boundaries; then the segments are
swept in reverse, each unfolded again and given the gradient of its final state (Chen et al.,
Training deep nets with sublinear memory cost, 2016). Inputs, readout, loss and targets of a
segment live only while it is swept. The gradient is that of the whole, to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bptt.errors import CellError, at_least
from bptt.gradients._context import Carried, Span
from bptt.gradients._resume import Place, load, save, taken_up
from bptt.gradients._update import Update, check_stream, entering
from bptt.gradients._window import advance, again, counted, differentiate, visit
from bptt.losses import Loss, StepLoss, cost, step_loss
from bptt.network import Network, check_trainable
from bptt.state import State, leaves, map_state
from bptt.streams import Batch, Stream


@dataclass
class Full:
    """The gradient of the cost over the whole sequence, or over each batch of whole sequences.

    Args:
        segment: hold the unfolding of at most so many steps at a time, for one more forward pass;
            default: all of them.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Raises:
        OptionError: ``segment`` is below 1.
        CellError: in segments, the cell changes its own buffers, which running it twice would
            do twice.
    """

    segment: int | None = None
    state: State | None = field(default=None, init=False, repr=False, compare=False)
    _place: Place | None = field(default=None, init=False, repr=False, compare=False)
    _saved: Place | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.segment is not None:
            at_least(1, segment=self.segment)

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``, an update for each batch; see `GradientMethod`."""
        check_trainable(network)
        check_stream(stream)
        begun = self._saved
        batches = stream.batches() if begun is None else taken_up(stream, begun, state)
        start = entering(stream, state)
        self._saved = None
        return self._pass(network, step_loss(loss), stream, batches, start, begun)

    def _pass(
        self,
        network: Network,
        loss: StepLoss,
        stream: Stream,
        batches: Generator[Batch],
        start: State | None,
        begun: Place | None,
    ) -> Iterator[Update]:
        self._place = begun
        with closing(batches):
            for index, batch in enumerate(batches, 0 if begun is None else begun.batch + 1):
                if self.segment is None or self.segment >= batch.length:
                    updates = self._whole(network, loss, batch, index, start)
                else:
                    updates = self._in_segments(network, loss, batch, index, start)
                for update in updates:
                    self._place = Place.at(stream, index, batch)
                    yield update
                start = None
        self._place = None

    def state_dict(self) -> dict[str, Any]:
        """The options, the last state and, in the middle of a pass, its last batch: plain numbers,
        strings and lists, but for ``["tensors"]``, a flat dictionary of tensors; to be taken
        after an update has been applied, with the stream's own ``state_dict``."""
        return save(self, self._place)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``saved`` was taken: the next call of `updates` goes on with the pass that
        was interrupted, after its last update, and then ends; the one after it is a new pass.

        Raises:
            OptionError: it was saved by another method, or with other options.
        """
        self.state, self._saved = load(self, saved)
        self._place = self._saved

    def _whole(
        self, network: Network, loss: StepLoss, batch: Batch, index: int, start: State | None
    ) -> Iterator[Update]:
        span = Span(0, batch.length, 0, batch.length)
        chunk = batch.chunk(0, batch.length)
        window = counted(chunk, 0)
        unfolding = Carried(start).unfolding(network, chunk, span)
        if not window.count:
            self.state = visit(network, window, unfolding).end
            return
        value, passage = differentiate(network, loss, window, unfolding)
        self.state = passage.end
        closure = again(network, loss, window, unfolding)
        yield Update(float(value), window.count, 0, batch.length, index, passage.end, closure)

    def _in_segments(
        self, network: Network, loss: StepLoss, batch: Batch, index: int, start: State | None
    ) -> Iterator[Update]:
        assert self.segment is not None
        sweep = _Sweep(network, loss, batch, self.segment, start)
        value, end = sweep.run()
        self.state = end
        if sweep.count:
            yield Update(float(value), sweep.count, 0, batch.length, index, end, sweep.closure)


@dataclass
class _Sweep:
    """One gradient over a batch, segment by segment."""

    network: Network
    loss: StepLoss
    batch: Batch
    segment: int
    start: State | None
    count: int = 0

    def closure(self) -> Tensor:
        """The same gradient with the present weights, cleared first."""
        self.network.zero_grad()
        return self.run()[0]

    def run(self) -> tuple[Tensor, State]:
        """Add the gradient to ``.grad``; give the mean loss and the last state."""
        bounds = [*range(0, self.batch.length, self.segment), self.batch.length]
        entered, end, draws = self._forward(bounds)
        total = torch.zeros((), dtype=torch.float64)
        if self.count == 0:
            return total, end
        after: list[Tensor | None] = [None] * len(leaves(end))
        # Recomputing draws the same random numbers again; afterwards the generator stands where
        # the forward pass left it.
        with torch.random.fork_rng():
            for i in reversed(range(len(entered))):
                _draw_again(draws[i])
                part, after = self._backward(bounds[i], bounds[i + 1], entered[i], after)
                total += part.to(total)
        return total / self.count, end

    def _forward(self, bounds: list[int]) -> tuple[list[State | None], State, list[Draws]]:
        """The state that enters each segment, the last state, and the random-number states."""
        context, self.count = self.start, 0
        entered: list[State | None] = []
        draws = []
        for low, high in itertools.pairwise(bounds):
            chunk = self.batch.chunk(low, high)
            entered.append(context)
            draws.append(_draws())
            self.count += int(chunk.mask.sum())
            versions = _versions(self.network)
            context = advance(self.network, chunk, context)
            _refuse_changed(self.network, versions)
        assert context is not None
        return entered, context, draws

    def _backward(
        self, low: int, high: int, context: State | None, after: list[Tensor | None]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Sweep one segment: from the gradient of the state at its end to that at its start."""
        with torch.enable_grad():
            chunk = self.batch.chunk(low, high)
            entry = None if context is None else map_state(_leaf, context)
            outputs, last = self.network.unfold(
                chunk.inputs, entry, reset=chunk.any_reset, lengths=chunk.lengths
            )
            total = cost(self.loss, self.network.read, outputs, chunk.targets, chunk.mask)
            roots = [total / self.count]
            seeds: list[Tensor | None] = [None]
            for leaf, gradient in zip(leaves(last), after, strict=True):
                if gradient is not None and leaf.requires_grad:
                    roots.append(leaf)
                    seeds.append(gradient)
            if not roots[0].requires_grad:  # nothing in it is counted, or nothing can be trained
                roots, seeds = roots[1:], seeds[1:]
            if roots:
                torch.autograd.backward(roots, seeds)
        before = [] if entry is None else [leaf.grad for leaf in leaves(entry)]
        return total.detach(), before


Draws = tuple[Tensor, list[Tensor]]
"""The state of the CPU's random numbers, and of those of every GPU in use."""


def _draws() -> Draws:
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # untyped in torch
    return torch.get_rng_state(), gpus


def _draw_again(draws: Draws) -> None:
    torch.set_rng_state(draws[0])
    if draws[1]:
        torch.cuda.set_rng_state_all(draws[1])


def _leaf(leaf: Tensor) -> Tensor:
    return leaf.detach().requires_grad_(leaf.is_floating_point())


def _versions(network: Network) -> dict[str, tuple[Tensor, int]]:
    """Each buffer of the cell, and how often it was written to."""
    return {name: (buffer, buffer._version) for name, buffer in network.cell.named_buffers()}


def _refuse_changed(network: Network, before: dict[str, tuple[Tensor, int]]) -> None:
    after = _versions(network)
    changed = [
        name
        for name, (buffer, version) in before.items()
        if name not in after or after[name][0] is not buffer or after[name][1] != version
    ]
    if changed:
        raise CellError(
            f"{type(network.cell).__name__} changes its buffer {changed[0]!r} as it runs: in "
            "segments it would do so twice. Use Full() without segments, or a cell without such "
            "buffers (LayerNorm in place of batch statistics)."
        )
