"""What can go wrong, as exceptions: one base class, few subclasses that name what to do.

A message says what was given, what was expected, and the mend. Bad input is refused before work.
"""

from __future__ import annotations

import math
from typing import Any


class BpttError(Exception):
    """The base of every error that this library raises on purpose."""


class OptionError(BpttError, ValueError):
    """An option is unknown or out of range: change the option."""


class ShapeError(BpttError, ValueError):
    """Tensors do not fit each other: change their shapes or dtypes."""


class CellError(BpttError, TypeError):
    """The cell, readout or loss breaks its contract: change the function."""


class DataError(BpttError, ValueError):
    """The data itself is unusable: mend the data, or say how to treat it.

    Attributes:
        errno: the system's, where it is that which refused; else None.
    """

    errno: int | None = None


class CheckpointError(BpttError):
    """A checkpoint cannot be written or taken up: the message says which, and what can be done.

    Attributes:
        errno: the system's, where it is that which refused; else None.
    """

    errno: int | None = None


class NonFiniteError(BpttError, ArithmeticError):
    """A loss, a gradient or the weights became NaN or infinite while training; that update was
    withheld.

    Attributes:
        report: where and what, a `bptt.training.NonFiniteReport`; None outside training.
    """

    report: Any = None


class ProcessError(BpttError, RuntimeError):
    """Another of the processes that train together failed, fell out of step, or does not answer."""


MOST_NAMED = 20
"""Names that a message lists."""

LONGEST_NAME = 80
"""Characters of each."""


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelled name: the closest of the known ones, then all of them."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {_short(close[0])!r}?" if close else ""
    return f"{hint} Known: {listed(known)}."


def listed(names: list[str]) -> str:
    """Names as a message lists them."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(repr(_short(name)) for name in names[:MOST_NAMED])}{more}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def reason(error: BaseException) -> str:
    """What is wrong with something that was read, to stand within a sentence."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def above_zero(**named: float) -> None:
    """Refuse options that are not finite numbers above 0."""
    for name, value in named.items():
        if not (is_number(value) and value > 0):
            raise OptionError(f"{name} must be a finite number above 0, not {value!r}.")


def at_least(minimum: int, **named: int) -> None:
    """Refuse options that are not whole numbers of at least ``minimum``."""
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise OptionError(f"{name} must be a whole number, not {value!r}.")
        if value < minimum:
            raise OptionError(f"{name} must be at least {minimum}, not {value}.")


def at_most(maximum: int, **named: int) -> None:
    """Refuse whole numbers above ``maximum``."""
    for name, value in named.items():
        if value > maximum:
            raise OptionError(f"{name} must be at most {maximum}, not {value}.")


def one_of(choices: tuple[str, ...], **named: str) -> None:
    """Refuse options that are not one of the words ``choices``."""
    for name, value in named.items():
        if value not in choices:
            raise OptionError(f"{name}={value!r} is unknown.{nearest(str(value), list(choices))}")
