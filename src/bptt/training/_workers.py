"""Starts on processes of their own end with the process that asked for them, however it ends.

joblib's workers are its children: from their first moment they look whether it still is their
parent (`attend`), be a start at work or not. Starts that are saved are also told when they are no
longer wanted: a file in their folder (`bptt.files.Unfinished`) stands as long as they are, locked
by the process that asked. It is removed when they are to be left, and its lock is free when that
process is dead, so that workers of other kinds (Dask, Ray) that see the folder notice both. Windows
has no such locks and keeps no parents: there only the removal is noticed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import current_process
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bptt import files
from bptt._ending import SIGNALS
from bptt.training._store import writing

LEFT = 128 + signal.SIGTERM
"""Exit code of a worker whose parent is gone."""

PAUSE = 0.2
"""Seconds between two looks at the parent, or at the file."""

_TRACKERS = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")

_parent: int | None = None
"""In a worker of joblib's the process that began it."""

_orphan = threading.Event()
"""Set in such a worker when that process is gone."""

_saving = False
"""Whether a start that can be saved is at work here."""


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
        with contextlib.suppress(ImportError, AttributeError), _silent():
            for name in _TRACKERS:
                importlib.import_module(name).ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, of_terminals)  # those let Ctrl-C through again
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Within, Python is begun without what joblib's trackers say when they remove what a process
    left that a signal ended: it is removed, and nobody has to do anything."""
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore:resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


class Asked:
    """What a worker knows of the process that asked for its starts.

    Args:
        marker: the file that stands while they are wanted; None if nothing of them is saved, so
            that they are never told.

    Attributes:
        process: the number of that process.
    """

    def __init__(self, marker: Path | None) -> None:
        self.marker = marker
        self.process = os.getpid()
        self.unwanted = False
        self._stood = self._locked = False
        self._next = 0.0

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
        now = time.monotonic()
        if not self.unwanted and not self.here and now >= self._next:
            self._next = now + PAUSE
            stands, locked = self._look()
            self.unwanted = (self._stood and not stands) or (self._locked and not locked)
        return self.unwanted or _orphan.is_set()

    def _look(self) -> tuple[bool, bool]:
        """Whether the file is there, and whether its lock is held."""
        if self.marker is None:
            return False, False
        try:
            os.stat(self.marker)
        except FileNotFoundError:
            return False, False
        except OSError:  # a disk that does not answer just now says nothing
            return True, self._locked
        return True, not files.is_unfinished(self.marker)

    @contextlib.contextmanager
    def watched(self, saves: bool) -> Iterator[None]:
        """Within, a start is at work, which is left, saved, if it ``saves``, when it is no longer
        wanted."""
        global _saving
        if self.here:
            yield
            return
        # On another machine there may be no such file, and a lock may not reach there. A child
        # that does not find the file was left before it began.
        stands, self._locked = self._look()
        self._stood = stands or (self.near and self.marker is not None)
        _saving = saves
        try:
            yield
        finally:
            _saving = False
            if _orphan.is_set():
                os._exit(LEFT)


class Watch:
    """While entered, workers know that this process is there and wants their work.

    Args:
        folder: of the checkpoints of all starts; None if nothing is saved.

    Raises:
        CheckpointError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | None) -> None:
        self._marker: files.Unfinished | None = None
        if folder is not None:
            files.sweep(folder)  # those of processes that were killed
            with writing(folder):
                self._marker = files.Unfinished(folder)
        self.asked = Asked(None if self._marker is None else self._marker.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self, *_: Any) -> None:
        """Every start is to be left, saved; again and again does nothing."""
        self.asked.unwanted = True
        if self._marker is not None:
            self._marker.remove()
