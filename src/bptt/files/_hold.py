"""A folder that one process writes to at a time."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from bptt.errors import CheckpointError
from bptt.files._locks import fcntl, unlock
from bptt.files._words import shown


class Held(CheckpointError):
    """Another run writes there."""


class Moved(CheckpointError):
    """A folder is not where it was when it was begun to be written to."""


class Place:
    """A folder as it is now. Under its name there may be another one later, or none.

    Attributes:
        folder: its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._identity = _identity(self.folder)

    def is_there(self) -> bool:
        """Whether that folder still has its name."""
        return self._identity is None or _identity(self.folder) == self._identity

    def check(self) -> None:
        """Refuse to write there if it is not that folder any more.

        Raises:
            Moved: it was moved, removed or replaced.
        """
        if self.is_there():
            return
        now = self._now()
        went = f"moved to {shown(now)}" if now else "moved, replaced or removed"
        raise Moved(
            f"{shown(self.folder)} was {went} while this process wrote to it. Nothing is written "
            "under that name any more. What was saved before is still in the folder that was "
            "moved: go on from there."
        )

    def _now(self) -> str | None:
        return None


def _identity(path: str | int | Path) -> tuple[int, int] | None:
    """Which folder it is, by whatever name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Hold(Place):
    """A lock on a folder. The system lets it go when the process dies, however it dies; where there
    are no such locks (Windows, some network disks), nothing is held.

    Args:
        folder: must be there.

    Raises:
        Held: another process, or another run in this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._handle: int | None = None
        if fcntl is None:
            return
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            return  # writing will say why
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise Held(
                f"{shown(folder)} is being written to by another run: wait for its end, or name a "
                "folder of its own."
            ) from error
        except OSError:
            os.close(handle)
            return
        self._handle = handle
        self._identity = _identity(handle)  # the one that is locked
        _held.add(self)

    def _now(self) -> str | None:
        """Where the folder is now, on Linux."""
        try:
            path = os.readlink(f"/proc/self/fd/{self._handle}")
        except OSError:
            return None
        return path if _identity(path) == self._identity else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Others may write there; again and again does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                unlock(handle)

    def forget(self) -> None:
        """In a process that was forked: the lock is the other one's."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)


_held: weakref.WeakSet[Hold] = weakref.WeakSet()
"""The folders that this process holds."""


def _forget() -> None:
    for hold in tuple(_held):
        hold.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def wait_for(folder: Path, seconds: float) -> None:
    """Wait until nobody holds a folder, but no longer than so.

    Raises:
        Held: another run still writes there.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            Hold(folder).release()
            return
        except Held:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)
