"""Files that are read whole, and files that are written whole or not at all.

What is written is put beside its place under another name, flushed to disk and renamed. Whenever
the process or the machine dies, a file is what it was before or what it was to become.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import zlib
from pathlib import Path

from bptt.errors import DataError

UNFINISHED = ".writing-"
"""What the names of files begin with that are being written, or were when their process died."""

_LEFT = re.compile(rf"{re.escape(UNFINISHED)}[0-9a-f]{{8}}\.(\d+)")
"""What `write_bytes` calls a file that it has not renamed yet; the number is of its process."""

_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines

_writing: set[Path] = set()
"""What this process is writing at the moment."""


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """What stands at ``path`` instead of a file or a folder, in words; None if nothing does."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):
        return None  # whoever opens it says why


def regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is neither a file nor a folder: to open it would wait for another process.

    Raises:
        DataError: it is a FIFO, a device or a socket.
    """
    kind = kind_of(path)
    if kind is not None:
        raise DataError(f"{shown(path)} is {kind}, no file: copy what it gives into a file.")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """All of a file.

    Raises:
        DataError: it is no regular file.
        OSError: it cannot be read.
    """
    regular(path)
    # Not to wait, where a FIFO took the file's place just now.
    handle = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        return file.read()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """A file of these bytes, all of them or what was there before; where ``path`` is a link, the
    file that it leads to. Permissions of a file that is replaced stay.

    Raises:
        DataError: there is something other than a file.
        OSError: it cannot be written; its ``filename`` is ``path``.
    """
    regular(path)
    place = Path(os.path.realpath(path))
    unfinished = place.parent / f"{_beside(place.name)}{os.getpid()}"
    _writing.add(unfinished)
    try:
        _sweep_of_dead(place)
        unfinished.unlink(missing_ok=True)
        write_new(unfinished, data)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(unfinished, stat.S_IMODE(os.stat(place).st_mode))
        os.replace(unfinished, place)
        flush(place.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        _writing.discard(unfinished)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_new(path: Path, data: bytes) -> None:
    """The whole of ``data`` down to the disk, under a name that is not taken."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(folder: Path) -> None:
    """The names in ``folder``, down to the disk; only POSIX lets a folder be flushed."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """The folder, if it is absent, down to the disk."""
    if not os.path.isdir(folder):
        folder.mkdir(parents=True)
        flush(folder.parent)


def drop_if_empty(folder: Path) -> None:
    """Remove a folder with nothing in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_unfinished(path: Path) -> bool:
    """Whether it is what `write_bytes` of a process that is gone left beside a file."""
    match = _LEFT.fullmatch(path.name)
    if match is None or path in _writing or not is_plain(path):
        return False
    owner = int(match[1])
    return owner == os.getpid() or not lives(owner)


def sweep(folder: Path) -> None:
    """Remove what `write_bytes` of processes that died left in ``folder``."""
    for path in folder.iterdir() if os.path.isdir(folder) else ():
        if is_unfinished(path):
            remove(path)


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file by its own name: no link, no folder, no device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def remove(path: Path) -> None:
    """Remove a file or a link, if that can be."""
    with contextlib.suppress(OSError):
        path.unlink()


def remove_folder(path: Path) -> None:
    """Remove a whole folder, as far as that can be; the caller knows all that is in it."""
    shutil.rmtree(path, ignore_errors=True)


def discard_unfinished() -> None:
    """Remove what this process is writing, as it is about to end."""
    for path in tuple(_writing):
        with contextlib.suppress(OSError):
            path.unlink()


def same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both names lead to one file, be it by links."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, whatever bytes it holds."""
    return printable(os.fspath(path))


def printable(text: str) -> str:
    """A text without lone surrogates, which stand for bytes of file names that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


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


def _beside(name: str) -> str:
    """What the name of an unfinished file begins with, short enough for every file system."""
    return f"{UNFINISHED}{zlib.crc32(os.fsencode(name)):08x}."


def _sweep_of_dead(place: Path) -> None:
    """Remove what processes that are gone left of this file."""
    beside = _beside(place.name)
    for name in os.listdir(place.parent):
        if name.startswith(beside) and is_unfinished(place.parent / name):
            remove(place.parent / name)


def lives(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
