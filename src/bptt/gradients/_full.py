"""Full backpropagation through time, whole or in segments.

In segments: one forward pass keeps states at the segments' boundaries; then the segments are swept
in reverse, each unfolded again and given the gradient of its final state.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bptt.errors import OptionError, at_least
from bptt.gradients._context import Carried, Span
from bptt.gradients._measure import beside, costs_of, idle_core
from bptt.gradients._problem import Problem
from bptt.gradients._resume import Place, begin, load, save
from bptt.gradients._sweep import Sweep
from bptt.gradients._update import Update, check_stream
from bptt.gradients._window import again, counted, differentiate, inspect
from bptt.losses import Loss, StepLoss, step_loss
from bptt.network import Network, check_trainable, place_of
from bptt.segments import Costs, SegmentPlan, bytes_of, choose
from bptt.state import State
from bptt.streams import Batch, Stream, on_device


@dataclass
class Full:
    """The gradient of the cost over the whole sequence, or over each batch of whole sequences.

    Args:
        segment: hold the unfolding of at most so many steps at a time, for one more forward pass;
            default: all of them.
        memory: hold at most so many bytes at a time, as in ``"256MB"`` or ``256_000_000``:
            gradients, packed weights, kept states, the segments at work, and of a stream from
            files the data read ahead; not the parameters, the optimizer and tensors that the
            stream was made of. On a GPU, of the GPU's memory. Segments and kept states follow
            from what a few steps are measured to take, see `plan`.

    Attributes:
        state: the state after the last step of the last pass, detached.

    With ``memory``, and where PyTorch may use a second core that so few lanes leave idle, the next
    segment is unfolded while one is swept.

    Raises:
        OptionError: ``segment`` is below 1, ``memory`` is no amount, both are given; when a pass
            comes to a batch, that no schedule fits into ``memory``, with the least that one does.
        CellError: in segments, the cell changes its own buffers, which running it twice would
            do twice.
    """

    segment: int | None = None
    memory: int | str | None = None
    state: State | None = field(default=None, init=False, repr=False, compare=False)
    _place: Place | None = field(default=None, init=False, repr=False, compare=False)
    _saved: Place | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.segment is not None:
            at_least(1, segment=self.segment)
        if self.memory is not None:
            bytes_of(self.memory)
            if self.segment is not None:
                raise OptionError("give either segment= or memory=, not both.")

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``, an update for each batch; see `GradientMethod`."""
        begun = self._saved
        batches, start = begin(network, stream, state, begun)
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
        planner = _Planner(self, network, loss)
        with closing(batches):
            for index, batch in enumerate(batches, 0 if begun is None else begun.batch + 1):
                plan = planner.plan(batch)
                if plan.segments == 1:
                    updates = self._whole(network, loss, batch, index, start)
                else:
                    sweep = Sweep(network, loss, batch, plan, start)
                    updates = self._in_segments(sweep, index)
                for update in updates:
                    self._place = Place.at(stream, index, batch)
                    if update.count or stream.is_part:
                        yield update
                start = None
        self._place = None

    def plan(self, network: Network, stream: Stream, loss: Loss = "mse") -> SegmentPlan:
        """What a pass over ``stream`` would hold, and run again: of its longest batch. ``print``
        shows it; nothing is trained.

        Raises:
            OptionError: no schedule fits into ``memory``.
        """
        check_trainable(network)
        check_stream(stream)
        with closing(on_device(stream, stream.in_order(), place_of(network))) as batches:
            batch = max(batches, key=lambda batch: batch.length * batch.lanes)
            return _Planner(self, network, step_loss(loss)).plan(batch, measure=True)

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
        value, passage = differentiate(network, loss, window, unfolding)
        self.state = passage.end
        closure = again(network, loss, window, unfolding)
        problem = Problem(network, loss, chunk, start)
        seen = partial(inspect, network, loss, chunk.part, chunk.steps, 0, start)
        end, count = passage.end, window.count
        yield Update(float(value), count, 0, batch.length, index, end, closure, problem, seen)

    def _in_segments(self, sweep: Sweep, index: int) -> Iterator[Update]:
        value, end = sweep.run()
        self.state = end
        network, loss, batch = sweep.network, sweep.loss, sweep.batch
        length = batch.length
        seen = partial(inspect, network, loss, batch.chunk, length, 0, sweep.start)
        yield Update(float(value), sweep.count, 0, length, index, end, sweep.closure, inspect=seen)


@dataclass
class _Planner:
    """Plans for the batches of one pass; what a step takes is measured once for so many lanes."""

    method: Full
    network: Network
    loss: StepLoss
    known: dict[int, tuple[Costs, bool, int]] = field(default_factory=dict)

    def plan(self, batch: Batch, measure: bool = False) -> SegmentPlan:
        """The plan for a batch; with ``measure``, costs are in it whether it needs them or not."""
        steps, lanes = max(batch.length, 1), batch.lanes
        if self.method.memory is not None:
            costs, idle, rows = self._costs(batch)
            return choose(costs, steps, lanes, bytes_of(self.method.memory), idle, rows)
        segment = min(self.method.segment or steps, steps)
        kept = max(-(-steps // segment) - 1, 1)
        found = self._costs(batch)[0] if measure else None
        return SegmentPlan(steps, lanes, segment, kept, costs=found)

    def _costs(self, batch: Batch) -> tuple[Costs, bool, int]:
        if batch.lanes not in self.known:
            costs = costs_of(self.network, self.loss, batch)
            idle = idle_core(self.network, batch)
            self.known[batch.lanes] = costs, idle, beside(self.network, batch)
        return self.known[batch.lanes]
