"""Locks of the system on files and folders: one lets go when its process dies."""

from __future__ import annotations

import os

try:
    import fcntl as fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows


def unlock(handle: int) -> None:
    """Let a lock go and close the file, also where a process that was forked has it open."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)
