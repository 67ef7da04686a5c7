"""What an epoch and a run add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bptt.gradients import Update
from bptt.network import Network
from bptt.training._history import Epoch

FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stretch:
    """Finished updates, one or many.

    Attributes:
        update: the last one.
        totals: of each, its loss times its count.
        norms: of each, its gradient's norm before clipping.
        counted: how many steps they counted together.
    """

    update: Update
    totals: Sequence[float] | FloatArray
    norms: Sequence[float] | FloatArray
    counted: int

    @classmethod
    def of(cls, update: Update, norm: float) -> Stretch:
        """A single update."""
        return cls(update, (update.loss * update.count,), (norm,), update.count)

    @property
    def norm(self) -> float:
        """Of the last update."""
        return float(self.norms[-1])


def _added(total: float, numbers: Sequence[float] | FloatArray) -> float:
    """The numbers added one after the other, so that it does not show how they are divided into
    stretches."""
    if len(numbers) == 1:
        return total + float(numbers[0])
    return float(np.cumsum(np.concatenate(([total], numbers)))[-1])


@dataclass
class Tally:
    """The sums over the updates of an epoch.

    Attributes:
        rate: the learning rate of the optimizer's first group.
        total: of the losses, each times its count.
        norms: of the gradients' norms.
        counted, updates, steps: how many there were.
        seconds: that the updates took.
        batch, reached: the last update's batch, and the step in it up to which steps are added.
        withheld: updates that were not made because something was not finite.
        done: whether the pass is over: the epoch's record alone is missing.
    """

    rate: float
    total: float = 0.0
    norms: float = 0.0
    counted: int = 0
    updates: int = 0
    steps: int = 0
    seconds: float = 0.0
    batch: int = -1
    reached: int = 0
    withheld: int = 0
    done: bool = False

    def add(self, done: Stretch, lanes: int) -> None:
        """More updates, of so many lanes."""
        update = done.update
        self.total = _added(self.total, done.totals)
        self.norms = _added(self.norms, done.norms)
        self.counted += done.counted
        self.updates += len(done.norms)
        new = update.stop - (self.reached if update.batch == self.batch else 0)
        self.steps += new * lanes
        self.batch, self.reached = update.batch, update.stop

    @property
    def loss(self) -> float:
        """The mean loss so far; NaN where no update was made."""
        return self.total / self.counted if self.counted else math.nan

    def record(self, epoch: int, validation: float | None) -> Epoch:
        """The epoch's entry in the history."""
        return Epoch(
            epoch,
            self.loss,
            validation,
            self.norms / self.updates if self.updates else math.nan,
            self.rate,
            self.updates,
            self.counted,
            self.seconds,
            self.steps / self.seconds,
            self.withheld,
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
