"""Truncated backpropagation through time, BPTT(h; h′), and the classic sliding window.

Sources: R. J. Williams and J. Peng, An efficient gradient-based algorithm for on-line training of
recurrent network trajectories, Neural Computation 2 (1990), where depth is h and stride h′; the
classic pseudocode (`SlidingWindow`). docs/algorithms.md has the equations.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from bptt.errors import DataError, OptionError, at_least, one_of
from bptt.gradients._context import Carried, Context, Recomputed, Span, Stored
from bptt.gradients._resume import Place, Traced, begin, load, save
from bptt.gradients._update import Update, check_stream
from bptt.gradients._window import again, counted, differentiate, inspect
from bptt.losses import Loss, StepLoss, step_loss
from bptt.network import Network
from bptt.state import State
from bptt.streams import Batch, Stream
from bptt.streams._chunk import length_within
from bptt.streams._live import ENDLESS


@dataclass
class Truncated:
    """BPTT(h; h′): windows of ``depth`` steps, an update every ``stride`` steps.

    Args:
        depth: how many copies of the cell an error visits (h, k, or k2): the gradient of a step's
            loss is exactly zero from lag ``depth`` on.
        stride: how many steps between two updates (h′, or k1); default: ``depth``.
        loss: which steps of a window count: ``"new"``, those that no window has counted before;
            ``"last"``, its last step alone; ``"all"``, every one.
        context: the state in which the next window starts: ``"carried"``, the one that this
            window passed through, from before the update; ``"recomputed"``, the cell run again
            with the updated weights, as the classic pseudocode does.
        history: ``"replay"`` unfolds the older steps of a window again; ``"stored"`` linearises
            them at the states that they had when first visited, with today's weights. It goes
            with ``context="carried"`` and ``loss="new"`` or ``"last"``.
        combine: ``"sum"`` sums the gradient of the cell's parameters over its copies; ``"mean"``
            divides that by their number: for plain SGD, every copy is updated apart and the
            copies are averaged.

    Attributes:
        state: the state after the last step of the last pass, detached.

    With depth below stride, the steps between two windows run without a gradient and their losses
    are not counted; a warning says how many.

    Raises:
        OptionError: an option is unknown, out of range, or does not go with another.
    """

    depth: int
    stride: int | None = None
    loss: Literal["new", "last", "all"] = "new"
    context: Literal["carried", "recomputed"] = "carried"
    history: Literal["replay", "stored"] = "replay"
    combine: Literal["sum", "mean"] = "sum"
    state: State | None = field(default=None, init=False, repr=False, compare=False)
    _place: Place | None = field(default=None, init=False, repr=False, compare=False)
    _saved: Place | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(1, depth=self.depth)
        if self.stride is None:
            self.stride = self.depth
        at_least(1, stride=self.stride)
        one_of(("new", "last", "all"), loss=self.loss)
        one_of(("carried", "recomputed"), context=self.context)
        one_of(("replay", "stored"), history=self.history)
        one_of(("sum", "mean"), combine=self.combine)
        if self.history == "stored" and (self.context != "carried" or self.loss == "all"):
            raise OptionError(
                "history='stored' keeps the states of the first visit: it goes with "
                "context='carried' and loss='new' or 'last', not with "
                f"context={self.context!r} and loss={self.loss!r}."
            )

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``, an update for each window; see `GradientMethod`."""
        begun = self._saved
        batches, start = begin(network, stream, state, begun, live=True)
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
            first = 0 if begun is None else begun.batch + (begun.span is None)
            for index, batch in enumerate(batches, first):
                context, after = self._context(start), None
                if begun is not None and begun.context is not None and begun.span is not None:
                    begun.check(batch)
                    assert not isinstance(begun.context, Traced)
                    context, after = copy(begun.context), begun.span
                    context.renew(network, batch, after)
                for span in self._spans(batch, after):
                    place = Place.at(stream, index, batch, span)
                    for update in self._window(network, loss, batch, context, span, place):
                        if update.count or stream.is_part:
                            yield update
                    context.renew(network, batch, span)
                self.state = context.state
                start = begun = None
        self._place = None

    def state_dict(self) -> dict[str, Any]:
        """The options, the last state and, in the middle of a pass, where it stands: the last
        window, with the states carried on from it.

        It is to be taken after an update has been applied, with the network's and the optimizer's
        state and the stream's own ``state_dict``. All are plain numbers, strings and lists, but
        for ``["tensors"]``, a flat dictionary of tensors.
        """
        return save(self, self._place)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``saved`` was taken: the next call of `updates` goes on with the pass that
        was interrupted, after its last update, and then ends; the one after it is a new pass.

        Raises:
            OptionError: it was saved by another method, or with other options.
        """
        self.state, self._saved = load(self, saved)
        self._place = self._saved

    def _context(self, start: State | None) -> Context:
        if self.history == "stored":
            return Stored(start)
        return Carried(start) if self.context == "carried" else Recomputed(start)

    def _spans(self, batch: Batch, after: Span | None) -> Iterator[Span]:
        """The windows of a batch, ``after`` one; the last is the first that reaches its end."""
        assert self.stride is not None
        start, reached = (0, 0) if after is None else (after.follow, after.stop)
        seen = after is None and batch.length < ENDLESS
        if seen and self.depth < self.stride and self.loss != "last":
            warn_of_gaps(batch, self.depth, self.stride)
        reach = max(self.depth, self.stride)
        while start < (length := length_within(batch, start + reach)):
            stop = min(start + self.depth, length)
            follow = length if stop == length else start + self.stride
            first = {"new": max(reached - start, 0), "last": stop - start - 1, "all": 0}[self.loss]
            yield Span(start, stop, first, min(follow, length))
            start, reached = follow, stop

    def _window(
        self,
        network: Network,
        loss: StepLoss,
        batch: Batch,
        context: Context,
        span: Span,
        place: Place,
    ) -> Iterator[Update]:
        """One window."""
        chunk = batch.chunk(span.start, span.stop)
        window = counted(chunk, span.first, chunk.steps if self.combine == "mean" else 1)
        unfolding = context.unfolding(network, chunk, span)
        seen = partial(inspect, network, loss, chunk.part, chunk.steps, span.first, context.entered)
        value, passage = differentiate(network, loss, window, unfolding)
        context.move(network, batch, span, passage)
        # A copy: the place stays true if the next window fails half-way.
        self._place = replace(place, context=copy(context))
        yield Update(
            float(value),
            window.count,
            span.start,
            span.stop,
            place.batch,
            passage.end,
            again(network, loss, window, unfolding),
            inspect=seen,
        )


def warn_of_gaps(batch: Batch, depth: int, stride: int) -> None:
    """Say how many steps a stride above the depth leaves uncounted."""
    skipped = sum(
        int(batch.chunk(start + depth, start + stride).mask.sum())
        for start in range(0, batch.length - depth, stride)
    )
    if skipped:
        warnings.warn(
            f"depth={depth} is below stride={stride}: the losses of {skipped} steps are not "
            "counted. A stride of at most the depth counts every one.",
            stacklevel=2,
        )


@dataclass
class SlidingWindow:
    """The classic pseudocode, to the letter: an update for every window of ``depth`` steps.

    It is ``Truncated(depth, stride=1, loss="last", context="recomputed")`` on a stream with
    ``horizon=1``: the inputs are the context and a[t] … a[t+k−1], the error is y[t+k] − p, all
    weights of f and g are updated, and the context becomes f(x, a[t]) with the updated weights;
    n − k updates an epoch.

    Args:
        depth: k, the number of copies of f.
        combine: ``"sum"`` as the newer text has it, ``"mean"`` as the older one does, which
            updates every copy of f apart and averages them.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Source: the pseudocode of the article on backpropagation through time, in both of its
    versions; docs/algorithms.md quotes the two slips that are read by their sense.
    """

    depth: int
    combine: Literal["sum", "mean"] = "sum"
    state: State | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._windows = Truncated(
            self.depth, 1, loss="last", context="recomputed", combine=self.combine
        )

    def updates(
        self, network: Network, loss: Loss, stream: Stream, state: State | None = None
    ) -> Iterator[Update]:
        """One pass over ``stream``, n − k updates; see `GradientMethod`.

        Raises:
            OptionError: the stream's horizon is not 1.
            DataError: a lane is not longer than ``depth``.
        """
        self.check(stream)
        return self._pass(self._windows.updates(network, loss, stream, state))

    def check(self, stream: Stream) -> None:
        """Refuse a stream on which the pseudocode cannot run; raises as `updates` does."""
        check_stream(stream, live=True)
        if stream.horizon != 1:
            raise OptionError(
                "SlidingWindow compares the prediction after a[t+k−1] with y[t+k]: give the "
                f"stream horizon=1, not {stream.horizon}. Truncated(depth, stride=1, loss='last', "
                "context='recomputed') does the same for other horizons."
            )
        for batch in () if stream.single_pass else stream.in_order():
            lengths = batch.chunk(0, self.depth + 1).lengths
            # A lane without steps is none: a part of a stream may have no more than that.
            present = [] if lengths is None else lengths[lengths > 0].tolist()
            shortest = min(present, default=batch.length)
            if shortest <= self.depth:
                raise DataError(
                    f"SlidingWindow with depth {self.depth} needs more than {self.depth} steps on "
                    f"every lane, but the shortest has {shortest}: choose a depth below "
                    f"{shortest}, or leave such sequences out."
                )

    def _pass(self, updates: Iterator[Update]) -> Iterator[Update]:
        yield from updates
        self.state = self._windows.state

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands; see `Truncated.state_dict`."""
        return {**self._windows.state_dict(), "method": type(self).__name__}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on where ``saved`` was taken; see `Truncated.load_state_dict`.

        Raises:
            OptionError: it was saved by another method, or with other options.
        """
        if saved.get("method") != type(self).__name__:
            raise OptionError(f"this is the state of {saved.get('method')!r}, not of this method.")
        self._windows.load_state_dict({**saved, "method": type(self._windows).__name__})
        self.state = self._windows.state
