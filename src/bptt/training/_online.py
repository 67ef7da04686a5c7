"""`Online`: learn while data arrives, a step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bptt.engine.frontend.module_state import Guard
from bptt.errors import OptionError, at_least
from bptt.gradients import GradientMethod, SlidingWindow
from bptt.gradients._context import Carried, Context, Recomputed, Span, Stored
from bptt.gradients._resume import Place, load, save
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable, place_of
from bptt.state import State
from bptt.training._eligible import (
    HOLDING,
    holds_gradients,
    learner_of,
    unfit,
    why_not,
    windows_of,
)
from bptt.training._history import History, Progress
from bptt.training._live import LiveBatch, as_row, check_row, standing
from bptt.training._online_core import CoreSide
from bptt.training._step import Stepper

ROOM = 512
"""Steps that fit into the buffer beside those of a window, so that it is seldom moved."""


class Online:
    """A learner that is fed step by step and updates its network as the method says.

    Fed with the steps of a stream it makes, window by window, the very updates that the method
    makes on it (but for the shorter windows at a stream's end, as live data has none), in the core
    where `bptt.fit` would use it. Memory does not grow.

    Args:
        network: trained in place.
        method: `Truncated` with a stride of at most its depth, or `SlidingWindow`.
        loss: as `bptt.fit` takes it.
        optimizer: of `torch.optim`, or a function that makes one of the parameters; default: Adam
            with a learning rate of 0.001.
        lanes: how many streams run side by side.
        horizon: the prediction made after reading an input is compared with the target that comes
            so many steps later; default: 1 for `SlidingWindow`, else 0.
        clip: as of `bptt.fit`.

    Attributes:
        steps: how many were read.
        updates: how many were made.
        loss: of the last update, NaN before the first.
        gradient_norm: of the last update, before clipping.
        reason: why updates go through PyTorch, None where they are made in the core; known after
            the first update.

    Raises:
        OptionError: the method, or an option, is none that goes with live data.
    """

    def __init__(
        self,
        network: Network,
        method: GradientMethod,
        loss: Loss = "mse",
        optimizer: torch.optim.Optimizer
        | Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
        | None = None,
        *,
        lanes: int = 1,
        horizon: int | None = None,
        clip: float | None = None,
    ) -> None:
        check_trainable(network)
        self._step_loss = step_loss(loss)
        windows = windows_of(method)
        if windows is None:
            raise OptionError(
                f"Online takes Truncated or SlidingWindow, not {type(method).__name__}, which "
                "needs whole sequences."
            )
        assert windows.stride is not None
        if windows.stride > windows.depth:
            raise OptionError(
                f"Online needs a stride of at most the depth: {windows.stride} is above "
                f"{windows.depth}."
            )
        sliding = isinstance(method, SlidingWindow)
        horizon = int(sliding) if horizon is None else horizon
        at_least(1, lanes=lanes)
        at_least(0, horizon=horizon)
        if sliding and horizon != 1:
            raise OptionError(f"SlidingWindow has a horizon of 1, not {horizon}.")
        maker = torch.optim.Adam if optimizer is None else optimizer
        self.network, self.method, self._loss = network, method, loss
        self.optimizer = (
            maker if isinstance(maker, torch.optim.Optimizer) else maker(network.parameters())
        )
        self.horizon, self.clip = horizon, clip
        self.reason: str | None = None
        self._stepper = Stepper(network, self.optimizer, clip)
        self._progress = Progress(network, self.optimizer, History())
        self._windows, self._stride = windows, windows.stride
        place = place_of(network) or torch.device("cpu")
        self._batch = LiveBatch(lanes, windows.depth + horizon + ROOM, place)
        self._context: Context = self._new_context(None)
        self._pending: Span | None = None
        self._at = standing()
        self._native: CoreSide | None = None
        self._feed: Any = None
        self._guard = Guard(network)
        self._asked = False
        self._dtype = next(p.dtype for p in network.parameters() if p.is_floating_point())

    def step(self, input: Any, target: Any = None) -> Tensor:
        """Read a step, learn from what is known by now, and predict.

        With a horizon of 0 the prediction is made before its own target is learned from; with a
        longer one, after learning from the target that has just arrived.

        Args:
            input: [feature] or a number, with several lanes [lanes, feature].
            target: likewise (class indices for cross entropy): what the prediction made
                ``horizon`` steps ago is compared with. None: nothing to compare.

        Returns:
            The prediction after this input, [feature] or [lanes, feature].

        Raises:
            ShapeError: the step is of another shape than those before it, or its class is none of
                those that the network scores.
            DataError: it holds NaN or infinity.
            NonFiniteError: loss or gradient became NaN or infinite; that update was withheld.
        """
        if self._feed is not None:
            found: Tensor | None = self._feed.step(input, target)
            if found is not None:
                return found
        return self._in_parts(input, target)

    @property
    def steps(self) -> int:
        """How many were read."""
        return int(self._at.steps)

    @property
    def updates(self) -> int:
        """How many were made."""
        return int(self._at.updates)

    @property
    def loss(self) -> float:
        """Of the last update, NaN before the first."""
        return float(self._at.loss)

    @property
    def gradient_norm(self) -> float:
        """Of the last update, before clipping."""
        return float(self._at.gradient_norm)

    def _in_parts(self, input: Any, target: Any) -> Tensor:
        """A step of any kind; where the core learns, those like the ones before go through its
        `Feed`."""
        batch, number = self._batch, self.steps
        batch.read = number
        if number - batch.base >= batch.capacity:
            batch.forget(self._needed())
        alone = self._read(number, input)
        if self.horizon == 0:
            batch.read = number + 1
            prediction = self._predict(number + 1)
        if target is not None:
            self._compare(number - self.horizon, target)
        while self._next_stop() <= number - self.horizon + 1:
            self._learn()
        if self.horizon > 0:
            batch.read = number + 1
            prediction = self._predict(number + 1)
        self._at.steps = number + 1
        if self._feed is None and self._native is not None:
            self._feed = self._native.feed(batch, self._at, self.horizon)
        if self._feed is not None:
            self._feed.base = batch.base
        return prediction[0] if alone else prediction

    def _pass_on(self) -> None:
        """To the next window."""
        self._at.reached = self._next_stop()
        self._at.start += self._stride

    def _read(self, number: int, input: Any) -> bool:
        """Take an input in; whether it came without its lane."""
        batch = self._batch
        row, alone = as_row(input, "inputs", batch.lanes, self._dtype)
        row = row.to(batch.device)
        check_row(row, batch.inputs, "inputs")
        batch.put(number, row)
        return alone

    def _compare(self, number: int, target: Any) -> None:
        """Take in what the prediction after step ``number`` is compared with."""
        batch = self._batch
        if number < 0:
            return
        row, _ = as_row(target, "targets", batch.lanes, self._dtype)
        row = row.to(batch.device)
        check_row(row, batch.targets, "targets")
        if self._native is not None and not self._native.takes(row):
            self._leave()  # a loss of PyTorch's may know what a class of such a number is
        batch.compare(number, row)

    # -- where it stands -------------------------------------------------------------------------

    def _new_context(self, state: State | None) -> Context:
        if self._windows.history == "stored":
            return Stored(state)
        return Carried(state) if self._windows.context == "carried" else Recomputed(state)

    def _next_stop(self) -> int:
        return int(self._at.start) + self._windows.depth

    def _needed(self) -> int:
        """The first step that is looked at again."""
        if self._native is not None:
            return int(self._native.learner.core.needed)
        return int(self._at.start if self._pending is None else self._pending.start)

    def _span(self) -> Span:
        windows = self._windows
        assert windows.stride is not None
        start, stop = int(self._at.start), self._next_stop()
        first = {"new": max(int(self._at.reached) - start, 0), "last": stop - start - 1, "all": 0}
        return Span(start, stop, first[windows.loss], start + windows.stride)

    # -- learning --------------------------------------------------------------------------------

    def _learn(self) -> None:
        """The window at hand: an update, unless nothing in it counts."""
        self._choose()
        found = None if self._native is None else self._native.learn(self._batch)
        if found is not None and found.made:
            self._made(found.loss, found.norm)
        elif self._native is None or found is not None:
            # Also what is not finite, or huge: PyTorch makes it, or says why not.
            if self._native is not None:
                self._leave()
            self._learn_eagerly(self._span())
        self._pass_on()

    def _made(self, loss: float, norm: float) -> None:
        self._at.loss, self._at.gradient_norm = loss, norm
        self._at.updates += 1

    def _learn_eagerly(self, span: Span) -> None:
        self._renew()
        place = Place(0, 0, self._batch.lanes, self._batch.length, span)
        network, windows = self.network, self._windows
        for update in windows._window(
            network, self._step_loss, self._batch, self._context, span, place
        ):
            if not update.count:
                continue
            self._progress.updates = self.updates
            self._made(update.loss, self._stepper.apply(update, self._progress))
        windows._place = None
        self._pending = span

    def _renew(self) -> None:
        """The context goes on from the last window when it is read, as in the core: until then the
        caller may have changed the weights, as who projects them after a step does."""
        if self._pending is not None:
            self._context.renew(self.network, self._batch, self._pending)
            self._pending = None

    def _choose(self) -> None:
        """Go on in the core, or leave it, as network and optimizer are now."""
        if self._native is not None:
            if self._native.holds():
                return
            self._leave()
        elif self._asked and self._guard.holds():
            return
        found = self._try()
        self.reason = found if isinstance(found, str) else None
        self._native = None if isinstance(found, str) else found
        # PyTorch's update uses up what gradients there are: then the core goes on.
        self._asked = self._batch.targets is not None and found != HOLDING
        self._guard = Guard(self.network)

    def _try(self) -> CoreSide | str:
        reason = why_not(self.network, self.method, self._loss, self.optimizer)
        if reason is None and self._batch.targets is None:
            reason = "nothing was compared yet"
        groups = self.optimizer.param_groups
        if reason is None and any(isinstance(group["lr"], Tensor) for group in groups):
            reason = "the learning rate is a tensor"  # which may change in place
        if reason is None and holds_gradients(self.network):
            reason = HOLDING
        if reason is not None:
            return reason
        assert isinstance(self._loss, str)  # why_not asked
        chunk = self._batch.chunk(self._at.start, self._batch.read)
        learner = learner_of(
            self.network, self._windows, self._loss, chunk, self._windows.depth, own=True
        )
        if isinstance(learner, str):
            return learner
        reason = unfit(learner, chunk, self._loss)
        if reason is not None:
            return reason
        self._renew()
        native = CoreSide(self.network, self.optimizer, self._windows, self.clip, learner)
        native.enter(self._context.state, self._at.start, self._at.reached, None)
        return native

    def _leave(self) -> None:
        """Take the context out of the core."""
        self._context, self._native, self._feed = self._present(), None, None
        self._asked = False

    def _present(self) -> Context:
        """The context, renewed, wherever it is held."""
        if self._native is None:
            self._renew()
            return self._context
        state, pending = self._native.present()
        context = self._new_context(state)
        if pending is not None:
            context.renew(self.network, self._batch, pending)
        return context

    # -- predicting ------------------------------------------------------------------------------

    def _predict(self, stop: int) -> Tensor:
        """The prediction after step ``stop - 1``."""
        if self._native is not None and not self._native.holds():
            self._leave()
        if self._native is not None:
            return self._native.predict(self._batch, self._at.start, stop)
        return self._predict_eagerly(stop)

    @torch.no_grad()
    def _predict_eagerly(self, stop: int) -> Tensor:
        self._renew()
        at = self._at
        first = int(at.reached if isinstance(self._context, Stored) else at.start)
        chunk = self._batch.chunk(first, stop)
        outputs, _ = self.network.unfold(chunk.inputs, self._context.state)
        return self.network.read(outputs[-1:])[0]

    # -- saving ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that learning on depends on: network, optimizer, and where the learner stands.

        Plain numbers, strings and lists, but for the tensors of ``["network"]``, ``["optimizer"]``
        and ``["tensors"]``; nothing needs `pickle`.
        """
        context = self._present()
        start = int(self._at.start)
        span = Span(start, start, 0, start)
        place = Place(0, 0, self._batch.lanes, 0, span, context)
        saved = save(self._windows, place)
        batch = self._batch
        kept = slice(max(start - batch.base, 0), self.steps - batch.base)
        for name in ("inputs", "targets", "mask"):
            buffer = getattr(batch, name)
            if buffer is not None:
                saved["tensors"][f"live.{name}"] = buffer[kept].clone()
        saved |= {
            "network": {k: v.detach().clone() for k, v in self.network.state_dict().items()},
            "optimizer": deepcopy(self.optimizer.state_dict()),
            "steps": self.steps,
            "updates": self.updates,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "start": start,
            "reached": int(self._at.reached),
            "horizon": self.horizon,
            "lanes": batch.lanes,
        }
        return saved

    def __deepcopy__(self, memo: dict[int, Any]) -> Online:
        network, optimizer, method = deepcopy((self.network, self.optimizer, self.method), memo)
        lanes, horizon, clip = self._batch.lanes, self.horizon, self.clip
        made = Online(
            network, method, self._loss, optimizer, lanes=lanes, horizon=horizon, clip=clip
        )
        memo[id(self)] = made
        made.load_state_dict(self.state_dict())
        return made

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Stand where ``saved`` was taken.

        Raises:
            OptionError: it was saved with another method, horizon or other lanes.
        """
        for name, here in (("horizon", self.horizon), ("lanes", self._batch.lanes)):
            if saved.get(name) != here:
                raise OptionError(
                    f"the saved learner had {name}={saved.get(name)!r}, this one has {here!r}."
                )
        # As for the weights, it does not matter where the saved tensors are.
        tensors = {name: t.to(self._batch.device) for name, t in saved["tensors"].items()}
        _, place = load(self._windows, {**saved, "tensors": tensors})
        assert place is not None
        assert isinstance(place.context, (Carried, Recomputed, Stored))
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self._context, self._pending = place.context, None
        self._native, self._feed = None, None
        self._asked = False
        for name in ("steps", "updates", "start", "reached", "loss", "gradient_norm"):
            setattr(self._at, name, saved[name])
        batch = LiveBatch(self._batch.lanes, self._batch.capacity, self._batch.device)
        batch.base, batch.read = saved["start"], saved["steps"]
        for name in ("inputs", "targets", "mask"):
            kept = tensors.get(f"live.{name}")
            if kept is not None:
                if name != "mask":
                    batch.open(name, kept.new_empty(kept.shape[1:]))
                getattr(batch, name)[: len(kept)] = kept
        self._batch = batch
