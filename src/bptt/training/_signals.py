"""Ctrl-C, SIGTERM and SIGHUP, taken in at a moment when training can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from bptt._ending import SIGNALS


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended training after the update at hand, and all of it is saved.

    It is a `KeyboardInterrupt`, so that ``except Exception`` does not take it for an error.

    Attributes:
        signal: which of them it was.
    """

    def __init__(self, message: str, signal: signal.Signals) -> None:
        super().__init__(message)
        self.signal = signal


class Leave(BaseException):
    """Training is to be left now, saved; it never leaves `bptt.fit`. Another than
    `KeyboardInterrupt`, which a second Ctrl-C raises in the middle of anything."""


_HANGUP = getattr(signal, "SIGHUP", None)
_asking: Callable[[], bool] | None = None


@contextmanager
def asking(left: Callable[[], bool]) -> Iterator[None]:
    """Within, training is left when ``left`` says so, as by a signal."""
    global _asking
    before, _asking = _asking, left
    try:
        yield
    finally:
        _asking = before


class Signals:
    """While entered, the first of `SIGNALS` is remembered in ``caught``; then the handlers
    that were there before are back, so that a second one leaves at once, but for SIGHUP, which is
    then ignored; where such a handler has
    an attribute ``second``, that one takes it. Within others the handlers are those before all of
    them. One that is remembered when they are left, and by which nobody left, is raised again.

    Outside the main thread, where Python takes no signals, nothing changes; nor for a signal that
    is ignored, or was given a handler outside Python.

    Args:
        enabled: whether to take them in at all.
        alone: whether nobody waits for this process, so that it may leave at once where nothing
            changes.
        told: called when one was caught.
    """

    def __init__(
        self, enabled: bool, alone: bool = True, told: Callable[[], None] = lambda: None
    ) -> None:
        main = threading.current_thread() is threading.main_thread()
        self.caught: signal.Signals | None = None
        self._taken = SIGNALS if enabled and main else ()
        self._before: dict[signal.Signals, Any] = {}
        self._immediate = False
        self._process = os.getpid()
        self._alone = alone
        self._told = told

    def __enter__(self) -> Signals:
        self._process = os.getpid()
        for one in self._taken:
            before = signal.getsignal(one)
            if before not in (None, signal.SIG_IGN):
                self._before[one] = before
                signal.signal(one, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        caught = self.caught
        outer = None if caught is None else _signals_of(self._before.get(caught))
        self._restore()
        # One that came too late for anybody here to leave by it is for those who wait for it now.
        # Of an error that leaves, nothing is to be lost; other starts are to know of the signal.
        late = error is None or (outer is not None and not isinstance(error, Interrupted))
        if caught is not None and late:
            signal.raise_signal(caught)

    def check(self) -> None:
        """Raise `Leave` if training is to be left."""
        if self.left():
            raise Leave

    def left(self) -> bool:
        """Whether a signal was caught, or another process asked to leave."""
        return self.caught is not None or (_asking is not None and _asking())

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within, where nothing changes that would be saved, a signal raises `Leave`."""
        self._immediate = self._alone
        try:
            if self._immediate:
                self.check()
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a callback forked it: nothing of it is to be saved
            self._restore()
            signal.raise_signal(number)
            return
        self.caught = signal.Signals(number)
        for one, before in self._before.items():
            # A terminal that is closed sends SIGHUP, and so does its shell: nobody asks twice.
            again = signal.SIG_IGN if one is _HANGUP else _second(one, before)
            signal.signal(one, again)
        self._told()
        if self._immediate:
            raise Leave

    def _restore(self) -> None:
        while self._before:
            one, before = self._before.popitem()
            signal.signal(one, before)


def _signals_of(handler: Any) -> Signals | None:
    """Whose handler it is, where `Signals` are entered within others."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Signals) else None


def _second(one: signal.Signals, before: Any) -> Any:
    """What takes the next signal where one was taken in place of the handler ``before``."""
    outer = _signals_of(before)
    if outer is not None:
        return _second(one, outer._before[one])
    return getattr(before, "second", before)
