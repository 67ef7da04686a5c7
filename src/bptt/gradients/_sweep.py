"""One gradient over a batch, segment by segment, the last one first.

Inputs, readout, loss and targets of a segment live only while it is swept. The gradient is that of
the whole, to rounding.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from bptt.gradients._window import advance
from bptt.losses import StepLoss, cost
from bptt.network import Network
from bptt.reuse import Reuse, reusing
from bptt.segments import (
    Draws,
    Entry,
    Freed,
    SegmentPlan,
    Unchanged,
    drawn_from,
    draws,
    entering,
    kept,
    one_ahead,
    reversed_states,
)
from bptt.state import State, leaves
from bptt.streams import Batch, Chunk

Roots = tuple[list[Tensor], list[Tensor | None]]
"""Where a gradient sets out, and with what (None: 1)."""


@dataclass(frozen=True)
class Unfolding:
    """A segment unfolded: its data, the state that entered it (None: the initial one), its outputs
    and its last state."""

    chunk: Chunk
    entry: State | None
    outputs: Tensor
    last: State

    @classmethod
    def of(cls, network: Network, chunk: Chunk, state: State | None) -> Unfolding:
        """Unfold a segment from ``state``."""
        with torch.enable_grad():
            lanes = chunk.inputs.shape[1]
            start = network.initial_state(lanes, like=chunk.inputs) if state is None else state
            # An initial state that nothing trains enters like any other: one program serves all.
            trained = state is None and any(leaf.requires_grad for leaf in leaves(start))
            entry = None if trained else entering(start)
            outputs, last = network.unfold(
                chunk.inputs, entry, reset=chunk.any_reset, lengths=chunk.lengths
            )
        return cls(chunk, entry, outputs, last)

    @classmethod
    def side_by_side(
        cls, network: Network, chunks: list[Chunk], states: list[State]
    ) -> list[Unfolding]:
        """Unfold segments of one lane and one length together; nothing if they cannot go so."""
        with torch.enable_grad():
            entries = [entering(state) for state in states]
            inputs, resets = [c.inputs for c in chunks], [c.any_reset for c in chunks]
            found = network.unfold_side_by_side(inputs, entries, resets) or []
        every = zip(chunks, entries, found, strict=False)
        return [cls(chunk, entry, *ran) for chunk, entry, ran in every]

    def roots(
        self, network: Network, loss: StepLoss, count: int, after: list[Tensor | None]
    ) -> tuple[Tensor, Roots]:
        """The summed loss, and where its share of the mean over ``count`` steps and the gradient
        of the state after this segment set out."""
        with torch.enable_grad():
            chunk = self.chunk
            total = cost(loss, network.read, self.outputs, chunk.targets, chunk.mask)
            ends = [(total / count, None), *zip(leaves(self.last), after, strict=True)]
        # The loss goes nowhere where nothing is counted, or nothing can be trained.
        live = [
            e for i, e in enumerate(ends) if e[0].requires_grad and (i == 0 or e[1] is not None)
        ]
        return total.detach(), ([root for root, _ in live], [seed for _, seed in live])

    def before(self) -> list[Tensor | None]:
        """The gradient of the state that entered the segment, when it has been swept."""
        return [] if self.entry is None else [leaf.grad for leaf in leaves(self.entry)]


@dataclass
class Sweep:
    """The gradient of a batch by a plan, from the state ``start``."""

    network: Network
    loss: StepLoss
    batch: Batch
    plan: SegmentPlan
    start: State | None
    count: int = 0
    freed: Freed = field(default_factory=lambda: Freed(None))

    def closure(self) -> Tensor:
        """The same gradient with the present weights, cleared first."""
        self.network.zero_grad()
        return self.run()[0]

    def run(self) -> tuple[Tensor, State]:
        """Add the gradient to ``.grad``; give the mean loss and the last state."""
        self.count = 0
        costs = self.plan.costs
        counted = self.plan.budget is not None and costs is not None and costs.on_cpu
        self.freed = Freed(self.plan.peak if counted else None)
        total, end = torch.zeros((), dtype=torch.float64), None
        after: list[Tensor | None] = []
        unfoldings: Generator[Unfolding] = _Unfoldings(self).made()
        if self.plan.ahead:
            unfoldings = one_ahead(unfoldings)
        with closing(unfoldings):
            for unfolding in unfoldings:
                last = end is None
                if end is None:
                    end = kept(unfolding.last)
                    after = [None] * len(leaves(end))
                    if not self.count:
                        break
                part, (roots, seeds) = unfolding.roots(self.network, self.loss, self.count, after)
                if roots:
                    torch.autograd.backward(roots, seeds)
                after = unfolding.before()
                total += part.to(total)
                del unfolding, roots  # before the next one is made
                self.freed.tidy(always=last)  # a shorter one leaves pieces that fit no other
        assert end is not None
        return total / max(self.count, 1), end


@dataclass
class _Unfoldings:
    """The unfoldings of a sweep, in one pass forward and then in reverse."""

    sweep: Sweep
    first: bool = True
    drawn: bool = False
    arrays: Reuse = field(init=False)

    def __post_init__(self) -> None:
        self.arrays = Reuse(self.sweep.plan.arrays)

    def made(self) -> Generator[Unfolding]:
        """Each segment's, the last one first.

        The first pass counts the steps and draws random numbers as it comes; what is run again
        draws the same, and leaves the generators as they are.
        """
        sweep = self.sweep
        begin = draws()
        entries = reversed_states(
            sweep.plan.segments, sweep.plan.kept, Entry(sweep.start, begin), self._advance
        )
        beside = 1
        while group := list(islice(entries, beside)):
            unfoldings = self._side_by_side(group)
            while unfoldings:
                yield unfoldings.pop(0)
            while group:
                yield self._one(*group.pop(0), begin)
            beside = sweep.plan.beside  # the last segment of all, which may be shorter, is alone

    def _one(self, index: int, entry: Entry, begin: Draws) -> Unfolding:
        self.sweep.freed.tidy()  # where a second core unfolds ahead, it does this too
        chunk = self._chunk(index)
        unchanged = Unchanged(self.sweep.network.cell)
        with self._drawing(entry.draws), reusing(self.arrays):
            unfolding = Unfolding.of(self.sweep.network, chunk, entry.state)
        unchanged.check()
        if self.first:
            self.first, self.drawn = False, draws(begin) is not begin
        return unfolding

    def _side_by_side(self, group: list[tuple[int, Entry]]) -> list[Unfolding]:
        """The segments of a group that go together, taken from it."""
        entered = [(index, entry.state) for index, entry in group if entry.state is not None]
        if len(entered) < 2 or self.drawn:
            return []
        self.sweep.freed.tidy()
        chunks = [self._chunk(index) for index, _ in entered]
        with reusing(self.arrays):
            states = [state for _, state in entered]
            found = Unfolding.side_by_side(self.sweep.network, chunks, states)
        del group[: len(found)]
        return found

    def _advance(self, start: int, stop: int, entry: Entry) -> Entry:
        """Run the segments ``start`` to ``stop - 1``."""
        with self._drawing(entry.draws), reusing(self.arrays):
            for index in range(start, stop):
                chunk, unchanged = self._chunk(index), Unchanged(self.sweep.network.cell)
                state = kept(advance(self.sweep.network, chunk, entry.state))
                unchanged.check()
                entry = Entry(state, draws(entry.draws))
                del chunk
                self.sweep.freed.tidy()
        return entry

    def _chunk(self, index: int) -> Chunk:
        segment = self.sweep.plan.segment
        chunk = self.sweep.batch.chunk(index * segment, (index + 1) * segment)
        if self.first:
            self.sweep.count += int(chunk.mask.sum())
        return chunk

    def _drawing(self, place: Draws) -> AbstractContextManager[None]:
        again = self.drawn and not self.first
        return drawn_from(place) if again else nullcontext()
