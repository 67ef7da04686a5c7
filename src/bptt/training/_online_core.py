"""`bptt.Online`'s side of the core: a learner told of network and optimizer, by windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.engine.guard import Guard
from bptt.engine.online import Learner
from bptt.gradients import Truncated
from bptt.gradients._context import Span
from bptt.network import Network
from bptt.state import State, leaves
from bptt.training._live import LiveBatch
from bptt.training._native import configure, plain, state_of, tell
from bptt.training._slots import Slots


class Learned(NamedTuple):
    """The loss and gradient norm of an update, and whether it was made (not where one of them or
    the weights are not finite, or huge)."""

    loss: float
    norm: float
    made: bool


class CoreSide:
    """The core's side of a learner."""

    def __init__(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        windows: Truncated,
        clip: float | None,
        learner: Learner,
    ) -> None:
        from bptt import _core

        self.learner, self._in_place = learner, _core.in_place
        self._optimizer = optimizer
        self._guard = Guard(network)
        learner.core.bind([t.detach() for t in learner.tensors])
        self._where = [(t, t.requires_grad, t.data_ptr(), t.shape) for t in learner.tensors]
        tell(learner, network)
        self._slots = Slots(optimizer, learner)
        configure(learner, windows, clip, self._slots)
        self._groups = [dict(group) for group in optimizer.param_groups]
        self._numbers = (
            torch.empty(1, dtype=torch.float64),
            torch.empty(1, dtype=torch.float64),
            torch.empty(1, dtype=torch.int64),
        )
        self._filled = False
        self._step = learner.core.step
        self._rows = torch.empty(learner.lanes, learner.prediction_width, dtype=learner.dtype)
        self._row = self._rows[0].clone()

    def holds(self) -> bool:
        """Whether network and optimizer are what the core was told."""
        return (
            self._guard.holds(tensors=False)
            and self._in_place(self._where)
            and self._groups == self._optimizer.param_groups
        )

    def enter(
        self, context: State | None, start: int, reached: int, pending: tuple[int, ...] | None
    ) -> None:
        """Stand somewhere."""
        own = None if context is None else [plain(leaf, self.learner) for leaf in leaves(context)]
        self.learner.core.enter(own, 1 << 60, start, reached, pending)

    def learn(self, batch: LiveBatch) -> Learned | None:
        """The next window; None if nothing in it counts."""
        losses, norms, counts = self._numbers
        core = self.learner.core
        halt, updates, _ = core.run(
            batch.inputs,
            batch.targets,
            batch.mask,
            None,
            None,
            batch.base,
            batch.read - batch.base,
            0.0,
            losses,
            norms,
            counts,
            1,
        )
        if updates and not self._filled:
            self._slots.hand_over(core.fresh())
            self._filled = not self._slots.waiting
        if updates or halt == "nonfinite":
            return Learned(float(losses), float(norms), made=bool(updates))
        return None

    def step(
        self, batch: LiveBatch, number: int, horizon: int, due: bool, input: Any, target: Any
    ) -> tuple[Tensor, tuple[int, float, float]] | None:
        """All of a step like those before it at once: its prediction; how many updates it made (0
        or 1), their loss and gradient norm. None: it is to be taken in parts."""
        if not self._filled or type(input) is not Tensor or type(target) is not Tensor:
            return None
        prediction = torch.empty_like(self._row if input.dim() < 2 else self._rows)
        try:
            done = self._step(
                batch.inputs,
                batch.targets,
                batch.mask,
                batch.base,
                number,
                horizon,
                input,
                target,
                due,
                prediction,
            )
        except (ValueError, TypeError):  # said in other words by who takes it in parts
            return None
        return None if done is None else (prediction, done)

    def predict(self, batch: LiveBatch, start: int, stop: int) -> Tensor:
        """The prediction after step ``stop - 1``, from the context at ``start``."""
        learner = self.learner
        found = torch.empty(learner.lanes, learner.prediction_width, dtype=learner.dtype)
        learner.core.predict(batch.inputs, None, batch.base, stop - batch.base, start, found)
        return found

    def present(self) -> tuple[State | None, Span | None]:
        """The context, and the window after which it is still to be renewed."""
        _, _, pending = self.learner.core.position()
        return state_of(self.learner, "present"), None if pending is None else Span(*pending)
