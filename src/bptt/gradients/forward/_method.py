"""Forward methods: what the state owes to the parameters is carried along with it, so that no error
travels back in time and no step is kept.

Every method here carries a *trace*, in place of the past: RTRL all of ∂s_t/∂θ, UORO a random
product of two vectors that is ∂s_t/∂θ on average, focused backpropagation the part of it that is
not zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.engine.runtime.outputs import outputs_of
from bptt.errors import OptionError, at_least
from bptt.gradients._context import Span
from bptt.gradients._local import Local
from bptt.gradients._resume import Place, Traced, begin, load, save
from bptt.gradients._update import Update
from bptt.gradients._window import inspect
from bptt.losses import Loss, StepLoss, cost, step_loss
from bptt.network import Network
from bptt.state import State, at, detach, lane_mask, map_state, select
from bptt.streams import Batch, Chunk, Stream

TOGETHER = 2**22
"""Numbers of several steps that are prepared at once, unless one step has more."""


@dataclass(frozen=True)
class Steps:
    """Successive steps whose entering states are known.

    Attributes:
        inputs: [time, lane, ...].
        states: [time, lane, size], before each step, after a reset.
        reset: bool [time, lane]: the lane began anew.
        active: bool [time, lane]: the lane had not ended.
        seeds: whole numbers that belong to this place of the pass alone, for draws.
    """

    inputs: Tensor
    states: Tensor
    reset: Tensor
    active: Tensor
    seeds: tuple[int, ...]

    def part(self, start: int, stop: int) -> Steps:
        """The steps ``start`` to ``stop - 1``."""
        at = slice(start, stop)
        return Steps(
            self.inputs[at],
            self.states[at],
            self.reset[at],
            self.active[at],
            (*self.seeds[:-1], self.seeds[-1] + start),
        )

    def generator(self, *seeds: int) -> torch.Generator:
        """Draws that depend on ``seeds`` and the place alone, so that they can be repeated."""
        mixed = np.random.SeedSequence([*seeds, *self.seeds]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]) >> 1)


@dataclass
class ForwardMethod(ABC):
    """A gradient method that carries a trace; subclasses say which.

    A trace is nested like a state, lanes first, so that a reset puts it back and a lane that has
    ended keeps it.
    """

    state: State | None = field(default=None, init=False, repr=False, compare=False)
    _place: Place | None = field(default=None, init=False, repr=False, compare=False)
    _saved: Place | None = field(default=None, init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def every(self) -> int | None:
        """Steps between two updates; None: one update a batch."""

    @abstractmethod
    def first(self, local: Local, lanes: int, influence: Tensor | None, steps: Steps) -> State:
        """The trace of lanes at a state whose derivative is ``influence`` [lane, size, count], or
        None where it is zero."""

    @abstractmethod
    def numbers(self, local: Local) -> int:
        """How many numbers `prepare` makes of a step of one lane."""

    @abstractmethod
    def prepare(self, local: Local, steps: Steps) -> Any:
        """What of several steps needs no order."""

    @abstractmethod
    def next(self, local: Local, steps: Steps, prepared: Any, t: int, trace: State) -> State:
        """The trace after step ``t``."""

    @abstractmethod
    def gradient(self, errors: Tensor, trace: State) -> Tensor:
        """∂loss/∂θ [count] out of ∂loss/∂s [lane, size] and the trace of that step."""

    @abstractmethod
    def check(self, local: Local, stream: Stream) -> None:
        """Refuse, before any work, what this method cannot do and others can."""

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``; see `GradientMethod`.

        Raises:
            CellError: the cell cannot be differentiated step by step.
        """
        begun = self._saved
        batches, start = begin(network, stream, state, begun)
        local = Local(network, type(self).__name__)
        self.check(local, stream)
        self._saved = None
        return self._pass(local, step_loss(loss), stream, batches, start, begun)

    def _pass(
        self,
        local: Local,
        loss: StepLoss,
        stream: Stream,
        batches: Generator[Batch],
        start: State | None,
        begun: Place | None,
    ) -> Iterator[Update]:
        self._place = begun
        with closing(batches):
            for index, batch in enumerate(batches, 0 if begun is None else begun.batch):
                carried, low = Traced(start), 0
                if begun is not None and begun.span is not None:
                    begun.check(batch)
                    assert isinstance(begun.context, Traced)
                    carried, low = begun.context, begun.span.follow
                elif low < batch.length:
                    first = batch.chunk(0, 1)
                    initial = local.network.initial_state(batch.lanes, like=first.inputs)
                    local.refuse_unfit(first.inputs[0], initial)
                while low < batch.length:
                    high = batch.length if self.every is None else low + self.every
                    span = Span(low, min(high, batch.length), 0, min(high, batch.length))
                    chunk = batch.chunk(span.start, span.stop)
                    seeds = (stream.epoch, index, low)
                    run = partial(self._stretch, local, loss, chunk, carried, seeds)
                    seen = partial(
                        inspect, local.network, loss, chunk.part, chunk.steps, 0, carried.state
                    )
                    count = int(chunk.mask.sum())
                    value, carried = run()
                    if count or stream.is_part:
                        self._place = Place.at(stream, index, batch, span, carried)
                        assert carried.state is not None
                        yield Update(
                            float(value),
                            count,
                            span.start,
                            span.stop,
                            index,
                            carried.state,
                            partial(_again, local.network, run),
                            inspect=seen,
                        )
                    low = span.stop
                self.state = carried.state
                start = begun = None
        self._place = None

    def _stretch(
        self, local: Local, loss: StepLoss, chunk: Chunk, carried: Traced, seeds: tuple[int, ...]
    ) -> tuple[Tensor, Traced]:
        """Add the gradient of a stretch's mean loss to ``.grad``; the loss, and what is carried
        on."""
        states, steps, start, trace = laid_out(self, local, chunk, carried.state, seeds)
        value, errors = _read(local.network, loss, chunk, states)
        end = at(states, -1)
        if not local.count:
            return value, Traced(end)
        with torch.no_grad():
            trace = trace if carried.trace is None else carried.trace
            flat = None if errors is None else local.flat(errors, 2)
            total = None
            for t, trace in self.traces(local, steps, start, trace):  # noqa: B020
                if flat is not None:
                    found = self.gradient(flat[t], trace)
                    total = found if total is None else total + found
            if total is not None:
                local.add(total)
        return value, Traced(end, trace)

    def traces(
        self, local: Local, steps: Steps, start: State, trace: State
    ) -> Iterator[tuple[int, State]]:
        """Carry a trace over ``steps``, back to ``start`` where a lane begins anew; each step with
        the trace after it."""
        length = len(steps.inputs)
        resets, actives = steps.reset.any(1).tolist(), steps.active.all(1).tolist()
        size = max(TOGETHER // (self.numbers(local) * steps.states.shape[1]), 1)
        for low in range(0, length, size):
            part = steps.part(low, min(low + size, length))
            prepared = self.prepare(local, part)
            for t in range(len(part.inputs)):
                if resets[low + t]:
                    trace = select(part.reset[t], start, trace)
                new = self.next(local, part, prepared, t, trace)
                trace = new if actives[low + t] else select(part.active[t], new, trace)
                yield low + t, trace

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands, with the trace; see `Truncated.state_dict`."""
        return save(self, self._place)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where ``saved`` was taken; see `Truncated.load_state_dict`.

        Raises:
            OptionError: it was saved by another method, or with other options.
        """
        self.state, self._saved = load(self, saved)
        self._place = self._saved


def laid_out(
    method: ForwardMethod,
    local: Local,
    chunk: Chunk,
    state: State | None,
    seeds: tuple[int, ...] = (0,),
) -> tuple[State, Steps, State, State]:
    """Unfold ``chunk`` from ``state``, None for the initial one: the states after every step, its
    steps, the trace at the initial state, and the trace before the first step."""
    network, lanes = local.network, chunk.inputs.shape[1]
    initial = network.initial_state(lanes, like=chunk.inputs)
    still = detach(initial)
    with torch.no_grad():
        _, _, states = network.unfold_states(
            chunk.inputs,
            still if state is None else state,
            reset=chunk.any_reset,
            lengths=chunk.lengths,
            initial=still,
        )
    begin = local.flat(still)
    before = begin if state is None else local.flat(state)
    steps = _steps(chunk, before, local.flat(states, 2), begin, seeds)
    entered = state is None or chunk.any_reset is not None
    influence = local.of_initial(initial) if entered and local.count else None
    with torch.no_grad():
        start = method.first(local, lanes, influence, steps)
        trace = start if state is None else method.first(local, lanes, None, steps)
    return states, steps, start, trace


def check_stride(stride: int | None) -> None:
    """Refuse a stride that is no whole number of at least 1, nor None."""
    if stride is not None:
        at_least(1, stride=stride)


def check_seed(seed: int) -> None:
    """Refuse a seed that is no whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise OptionError(f"seed must be a whole number of at least 0, not {seed!r}.")


def _again(network: Network, run: Any) -> Tensor:
    """The closure of an update."""
    network.zero_grad()
    with torch.enable_grad():
        value: Tensor = run()[0]
    return value


def _read(
    network: Network, loss: StepLoss, chunk: Chunk, states: State
) -> tuple[Tensor, State | None]:
    """The mean loss, the readout's gradient added to ``.grad``; ∂loss/∂s of every step, None where
    nothing counts."""
    count = int(chunk.mask.sum())
    if not count:
        return chunk.inputs.new_zeros((), dtype=torch.float64), None
    with torch.enable_grad():
        entries = map_state(lambda leaf: leaf.detach().requires_grad_(), states)
        outputs = outputs_of(network.cell, entries)
        mean = cost(loss, network.read, outputs, chunk.targets, chunk.mask) / count
        mean.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    errors = map_state(
        lambda leaf: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, entries
    )
    return mean.detach(), errors


def _steps(
    chunk: Chunk, before: Tensor, after: Tensor, initial: Tensor, seeds: tuple[int, ...]
) -> Steps:
    """The steps of ``chunk`` from the states around them, flat."""
    states = torch.cat([before[None], after[:-1]])
    states = torch.where(lane_mask(chunk.reset, states), initial, states)
    active = torch.ones_like(chunk.reset)
    if chunk.lengths is not None:
        places = torch.arange(chunk.steps, device=active.device)
        active = places[:, None] < chunk.lengths
        # What lies past a lane's end may be anything: nothing of it may enter a product.
        inputs = torch.where(
            lane_mask(active, chunk.inputs), chunk.inputs, torch.zeros_like(chunk.inputs)
        )
        return Steps(inputs, states, chunk.reset & active, active, seeds)
    return Steps(chunk.inputs, states, chunk.reset, active, seeds)


def rows(steps: Steps) -> tuple[Tensor, Tensor]:
    """Inputs [time · lane, ...] and entering states [time · lane, size] of all steps."""
    return steps.inputs.flatten(0, 1), steps.states.flatten(0, 1)


def by_time(found: Tensor, steps: Steps) -> Tensor:
    """[time · lane, ...] as [time, lane, ...]."""
    return found.reshape(*steps.states.shape[:2], *found.shape[1:])
