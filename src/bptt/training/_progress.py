"""The progress bar of training: loss, gradient norm and speed in steps per second."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm

from bptt.training._history import Epoch, Progress

REFRESH = 0.1
"""Seconds between two texts; drawing at every update would cost more than small updates do."""


_NOTEBOOK = any("notebook" in kind.__module__ for kind in tqdm.__mro__)


class _Dropping:
    """A stream on which what cannot be shown is dropped: no bar is worth the training."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """The text, if that can be."""
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """What was written."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def bar(*given: Any, enabled: bool, **options: Any) -> tqdm[Any]:
    """A bar as `tqdm.tqdm` makes it, whatever becomes of standard error."""
    if not _NOTEBOOK and sys.stderr is not None:
        options["file"] = _Dropping(sys.stderr)
    disable = not enabled or sys.stderr is None
    return tqdm(*given, disable=disable, dynamic_ncols=True, **options)


class Bar:
    """A bar over all steps of all epochs."""

    def __init__(self, steps: int, epochs: int, enabled: bool) -> None:
        self.steps, self.epochs = steps, epochs
        self._validation = ""
        self._shown = 0.0
        self._bar = bar(
            total=steps * epochs or None, unit=" steps", unit_scale=True, enabled=enabled
        )

    def start_at(self, epoch: int, steps: int) -> None:
        """Training goes on ``steps`` into an epoch, counted from 1."""
        self._bar.initial = self._bar.n = max(epoch - 1, 0) * self.steps + min(steps, self.steps)

    def show(self, progress: Progress, steps: int, loss: float, norm: float) -> None:
        """After an update, ``steps`` into the epoch."""
        now = time.perf_counter()
        if self._bar.disable or now - self._shown < REFRESH:
            return
        self._shown = now
        within = min(steps, self.steps) if self.steps else steps
        done = (progress.epoch - 1) * self.steps + within
        self._move(done, progress.epoch, f"loss {loss:.4g}, |g| {norm:.3g}")

    def end_of_epoch(self, epoch: Epoch) -> None:
        """After an epoch."""
        if epoch.validation is not None:
            self._validation = f", validation {epoch.validation:.4g}"
        now = time.perf_counter()
        if not self._bar.disable and now - self._shown >= REFRESH:
            self._shown = now
            text = f"loss {epoch.loss:.4g}, |g| {epoch.gradient_norm:.3g}"
            self._move(epoch.epoch * self.steps, epoch.epoch, text)

    def _move(self, done: int, epoch: int, text: str) -> None:
        self._bar.set_description_str(f"epoch {epoch}/{self.epochs}", refresh=False)
        self._bar.set_postfix_str(text + self._validation, refresh=False)
        self._bar.update(max(done - self._bar.n, 0))

    def close(self) -> None:
        """Leave the last line standing."""
        self._bar.close()
