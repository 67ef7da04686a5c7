"""Whole stretches of updates in the core: unfold, loss, backward, clip, update, advance.

After every stretch weights, optimizer, method and stream stand where they would after the same
updates made one by one, so that the two ways can take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bptt import _counting
from bptt.engine.online.learner import Learner
from bptt.gradients import GradientMethod, SlidingWindow, Update
from bptt.gradients._context import Carried, Context, Recomputed, Span
from bptt.gradients._resume import Place, taken_up
from bptt.gradients._truncated import warn_of_gaps
from bptt.gradients._window import again, counted
from bptt.losses import step_loss
from bptt.network import Network, place_of
from bptt.state import leaves
from bptt.streams import Batch, Chunk, Stream, on_device
from bptt.streams._chunk import length_within
from bptt.streams._live import ENDLESS
from bptt.training._eligible import (
    HOLDING,
    holds_gradients,
    learner_of,
    unfit,
    why_not,
    windows_of,
)
from bptt.training._learner import configure, plain, state_of, tell
from bptt.training._slots import Slots
from bptt.training._tally import Stretch

STEPS = 65536
"""Steps of the stream handed to the core at a time, and updates of a stretch, at most."""

NUMBERS, FEWEST = 1 << 22, 1024
"""Where steps are wide: so many numbers are handed over at a time, but not fewer steps."""

SECONDS = 0.04
"""How long a stretch lasts at most, so that bars, signals and callbacks are served."""


Limits = Callable[[], tuple[int, float]]
"""How many updates, and seconds, the next stretch may take at most."""


class Pass:
    """One pass over a stream in stretches.

    Args:
        network, method, loss, optimizer, clip: as `bptt.fit` takes them; ``why_not`` gave None.
        stream: the data.
        limits: asked before every stretch.

    Attributes:
        refused: why the pass was given back unfinished: the method's next ``updates`` goes on.
    """

    def __init__(
        self,
        network: Network,
        method: GradientMethod,
        loss: str,
        optimizer: torch.optim.Optimizer,
        clip: float | None,
        stream: Stream,
        limits: Limits,
    ) -> None:
        windows = windows_of(method)
        assert windows is not None
        self.network, self.method, self.windows = network, method, windows
        self.loss, self.optimizer, self.clip = loss, optimizer, clip
        self.stream, self.limits = stream, limits
        self.refused: str | None = None
        self._bound: tuple[Learner, tuple[int, ...]] | None = None
        self._numbers = (
            torch.empty(STEPS, dtype=torch.float64),
            torch.empty(STEPS, dtype=torch.float64),
            torch.empty(STEPS, dtype=torch.int64),
        )

    def stretches(self) -> Iterator[Stretch]:
        """Stretch after stretch. Before an update that is not finite, or may become so, the pass is
        given back: PyTorch makes it, or says why not."""
        windows, begun = self.windows, self.windows._saved
        if isinstance(self.method, SlidingWindow):
            self.method.check(self.stream)
        batches = self.stream.batches() if begun is None else taken_up(self.stream, begun, None)
        batches = on_device(self.stream, batches, place_of(self.network))
        windows._saved = None
        windows._place = begun
        with closing(batches):
            first = 0 if begun is None else begun.batch + (begun.span is None)
            for index, batch in enumerate(batches, first):
                if begun is not None and begun.span is not None and index == begun.batch:
                    begun.check(batch)
                yield from self._batch(index, batch)
                if self.refused is not None:
                    return
        windows._place = None
        if isinstance(self.method, SlidingWindow):
            self.method.state = windows.state

    def _batch(self, index: int, batch: Batch) -> Iterator[Stretch]:
        """The stretches of one batch."""
        windows = self.windows
        assert windows.stride is not None
        ahead = self._ahead(batch)
        place, learner, halt = self._place_in(index), None, "data"
        seen = place is None and batch.length < ENDLESS
        if seen and windows.depth < windows.stride and windows.loss != "last":
            warn_of_gaps(batch, windows.depth, windows.stride)
        base, start = 0, 0
        if place is not None and place.span is not None:
            base, start = place.span.start, place.span.follow
        while halt != "done":
            if halt == "data":
                if learner is not None:
                    base, start = learner.core.needed, learner.core.position()[0]
                stop = start + max(windows.depth, windows.stride) + ahead
                length = length_within(batch, stop)
                chunk = batch.chunk(base, min(stop, length))
                data = _contiguous(chunk)
            found = self._ready(chunk, length)
            if isinstance(found, str):
                self._hand_back(index, batch, found)
                return
            if found is not learner:
                self._enter(found, self._place_in(index))
                learner = found
            learner.core.extend(length)
            halt = yield from self._stretch(learner, index, batch, data, base)
            if halt == "nonfinite":
                self._hand_back(index, batch, "a loss, gradient or weight is not finite, or huge")
                return
        assert learner is not None
        windows.state = state_of(learner, "present")

    def _ahead(self, batch: Batch) -> int:
        """How many steps beyond a window are handed over with it: fewer than make all updates of a
        stretch. A live source says how far it may be read on."""
        live = getattr(batch, "ahead", None)
        if live is not None:
            return min(STEPS - 2, int(live))
        wide = batch.lanes * (self.stream.input_size + self.stream.target_size)
        return min(STEPS - 2, max(NUMBERS // wide, FEWEST))

    def _place_in(self, index: int) -> Place | None:
        """The last update, if it was in this batch."""
        place = self.windows._place
        return (
            place if place is not None and place.span is not None and place.batch == index else None
        )

    def _hand_back(self, index: int, batch: Batch, reason: str) -> None:
        """Leave the rest of the pass to the method's own ``updates``."""
        place = self._place_in(index)
        if place is None:  # this batch from its start: the one before it is done
            place = Place(self.stream.epoch, index - 1, batch.lanes, batch.length)
        self.windows._saved = self.windows._place = place
        self.refused = reason

    def _ready(self, chunk: Chunk, length: int) -> Learner | str:
        """The learner, told of weights and optimizer as they are now; or why there is none."""
        reason = why_not(self.network, self.method, self.loss, self.optimizer)
        if reason is not None:
            return reason
        if holds_gradients(self.network):
            return HOLDING
        learner = learner_of(self.network, self.windows, self.loss, chunk, length)
        if isinstance(learner, str):
            return learner
        reason = unfit(learner, chunk, self.loss)
        if reason is not None:
            return reason
        where = tuple(t.data_ptr() for t in learner.tensors)
        if self._bound is None or self._bound != (learner, where):
            learner.core.bind([t.detach() for t in learner.tensors])
            self._bound = (learner, where)
        tell(learner, self.network)
        self._slots = Slots(self.optimizer, learner)
        configure(learner, self.windows, self.clip, self._slots)
        return learner

    def _enter(self, learner: Learner, place: Place | None) -> None:
        if place is None or place.span is None or place.context is None:
            learner.core.enter(None, ENDLESS, 0, 0, None)
            return
        span, context = place.span, place.context.state
        own = None if context is None else [plain(leaf, learner) for leaf in leaves(context)]
        pending = (span.start, span.stop, span.first, span.follow)
        learner.core.enter(own, ENDLESS, span.follow, span.stop, pending)

    def _stretch(
        self, learner: Learner, index: int, batch: Batch, data: tuple[Any, ...], base: int
    ) -> Generator[Stretch, None, str]:
        """One call of the core; gives why it came back."""
        most, seconds = self.limits()
        steps = self.windows.depth * batch.lanes
        steps_left, seconds_left = _counting.left()
        most = max(1, int(min(most, STEPS, steps_left // steps)))
        seconds = min(seconds, seconds_left)
        losses, norms, counts = (n[:most] for n in self._numbers)
        core = learner.core
        try:
            core.run(*data, base, len(data[0]), seconds, losses, norms, counts, most)
        finally:  # also when a signal arrives: what was done is done
            halt, updates, last = core.report()
            self._slots.hand_over(core.fresh())
            if updates:
                self._note(learner, index, batch, Span(*last))
        if updates:
            _counting.spend(updates * steps)
            made = self._update(learner, index, batch, Span(*last), losses, counts, updates - 1)
            yield _summed(made, losses[:updates], norms[:updates], counts[:updates])
        return str(halt)

    def _note(self, learner: Learner, index: int, batch: Batch, span: Span) -> None:
        """Let method and weights stand where the last update left them."""
        windows = self.windows
        state = state_of(learner, "context")
        context: Context = Carried(state) if windows.context == "carried" else Recomputed(state)
        place = Place.at(self.stream, index, batch, span)
        windows._place = replace(place, context=context)
        torch.autograd.graph.increment_version([learner.tensors[i] for i in learner.gradients])
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what schedulers look for

    def _update(
        self,
        learner: Learner,
        index: int,
        batch: Batch,
        span: Span,
        losses: Tensor,
        counts: Tensor,
        number: int,
    ) -> Update:
        network, step, mean = self.network, step_loss(self.loss), self.windows.combine == "mean"
        entry = state_of(learner, "entry")
        carried = self.windows.context == "carried"

        def closure() -> Tensor:
            chunk = batch.chunk(span.start, span.stop)
            window = counted(chunk, span.first, chunk.steps if mean else 1)
            context: Context = Carried(entry) if carried else Recomputed(entry)
            return again(network, step, window, context.unfolding(network, chunk, span))()

        state = state_of(learner, "end")
        assert state is not None
        return Update(
            float(losses[number]), int(counts[number]), span.start, span.stop, index, state, closure
        )


def _contiguous(chunk: Chunk) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """What the core reads of a chunk."""
    reset = chunk.any_reset
    return (
        chunk.inputs.contiguous(),
        chunk.targets.contiguous(),
        chunk.mask.contiguous(),
        None if reset is None else reset.contiguous(),
        chunk.lengths,
    )


def _summed(update: Update, losses: Tensor, norms: Tensor, counts: Tensor) -> Stretch:
    totals = losses * counts.to(torch.float64)
    return Stretch(update, totals.numpy(), norms.numpy().copy(), int(counts.sum()))
