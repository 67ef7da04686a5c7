"""Several processes that train one network, each on its own lanes of the same batches.

At every update each process adds its gradient, weighted by the steps that it counted, to one flat
buffer; the sum over all processes, divided by all counted steps, is the gradient that one process
with all lanes would have found, to rounding. Every process then clips, steps and decides by the
same numbers, so that all of them hold the same weights.

Whatever is exchanged goes through a buffer of the one shape, in which every process also says what
it is doing: processes that fall out of step notice, and one that fails tells the others why, before
any of them waits for what never comes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bptt.errors import CellError, OptionError, ProcessError
from bptt.gradients import Update
from bptt.losses import Loss
from bptt.network import Network
from bptt.streams import Stream
from bptt.training._alone import Alone
from bptt.training._evaluate import evaluate

T = TypeVar("T")

OWN = ("method", "random", "callbacks", "progress")
"""What of a checkpoint differs between processes: states of lanes, random numbers."""


class _Doing(IntEnum):
    """What a process brings to an exchange."""

    UPDATE = 1
    CLOSURE = 2
    EVALUATION = 3
    SAVING = 4
    END = 5
    FAILURE = 6


class _Place(NamedTuple):
    """Where a process stands: what it brings, and of an update the window."""

    doing: int
    batch: int = 0
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        if self.doing in (_Doing.UPDATE, _Doing.CLOSURE):
            return f"at an update, steps {self.start} to {self.stop - 1} of batch {self.batch}"
        return {3: "in an evaluation", 4: "about to save"}.get(self.doing, "at the end")


class _Sums(NamedTuple):
    """What is summed over all processes beside the gradient."""

    loss: float = 0.0
    counted: float = 0.0
    lanes: float = 0.0
    elapsed: float = 0.0
    due: float = 0.0
    leave: float = 0.0

    @property
    def mean(self) -> float:
        """The loss of a counted step."""
        return self.loss / self.counted if self.counted else math.nan


class Together(Alone):
    """The processes of `torch.distributed`'s group, of which this is one.

    Args:
        network: all take over its weights as they are in process 0.
        options: what must be the same in all processes, by name.

    Raises:
        OptionError: something is not the same.
        ProcessError: another process failed, ended, or does not answer.
    """

    def __init__(self, network: Network, options: dict[str, str]) -> None:
        super().__init__()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._network, self._options = network, options
        self._trained = [p for p in network.parameters() if p.requires_grad]
        # Sums are kept in double precision: they round once, where they become a gradient.
        self._gradients = [p.new_zeros(p.numel(), dtype=torch.float64) for p in self._trained]
        self._last = _Sums()
        self._parted = False

    def __enter__(self) -> Self:
        _compare(_exchanged(partial(_gathered, self._options, self.world)))
        for tensor in [*self._network.parameters(), *self._network.buffers()]:
            _exchanged(partial(dist.broadcast, tensor.detach(), 0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """End together: nobody leaves while another still waits for it."""
        if error is None:
            self._sum(_Place(_Doing.END))
        elif isinstance(error, Exception) and not self._parted:
            with suppress(ProcessError):  # the error at hand is the one to tell
                self._sum(_Place(_Doing.FAILURE), failure=f"{type(error).__name__}: {error}")

    def part(self, stream: Stream) -> Stream:
        """The lanes of this process."""
        if stream.shard is not None:
            raise OptionError(
                "each process takes its own lanes of a stream, and reads only those: make the same "
                "stream in all of them, without shard=."
            )
        return stream if stream.is_part else stream.part(self.rank, self.world)

    def seed(self, seed: int) -> int:
        """A seed of its own for every process; the given one in process 0."""
        if self.rank == 0:
            return seed
        sequence = np.random.SeedSequence(seed, spawn_key=(self.rank,))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)

    def in_step(self, updates: Iterator[Update]) -> Iterator[Update]:
        """The updates of all processes together: those in which any of them counts a step."""
        buffers = [buffer.detach().clone() for buffer in self._network.buffers()]
        for update in updates:
            sums = self._sum_gradients(_Doing.UPDATE, update, update.loss)
            if sums.counted:
                yield replace(
                    update, loss=sums.mean, count=int(sums.counted), closure=self._closure(update)
                )
        # Their versions change too where a checkpoint is read, or weights are put back.
        if not all(map(_same, buffers, self._network.buffers())):
            raise CellError(
                "the network changes its buffers as it trains (batch statistics), and would do so "
                "apart in every process: use layers without them, such as LayerNorm."
            )

    def _closure(self, update: Update) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            own = update.closure()
            return own.new_tensor(self._sum_gradients(_Doing.CLOSURE, update, float(own)).mean)

        return closure

    def lanes(self, update: Update) -> int:
        """Those of all processes."""
        return int(self._last.lanes)

    @property
    def elapsed(self) -> float:
        """The time of process 0, as of the last update."""
        return self._last.elapsed

    def leaving(self) -> bool:
        """As of the last update or evaluation."""
        return self._last.leave > 0

    def saving(self) -> bool:
        """As of the last update or evaluation, once."""
        due = self._last.due > 0
        self._last = self._last._replace(due=0.0)
        return due

    def gathered(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """In process 0 what all of them are to go on from."""
        self._sum(_Place(_Doing.SAVING))
        own = {name: state[name] for name in OWN}
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        _exchanged(partial(dist.gather_object, own, found, 0))
        return None if found is None else {**state, "processes": found}

    def evaluate(self, network: Network, part: Stream, loss: Loss) -> float:
        """The mean over all counted steps of all parts."""
        found = evaluate(network, part, loss)
        total = found.loss * found.count if found.count else 0.0
        sums = self._sum(_Place(_Doing.EVALUATION), self._sums(total, found.count))
        self._last = self._last._replace(due=sums.due, leave=sums.leave)
        return sums.mean

    def _sums(self, loss: float, count: int, lanes: int = 0) -> _Sums:
        """What this process brings."""
        first = self.rank == 0
        elapsed = time.perf_counter() - self.began if first else 0.0
        return _Sums(loss, count, lanes, elapsed, first and self.due(), self.leave())

    def _sum_gradients(self, doing: _Doing, update: Update, loss: float) -> _Sums:
        """Put the gradient of all processes into ``.grad``; give what else was summed."""
        count = update.count
        given = []
        for gradient, parameter in zip(self._gradients, self._trained, strict=True):
            own = parameter.grad if count else None
            given.append(float(own is not None))
            if own is None:
                gradient.zero_()
            else:
                torch.mul(own.flatten(), count, out=gradient)
        sums = self._sums(loss * count if count else 0.0, count, super().lanes(update))
        place = _Place(doing, update.batch, update.start, update.stop)
        self._last = self._sum(place, sums, given)
        return self._last

    def _sum(
        self,
        place: _Place,
        sums: _Sums = _Sums(),  # noqa: B008  # immutable
        given: list[float] | None = None,
        failure: str = "",
    ) -> _Sums:
        """Sum over all processes: gradients, which parameters have one, and ``sums``; every process
        does so as often as every other, and tells where it stands.

        Raises:
            ProcessError: another process failed, stands elsewhere, ended, or does not answer.
        """
        places = [_Place(0)] * self.world
        places[self.rank] = place
        flags = [0.0] * len(self._trained) if given is None else given
        numbers = [*flags, *sums, *(float(number) for one in places for number in one)]
        buffer = torch.cat([*self._gradients, self._gradients[0].new_tensor(numbers)])
        try:
            _exchanged(partial(dist.all_reduce, buffer))
            *gradients, tail = torch.split(buffer, [*map(len, self._gradients), len(numbers)])
            found = tail.tolist()
            self._check(place, found[-len(places) * len(place) :], failure)
        except ProcessError:
            self._parted = True
            raise
        sums = _Sums(*found[len(flags) : len(flags) + len(sums)])
        if given is not None:
            self._take(gradients, found[: len(flags)], sums.counted)
        return sums

    def _take(self, gradients: list[Tensor], given: list[float], count: float) -> None:
        for gradient, anywhere, parameter in zip(gradients, given, self._trained, strict=True):
            # Without a gradient in any process it has none: optimizers tell that from zero.
            parameter.grad = None
            if anywhere and count:
                parameter.grad = (gradient / count).to(parameter.dtype).view_as(parameter)

    def _check(self, place: _Place, numbers: list[float], failure: str) -> None:
        """Whether all processes stand at the same place."""
        width = len(place)
        found = [int(number) for number in numbers]
        places = [_Place(*found[i : i + width]) for i in range(0, len(found), width)]
        failed = [rank for rank, one in enumerate(places) if one.doing == _Doing.FAILURE]
        if failed:
            told = [failure]
            _exchanged(partial(dist.broadcast_object_list, told, failed[0]))
            raise ProcessError(f"process {failed[0]} failed, and so training ended. {told[0]}")
        other = next((rank for rank, one in enumerate(places) if one != places[0]), None)
        if other is not None:
            raise ProcessError(
                f"the processes fell out of step: process 0 is {places[0]}, process {other} is "
                f"{places[other]}. Data, options, callbacks and stopping criteria must be the same "
                "in all of them, and the gradient method must yield every window of a part of a "
                "stream, also where nothing counts."
            )


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one.eq(other) | (one.ne(one) & other.ne(other))).all())  # NaN is NaN


def _exchanged(exchange: Callable[[], T]) -> T:
    """What an exchange between processes gives."""
    try:
        return exchange()
    except RuntimeError as error:
        raise ProcessError(
            "another of the processes that train together ended, or did not answer in the time "
            f"that torch.distributed.init_process_group was given: {error}"
        ) from error


def _gathered(own: dict[str, str], world: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = [{}] * world
    dist.all_gather_object(found, own)
    return found


def _compare(options: list[dict[str, str]]) -> None:
    for rank, other in enumerate(options):
        for name, value in options[0].items():
            if other.get(name) != value:
                raise OptionError(
                    f"processes that train together must be given the same {name}: process 0 has "
                    f"{value}, process {rank} has {other.get(name)}."
                )
