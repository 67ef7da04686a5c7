"""A stream out of an iterator: steps are read when a window needs them, and then let go."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.errors import DataError, OptionError, ShapeError, at_least
from bptt.streams._chunk import Batch, Chunk

ENDLESS = 1 << 60
"""The length of a batch whose end is not in sight."""


class LiveBatch:
    """A `Batch` of which only the newest steps are held.

    Args:
        steps: (input, target) of one step after the other, each [lane, ...]; target None where
            there is none.
        horizon: the prediction after step t is compared with the target of step t + horizon.
        burn_in: how many steps are uncounted.
        ahead: how many steps may be read before they are needed.
    """

    def __init__(
        self, steps: Iterator[tuple[Tensor, Tensor | None]], horizon: int, burn_in: int, ahead: int
    ) -> None:
        self._steps, self._horizon, self._burn_in, self.ahead = steps, horizon, burn_in, ahead
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor | None] = []
        self._base = self._widest = self._newest = 0
        self._ended = False
        self._read(1)
        if not self._inputs:
            raise DataError("the source is empty: it gave no step.")

    @property
    def lanes(self) -> int:
        """How many lanes run side by side."""
        return self._inputs[0].shape[0]

    @property
    def length(self) -> int:
        """The steps, once the source has ended."""
        return self._base + len(self._inputs) if self._ended else ENDLESS

    def held(self, steps: int) -> int:
        """The bytes of the steps that are held."""
        rows = [*self._inputs, *(t for t in self._targets if t is not None)]
        return sum(row.nbytes for row in rows)

    def reach(self, stop: int) -> int:
        """Read up to ``stop``, and one step more: whether it ends there. Gives the length."""
        self._read(stop + 1)
        return self.length

    def chunk(self, start: int, stop: int) -> Chunk:
        """The steps ``start`` to ``stop - 1``; those far before the newest ``start`` are gone.

        Raises:
            DataError: they are gone.
        """
        self._read(stop + self._horizon)
        stop = min(stop, self._base + len(self._inputs))
        if start < self._base:
            raise DataError(
                f"step {start} of the source has passed: only the steps from {self._base} on are "
                "held. A source is read once, forward."
            )
        self._forget(start, stop)
        at = slice(start - self._base, stop - self._base)
        inputs = self._inputs[at]
        goals = self._targets[at.start + self._horizon : at.stop + self._horizon]
        goals += [None] * (len(inputs) - len(goals))
        like = next(t for t in [*goals, *self._targets, self._inputs[0]] if t is not None)
        targets = [torch.zeros_like(like) if g is None else g for g in goals]
        counted = [
            g is not None and t >= self._burn_in
            for t, g in zip(range(start, stop), goals, strict=True)
        ]
        mask = torch.tensor(counted, device=inputs[0].device)[:, None].repeat(1, self.lanes)
        return Chunk(torch.stack(inputs), torch.stack(targets), mask, torch.zeros_like(mask), None)

    def _read(self, stop: int) -> None:
        while not self._ended and self._base + len(self._inputs) < stop:
            step = next(self._steps, None)
            if step is None:
                self._ended = True
                return
            self._inputs.append(step[0])
            self._targets.append(step[1])

    def _forget(self, start: int, stop: int) -> None:
        """A window's own steps may be asked for again, and those of the one before it."""
        self._widest = max(self._widest, stop - start)
        self._newest = max(self._newest, start)
        gone = self._newest - self._widest - self._base
        if gone > self._widest:  # seldom, as the lists move
            del self._inputs[:gone], self._targets[:gone]
            self._base += gone


class LiveSource:
    """What `Stream.from_iterator` was given, checked step by step.

    Args:
        source: an iterable of steps, or a function that gives one for every epoch.
        paired: whether a step is (input, target); else its input is its target.
        lanes, horizon, burn_in, ahead, dtype, device: as of `Stream.from_iterator`.
    """

    def __init__(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        paired: bool,
        lanes: int,
        horizon: int,
        burn_in: int,
        ahead: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        at_least(1, lanes=lanes)
        at_least(0, horizon=horizon, burn_in=burn_in, ahead=ahead)
        if not callable(source) and not hasattr(source, "__iter__"):
            raise OptionError(
                f"from_iterator takes an iterable of steps, not a {type(source).__name__}."
            )
        if not paired and horizon == 0:
            raise OptionError(
                "without targets the stream predicts its own inputs: give horizon=1 (the next "
                "step) or more, or paired=True with steps (input, target)."
            )
        self._source, self._paired, self._lanes = source, paired, lanes
        self._horizon, self._burn_in, self._ahead = horizon, burn_in, ahead
        self._dtype = dtype or torch.get_default_dtype()
        self._device = device
        self._used = False
        self._like: tuple[Tensor, Tensor | None] | None = None

    def batches(self) -> Generator[Batch]:
        """The one batch of a pass.

        Raises:
            DataError: the source was read before, and cannot be read anew.
        """
        source: Any = self._source() if callable(self._source) else self._source
        steps = iter(source)
        if self._used and steps is self._source:
            raise DataError(
                "the source is an iterator that was read already: train for epochs=1, or give a "
                "function that makes a new iterator for every epoch."
            )
        self._used = True
        yield LiveBatch(self._checked(steps), self._horizon, self._burn_in, self._ahead)

    def _checked(self, steps: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
        for number, step in enumerate(steps):
            if self._paired and (not isinstance(step, (tuple, list)) or len(step) != 2):
                raise DataError(
                    f"step {number} of the source is a {type(step).__name__}; with paired=True it "
                    "must be (input, target)."
                )
            given, goal = step if self._paired else (step, step)
            input = self._row(given, "input", number)
            target = None if goal is None else self._row(goal, "target", number)
            self._like = self._like or (input, target)
            for name, row, like in zip(
                ("input", "target"), (input, target), self._like, strict=True
            ):
                if row is not None and like is not None and row.shape != like.shape:
                    raise ShapeError(
                        f"the {name} of step {number} is {list(row.shape[1:])}, those before it "
                        f"were {list(like.shape[1:])}."
                    )
            yield input, target

    def _row(self, value: Any, name: str, number: int) -> Tensor:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        if tensor.is_floating_point():
            tensor = tensor.to(dtype=self._dtype)
            if not bool(tensor.isfinite().all()):
                raise DataError(f"the {name} of step {number} holds NaN or infinity.")
        tensor = tensor.to(device=self._device)
        if self._lanes == 1 and tensor.dim() < 2:
            whole = not tensor.is_floating_point()
            return tensor.reshape(1) if whole and tensor.numel() == 1 else tensor.reshape(1, -1)
        if tensor.dim() == 0 or tensor.shape[0] != self._lanes:
            raise ShapeError(
                f"the {name} of step {number} must be [{self._lanes}, ...], one row for each lane, "
                f"not {list(tensor.shape)}."
            )
        return tensor.clone()
