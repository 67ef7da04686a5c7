"""Files that are written whole or not at all.

What is written is put beside its place under another name, flushed to disk and renamed. Whenever
the process or the machine dies, a file is what it was before or what it was to become.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bptt.errors import OptionError
from bptt.files._locks import fcntl, unlock
from bptt.files._read import NO_WAIT, is_plain, kind_of, regular
from bptt.files._words import shown

UNFINISHED = ".writing-"
"""What the names of files begin with that are being written, or were when their process died."""

_NAME = re.compile(rf"{re.escape(UNFINISHED)}[0-9a-f]{{16}}")
"""What `Unfinished` calls its files: at random, as numbers of processes repeat in containers."""

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines

_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What disks answer that flush no folders."""

_writing: set[Path] = set()
"""What this process is writing at the moment."""


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """A file of these bytes, all of them or what was there before; where ``path`` is a link, the
    file that it leads to. Permissions of a file that is replaced stay.

    Raises:
        DataError: there is something other than a file.
        OSError: it cannot be written; its ``filename`` is ``path``.
    """
    regular(path)
    place = Path(os.path.realpath(path))
    try:
        sweep(place.parent)
        with Unfinished(place.parent) as unfinished:
            unfinished.write(data)
            with contextlib.suppress(OSError):  # absent; or FAT and the like, which have none
                os.chmod(unfinished.path, stat.S_IMODE(os.stat(place).st_mode))
            if fcntl is None:
                unfinished.close()  # Windows renames no file that is open
            os.replace(unfinished.path, place)
            flush(place.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


class Unfinished:
    """A new, empty file, and a lock on it, which the system lets go when the process dies: a file
    of such a name that can be locked was left over. It is removed at the end, unless it was renamed
    until then. Where there are no such locks (Windows, some network disks), nothing is swept.

    Args:
        folder: where to make it.

    Attributes:
        path: its name, which no other has.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        while not self._make(folder / f"{UNFINISHED}{secrets.token_hex(8)}"):
            self.remove()

    def _make(self, path: Path) -> bool:
        """Whether the file was made and locked before another process tried whether it is left
        over, and removed it."""
        self.path = path
        self._handle: int | None = None
        _writing.add(path)  # first, as a signal may end the process at any moment
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        except OSError:
            _writing.discard(path)
            raise
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # there are no locks here
        return os.path.lexists(path)

    def write(self, data: bytes) -> None:
        """The whole of ``data``, down to the disk."""
        assert self._handle is not None
        _write(self._handle, data)

    def close(self) -> None:
        """Let the lock go; again and again does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            unlock(handle)

    def remove(self) -> None:
        """Remove the file, unless it was renamed; again and again does nothing."""
        self.close()
        remove(self.path)
        _writing.discard(self.path)

    def __enter__(self) -> Self:
        """Begin; the file is there already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """`remove`."""
        self.remove()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_new(path: Path, data: bytes) -> None:
    """The whole of ``data`` down to the disk, under a name that is not taken."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        _write(handle, data)
    finally:
        os.close(handle)


def write_folder(path: Path, unfinished: Path, parts: Mapping[str, bytes]) -> None:
    """A new folder of files, whole and down to the disk, or none.

    Args:
        path: its place, where nothing is.
        unfinished: its name beside that place until it is whole.
        parts: what its files hold, by their names.

    Raises:
        OSError: it cannot be written.
    """
    unfinished.mkdir()
    try:
        for name, data in parts.items():
            write_new(unfinished / name, data)
        flush(unfinished)
        os.rename(unfinished, path)
    except BaseException:
        remove_folder(unfinished)
        raise
    flush(path.parent)


def sums(parts: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The size and the SHA-256 sum of every one of ``parts``, for `is_same`."""
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts.items()
    }


def is_same(data: bytes, about: Any) -> bool:
    """Whether they are the bytes that ``about``, of `sums` or a stranger's, tells of."""
    return isinstance(about, dict) and sums({"": data})[""].items() <= about.items()


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    os.fsync(handle)


def flush(folder: Path) -> None:
    """The names in ``folder``, down to the disk; only POSIX lets a folder be flushed, and not on
    every disk."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # it may be written, but not listed
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """The folder, if it is absent, down to the disk."""
    if not os.path.isdir(folder):
        folder.mkdir(parents=True)
        flush(folder.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder, there or to be made, that nothing can be put into.

    Raises:
        OptionError: it is no folder; or it, or what of its path is there, may not be written.
    """
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        what = kind_of(above) or ("a file" if above.is_file() else "a link that leads nowhere")
        raise OptionError(
            f"{shown(folder)} cannot be written: {shown(above)} is {what}, no folder."
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise OptionError(f"{shown(folder)} cannot be written: {shown(above)} is write-protected.")


def drop_if_empty(folder: Path) -> None:
    """Remove a folder with nothing in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_unfinished(path: Path) -> bool:
    """Whether it is an `Unfinished` file that a process left when it died."""
    with _left(path) as left:
        return left


@contextlib.contextmanager
def _left(path: Path) -> Iterator[bool]:
    """`is_unfinished`; within, a process that has just made the file does not get its lock."""
    handle = None
    if fcntl is not None and _NAME.fullmatch(path.name) and is_plain(path):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | NO_WAIT)
    if handle is None:
        yield False
        return
    try:
        try:
            # Shared, so that two that try it do not take each other for its writer.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            left = True
        except OSError:  # it is being written, or nobody knows, as there are no locks here
            left = False
        yield left
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the `Unfinished` files that processes left in ``folder`` when they died."""
    try:
        names = os.listdir(folder)
    except OSError:
        return  # it is absent, or may be written but not listed
    for name in names:
        if _NAME.fullmatch(name):
            with _left(folder / name) as left:
                if left:
                    remove(folder / name)


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
