"""Starts on processes of their own end with the process that asked for them, however it ends.

That process holds the lock of a file, which the system lets go when it dies. A worker waits for the
lock in a thread: whoever gets it was left. Where there are no such locks (Windows), nothing is
watched; on another machine the file is not found, and nothing is watched either.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows

LEFT = 128 + signal.SIGTERM
"""Exit code of a worker whose parent is gone."""

_left: set[str] = set()
_watched: set[str] = set()
_saving: set[str] = set()
"""Files: those whose starts are to be left; those that are watched here; those of which a start
that can be saved is at work here."""


@dataclass(frozen=True)
class Asked:
    """What a worker knows of the process that asked for its starts.

    Attributes:
        file: whose lock that process holds.
        process: its number.
    """

    file: str
    process: int

    @property
    def here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self.process

    def left(self) -> bool:
        """Whether the start at work is to be left, saved."""
        return self.file in _left

    @contextlib.contextmanager
    def watched(self, saves: bool) -> Iterator[None]:
        """Within, a start is at work. Where the asking process is gone, this one ends: after the
        start, if it ``saves``, else at once."""
        if self.here:
            yield
            return
        child = os.getppid() == self.process
        if self.file not in _watched and fcntl is not None and os.path.exists(self.file):
            _watched.add(self.file)
            threading.Thread(target=self._watch, args=(child,), daemon=True).start()
        if saves:
            _saving.add(self.file)
        try:
            with _ignored(signal.SIGINT, child):  # the parent takes it, and tells
                yield
        finally:
            _saving.discard(self.file)
            self._end(child)

    def _watch(self, child: bool) -> None:
        try:
            with open(self.file, "rb+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
        except FileNotFoundError:
            pass  # it was left just now
        except OSError:
            return
        _left.add(self.file)
        if self.file not in _saving:
            self._end(child)

    def _end(self, child: bool) -> None:
        if child and os.getppid() != self.process:
            os._exit(LEFT)


class Watch:
    """While entered, workers know that this process is there and wants their work."""

    def __init__(self) -> None:
        self._handle: int | None = None
        file = ""
        with contextlib.suppress(OSError):  # no room: nothing is watched
            self._handle, file = tempfile.mkstemp(prefix="bptt-starts-")
            if fcntl is not None:
                fcntl.lockf(self._handle, fcntl.LOCK_EX)
        self.asked = Asked(file, os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        _left.discard(self.asked.file)

    def leave(self, *_: Any) -> None:
        """Every start is to be left, saved; again and again does nothing."""
        handle, self._handle = self._handle, None
        _left.add(self.asked.file)
        if handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.asked.file)
            os.close(handle)


@contextlib.contextmanager
def _ignored(number: signal.Signals, wanted: bool) -> Iterator[None]:
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
