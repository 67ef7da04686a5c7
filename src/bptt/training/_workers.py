"""Starts on processes of their own end with the process that asked for them, however it ends.

joblib's workers are its children: from their first moment they look whether it still is their
parent (`attend`), be a start at work or not. To be told that their work is no longer wanted, they
wait in a thread for the lock of a file, which the asking process holds, and which the system lets
go when it dies. Workers of other kinds (Dask, Ray) wait for that lock too where they find the file;
on another machine there is none, and nothing is watched. Nor is it on Windows, which has no such
locks and keeps no parents.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import current_process
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bptt import files
from bptt._ending import SIGNALS

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows

LEFT = 128 + signal.SIGTERM
"""Exit code of a worker whose parent is gone."""

PAUSE = 0.2
"""Seconds between two looks at the parent."""

_PREFIX = "bptt-starts-"
_FILE = re.compile(rf"{_PREFIX}(\d+)-\w+")

_TRACKERS = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")

_parent: int | None = None
"""In a worker of joblib's the process that began it."""

_orphan = threading.Event()
"""Set in such a worker when that process is gone."""

_left: set[str] = set()
_watched: set[str] = set()
_saving: set[str] = set()
"""Files: those whose starts are to be left; those that are watched here; those of which a start
that can be saved is at work here."""


def attend(process: int) -> None:
    """What a worker of joblib's does first. It ends when ``process`` is no longer its parent: after
    the start at work, if that is saved, else at once. What a terminal sends to all its processes
    the parent takes, and tells the workers.

    Args:
        process: that asked for the worker.
    """
    global _parent
    if "loky" not in type(current_process()).__module__:
        return  # of another kind, and perhaps no child
    _parent = process
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL if one == signal.SIGTERM else signal.SIG_IGN)
    if os.name == "posix":
        threading.Thread(target=_look, daemon=True).start()


def _look() -> None:
    while os.getppid() == _parent:
        time.sleep(PAUSE)
    _orphan.set()
    if not _saving:
        os._exit(LEFT)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Within, processes are begun that do not see what a terminal sends to all, not even while they
    import what they need; here it comes a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    of_terminals = set(SIGNALS) - {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, of_terminals)
    try:
        with contextlib.suppress(ImportError, AttributeError):
            for name in _TRACKERS:
                importlib.import_module(name).ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, of_terminals)  # those let Ctrl-C through again
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Asked:
    """What a worker knows of the process that asked for its starts.

    Attributes:
        file: whose lock that process holds; empty if there was no room for one.
        process: its number.
    """

    file: str
    process: int

    @property
    def here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self.process

    @property
    def near(self) -> bool:
        """Whether this is that process or a child of it, which sees the same files."""
        return self.here or _parent == self.process

    def left(self) -> bool:
        """Whether the start at work is to be left, saved."""
        return self.file in _left or _orphan.is_set()

    @contextlib.contextmanager
    def watched(self, saves: bool) -> Iterator[None]:
        """Within, a start is at work, which is left, saved, if it ``saves``, when it is no longer
        wanted."""
        if self.here:
            yield
            return
        if saves:
            _saving.add(self.file)
        try:
            self._watch()
            yield
        finally:
            _saving.discard(self.file)
            if _orphan.is_set():
                os._exit(LEFT)

    def _watch(self) -> None:
        if fcntl is None or not self.file or self.file in _watched:
            return
        _watched.add(self.file)
        if os.path.exists(self.file):
            threading.Thread(target=self._wait, daemon=True).start()
        elif self.near:  # it was removed
            _left.add(self.file)

    def _wait(self) -> None:
        try:
            with open(self.file, "rb+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
        except FileNotFoundError:
            pass  # it was left just now
        except OSError:
            return
        _left.add(self.file)


class Watch:
    """While entered, workers know that this process is there and wants their work."""

    def __init__(self) -> None:
        self._handle: int | None = None
        file = ""
        with contextlib.suppress(OSError):  # no room: nothing is told
            _sweep()
            self._handle, file = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-")
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


def _sweep() -> None:
    """Remove the files of processes that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        match = _FILE.fullmatch(path.name)
        if match and files.is_plain(path) and not path.stat().st_size:
            if not files.lives(int(match[1])):
                files.remove(path)
