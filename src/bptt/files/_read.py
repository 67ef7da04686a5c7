"""Files that are read whole, and what is no file."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from bptt.errors import DataError
from bptt.files._words import shown

_KINDS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

NO_WAIT = getattr(os, "O_NONBLOCK", 0)
"""Not to wait for another process, where a FIFO stands."""


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
    with open(path, "rb", opener=_opened) as file:
        return file.read()


def _opened(path: str, flags: int) -> int:
    """Not to wait, where a FIFO took the file's place just now."""
    return os.open(path, flags | NO_WAIT)


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file by its own name: no link, no folder, no device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both names lead to one file, be it by links."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object that a stranger's bytes hold.

    Raises:
        ValueError: they hold none, or one that nests too deeply.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def check_format(path: str | os.PathLike[str], written: Any, known: int) -> None:
    """Refuse what a newer version wrote at ``path``.

    Raises:
        DataError: the format is above the highest ``known`` one.
    """
    if type(written) is int and written > known:
        raise DataError(
            f"{shown(path)} has format {written}; this version of bptt reads up to {known}: update "
            "it with `pip install --upgrade bptt`."
        )
