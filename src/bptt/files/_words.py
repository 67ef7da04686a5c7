"""Paths, sizes and the system's errors in words."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, whatever bytes it holds."""
    return printable(os.fspath(path))


def printable(text: str) -> str:
    """A text without lone surrogates, which stand for bytes of file names that are no UTF-8, and
    without control characters, which a terminal would obey."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", whole)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and the ends of lines."""


def why(error: OSError, size: int | None = None) -> str:
    """What went wrong, with the file's name if it is known; where the disk is full also the room
    that there is.

    Args:
        error: of the system.
        size: the bytes that were to be written, if they are known.
    """
    reason = error.strerror or str(error) or type(error).__name__
    named = "" if error.filename is None else f"{shown(error.filename)}: "
    more = f"; {room(error.filename or '.', size)}" if is_full(error) else ""
    return f"{named}{reason}{more}"


def is_full(error: OSError) -> bool:
    """Whether the disk, or what one may use of it, is full."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def room(path: str | os.PathLike[str], size: int | None) -> str:
    """How much room there is for ``size`` bytes where ``path`` lies, in words."""
    place = Path(path).absolute()
    above = next(one for one in (place, *place.parents) if one.exists())
    free = shutil.disk_usage(above).free
    needed = "" if size is None else f"it takes {amount(size)}, and "
    if size is not None and free < size:
        return f"{needed}{amount(free)} are free, {amount(size - free)} too little"
    # Files take whole blocks and names take room; a quota counts by itself.
    return f"{needed}{amount(free)} are free, of which not all may be used"


def amount(count: int) -> str:
    """A number of bytes, in words."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
