"""What an epoch and a run add up to."""

from __future__ import annotations

from torch import Tensor

from bptt.gradients import Update
from bptt.network import Network
from bptt.state import leaves
from bptt.training._history import Epoch


class Tally:
    """The sums over the updates of an epoch."""

    def __init__(self) -> None:
        self.total = self.norms = 0.0
        self.counted = self.updates = self.steps = 0
        self._place = (-1, 0)

    def add(self, update: Update, norm: float) -> None:
        self.total += update.loss * update.count
        self.counted += update.count
        self.norms += norm
        self.updates += 1
        batch, reached = self._place
        new = update.stop - (reached if update.batch == batch else 0)
        self.steps += new * leaves(update.state)[0].shape[0]
        self._place = (update.batch, update.stop)

    @property
    def loss(self) -> float:
        return self.total / self.counted

    def record(self, epoch: int, validation: float | None, rate: float, seconds: float) -> Epoch:
        return Epoch(
            epoch,
            self.loss,
            validation,
            self.norms / self.updates,
            rate,
            self.updates,
            self.counted,
            seconds,
            self.steps / seconds,
        )


class Best:
    """The epoch of the lowest loss, and its weights where they are to be restored."""

    def __init__(self, network: Network | None) -> None:
        self.network = network
        self.loss = float("inf")
        self.epoch = 0
        self.weights: dict[str, Tensor] | None = None

    def offer(self, loss: float, epoch: int) -> None:
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            if self.network is not None:
                state = self.network.state_dict()
                self.weights = {name: value.detach().clone() for name, value in state.items()}

    def restore(self) -> bool:
        if self.network is None or self.weights is None:
            return False
        self.network.load_state_dict(self.weights)
        return True
