"""One process that trains by itself, and what it would do with others.

`bptt.training._together` is the other kind of the same object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from bptt.errors import OptionError
from bptt.gradients import Update
from bptt.losses import Loss
from bptt.network import Network
from bptt.state import leaves
from bptt.streams import Stream
from bptt.training._evaluate import evaluate


class Alone:
    """One process: everything is as it is found.

    Attributes:
        rank: which of the processes this is.
        world: how many there are.
        began: when training did, on the clock of `time.perf_counter`.
        due: whether a checkpoint is due.
        leave: whether training is to be left, saved.
    """

    rank = 0
    world = 1

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.due: Callable[[], bool] = lambda: False
        self.leave: Callable[[], bool] = lambda: False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        pass

    def part(self, stream: Stream) -> Stream:
        """The part of ``stream`` that this process trains on."""
        return stream

    def seed(self, seed: int) -> int:
        """The seed of what is random in this process."""
        return seed

    def in_step(self, updates: Iterator[Update]) -> Iterator[Update]:
        """The updates of all processes together."""
        return updates

    def lanes(self, update: Update) -> int:
        """How many lanes an update has, in all processes."""
        return int(leaves(update.state)[0].shape[0])

    @property
    def elapsed(self) -> float:
        """Seconds since training began, the same in all processes."""
        return time.perf_counter() - self.began

    def leaving(self) -> bool:
        """Whether any process is to leave."""
        return self.leave()

    def saving(self) -> bool:
        """Whether a checkpoint is due by the clock of process 0."""
        return self.due()

    def gathered(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """What this process is to save, from its own state; None if another one saves."""
        return state

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of this process, out of what was saved.

        Raises:
            OptionError: other processes saved it.
        """
        parts = state.get("processes", [{}])
        if len(parts) != self.world:
            raise OptionError(
                f"the checkpoint was saved by {len(parts)} process(es), each with lanes of its "
                f"own: go on with as many (torchrun --nproc-per-node {len(parts)}), not with "
                f"{self.world}."
            )
        return {**state, **parts[self.rank]}

    def evaluate(self, network: Network, part: Stream, loss: Loss) -> float:
        """The loss over the parts of all processes."""
        return evaluate(network, part, loss).loss
