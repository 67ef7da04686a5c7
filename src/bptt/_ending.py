"""How the command line ends when Ctrl-C, SIGTERM or SIGHUP comes: at any moment, with one line.

`bptt` imports this module before all others, as importing PyTorch takes seconds. In any other
program nothing changes. Files are written whole or not at all (`bptt.files`), so that the process
may end wherever it stands; training takes the signals itself, and saves first.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import current_process
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What ends a process from outside and lets it save: Ctrl-C, SIGTERM, and that its terminal is
gone, which Windows does not tell."""

NOTHING = "Nothing was written."

before: list[Callable[[], object]] = []
"""What is done before the process ends: what is unfinished goes."""

together = sys.argv[1:2] == ["fit"]
"""Whether processes that torchrun started run this command together; only `bptt fit` is one."""

_said = NOTHING
_process = os.getpid()


def note(text: str) -> None:
    """What is saved from now on, and how to go on, for the line that is shown at the end."""
    global _said
    _said = text


def line(name: str = "Stopped") -> str:
    """The line that is shown."""
    return f"{name}. {_said}"


def world() -> int:
    """How many processes torchrun started, this one among them; 1 without it."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return max(1, int(size[:9])) if rank.isdecimal() and size.isdecimal() else 1


def speaks() -> bool:
    """Whether it is this process, of those that torchrun started, that tells how all ended."""
    return not together or world() == 1 or os.environ["RANK"] == "0"


def end(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process now, as by a signal: exit code 130, 143 or 129."""
    if os.getpid() != _process:  # forked: what is written, and what is said, is not its own
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    for clean in before:
        with suppress(Exception):
            clean()
    with suppress(Exception):  # it may be writing just now
        sys.stdout.flush()
    if speaks():
        bar = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
        with suppress(OSError):
            os.write(2, f"{bar}{line()}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)


end.second = signal.SIG_DFL  # type: ignore[attr-defined]  # where training took the first one
"""See `bptt.training._signals.Signals`: in native code the system does not wait."""


def is_command() -> bool:
    """Whether this process is `bptt`, or `python -m bptt`; its workers are not, though they are
    given its arguments."""
    if current_process().name != "MainProcess":
        return False
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if name.removesuffix(".exe") == "bptt":
        return True
    # Its name is "-m" while Python looks for the module, and the first "-m" is Python's own option:
    # a program may be given the same words.
    given = getattr(sys, "orig_argv", [])
    return name == "-m" and "-m" in given and given[given.index("-m") + 1 :][:1] == ["bptt"]


def take() -> None:
    """From now on `SIGNALS` end the process by `end`, unless they are ignored."""
    global _process
    _process = os.getpid()
    for one in SIGNALS:
        if signal.getsignal(one) in (signal.default_int_handler, signal.SIG_DFL):
            with suppress(ValueError):  # outside the main thread
                signal.signal(one, end)


@atexit.register
def _done() -> None:
    """All is written, and Python takes itself apart, first of all the handlers of signals: one that
    comes now is to end nothing, or the exit code would tell of a command that failed."""
    for one in SIGNALS:
        if signal.getsignal(one) is end:
            signal.signal(one, signal.SIG_IGN)


@contextmanager
def left() -> Iterator[None]:
    """Within, what `end` takes is left to the system, which does not wait for native code."""
    mine = [one for one in SIGNALS if signal.getsignal(one) is end]
    for one in mine:
        signal.signal(one, signal.SIG_DFL)
    try:
        yield
    finally:
        for one in mine:
            signal.signal(one, end)


def open_all() -> None:
    """Put the null device where input, output or errors are closed: else the next file that is
    opened would get their number, and what is shown."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


if is_command():
    open_all()
    take()
