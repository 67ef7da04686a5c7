"""A folder that one process writes to at a time."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bptt.errors import CheckpointError
from bptt.files import shown


class Held(CheckpointError):
    """Another run writes there."""


class Hold:
    """A lock on a folder. The system lets it go when the process dies, however it dies; where there
    are no such locks (Windows, some network disks), nothing is held.

    Args:
        folder: must be there.

    Raises:
        Held: another process, or another run in this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = None
        try:
            import fcntl
        except ImportError:
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
                os.close(handle)


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
