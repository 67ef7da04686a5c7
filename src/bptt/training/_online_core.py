"""`bptt.Online`'s side of the core: a learner told of network and optimizer, by windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.engine.frontend.module_state import Guard
from bptt.engine.online.learner import Learner
from bptt.gradients import Truncated
from bptt.gradients._context import Span
from bptt.network import Network
from bptt.state import State, leaves
from bptt.training._learner import configure, plain, state_of, tell
from bptt.training._live import LiveBatch
from bptt.training._slots import Slots, for_all_optimizers, hooked


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
        self.learner = learner
        self._optimizer = optimizer
        self._guard = Guard(network)
        self._trained = [p for p in network.parameters() if p.requires_grad]
        more = self._guard.more_holds if self._guard.more else None
        self._more = _all(self._only_ours, more, learner.current)
        learner.core.bind([t.detach() for t in learner.tensors])
        tell(learner, network)
        self._slots = Slots(optimizer, learner)
        configure(learner, windows, clip, self._slots)
        self._watch = self._watching()
        self._numbers = (
            torch.empty(1, dtype=torch.float64),
            torch.empty(1, dtype=torch.float64),
            torch.empty(1, dtype=torch.int64),
        )
        self._filled = False

    def _watching(self) -> Any:
        """What tells whether network and optimizer are what the core was told: of the optimizer its
        options and the tensors of its state."""
        from bptt import _core

        optimizer, guard, own = self._optimizer, self._guard, self._optimizer.__dict__
        groups = optimizer.param_groups
        same: list[tuple[Any, ...]] = [
            *guard.same,
            (own, "state", optimizer.state),
            (own, "param_groups", groups),
            *[(own, name, own[name]) for name in ("step",) if name in own],
            *[(groups, i, group) for i, group in enumerate(groups)],
        ]
        for state in optimizer.state.values():
            same += [
                (state, name, kept) for name, kept in state.items() if isinstance(kept, Tensor)
            ]
        lists = [groups, *[group["params"] for group in groups]]
        for group in groups:
            same += [(group["params"], i, parameter) for i, parameter in enumerate(group["params"])]
        return _core.Watch(
            same,
            [
                *guard.sizes,
                (own, len(own)),
                *[(table, 0) for table in for_all_optimizers()],
                *[(kept, len(kept)) for name, kept in own.items() if name.endswith("_hooks")],
                *[(members, len(members)) for members in lists],
            ],
            places=[(t, t.requires_grad) for t in self.learner.tensors],
            equal=[(group, name, value) for group in groups for name, value in group.items()],
        )

    def holds(self) -> bool:
        """Whether network and optimizer are what the core was told."""
        return self._watch.holds() and self._more()

    def _only_ours(self) -> bool:
        """Whether an update is of its own gradients alone: no hook changes them, and no parameter
        holds one already."""
        return not any(p.grad is not None or hooked(p) for p in self._trained)

    def takes(self, target: Tensor) -> bool:
        """Whether a target like those before is one that the core can compare with: all but class
        indices are."""
        if target.is_floating_point():
            return True
        return 0 <= int(target.min()) <= int(target.max()) < self.learner.prediction_width

    def feed(self, batch: LiveBatch, standing: Any, horizon: int) -> Any:
        """The `bptt._core.Feed` for steps like those before; None while some are needed first."""
        if not self._filled or len(batch.rows) < 2:
            return None
        from bptt import _core

        learner = self.learner
        return _core.Feed(
            learner.core,
            self._watch,
            self._more,
            standing,
            batch.rows["inputs"],
            batch.rows["targets"],
            batch.mask,
            horizon,
            partial(_empty, (learner.lanes, learner.prediction_width), learner.dtype),
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
            self._watch = self._watching()
        if updates or halt == "nonfinite":
            return Learned(float(losses), float(norms), made=bool(updates))
        return None

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


def _all(*questions: Callable[[], bool] | None) -> Callable[[], bool]:
    """Those that there are as one."""
    asked = [question for question in questions if question is not None]
    return asked[0] if len(asked) == 1 else lambda: all(question() for question in asked)


def _empty(shape: tuple[int, int], dtype: torch.dtype, alone: bool) -> list[Tensor]:
    """Tensors for predictions, of one lane ``alone`` [width]: a page of them, as one by one they
    would take twice as long."""
    count = max(1, min(64, 4096 // (shape[0] * shape[1] * dtype.itemsize)))
    with torch.inference_mode(False):  # they outlive the mode of this call
        rows = torch.empty(count * shape[0], shape[1], dtype=dtype, device="cpu")
        # Unsafe: what is done to one in place does not count for the others, as it should not.
        return list((rows.view(-1) if alone else rows).unsafe_chunk(count))
