"""Standard output and error that never end the work: what cannot be shown is dropped."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Dropping(io.FileIO):
    """A pipe whose reader ended and a disk that is full take everything, and keep nothing."""

    def write(self, data: Any) -> int:
        """All of ``data``, or what the system takes of it."""
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def lasting() -> None:
    """From now on nothing that is shown raises an error, be it of the stream or of its encoding."""
    for name, number, errors in (("stdout", 1, "replace"), ("stderr", 2, "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:  # it was closed, and its number may be another file's now
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # to the end
        elif os.name == "posix" and _is(stream, number):
            setattr(sys, name, _over(stream, number, errors))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _over(stream: Any, number: int, errors: str) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Dropping(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering,
    )


def _is(stream: Any, number: int) -> bool:
    try:
        return bool(stream.fileno() == number)
    except (OSError, ValueError, AttributeError):
        return False
