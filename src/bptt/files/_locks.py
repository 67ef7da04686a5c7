"""Locks of the system on files and folders: one lets go when its process dies."""

from __future__ import annotations

import contextlib
import os

try:
    import fcntl as fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows


def unlock(handle: int) -> None:
    """Let a lock go and close the file, also where a process that was forked has it open."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # there are no locks here
            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
